use alloc::vec;

use super::*;
use crate::loader::tests::{Memory, Ph, elf, guest, put, refusal, run, with_symbols};

/// Places a header with these tags (as words) at 0x100, over the multiboot1 header of the test images.
fn with_tags(mut file: Vec<u8>, tags: &[u32]) -> Vec<u8> {
    put(&mut file, 0x180, &[0, 0, 0]);
    let length = 16 + 4 * tags.len() as u32;
    let checksum = 0_u32.wrapping_sub(0xE852_50D6).wrapping_sub(length);
    put(&mut file, 0x100, &[0xE852_50D6, 0, length, checksum]);
    put(&mut file, 0x110, tags);
    file
}

use alloc::vec::Vec;

const END: [u32; 2] = [0, 8];

fn plain() -> Vec<u8> {
    elf(0, 0x10_0002, &[Ph(1, 0x10_0000, 0x10_0000, 0x2345)])
}

/// An ELF image with a request for the memory map.
pub(in crate::loader) fn image() -> Vec<u8> {
    with_tags(plain(), &[1, 12, 6, 0, 0, 8])
}

/// The tags of the information: type, and the address of the content.
fn tags(memory: &Memory, info: u32) -> Vec<(u32, u32)> {
    let total = memory.word(info);
    let (mut at, mut found) = (info + 8, Vec::new());
    while at < info + total {
        found.push((memory.word(at), at + 8));
        at += memory.word(at + 4).next_multiple_of(8);
    }
    assert_eq!(at, info + total);
    found
}

#[test]
fn the_information_tells_what_multiboot1_tells() {
    let image = with_tags(with_symbols(plain()), &[1, 16, 6, 9, 0, 8]);
    let (entry, memory) = run(&image, &[(b"disk", "root x")], &guest(8));
    let entry = entry.unwrap();
    assert_eq!((entry.eip, entry.eax, entry.ebx), (0x10_0002, MAGIC, 0x9000));
    let tags = tags(&memory, entry.ebx);
    let kinds: Vec<u32> = tags.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [1, 2, 3, 4, 6, 8, 9, 21, 0]);
    let at = |kind| tags.iter().find(|tag| tag.0 == kind).unwrap().1;
    assert_eq!(memory.string(at(1)), "root=none quiet");
    let (start, end) = (memory.word(at(3)), memory.word(at(3) + 4));
    assert_eq!((memory.slice(start, 4), end - start), (&b"disk"[..], 4));
    assert_eq!(memory.string(at(3) + 8), "root x");
    assert_eq!((memory.word(at(4)), memory.word(at(4) + 4)), (639, 7 * 1024));
    assert_eq!([0, 4].map(|offset| memory.word(at(6) + offset)), [24, 0]);
    let range = |index: u32| [0, 8, 16].map(|offset| memory.word(at(6) + 8 + 24 * index + offset));
    assert_eq!([range(0), range(3)], [[0, 0x9_FC00, 1], [0x10_0000, 0x70_0000, 1]]);
    assert_eq!([0, 4, 8].map(|offset| memory.word(at(9) + offset)), [3, 40, 2]);
    let names = memory.word(at(9) + 12 + 80 + 12);
    assert_eq!(memory.slice(names, 5), b"NAMES");
    assert_eq!(memory.word(at(21)), 0x10_0000);
}

#[test]
fn load_addresses_and_entry_come_from_tags() {
    let file = |addresses: [u32; 4], entry: &[u32]| {
        let tags = [&[2, 24], &addresses[..], entry, &END].concat();
        with_tags(vec![0xAA; 0x200], &tags)
    };
    let entry_tag = [3, 12, 0x10_0020, 0];
    let usual = file([0x10_0100, 0x10_0000, 0x10_0180, 0x10_4000], &entry_tag);
    let (entry, memory) = run(&usual, &[], &guest(8));
    assert_eq!(entry.unwrap().eip, 0x10_0020);
    assert_eq!(memory.slice(0x10_0000, 0x181), [&usual[..0x180], &[0]].concat());
    let beginning = file([0x10_0100, u32::MAX, 0, 0], &entry_tag);
    assert_eq!(run(&beginning, &[], &guest(8)).1.slice(0x10_0000, 0x200), beginning);
    assert!(refusal(&file([0x80, u32::MAX, 0, 0], &entry_tag), &[], &guest(8)).contains("too low for the file"));
    assert!(refusal(&file([0x10_0100, 0x10_0000, 0, 0], &[]), &[], &guest(8)).contains("need an entry tag"));
    let override_entry = with_tags(plain(), &[3, 12, 0x10_0100, 0, 0, 8]);
    assert_eq!(run(&override_entry, &[], &guest(8)).0.unwrap().eip, 0x10_0100);
}

#[test]
fn what_cannot_be_served_is_named() {
    let text = |tags: &[u32]| refusal(&with_tags(plain(), tags), &[], &guest(8));
    let served = |tags: &[u32]| run(&with_tags(plain(), tags), &[], &guest(8)).0.is_ok();
    assert!(served(&[5, 20, 1024, 768, 32, 0, 0, 8]), "graphics: it gets text, as from GRUB without a graphics card");
    assert!(text(&[1, 12, 17, 0, 0, 8]).contains("information 17"));
    assert!(served(&[1 | 1 << 16, 12, 17, 0, 0, 8]));
    assert!(text(&[7, 8, 0, 8]).contains("requires tag 7"));
    assert!(text(&[99, 8, 0, 8]).contains("requires tag 99"));
    assert!(served(&[99 | 1 << 16, 8, 0, 8]));
    assert!(text(&[6, 4, 0, 8]).contains("beyond the header"));
    assert!(text(&[6, 400, 0, 8]).contains("beyond the header"));
    assert!(text(&[3, 8, 0, 8]).contains("entry tag is too short"));
    let mut other = image();
    put(&mut other, 0x104, &[4]);
    assert!(refusal(&other, &[], &guest(8)).contains("wrong checksum"));
    let checksum = 0_u32.wrapping_sub(0xE852_50D6).wrapping_sub(4).wrapping_sub(40);
    put(&mut other, 0x108, &[40, checksum]);
    assert!(refusal(&other, &[], &guest(8)).contains("architecture 4"));
    let mut class_64 = image();
    class_64[4] = 2;
    assert!(refusal(&class_64, &[], &guest(8)).contains("64-bit"));
}
