use super::*;
use crate::frames::FrameInfo;
use std::{boxed::Box, vec};

const VM: VmId = VmId(1);
const OTHER: VmId = VmId(2);
/// A leaf's or a link's bits besides the frame: present, writable, user, accessed.
const BITS: u64 = 0x27;

/// Frames 0..10: tables of VM. 10..20: its memory. 20: another's memory, 21: another's table, 22: the host's, 23: reserved.
fn machine() -> FrameTable {
    let mut frames = vec![FrameInfo::of(Owner::Table(VM)); 24];
    frames[10..20].fill(FrameInfo::of(Owner::Guest(VM)));
    frames[20] = FrameInfo::of(Owner::Guest(OTHER));
    frames[21] = FrameInfo::of(Owner::Table(OTHER));
    frames[22] = FrameInfo::of(Owner::Host);
    frames[23] = FrameInfo::of(Owner::Reserved);
    FrameTable::new(Box::leak(frames.into_boxed_slice()))
}

fn entry(frame: u64) -> u64 {
    frame << 12 | BITS
}

fn put(frames: &mut FrameTable, table: u64, index: usize, new: u64) -> Result<(), Refused> {
    store::<Shadow>(frames, VM, (table, index), || 0, new, |_| false)
}

#[test]
fn own_pages_and_tables_pass() {
    let mut f = machine();
    set_level(&mut f, 0, ROOT);
    for (table, index, frame) in [(0, 0, 1), (1, 511, 2), (2, 3, 3), (3, 7, 10)] {
        put(&mut f, table, index, entry(frame)).unwrap();
    }
    assert_eq!(f.get(3).unwrap().level, 1);
    assert_eq!(f.get(10).unwrap().links, 1);
    assert!(!f.free(10));
}

#[test]
fn foreign_frames_are_refused_at_every_level() {
    for level in [0, 1, 2, 3, ROOT] {
        for frame in [20, 21, 22, 23, 24, 0xff_ffff_ffff] {
            let mut f = machine();
            set_level(&mut f, 0, level);
            assert_eq!(put(&mut f, 0, 0, entry(frame)), Err(Refused), "level {level} frame {frame}");
        }
    }
}

#[test]
fn only_tables_of_the_machine_are_written() {
    let mut f = machine();
    for table in [10, 20, 21, 22, 23, 24] {
        assert_eq!(put(&mut f, table, 0, entry(10)), Err(Refused), "table {table}");
        assert_eq!(put(&mut f, table, 0, 0), Err(Refused), "table {table}");
    }
}

#[test]
fn the_window_of_a_root_is_out_of_reach() {
    let mut f = machine();
    set_level(&mut f, 0, ROOT);
    for index in [0, 255, 272, 511] {
        assert_eq!(put(&mut f, 0, index, entry(1)), Ok(()), "the guest's own");
    }
    for index in (256..272).chain([512, usize::MAX]) {
        assert_eq!(put(&mut f, 0, index, entry(1)), Err(Refused));
        assert_eq!(put(&mut f, 0, index, 0), Err(Refused));
    }
    assert_eq!(put(&mut f, 1, 512, entry(10)), Err(Refused), "no entry there in any table");
}

#[test]
fn a_table_is_never_taken_for_a_page() {
    let mut f = machine();
    put(&mut f, 3, 0, entry(10)).unwrap();
    assert_eq!(put(&mut f, 3, 1, entry(4)), Err(Refused), "an L1 table names pages only");
    put(&mut f, 2, 0, entry(3)).unwrap();
    assert_eq!(put(&mut f, 2, 1, entry(11)), Err(Refused), "an L2 table names tables only");
    assert_eq!(put(&mut f, 2, 1, entry(3) | LARGE), Err(Refused), "no large page is a table");
    assert_eq!(put(&mut f, 2, 1, entry(11) | LARGE), Err(Refused), "nor begins at no border of 2 MiB");
    put(&mut f, 1, 0, entry(2)).unwrap();
    assert_eq!(put(&mut f, 1, 1, entry(3)), Err(Refused), "L3 to L1");
    assert_eq!(put(&mut f, 2, 1, entry(2)), Err(Refused), "to itself");
    assert_eq!(put(&mut f, 5, 0, entry(6)), Err(Refused), "two tables without a level");
    assert_eq!(put(&mut f, 5, 0, entry(1)), Err(Refused), "only make_root makes an L4 table");
}

#[test]
fn a_table_changes_level_only_when_empty_and_unlinked() {
    let mut f = machine();
    set_level(&mut f, 0, ROOT);
    put(&mut f, 3, 0, entry(10)).unwrap();
    assert_eq!(put(&mut f, 0, 0, entry(3)), Err(Refused), "holds a page");
    assert_eq!(store::<Shadow>(&mut f, VM, (0, 0), || 0, entry(3), |_| true), Ok(()), "empty by now");
    assert_eq!(f.get(3).unwrap().level, 3);
    cleared(&mut f, 3);
    assert_eq!(f.get(3).unwrap().level, 3, "still linked");
    store::<Shadow>(&mut f, VM, (0, 0), || entry(3), 0, |_| false).unwrap();
    cleared(&mut f, 3);
    assert_eq!(f.get(3).unwrap().level, 0);
}

#[test]
fn links_are_counted_by_frame() {
    let mut f = machine();
    put(&mut f, 3, 0, entry(10)).unwrap();
    put(&mut f, 3, 1, entry(10)).unwrap();
    store::<Shadow>(&mut f, VM, (3, 0), || entry(10), entry(10) & !2, |_| false).unwrap();
    assert_eq!(f.get(10).unwrap().links, 2, "a change of rights is no change of frame");
    store::<Shadow>(&mut f, VM, (3, 0), || entry(10), entry(11), |_| false).unwrap();
    dropped::<Shadow>(&mut f, 3, entry(10));
    assert_eq!((f.get(10).unwrap().links, f.get(11).unwrap().links), (0, 1));
    assert!(f.free(10));
}

#[test]
fn a_linked_or_foreign_frame_becomes_no_root() {
    let mut f = machine();
    assert_eq!(can_be_root::<Shadow>(&f, VM, 0), Ok(()));
    put(&mut f, 3, 0, entry(10)).unwrap();
    put(&mut f, 2, 0, entry(3)).unwrap();
    for frame in [3, 10, 20, 21, 22, 23, 24] {
        assert_eq!(can_be_root::<Shadow>(&f, VM, frame), Err(Refused), "frame {frame}");
    }
}

/// Frames 0..8: second-level tables of VM, 8: a shadow table of VM, 9: another's second-level table. 512..1536: its memory, but
/// for 1500, another's.
fn nested_machine() -> FrameTable {
    let mut frames = vec![FrameInfo::of(Owner::Nested(VM)); 1600];
    frames[8] = FrameInfo::of(Owner::Table(VM));
    frames[9] = FrameInfo::of(Owner::Nested(OTHER));
    frames[512..1536].fill(FrameInfo::of(Owner::Guest(VM)));
    frames[1500] = FrameInfo::of(Owner::Guest(OTHER));
    FrameTable::new(Box::leak(frames.into_boxed_slice()))
}

fn put_nested(frames: &mut FrameTable, table: u64, index: usize, old: u64, new: u64) -> Result<(), Refused> {
    store::<Nested>(frames, VM, (table, index), || old, new, |_| false)
}

/// A root, an L3, an L2 and an L1 table: frames 0 to 3.
fn nested_tree() -> FrameTable {
    let mut f = nested_machine();
    set_level(&mut f, 0, ROOT);
    for (table, index) in [(0, 511), (1, 0), (2, 0)] {
        put_nested(&mut f, table, index, 0, (table + 1) << 12 | 7).unwrap();
    }
    f
}

#[test]
fn an_entry_with_any_right_is_checked() {
    for rights in 1..8 {
        let mut f = nested_tree();
        assert_eq!(put_nested(&mut f, 3, 0, 0, 600 << 12 | rights), Ok(()));
        assert_eq!(f.get(600).unwrap().links, 1, "rights {rights}");
        for foreign in [1500, 8, 9, 4] {
            assert_eq!(put_nested(&mut f, 3, 1, 0, foreign << 12 | rights), Err(Refused), "{foreign} rights {rights}");
        }
    }
}

#[test]
fn the_two_kinds_of_trees_do_not_meet() {
    let mut f = nested_tree();
    assert_eq!(put_nested(&mut f, 2, 1, 0, 8 << 12 | 7), Err(Refused), "a link to a shadow table");
    assert_eq!(put_nested(&mut f, 2, 1, 0, 9 << 12 | 7), Err(Refused), "another machine's");
    assert_eq!(put_nested(&mut f, 8, 0, 0, 600 << 12 | 7), Err(Refused), "into a shadow table");
    assert_eq!(store::<Shadow>(&mut f, VM, (3, 0), || 0, 600 << 12 | 7, |_| false), Err(Refused), "into an EPT table");
    assert_eq!(
        store::<Shadow>(&mut f, VM, (8, 0), || 0, 3 << 12 | 7, |_| false),
        Err(Refused),
        "a link to an EPT table"
    );
    assert_eq!(can_be_root::<Shadow>(&f, VM, 4), Err(Refused));
    assert!(!is_root::<Shadow>(&f, VM, 0) && is_root::<Nested>(&f, VM, 0));
}

fn huge_entries<K: Kind>(f: &mut FrameTable) {
    let huge = |frame: u64| frame << 12 | LARGE | 7;
    let mut put = |table, index, old, new| {
        let done = store::<K>(f, VM, (table, index), || old, new, |_| false);
        (done, [512, 700, 1023].map(|frame| f.get(frame).unwrap().links))
    };
    let refused = (Err(Refused), [0; 3]);
    assert_eq!(put(2, 1, 0, huge(1024)), refused, "one of them is another's");
    assert_eq!(put(2, 1, 0, huge(513)), refused, "misaligned");
    assert_eq!(put(2, 1, 0, 512 << 12 | 7), refused, "a page where a table must be");
    assert_eq!(put(1, 1, 0, huge(512)), refused, "1 GiB");
    assert_eq!(put(2, 1, 0, huge(512)), (Ok(()), [1; 3]));
    assert_eq!(put(2, 2, 0, huge(512)), (Ok(()), [2; 3]));
    assert_eq!(put(2, 2, huge(512), huge(512) & !2), (Ok(()), [2; 3]), "a change of rights is no change of frames");
    assert_eq!(put(2, 2, huge(512), 0), (Ok(()), [1; 3]));
    assert!(!f.free(1023));
    assert_eq!(store::<K>(f, VM, (2, 1), || huge(512), 0, |_| false), Ok(()));
    assert!(f.free(1023));
    store::<K>(f, VM, (2, 2), || 0, huge(512), |_| false).expect_err("a frame of it is free by now");
}

#[test]
fn a_huge_entry_maps_512_own_frames() {
    huge_entries::<Nested>(&mut nested_tree());
    // The same tree of shadow tables.
    let mut f = nested_machine();
    for table in 0..8 {
        *f.get_mut(table).unwrap() = FrameInfo::of(Owner::Table(VM));
    }
    set_level(&mut f, 0, ROOT);
    for (table, index) in [(0, 3), (1, 0), (2, 0)] {
        put(&mut f, table, index, entry(table + 1)).unwrap();
    }
    huge_entries::<Shadow>(&mut f);
    // Shadow code is no part of one: its frames are not the guest's.
    *f.get_mut(600).unwrap() = FrameInfo::of(Owner::Code(VM));
    assert_eq!(put(&mut f, 2, 1, 512 << 12 | LARGE | 1), Err(Refused));
    assert_eq!(put(&mut f, 2, 1, 600 << 12 | LARGE | 1), Err(Refused));
}

#[test]
fn a_gap_names_nothing_and_nothing_like_it_passes() {
    let gap = shadow_mmu::Spte::GAP.raw();
    let mut f = machine();
    set_level(&mut f, 0, ROOT);
    put(&mut f, 0, 0, entry(1)).unwrap();
    put(&mut f, 1, 0, gap).unwrap();
    assert_eq!(f.get(1).unwrap().level, 3, "the table is what it was");
    // Over a page, the page is free; under one, it counts.
    put(&mut f, 2, 0, entry(10)).unwrap();
    store::<Shadow>(&mut f, VM, (2, 0), || entry(10), gap, |_| false).unwrap();
    assert_eq!(f.get(10).unwrap().links, 0);
    store::<Shadow>(&mut f, VM, (2, 0), || gap, entry(10), |_| false).unwrap();
    assert_eq!(f.get(10).unwrap().links, 1);
    for bit in 0..64 {
        let other = gap ^ 1 << bit;
        assert_eq!(put(&mut f, 2, 1, other).is_ok(), other & PRESENT == 0, "bit {bit}");
    }
    assert_eq!(put(&mut f, 0, shadow_mmu::WINDOW.start, gap), Err(Refused), "in the window");
    assert_eq!(put_nested(&mut f, 4, 0, 0, gap), Err(Refused), "a second-level table has none");
}

#[test]
fn shadow_code_is_for_the_supervisor_to_fetch() {
    let mut frames = vec![FrameInfo::of(Owner::Table(VM)); 4];
    frames[2] = FrameInfo::of(Owner::Code(VM));
    frames[3] = FrameInfo::of(Owner::Code(OTHER));
    let mut f = FrameTable::new(Box::leak(frames.into_boxed_slice()));
    let mut put = |raw| store::<Shadow>(&mut f, VM, (0, 0), || 0, raw, |_| false);
    assert!(put(2 << 12 | 1).is_ok());
    assert!(put(2 << 12 | 3).is_err(), "writable");
    assert!(put(2 << 12 | 5).is_err(), "for user code");
    assert!(put(3 << 12 | 1).is_err(), "another guest's");
    f.get_mut(1).unwrap().level = 2;
    assert!(store::<Shadow>(&mut f, VM, (1, 0), || 0, 2 << 12 | 1, |_| false).is_err(), "not in an upper table");
}
