use alloc::string::{String, ToString};
use alloc::vec;

use super::*;

const MIB: u64 = 1 << 20;

/// A guest's memory: writes to the hole and beyond the end are refused, and two writes never meet.
pub(super) struct Memory {
    bytes: Vec<u8>,
    written: Vec<Range>,
}

impl Memory {
    fn new(guest: &GuestConfig) -> Self {
        Self { bytes: vec![0; guest.memory as usize], written: Vec::new() }
    }

    pub(super) fn word(&self, address: u32) -> u32 {
        u32::from_le_bytes(self.slice(address, 4).try_into().unwrap())
    }

    pub(super) fn slice(&self, address: u32, bytes: usize) -> &[u8] {
        &self.bytes[address as usize..][..bytes]
    }

    pub(super) fn string(&self, address: u32) -> String {
        let bytes = self.bytes[address as usize..].split(|byte| *byte == 0).next().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}

impl GuestWriter for Memory {
    fn write(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), OutsideMemory> {
        let range = Range::sized(gpa.raw(), bytes.len() as u64);
        if range.end > self.bytes.len() as u64 || (range.start < layout::HIGH_START && range.end > layout::LOW_END) {
            return Err(OutsideMemory);
        }
        assert!(self.written.iter().all(|other| range.end <= other.start || other.end <= range.start));
        self.written.push(range);
        self.bytes[range.start as usize..range.end as usize].copy_from_slice(bytes);
        Ok(())
    }
}

pub(super) fn guest(mebibytes: u64) -> GuestConfig {
    let mut guest = GuestConfig::new("demo");
    guest.memory = mebibytes * MIB;
    guest.arguments = "root=none quiet".to_string();
    guest
}

/// Loads into a fresh memory.
pub(super) fn run(image: &[u8], modules: &[(&[u8], &str)], guest: &GuestConfig) -> (Result<Entry, LoadError>, Memory) {
    let mut memory = Memory::new(guest);
    (load(image, modules, guest, &mut memory), memory)
}

pub(super) fn refusal(image: &[u8], modules: &[(&[u8], &str)], guest: &GuestConfig) -> String {
    let (result, memory) = run(image, modules, guest);
    assert!(memory.written.is_empty(), "something was written before the refusal");
    match result {
        Ok(entry) => panic!("accepted: {entry:?}"),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n') && text.len() < 160, "{text}");
            text
        }
    }
}

pub(super) fn put(bytes: &mut [u8], offset: usize, words: &[u32]) {
    for (index, word) in words.iter().enumerate() {
        bytes[offset + 4 * index..][..4].copy_from_slice(&word.to_le_bytes());
    }
}

fn multiboot_header(flags: u32) -> [u32; 3] {
    [0x1BAD_B002, flags, 0_u32.wrapping_sub(0x1BAD_B002).wrapping_sub(flags)]
}

/// One program header: type, virtual and physical address, size in memory. Its bytes are "CODE" from offset 0x200.
pub(super) struct Ph(pub(super) u32, pub(super) u32, pub(super) u32, pub(super) u32);

pub(super) fn elf(flags: u32, entry: u32, headers: &[Ph]) -> Vec<u8> {
    let mut file = vec![0; 0x204];
    file[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    put(&mut file, 16, &[0x0003_0002, 1, entry, 52, 0, 0]);
    put(&mut file, 40, &[52 | 32 << 16, headers.len() as u32]);
    for (index, Ph(kind, vaddr, paddr, memsz)) in headers.iter().enumerate() {
        put(&mut file, 52 + 32 * index, &[*kind, 0x200, *vaddr, *paddr, 4, *memsz, 7, 4096]);
    }
    put(&mut file, 0x180, &multiboot_header(flags));
    file[0x200..].copy_from_slice(b"CODE");
    file
}

fn simple_elf() -> Vec<u8> {
    elf(3, 0x10_0002, &[Ph(1, 0x10_0000, 0x10_0000, 0x2345)])
}

/// A file whose header carries load addresses: header at 0x10, loaded from file offset 0 to 1 MiB, 0x100 bytes, bss.
fn by_addresses(addresses: [u32; 5]) -> Vec<u8> {
    let mut file = vec![0xAA; 0x100];
    put(&mut file, 0x10, &multiboot_header(1 << 16));
    put(&mut file, 0x1C, &addresses);
    file
}

#[test]
fn an_elf_image_goes_to_its_physical_addresses() {
    let (entry, memory) = run(&simple_elf(), &[], &guest(8));
    let entry = entry.unwrap();
    assert_eq!((entry.eip, entry.eax, entry.ebx), (0x10_0002, MULTIBOOT_MAGIC, 0x9000));
    assert_eq!(memory.slice(0x10_0000, 5), b"CODE\0");
}

#[test]
fn a_virtual_entry_point_becomes_physical() {
    let high = [Ph(1, 0xC010_0000, 0x10_0000, 0x1000), Ph(6, 0, 0, 0), Ph(1, 0xC020_0000, 0x18_0000, 0x1000)];
    assert_eq!(run(&elf(3, 0xC020_0123, &high), &[], &guest(8)).0.unwrap().eip, 0x18_0123);
    assert_eq!(run(&elf(3, 0x10_000C, &high), &[], &guest(8)).0.unwrap().eip, 0x10_000C);
    assert!(refusal(&elf(3, 0x12_0000, &high), &[], &guest(8)).contains("entry point 0x120000 lies outside the image"));
}

#[test]
fn the_information_tells_memory_command_line_and_modules() {
    let modules: [(&[u8], &str); 3] = [(b"first", "disk a=1"), (&[], ""), (&[7; 5000], "third")];
    let (entry, memory) = run(&simple_elf(), &modules, &guest(16));
    let info = entry.unwrap().ebx;
    let field = |offset: u32| memory.word(info + offset);
    assert_eq!(field(0), 0x24F); // no section headers in this image
    assert_eq!((field(4), field(8)), (639, 15 * 1024));
    assert_eq!(memory.string(field(16)), "demo root=none quiet");
    assert_eq!(memory.string(field(64)), "Gnomon");

    let map = field(48);
    assert_eq!(field(44), 96);
    let entries: Vec<_> =
        (0..4).map(|entry| [0, 4, 8, 12, 16, 20].map(|at| memory.word(map + 24 * entry + at))).collect();
    assert_eq!(entries[0], [20, 0, 0, 0x9_FC00, 0, 1]);
    assert_eq!(entries[1], [20, 0x9_FC00, 0, 0x400, 0, 2]);
    assert_eq!(entries[2], [20, 0xF_0000, 0, 0x1_0000, 0, 2]);
    assert_eq!(entries[3], [20, 0x10_0000, 0, 0xF0_0000, 0, 1]);

    assert_eq!(field(20), 3);
    let mut end_before = 0x10_2345; // behind the bss
    for (index, (bytes, text)) in modules.iter().enumerate() {
        let at = field(24) + 16 * index as u32;
        let (start, end) = (memory.word(at), memory.word(at + 4));
        assert!(start % 4096 == 0 && start >= end_before);
        assert_eq!(memory.slice(start, (end - start) as usize), *bytes);
        assert_eq!(memory.string(memory.word(at + 8)), *text);
        end_before = end;
    }
}

#[test]
fn section_headers_are_handed_on_with_the_symbols() {
    let (entry, memory) = run(&with_symbols(simple_elf()), &[(b"m", "")], &guest(8));
    let info = entry.unwrap().ebx;
    assert_eq!(memory.word(info) & 0x20, 0x20);
    let [count, bytes, table, names] = [28, 32, 36, 40].map(|at| memory.word(info + at));
    assert_eq!((count, bytes, names), (3, 40, 2));
    assert_eq!([0, 1, 2].map(|index| memory.word(table + 40 * index + 12)), [0, 0x10_0000, 0x10_3004]);
    assert_eq!(memory.slice(0x10_3004, 5), b"NAMES");
}

/// Adds three section headers: none, the code, and one of names that no segment brings.
pub(super) fn with_symbols(mut image: Vec<u8>) -> Vec<u8> {
    let names = image.len() as u32;
    image.extend_from_slice(b"NAMES\0\0\0");
    put(&mut image, 32, &[names + 8]);
    image[46..52].copy_from_slice(&[40, 0, 3, 0, 2, 0]);
    let start = image.len();
    image.resize(start + 120, 0);
    put(&mut image, start + 40, &[1, 1, 2, 0x10_0000, 0x200, 4, 0, 0, 4, 0]);
    put(&mut image, start + 80, &[1, 3, 0, 0, names, 5, 0, 0, 1, 0]);
    image
}

#[test]
fn the_information_avoids_the_image() {
    let low = [Ph(1, 0x8000, 0x8000, 0x2000), Ph(1, 0x10_0000, 0x10_0000, 0x1000)];
    assert_eq!(run(&elf(0, 0x8000, &low), &[], &guest(2)).0.unwrap().ebx, 0xA000);
    let all_low = [Ph(1, 0x1000, 0x1000, 0x9_F000), Ph(1, 0x10_0000, 0x10_0000, 0x1000)];
    assert_eq!(run(&elf(0, 0x1000, &all_low), &[], &guest(2)).0.unwrap().ebx, 0x10_1000);
}

#[test]
fn text_mode_is_granted_and_graphics_are_not() {
    let mut image = simple_elf();
    put(&mut image, 0x180, &multiboot_header(7));
    put(&mut image, 0x180 + 32, &[1, 80, 25, 0]);
    let (entry, memory) = run(&image, &[], &guest(8));
    let info = entry.unwrap().ebx;
    assert_eq!(memory.word(info), 0x124F);
    assert_eq!([88, 92, 96, 100, 104, 108].map(|at| memory.word(info + at)), [0xB_8000, 0, 160, 80, 25, 0x0210]);
    put(&mut image, 0x180 + 32, &[0, 1024, 768, 32]);
    let (entry, memory) = run(&image, &[], &guest(8));
    assert_eq!(memory.word(entry.unwrap().ebx), 0x24F, "no screen is described");
}

#[test]
fn load_addresses_in_the_header_come_before_elf() {
    let file = by_addresses([0x10_0010, 0x10_0000, 0x10_0080, 0x10_4000, 0x10_0020]);
    let module: (&[u8], &str) = (b"m", "");
    let (entry, memory) = run(&file, &[module], &guest(8));
    let entry = entry.unwrap();
    assert_eq!(entry.eip, 0x10_0020);
    assert_eq!(memory.slice(0x10_0000, 0x80), &file[..0x80]);
    assert_eq!(memory.slice(0x10_0080, 0x80), &[0; 0x80]); // load_end_addr ends the data
    assert_eq!(memory.word(memory.word(entry.ebx + 24)), 0x10_4000); // the module lies behind the bss
    let whole = by_addresses([0x10_0010, 0x10_0000, 0, 0, 0x10_00FF]);
    let (entry, memory) = run(&whole, &[], &guest(8));
    assert_eq!(entry.unwrap().eip, 0x10_00FF);
    assert_eq!(memory.slice(0x10_0000, 0x100), &whole[..]);
}

#[test]
fn wrong_load_addresses_are_named() {
    let text = |addresses| refusal(&by_addresses(addresses), &[], &guest(8));
    assert!(text([0x0F_FFFF, 0x10_0000, 0, 0, 0x10_0000]).contains("header_addr lies below load_addr"));
    assert!(text([0x10_0011, 0x10_0000, 0, 0, 0x10_0000]).contains("load_addr lies before the start"));
    assert!(text([0x10_0010, 0x10_0000, 0x0F_0000, 0, 0x10_0000]).contains("load_end_addr lies below"));
    assert!(text([0x10_0010, 0x10_0000, 0x10_0101, 0, 0x10_0000]).contains("load_end_addr lies beyond"));
    assert!(text([0x10_0010, 0x10_0000, 0, 0x10_00FF, 0x10_0000]).contains("bss_end_addr lies below"));
    assert!(text([0x10_0010, 0x10_0000, 0, 0, 0x10_0100]).contains("entry point 0x100100"));
    let short = by_addresses([0; 5]);
    assert!(refusal(&short[..0x20], &[], &guest(8)).contains("the file ends within the header"));
}

#[test]
fn images_that_are_not_multiboot_are_named() {
    let guest = guest(8);
    assert!(refusal(&[], &[], &guest).contains("the image is empty"));
    assert!(refusal(&[0; 10_000], &[], &guest).contains("no kernel of a known protocol"));
    let mut late = vec![0; 9000];
    put(&mut late, 8184, &multiboot_header(0)); // not completely within 8192 bytes
    assert!(refusal(&late, &[], &guest).contains("no kernel of a known protocol"));
    let mut two = vec![0; 64];
    put(&mut two, 32, &[0x1BAD_B002, 0, 1]);
    assert!(refusal(&two, &[], &guest).contains("offset 0x20 with a wrong checksum"));
    put(&mut two, 32, &multiboot_header(0x18));
    assert!(refusal(&two, &[], &guest).contains("requires flags 0x18"));
    put(&mut two, 32, &multiboot_header(0x8002_0003)); // bits 17 to 31 are optional
    assert!(refusal(&two, &[], &guest).contains("no known format"));
}

#[test]
fn wrong_elf_images_are_named() {
    let guest = guest(8);
    let with = |offset: usize, value: u8| {
        let mut image = simple_elf();
        image[offset] = value;
        refusal(&image, &[], &guest)
    };
    assert!(with(4, 2).contains("a 64-bit ELF image"));
    assert!(with(4, 9).contains("a whole ELF32 header"));
    assert!(with(5, 2).contains("little-endian"));
    assert!(with(16, 1).contains("an executable"));
    let mut shared = simple_elf();
    shared[16] = 3; // "gcc" without "-no-pie"
    assert_eq!(run(&shared, &[], &guest).0.unwrap().eip, 0x10_0002);
    assert!(with(18, 62).contains("for the i386"));
    assert!(with(31, 0x70).contains("program headers inside the file"));
    assert!(with(42, 31).contains("program headers inside the file"));
    assert!(with(44, 0).contains("at least one loadable segment"));
    assert!(with(52 + 7, 0x70).contains("segments inside the file"));
    let larger = elf(0, 0x10_0000, &[Ph(1, 0x10_0000, 0x10_0000, 3)]);
    assert!(refusal(&larger, &[], &guest).contains("larger in the file than in memory"));
}

#[test]
fn places_without_ram_are_named() {
    let hole = elf(0, 0x9_F000, &[Ph(1, 0x9_F000, 0x9_F000, 0x2000)]);
    let expected = "the image wants 0x9f000-0xa0fff: expected nothing in the hole 0xa0000-0xfffff";
    assert_eq!(refusal(&hole, &[], &guest(8)), expected);
    let far = elf(0, 0xC010_0000, &[Ph(1, 0xC010_0000, 0xC010_0000, 0x1000)]);
    assert!(refusal(&far, &[], &guest(8)).contains("expected physical addresses below 3G"));
    let wraps = elf(0, 0xFFFF_F000, &[Ph(1, 0xFFFF_F000, 0xFFFF_F000, 0xFFFF_FFFF)]);
    assert!(refusal(&wraps, &[], &guest(8)).contains("expected physical addresses below 3G"));
}

#[test]
fn headers_of_the_file_in_the_rom_are_left_out() {
    // "ld -Ttext 0x100000": the headers come in the page before, in a segment of their own or with the code.
    let mut before = elf(3, 0x10_0002, &[Ph(1, 0xF_F000, 0xF_F000, 0xD4), Ph(1, 0x10_0000, 0x10_0000, 0x1000)]);
    put(&mut before, 52, &[1, 0, 0xF_F000, 0xF_F000, 0xD4]);
    let (entry, memory) = run(&before, &[], &guest(8));
    assert_eq!((entry.unwrap().eip, memory.slice(0x10_0000, 5)), (0x10_0002, &b"CODE\0"[..]));

    let mut joined = elf(3, 0x10_0002, &[Ph(1, 0xF_FE00, 0xF_FE00, 0x1000)]);
    put(&mut joined, 52, &[1, 0, 0xF_FE00, 0xF_FE00, 0x204]);
    let (entry, memory) = run(&joined, &[], &guest(8));
    assert_eq!((entry.unwrap().eip, memory.slice(0x10_0000, 5)), (0x10_0002, &b"CODE\0"[..]));
    assert!(
        refusal(&elf(3, 0xF_F002, &[Ph(1, 0xF_F000, 0xF_F000, 0x2000)]), &[], &guest(8)).contains("outside the image")
    );
}

#[test]
fn notes_need_no_memory() {
    let headers = |note| [Ph(1, 0x10_0000, 0x10_0000, 0x1000), Ph(1, 0x804_8114, 0x804_8114, 4), Ph(note, 0, 0, 4)];
    let (entry, memory) = run(&elf(3, 0x10_0002, &headers(4)), &[], &guest(8));
    assert_eq!((entry.unwrap().eip, memory.slice(0x10_0000, 4)), (0x10_0002, &b"CODE"[..]));
    assert!(refusal(&elf(3, 0x10_0002, &headers(6)), &[], &guest(8)).contains("expected mem=129M"));
    let (entry, memory) = run(&elf(3, 0x10_0002, &headers(4)), &[], &guest(130));
    assert_eq!(
        (entry.is_ok(), memory.slice(0x804_8114, 4)),
        (true, &b"CODE"[..]),
        "where there is some, they are there"
    );
}

#[test]
fn too_little_memory_says_how_much_is_needed() {
    let big = elf(0, 0x10_0000, &[Ph(1, 0x10_0000, 0x10_0000, 0x80_0000), Ph(1, 0x90_0000, 0x90_0000, 0x1000)]);
    let expected = "too little memory: expected mem=10M or more, the guest has 8192K";
    assert_eq!(refusal(&big, &[], &guest(8)), expected);
    let module = vec![1; 7 * MIB as usize];
    let modules: [(&[u8], &str); 2] = [(&module, ""), (&module, "")];
    let expected = "too little memory: expected mem=16M or more, the guest has 8192K";
    assert_eq!(refusal(&simple_elf(), &modules, &guest(8)), expected);
    assert!(run(&simple_elf(), &modules, &guest(16)).0.is_ok());
}

#[test]
fn a_boot_sector_is_no_kernel() {
    let mut disk = vec![0; 2048];
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    assert!(refusal(&disk, &[], &guest(8)).contains("expected the kernel itself, and this image as a disk"));
    assert!(refusal(&[0; 2048], &[], &guest(8)).contains("no kernel of a known protocol"));
}

#[test]
fn flat_images_are_copied_and_entered_at_their_start() {
    let mut guest = guest(2);
    guest.format = ImageFormat::Flat { address: 0x7C00 };
    let (entry, memory) = run(b"flat", &[], &guest);
    assert_eq!(entry.unwrap(), Entry { eip: 0x7C00, ..Entry::default() });
    assert_eq!(memory.slice(0x7C00, 4), b"flat");
    assert!(refusal(b"flat", &[(b"m", "")], &guest).contains("cannot take modules"));
    guest.format = ImageFormat::Flat { address: 0x1F_FFFE };
    assert!(refusal(b"flat", &[], &guest).contains("expected mem=3M or more"));
    guest.format = ImageFormat::Flat { address: 0xF_FFFE };
    assert!(refusal(b"flat", &[], &guest).contains("hole"));
    guest.format = ImageFormat::Flat { address: 0xFFFF_FFFE };
    assert!(refusal(b"flat", &[], &guest).contains("below 3G"));
}

#[test]
fn damaged_images_never_panic() {
    let mut seed = 5_u32;
    let sources = [
        simple_elf(),
        by_addresses([0x10_0010, 0x10_0000, 0x10_0080, 0x10_4000, 0x10_0020]),
        linux::tests::image(),
        multiboot2::tests::image(),
        pvh::tests::image(),
    ];
    let guest = guest(2);
    let mut accepted = 0;
    for round in 0..20_000 {
        let mut image = sources[round % sources.len()].clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (start, length) = if round % sources.len() == 2 { (0x1F0, 0x80) } else { (0, 0x180) };
            let at = start + (seed >> 8) as usize % length.min(image.len());
            image[at] = (seed >> 24) as u8;
        }
        accepted += u32::from(load(&image, &[], &guest, &mut Nowhere).is_ok());
        let _ = load(&image[..round % image.len()], &[], &guest, &mut Nowhere);
    }
    assert!(accepted > 1000);
}

/// Takes everything.
struct Nowhere;

impl GuestWriter for Nowhere {
    fn write(&mut self, _: Gpa, _: &[u8]) -> Result<(), OutsideMemory> {
        Ok(())
    }
}

#[test]
fn a_refusing_memory_is_reported() {
    struct Full;
    impl GuestWriter for Full {
        fn write(&mut self, _: Gpa, _: &[u8]) -> Result<(), OutsideMemory> {
            Err(OutsideMemory)
        }
    }
    let error = load(&simple_elf(), &[], &guest(8), &mut Full).unwrap_err();
    assert_eq!(error, LoadError::Refused { start: 0x10_0000, bytes: 4 });
}
