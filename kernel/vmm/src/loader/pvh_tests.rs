use alloc::vec::Vec;

use super::*;
use crate::loader::tests::{Ph, elf, guest, put, refusal, run};

/// An ELF image with a PVH note (and no multiboot header), entered at 0x100004 by the note, at 0x100002 by its header.
pub(in crate::loader) fn image() -> Vec<u8> {
    let mut file = elf(0, 0x10_0002, &[Ph(1, 0x10_0000, 0x10_0000, 0x2000), Ph(4, 0, 0, 0)]);
    put(&mut file, 0x180, &[4, 4, PHYS32_ENTRY, u32::from_le_bytes(*b"Xen\0"), 0x10_0004]);
    put(&mut file, 52 + 32, &[4, 0x180, 0, 0, 20, 20, 4, 4]);
    file
}

#[test]
fn start_info_tells_memory_command_line_and_modules() {
    let (entry, memory) = run(&image(), &[(b"initrd", "quiet")], &guest(8));
    let entry = entry.unwrap();
    assert_eq!(entry, Entry { eip: 0x10_0004, ebx: 0x9000, ..Entry::default() });
    let field = |offset: u32| memory.word(entry.ebx + offset);
    assert_eq!([0, 4, 8, 12].map(field), [0x336E_C578, 1, 0, 1]);
    let [modules, command_line, rsdp, map] = [16, 24, 32, 40].map(field);
    assert_eq!(memory.string(command_line), "root=none quiet");
    assert_eq!((rsdp, field(48)), (0, 4));
    let module = [0, 8, 16].map(|at| memory.word(modules + at));
    assert_eq!(memory.slice(module[0], module[1] as usize), b"initrd");
    assert_eq!(memory.string(module[2]), "quiet");
    let range = |index: u32| [0, 8, 16].map(|at| memory.word(map + 24 * index + at));
    assert_eq!([range(0), range(3)], [[0, 0x9_FC00, 1], [0x10_0000, 0x70_0000, 1]]);
}

#[test]
fn only_the_note_of_xen_counts() {
    let mut other = image();
    other[0x18C] = b'Y';
    assert!(refusal(&other, &[], &guest(8)).contains("no kernel of a known protocol"));
    let mut guest = guest(8);
    guest.format = crate::config::ImageFormat::Pvh;
    assert!(refusal(&other, &[], &guest).contains("not a PVH image"));
    let mut outside = image();
    put(&mut outside, 0x190, &[0x20_0000]);
    assert!(refusal(&outside, &[], &guest).contains("entry point 0x200000"));
}
