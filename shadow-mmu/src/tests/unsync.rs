//! Leaf tables out of sync: one story for each rule of `sync`.

use super::machine::{Machine, SUPERVISOR, Setup, USER};
use super::reference::Verdict;
use super::scenarios::{LEAF_TABLE, SETUP, count, faults, paged};
use crate::{Counter, Gfn, Policy, SyncPolicy};

const POLICY: Policy = Policy { sync: SyncPolicy::Unsync { tables: 4 }, patience: 0, ..Policy::DEFAULT };
const UNSYNC: Setup = Setup { policy: POLICY, ..SETUP };

fn is_unsync(machine: &Machine, frame: u64) -> bool {
    machine.mmu.frames.get(Gfn::new(frame)).unwrap().is_unsync()
}

/// The table of `paged` is out of sync, by a write that changes nothing.
fn out_of_sync(setup: Setup) -> Machine {
    let mut machine = paged(setup);
    for page in 4..16 {
        machine.write(page << 12, USER, page);
    }
    machine.write(LEAF_TABLE + 23 * 4, SUPERVISOR, 0x17067);
    assert!(is_unsync(&machine, 2));
    machine
}

fn point(machine: &mut Machine, page: u64, gpte: u64) {
    machine.write(LEAF_TABLE + page * 4, SUPERVISOR, gpte);
}

#[test]
fn only_the_first_write_of_a_burst_faults() {
    let mut machine = out_of_sync(UNSYNC);
    let before = faults(&machine);
    for page in 4..16 {
        point(&mut machine, page, (page + 1) << 12 | 0x67);
    }
    assert_eq!(faults(&machine), before);
    assert_eq!(count(&machine, Counter::TrackedWrite), 0);
    assert_eq!(count(&machine, Counter::TableUnsynced), 1);
    // A CR3 load pays for all of them, and the next write faults again.
    machine.set_cr3(1);
    assert!(!is_unsync(&machine, 2));
    assert_eq!(count(&machine, Counter::SpteUpdated), 13, "those, and the page through which the table was written");
    for page in 4..16 {
        assert_eq!(machine.read(page << 12, USER), Verdict::At((page + 1) << 12));
    }
    point(&mut machine, 5, 0);
    assert_eq!(count(&machine, Counter::TableUnsynced), 2);
}

#[test]
fn invlpg_brings_one_entry_in_step() {
    let mut machine = out_of_sync(UNSYNC);
    point(&mut machine, 5, 0x9067);
    point(&mut machine, 6, 0xa067);
    let before = (faults(&machine), count(&machine, Counter::EntrySynced));
    machine.invlpg(0x5000);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x9000));
    assert_eq!(machine.read(0x6000, USER), Verdict::At(0x6000), "stale, as a TLB may be");
    assert_eq!((faults(&machine), count(&machine, Counter::EntrySynced)), (before.0, before.1 + 1));
    assert!(is_unsync(&machine, 2));
    point(&mut machine, 6, 0);
    machine.invlpg(0x6000);
    assert_eq!(machine.read(0x6000, USER), Verdict::Fault(4));
}

#[test]
fn rule_1_a_directory_never_goes() {
    let mut machine = out_of_sync(UNSYNC);
    machine.write(0x1004, SUPERVISOR, 0x2067);
    assert_eq!(count(&machine, Counter::TrackedWrite), 1);
    assert!(!is_unsync(&machine, 1));
}

#[test]
fn rule_2_a_frame_that_becomes_a_directory_is_brought_in_step_first() {
    let mut machine = out_of_sync(UNSYNC);
    point(&mut machine, 5, 0x9067);
    machine.set_cr0(crate::cr0::CD, true);
    assert!(is_unsync(&machine, 2), "no change of the root, no flush");
    // Directory 3 gets the table as a directory of its own: frame 2 maps 2, so entry 2 of it is frame 2 as table.
    machine.write(0x3004, SUPERVISOR, 0x2067);
    machine.set_cr3(2);
    machine.read(0x80_0000, SUPERVISOR);
    assert!(!is_unsync(&machine, 2));
    point(&mut machine, 5, 0xb067);
    assert!(!is_unsync(&machine, 2), "it is a directory now");
    assert_eq!(machine.mmu.frames.get(Gfn::new(2)).unwrap().upper, 1);
}

#[test]
fn rule_2_without_a_flush_between() {
    let mut machine = paged(UNSYNC);
    // Entry 0x3ff of directory 1 is the directory: frame 4 as table and, through it, as a page.
    machine.write(0x1ffc, SUPERVISOR, 0x1067);
    machine.write(0x1004, SUPERVISOR, 0x4067);
    machine.write(0x4000, SUPERVISOR, 0x8067);
    assert_eq!(machine.read(0x40_0000, SUPERVISOR), Verdict::At(0x8000));
    machine.write(0x4008, SUPERVISOR, 0x7067);
    assert!(is_unsync(&machine, 4));
    // Now frame 1 is used as a leaf table by the walk of the self map; it is a directory, so it does not go.
    machine.write(0xffff_f008, SUPERVISOR, 0x2067);
    assert!(!is_unsync(&machine, 1));
    assert!(is_unsync(&machine, 4));
}

#[test]
fn rule_3_a_watch_brings_in_step_and_protects() {
    let mut machine = out_of_sync(UNSYNC);
    point(&mut machine, 5, 0x9067);
    machine.watch(2, true);
    assert!(!is_unsync(&machine, 2));
    let before = count(&machine, Counter::TrackedWrite);
    point(&mut machine, 5, 0xa067);
    assert_eq!(count(&machine, Counter::TrackedWrite), before + 1);
    assert!(!is_unsync(&machine, 2));
    assert!(machine.mmu.write_kind(Gfn::new(2)).page_table, "nor is its shadow given up for it");
    machine.watch(2, false);
    point(&mut machine, 5, 0xb067);
    assert!(is_unsync(&machine, 2));
}

#[test]
fn rule_4_pages_of_all_roles_go_and_come_together() {
    let mut machine = paged(UNSYNC);
    // The same table with other rights: another shadow page of the same frame.
    machine.write(0x1004, SUPERVISOR, 0x2065);
    machine.read(0x5000, USER);
    machine.read(0x40_5000, USER);
    assert_eq!(machine.mmu.frames.get(Gfn::new(2)).unwrap().tables, 2);
    point(&mut machine, 5, 0x9067);
    assert!(is_unsync(&machine, 2));
    // A third role joins while the frame is out of sync.
    machine.write(0x1008, SUPERVISOR, 0x2063);
    assert_eq!(machine.read(0x80_5000, SUPERVISOR), Verdict::At(0x9000));
    assert!(is_unsync(&machine, 2));
    machine.invlpg(0x5000);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x9000));
    assert_eq!(machine.read(0x40_5000, USER), Verdict::At(0x5000), "another address, not flushed");
    machine.set_cr3(1);
    assert_eq!(machine.read(0x40_5000, USER), Verdict::At(0x9000));
}

#[test]
fn rule_6_every_root_is_brought_in_step() {
    let mut machine = out_of_sync(UNSYNC);
    machine.set_cr0(crate::cr0::WP, false);
    machine.read(0x5000, USER);
    point(&mut machine, 5, 0x9067);
    machine.invlpg(0x5000);
    // The shadow for WP = 1 has not seen the INVLPG.
    machine.set_cr0(crate::cr0::WP, true);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x9000));
}

#[test]
fn rule_7_a_table_that_was_away_comes_back_in_step() {
    let mut machine = out_of_sync(Setup { caching: false, ..UNSYNC });
    point(&mut machine, 5, 0x9067);
    machine.write(0x1000, SUPERVISOR, 0x2066);
    machine.invlpg(0x5000);
    // Nothing is linked there, so nothing was brought in step.
    machine.set_cr0(crate::cr0::CD, true);
    machine.mmu.mem().store(crate::Gpa::new(0x1000), &0x2067u64.to_le_bytes());
    machine.twin.store(crate::Gpa::new(0x1000), &0x2067u64.to_le_bytes());
    let plan = machine.mmu.on_write(crate::Gpa::new(0x1000), 4);
    assert!(plan.is_none());
    let before = (count(&machine, Counter::TableMade), count(&machine, Counter::EntrySynced));
    assert_eq!(machine.read(0x6000, USER), Verdict::At(0x6000));
    assert_eq!(count(&machine, Counter::TableMade), before.0, "the page was found");
    assert!(count(&machine, Counter::EntrySynced) > before.1);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x9000));
    assert!(is_unsync(&machine, 2));
}

#[test]
fn rule_8_a_single_write_is_followed() {
    let mut machine = paged(Setup { policy: Policy { patience: 1, ..POLICY }, ..SETUP });
    machine.read(0x5000, USER);
    for round in 1..4 {
        point(&mut machine, 5, 0x9067);
        assert_eq!((is_unsync(&machine, 2), count(&machine, Counter::TrackedWrite)), (false, round));
        machine.set_cr3(1);
    }
    point(&mut machine, 5, 0xa067);
    point(&mut machine, 5, 0xb067);
    assert!(is_unsync(&machine, 2));
}

#[test]
fn rule_9_the_oldest_makes_room() {
    let mut machine = paged(Setup { policy: Policy { sync: SyncPolicy::Unsync { tables: 2 }, ..POLICY }, ..SETUP });
    for table in 4..7u64 {
        machine.write(0x1000 + table * 4, SUPERVISOR, table << 12 | 0x67);
        machine.write(table << 12, SUPERVISOR, 0x8067);
        machine.read(table << 22, USER);
        machine.write(table << 12, SUPERVISOR, 0x9067);
    }
    assert_eq!([4, 5, 6].map(|frame| is_unsync(&machine, frame)), [false, true, true]);
    assert_eq!(machine.read(4 << 22, USER), Verdict::At(0x9000));
    machine.write(0x4000, SUPERVISOR, 0xa067);
    assert_eq!([4, 5, 6].map(|frame| is_unsync(&machine, frame)), [true, false, true]);
}

#[test]
fn an_evicted_table_is_plain_memory() {
    let mut machine = paged(Setup { pool: 16, ..UNSYNC });
    for table in 4..20u64 {
        machine.write(0x1000 + table * 4, SUPERVISOR, table << 12 | 0x67);
        machine.write(table << 12, SUPERVISOR, 0x8067);
        machine.read(table << 22, USER);
        machine.write((table << 12) + 4, SUPERVISOR, 0x9067);
    }
    assert!(count(&machine, Counter::TableEvicted) > 8);
    for table in 4..20u64 {
        let frame = machine.mmu.frames.get(Gfn::new(table)).unwrap();
        assert!(frame.tables != 0 || !frame.is_unsync());
    }
}

#[test]
fn a_frame_that_only_a_stale_entry_maps_is_revoked_when_it_becomes_a_table() {
    let mut machine = out_of_sync(UNSYNC);
    machine.write(0x1004, SUPERVISOR, 0x9067);
    machine.write(0x9000, SUPERVISOR, 0xa067);
    // The entry goes, the right to write stays, as a TLB might keep it.
    point(&mut machine, 9, 0);
    assert_eq!(machine.write(0x9004, SUPERVISOR, 0xb067), Verdict::At(0x9004));
    assert_eq!(machine.read(0x40_0000, USER), Verdict::At(0xa000));
    assert_eq!(machine.write(0x9000, SUPERVISOR, 0), Verdict::Fault(2));
}

#[test]
fn marks_go_to_memory_while_out_of_sync() {
    let mut machine = out_of_sync(UNSYNC);
    point(&mut machine, 20, 0x8007);
    assert_eq!(machine.read(0x14000, USER), Verdict::At(0x8000));
    assert_eq!(machine.mmu.mem().word(LEAF_TABLE + 80), 0x8027);
    assert_eq!(machine.write(0x14000, USER, 1), Verdict::At(0x8000));
    assert_eq!(machine.mmu.mem().word(LEAF_TABLE + 80), 0x8067);
    assert!(is_unsync(&machine, 2));
}

#[test]
fn a_table_that_maps_itself_is_protected_again() {
    let mut machine = out_of_sync(UNSYNC);
    // Page 2 is the table itself.
    point(&mut machine, 22, 0x2067);
    machine.write(0x16000 + 5 * 4, SUPERVISOR, 0x9067);
    assert!(is_unsync(&machine, 2));
    machine.set_cr3(1);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x9000));
    let before = count(&machine, Counter::TableUnsynced);
    machine.write(0x16000 + 5 * 4, SUPERVISOR, 0xa067);
    assert_eq!(count(&machine, Counter::TableUnsynced), before + 1);
}

/// One policy of each kind.
pub(super) const EACH: [Policy; 3] =
    [Policy::DEFAULT, POLICY, Policy { sync: SyncPolicy::VirtualTlb, ..Policy::DEFAULT }];

#[test]
fn what_a_prefetch_made_meanwhile_is_looked_at() {
    let mut machine = paged(Setup { policy: Policy { prefetch: 4, ..POLICY }, ..SETUP });
    machine.write(0x4000, USER, 4);
    point(&mut machine, 23, 0x17067);
    assert!(is_unsync(&machine, 2), "its entry 10 is remembered as it is at first");
    point(&mut machine, 10, 0xb067);
    let before = count(&machine, Counter::SptePrefetched);
    // A word of the comparison has two entries; that of entry 8 would be looked at anyway.
    machine.read(0x8000, USER);
    assert_eq!(count(&machine, Counter::SptePrefetched), before + 3);
    point(&mut machine, 10, 0xa067);
    machine.set_cr3(1);
    assert_eq!(machine.read(0xa000, USER), Verdict::At(0xa000));
}
