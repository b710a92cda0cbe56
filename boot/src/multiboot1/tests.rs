use super::*;
use crate::MemoryRegion;
use alloc::{boxed::Box, vec, vec::Vec};

struct Memory(Vec<u8>);

impl PhysicalMemory for Memory {
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        self.0.get(address as usize..)?.get(..len)
    }
}

fn put(memory: &mut Memory, at: usize, words: &[u32]) {
    for (i, word) in words.iter().enumerate() {
        memory.0[at + 4 * i..][..4].copy_from_slice(&word.to_le_bytes());
    }
}

fn arena() -> Arena {
    Arena::new(Box::leak(vec![0; 256].into_boxed_slice()))
}

/// A structure at 0 with a command line, one module and a map of two entries.
fn sample() -> Memory {
    let mut m = Memory(vec![0; 0x400]);
    put(&mut m, 0, &[HAS_COMMAND_LINE | HAS_MODULES | HAS_MAP | HAS_LOADER_NAME]);
    put(&mut m, 16, &[0x200, 1, 0x100]);
    put(&mut m, 44, &[48, 0x180]);
    put(&mut m, 64, &[0x280]);
    put(&mut m, 0x100, &[0x5000, 0x6000, 0x240, 0]);
    put(&mut m, 0x180, &[20, 0, 0, 0x9fc00, 0, 1]);
    put(&mut m, 0x198, &[20, 0xf_0000, 0, 0x1_0000, 0, 2]);
    m.0[0x200..0x211].copy_from_slice(b"/a/k.elf log=info");
    m.0[0x240..0x249].copy_from_slice(b"name=demo");
    m.0[0x280..0x284].copy_from_slice(b"qemu");
    m
}

#[test]
fn a_complete_structure_is_read() {
    let info = parse(&sample(), 0, &mut arena()).unwrap();
    assert_eq!(info.command_line, "log=info");
    assert_eq!(info.loader_name, "qemu");
    assert_eq!(info.modules[0].command_line, "name=demo");
    assert_eq!((info.modules[0].start, info.modules[0].end), (0x5000, 0x6000));
    assert_eq!(info.memory[0], MemoryRegion { start: 0, end: 0x9fc00, kind: MemoryKind::Usable });
    assert_eq!(info.memory[1].kind, MemoryKind::Reserved);
}

#[test]
fn a_missing_memory_map_is_named() {
    let mut m = sample();
    put(&mut m, 0, &[HAS_COMMAND_LINE]);
    assert_eq!(parse(&m, 0, &mut arena()).unwrap_err(), BootError::Missing("memory map"));
}

#[test]
fn malformed_fields_are_errors() {
    let mut short = sample();
    put(&mut short, 0x180, &[4]);
    let mut past = sample();
    put(&mut past, 44, &[47]);
    for m in [&short, &past] {
        assert!(matches!(parse(m, 0, &mut arena()), Err(BootError::Malformed("memory map", _))));
    }
    let mut backwards = sample();
    put(&mut backwards, 0x100, &[0x7000]);
    assert!(matches!(parse(&backwards, 0, &mut arena()), Err(BootError::Malformed("module", _))));
    let mut far = sample();
    put(&mut far, 16, &[0x9000_0000]);
    assert!(matches!(parse(&far, 0, &mut arena()), Err(BootError::Malformed("command line", _))));
    assert!(matches!(parse(&sample(), 0x3ff, &mut arena()), Err(BootError::Information(_))));
}

#[test]
fn a_path_before_the_words_is_skipped() {
    assert_eq!(without_path("k.elf log=off"), "log=off");
    assert_eq!(without_path("/boot/k selftest"), "selftest");
    assert_eq!(without_path("gnomon-kernel selftest"), "selftest");
    assert_eq!(without_path("selftest"), "selftest");
    assert_eq!(without_path("log=/x"), "");
    assert_eq!(without_path(""), "");
}
