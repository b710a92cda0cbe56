//! Frames are given once, in the order that is said, and come back.

use super::*;
use std::{boxed::Box, vec};

const VM: VmId = VmId(1);

fn table(len: usize) -> FrameTable {
    FrameTable::new(Box::leak(vec![FrameInfo::of(Owner::Free); len].into_boxed_slice()))
}

#[test]
fn owners_survive_their_encoding() {
    for owner in [
        Owner::Free,
        Owner::Reserved,
        Owner::Host,
        Owner::Guest(VmId(255)),
        Owner::Table(VmId(7)),
        Owner::Nested(VmId(1)),
        Owner::Code(VmId(2)),
    ] {
        assert_eq!(Tag::new(owner).owner(), owner);
    }
}

#[test]
fn every_frame_is_given_once() {
    let mut t = table(64);
    let mut seen = [false; 64];
    for i in 0..64 {
        let frame = if i % 2 == 0 { t.alloc(Owner::Host) } else { t.alloc_scattered(Owner::Guest(VM)) };
        assert!(!core::mem::replace(&mut seen[frame.unwrap() as usize], true));
    }
    assert_eq!(t.alloc(Owner::Host), None);
    assert_eq!(t.alloc_scattered(Owner::Host), None);
    assert_eq!(t.stats(), Stats { total: 64, free: 0, host: 32, guest: 32, table: 0 });
}

#[test]
fn scattered_frames_are_no_neighbours_and_leave_the_zone_for_runs() {
    let mut t = table(4096);
    let mut last = u64::MAX - 1;
    for _ in 0..2000 {
        let frame = t.alloc_scattered(Owner::Guest(VM)).unwrap();
        assert!(frame.abs_diff(last) > 1);
        assert!(frame >= 512);
        last = frame;
    }
    assert_eq!(t.alloc_contiguous(500, Owner::Host), Some(0));
}

#[test]
fn runs_are_the_lowest_that_are_free() {
    let mut t = table(64);
    assert_eq!(t.alloc_contiguous(3, Owner::Host), Some(0));
    assert_eq!(t.alloc_contiguous(1, Owner::Host), Some(3));
    assert!(t.free(1));
    assert_eq!(t.alloc_contiguous(2, Owner::Host), Some(4), "a hole of one frame");
    assert_eq!(t.alloc_contiguous(1, Owner::Host), Some(1));
    assert_eq!(t.alloc_contiguous(59, Owner::Host), None);
    assert_eq!(t.alloc_contiguous(1, Owner::Guest(VM)), Some(6));
    t.release_all(VM);
    assert_eq!(t.alloc_contiguous(58, Owner::Host), Some(6));
}

#[test]
fn a_block_is_2_mib_from_a_border_on() {
    let mut t = table(4096 + 100);
    let zone_end = 4196 / 8;
    assert_eq!(t.alloc(Owner::Host), Some(zone_end), "in the block that the zone ends in");
    assert_eq!(t.alloc_block(Owner::Guest(VM)), Some(3584));
    assert_eq!(t.alloc_block(Owner::Guest(VM)), Some(3072));
    t.frames[2048 + 511] = FrameInfo::of(Owner::Reserved);
    for first in [2560, 1536, 1024] {
        assert_eq!(t.alloc_block(Owner::Guest(VM)), Some(first), "but 2048");
    }
    assert_eq!(t.alloc_block(Owner::Guest(VM)), None);
    assert_eq!(t.stats().guest, 5 * 512);
    t.release_all(VM);
    assert_eq!(t.alloc_block(Owner::Guest(VM)), Some(3584));
}

#[test]
fn a_mapped_frame_is_not_freed() {
    let mut t = table(8);
    let frame = t.alloc(Owner::Guest(VM)).unwrap();
    t.get_mut(frame).unwrap().links = 1;
    assert!(!t.free(frame));
    t.get_mut(frame).unwrap().links = 0;
    assert!(t.free(frame));
    assert!(!t.free(frame), "twice");
    assert!(!t.free(99));
}

#[test]
fn a_machine_is_released_as_a_whole() {
    let mut t = table(8);
    t.alloc(Owner::Guest(VM));
    t.alloc(Owner::Table(VM));
    t.alloc(Owner::Nested(VM));
    let other = t.alloc(Owner::Guest(VmId(2))).unwrap();
    t.release_all(VM);
    assert_eq!(t.stats().free, 7);
    assert_eq!(t.owner(other), Owner::Guest(VmId(2)));
    assert_eq!(t.owner(1000), Owner::Reserved);
}
