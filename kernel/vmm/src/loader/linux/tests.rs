use alloc::string::String;
use alloc::vec;

use super::*;
use crate::loader::tests::{guest, put, refusal, run};

const MIB: u64 = 1 << 20;
/// Length of the real-mode part: the boot sector and two more.
const SETUP: usize = 3 * 512;

/// A relocatable bzImage of protocol 2.15 with a protected-mode part of 0x123 bytes, one paragraph not whole.
pub(in crate::loader) fn image() -> Vec<u8> {
    let mut file = vec![0xCC; SETUP + 0x123];
    file[..SETUP].fill(0x11);
    file[0x1F1..0x290].fill(0);
    file[0x1F1] = 2;
    put(&mut file, 0x1F4, &[0x13]);
    file[0x1FE..0x202].copy_from_slice(&[0x55, 0xAA, 0xEB, 0x6A]);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&[0x0F, 0x02]);
    file[0x211] = 1;
    put(&mut file, 0x214, &[0x10_0000]);
    put(&mut file, 0x22C, &[0x7FFF_FFFF, 0x20_0000]);
    file[0x234] = 1;
    put(&mut file, 0x238, &[64]);
    put(&mut file, 0x258, &[0x40_0000, 0, 0x18_0000]);
    file
}

fn with(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = image();
    file[offset..][..bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn a_kernel_goes_to_its_preferred_address() {
    let (entry, memory) = run(&image(), &[], &guest(8));
    let entry = entry.unwrap();
    let gdt = TableAt { base: 0xA000, limit: 31 };
    assert_eq!(entry, Entry { eip: 0x40_0000, esi: 0x9000, gdt: Some(gdt), ..Entry::default() });
    assert_eq!(memory.slice(0x40_0000, 0x124)[0x120..], [0xCC, 0xCC, 0xCC, 0]);
    let descriptor = |index: u32| [memory.word(gdt.base + 8 * index + 4), memory.word(gdt.base + 8 * index)];
    assert_eq!([descriptor(2), descriptor(3)], [[0x00CF_9B00, 0xFFFF], [0x00CF_9300, 0xFFFF]]);
}

#[test]
fn the_boot_parameters_are_filled() {
    let (entry, memory) = run(&image(), &[(b"initrd", "")], &guest(8));
    let base = entry.unwrap().esi;
    let field = |offset: u32| memory.word(base + offset);
    assert_eq!(memory.slice(base + 0x202, 6), b"HdrS\x0f\x02");
    assert_eq!(memory.slice(base + 0x1FA, 2), [0xFF, 0xFF]);
    assert_eq!(memory.slice(base + 0x210, 2), [0xFF, 1]);
    assert_eq!(field(0x214), 0x40_0000);
    assert_eq!(memory.string(field(0x228)), "root=none quiet");
    assert_eq!((field(0x218), field(0x21C)), (0x7F_F000, 6));
    assert_eq!(memory.slice(0x7F_F000, 7), b"initrd\0");
    // The header's copy ends where the file says, and the sentinel and the scratch field stay zero.
    assert_eq!(field(0x26C), 0);
    assert_eq!((memory.slice(base + 0x1EF, 1), field(0x1E4)), (&[0][..], 0));

    assert_eq!(memory.slice(base + 0x1E8, 1), [4]);
    let range = |index: u32| [0, 4, 8, 12, 16].map(|at| field(0x2D0 + 20 * index + at));
    assert_eq!(range(0), [0, 0, 0x9_FC00, 0, 1]);
    assert_eq!(range(1), [0x9_FC00, 0, 0x400, 0, 2]);
    assert_eq!(range(2), [0xF_0000, 0, 0x1_0000, 0, 2]);
    assert_eq!(range(3), [0x10_0000, 0, 0x70_0000, 0, 1]);
    assert_eq!(field(0x1E0), 7 * 1024);
    assert_eq!((memory.slice(base + 6, 2), memory.slice(base + 14, 2)), (&[3, 80][..], &[25, 1][..]));
}

#[test]
fn a_kernel_is_moved_if_its_preferred_address_is_not_ram() {
    let place = |image: &[u8], mebibytes| run(image, &[], &guest(mebibytes)).0.unwrap().eip;
    assert_eq!(place(&with(0x258, &[0, 0, 0, 0xC1]), 8), 0x20_0000);
    assert_eq!(place(&image(), 5), 0x20_0000, "to a multiple of its alignment");
    let fixed = with(0x234, &[0]);
    assert_eq!(place(&fixed, 8), 0x10_0000, "a kernel that cannot be moved ignores its preference");
    let far = with(0x258, &[0, 0, 0x40, 0, 1]);
    assert_eq!(place(&far, 8), 0x20_0000);
}

#[test]
fn too_little_memory_counts_kernel_and_initrd() {
    assert_eq!(refusal(&image(), &[], &guest(3)), "too little memory: expected mem=6M or more, the guest has 3072K");
    let initrd = vec![1; 4 * MIB as usize];
    assert!(refusal(&image(), &[(&initrd, "")], &guest(8)).contains("expected mem=10M or more"));
    assert!(run(&image(), &[(&initrd, "")], &guest(10)).0.is_ok());
}

#[test]
fn initrds_follow_one_another_below_the_limit() {
    let limited = with(0x22C, &0x6F_FFFE_u32.to_le_bytes());
    let (entry, memory) = run(&limited, &[(b"abcde", "x"), (b"", ""), (b"fgh", "")], &guest(8));
    let base = entry.unwrap().esi;
    let [start, bytes] = [0x218, 0x21C].map(|at| memory.word(base + at));
    assert_eq!((start, bytes), (0x6F_F000, 11), "page-aligned, and the last byte below the limit");
    assert_eq!(memory.slice(start, 11), b"abcde\0\0\0fgh");
}

#[test]
fn old_protocols_have_their_own_defaults() {
    let old = with(0x206, &[2, 2]);
    let mut guest = guest(8);
    guest.arguments = "x".repeat(255);
    let (entry, memory) = run(&old, &[(b"i", "")], &guest);
    let entry = entry.unwrap();
    assert_eq!(entry.eip, 0x10_0000);
    assert_eq!(memory.slice(0x10_0122, 2), [0xCC, 0], "the rest of the file, whatever syssize says");
    guest.arguments.push('x');
    assert!(refusal(&old, &[], &guest).contains("have 256 bytes: expected 255 or less"));
}

#[test]
fn what_cannot_be_served_is_named() {
    let text = |file: &[u8]| refusal(file, &[], &guest(8));
    assert!(text(&with(0x236, &[1])).contains("a 64-bit Linux kernel, not yet"));
    assert!(text(&with(0x211, &[0])).contains("zImage"));
    assert!(text(&with(0x206, &[1, 2])).contains("boot protocol 2.01"));
    assert!(text(&with(0x1F4, &[0x14])).contains("cut off"));
    assert!(text(&with(0x1F4, &[0xFF, 0xFF, 0xFF, 0xFF])).contains("cut off"));
    assert!(text(&with(0x1F1, &[9])).contains("cut off"));
    assert!(text(&with(0x1FE, &[0])).contains("no kernel of a known protocol"));
    let mut long = guest(8);
    long.arguments = String::from("x").repeat(65);
    assert!(refusal(&image(), &[], &long).contains("65 bytes: expected 64"));
    let mut wrong = guest(8);
    wrong.format = crate::config::ImageFormat::Linux;
    assert!(refusal(b"text", &[], &wrong).contains("not a Linux bzImage"));
}

#[test]
fn an_image_without_end_of_its_alignment_is_not_moved() {
    for align in [0_u32, 3, 0x1000_0000] {
        let mut file = with(0x230, &align.to_le_bytes());
        put(&mut file, 0x258, &[0xC000_0000]);
        let result = run(&file, &[], &guest(8)).0;
        assert_eq!(result.is_ok(), align != 0x1000_0000, "{align:#x}: {result:?}");
    }
}
