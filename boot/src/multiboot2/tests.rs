use super::*;
use alloc::{boxed::Box, vec, vec::Vec};

/// Builds blocks in 64-bit words, so that they are aligned as the loader's are.
#[derive(Default)]
struct Block(Vec<u8>);

impl Block {
    fn tag(mut self, kind: u32, body: &[u8]) -> Self {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend(kind.to_le_bytes());
        self.0.extend((8 + body.len() as u32).to_le_bytes());
        self.0.extend(body);
        self
    }

    fn parse(&self) -> Result<BootInfo, BootError> {
        let mut bytes = vec![];
        bytes.extend((8 + self.0.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.0);
        parse_bytes(&bytes)
    }
}

fn parse_bytes(bytes: &[u8]) -> Result<BootInfo, BootError> {
    let mut words = vec![0_u64; bytes.len() / 8 + 2];
    for (i, byte) in bytes.iter().enumerate() {
        words[i / 8] |= u64::from(*byte) << (8 * (i % 8));
    }
    // SAFETY: a u64 is eight bytes without padding, and `words` outlives the slice.
    let block = unsafe { core::slice::from_raw_parts(words.as_ptr().cast::<u8>(), bytes.len()) };
    parse(block, &mut Arena::new(Box::leak(vec![0; 256].into_boxed_slice())))
}

fn map(regions: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut body = vec![];
    body.extend(24_u32.to_le_bytes());
    body.extend(0_u32.to_le_bytes());
    for (start, length, kind) in regions {
        body.extend(start.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(kind.to_le_bytes());
        body.extend([0; 4]);
    }
    body
}

fn sample() -> Block {
    Block::default()
        .tag(1, b"log=debug\0")
        .tag(2, b"GRUB 2.06\0")
        .tag(3, b"\0\0\x20\0\0\x10\x20\0name=a\0")
        .tag(6, &map(&[(0, 0x9fc00, 1), (0xf_0000, 0x1_0000, 2)]))
}

#[test]
fn a_complete_block_is_read() {
    let info = sample().tag(0, &[]).parse().unwrap();
    assert_eq!(info.command_line, "log=debug");
    assert_eq!(info.loader_name, "GRUB 2.06");
    assert_eq!((info.modules[0].start, info.modules[0].end), (0x20_0000, 0x20_1000));
    assert_eq!(info.modules[0].command_line, "name=a");
    assert_eq!(info.memory.len(), 2);
    assert_eq!(info.memory[0].kind, MemoryKind::Usable);
    assert_eq!(info.memory[1].kind, MemoryKind::Reserved);
}

#[test]
fn missing_tags_are_named() {
    let none = Block::default().tag(1, b"x\0").tag(0, &[]).parse();
    assert_eq!(none.unwrap_err(), BootError::Missing("memory map"));
    assert_eq!(sample().parse().unwrap_err(), BootError::Missing("end"));
    let empty = Block::default().tag(6, &map(&[])).tag(0, &[]).parse();
    assert_eq!(empty.unwrap_err(), BootError::Malformed("memory map", "it is empty"));
}

#[test]
fn malformed_tags_are_named() {
    let cases: [(u32, &[u8], &str); 6] = [
        (1, b"", "command line"),
        (1, b"no end", "command line"),
        (2, b"", "boot loader name"),
        (3, b"\0\0\x20\0", "module"),
        (3, b"\0\x10\x20\0\0\0\x20\0m\0", "module"),
        (6, b"\x20\0\0\0\0\0\0\0", "memory map"),
    ];
    for (kind, body, tag) in cases {
        let block = Block::default().tag(kind, body).tag(6, &map(&[(0, 4096, 1)])).tag(0, &[]);
        assert!(matches!(block.parse(), Err(BootError::Malformed(t, _)) if t == tag), "{kind} {body:?}");
    }
    let ragged = [map(&[(0, 4096, 1)]), vec![1, 2, 3]].concat();
    let block = Block::default().tag(6, &ragged).tag(0, &[]);
    assert!(matches!(block.parse(), Err(BootError::Malformed("memory map", _))));
}

#[test]
fn broken_sizes_are_errors() {
    assert!(matches!(parse_bytes(b"\x08"), Err(BootError::Information(_))));
    assert!(matches!(parse_bytes(&[0xff; 64]), Err(BootError::Information(_))));
    let mut long = vec![];
    long.extend(24_u32.to_le_bytes());
    long.extend([0; 4]);
    long.extend(3_u32.to_le_bytes());
    long.extend(400_u32.to_le_bytes());
    long.extend([0; 8]);
    assert!(matches!(parse_bytes(&long), Err(BootError::Malformed("module", _))));
}

#[test]
fn no_truncation_panics() {
    let block = sample().tag(0, &[]);
    for cut in 0..block.0.len() {
        let mut bytes = vec![];
        bytes.extend((8 + cut as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&block.0[..cut]);
        assert!(parse_bytes(&bytes).is_err(), "cut at {cut}");
    }
}
