//! Switches: what each saves or spends, by its counter.

use super::machine::{Machine, SUPERVISOR, Setup, USER};
use super::reference::Verdict;
use super::scenarios::{LEAF_TABLE, SETUP, count, faults, paged};
use crate::{Counter, Policy};

fn with(policy: Policy) -> Machine {
    paged(Setup { policy, ..SETUP })
}

#[test]
fn a_fault_fills_the_run_of_used_entries_above_it() {
    let mut machine = with(Policy { prefetch: 8, ..Policy::DEFAULT });
    // Page 13 was never used, page 18 is in the next block.
    machine.write(LEAF_TABLE + 13 * 4, SUPERVISOR, 0xd007);
    machine.set_cr3(1);
    let before = count(&machine, Counter::SptePrefetched);
    machine.read(0xa000, USER);
    assert_eq!(count(&machine, Counter::SptePrefetched), before + 2, "11 and 12");
    let faulted = faults(&machine);
    for page in 10..13 {
        assert_eq!(machine.write(page << 12, USER, 0), Verdict::At(page << 12));
    }
    assert_eq!(faults(&machine), faulted);
    assert_eq!(machine.mmu.mem().word(LEAF_TABLE + 13 * 4), 0xd007, "A says what it said");
}

/// Loads each of the directories, and says how many roots had to be made.
fn misses(machine: &mut Machine, directories: &[u64]) -> u64 {
    let before = count(machine, Counter::RootMiss);
    for &directory in directories {
        machine.set_cr3(directory);
        assert_eq!(machine.read(0x5000, USER), Verdict::At(0x5000));
    }
    count(machine, Counter::RootMiss) - before
}

#[test]
fn the_root_cache_keeps_those_last_used() {
    for (root_cache, expected) in [(0, 5), (1, 2), (2, 1), (Policy::ALL_ROOTS, 1)] {
        let mut machine = with(Policy { root_cache, reuse_detection: false, ..Policy::DEFAULT });
        machine.write(0x4000, SUPERVISOR, 0x2067);
        misses(&mut machine, &[1, 3]);
        assert_eq!(misses(&mut machine, &[1, 4, 1, 3, 1]), expected, "{root_cache}");
        let dropped = count(&machine, Counter::RootDropped);
        assert_eq!(dropped == 0, root_cache == Policy::ALL_ROOTS, "{root_cache}: {dropped}");
        let tracked = |frame| machine.mmu.frames.get(crate::Gfn::new(frame)).unwrap().tables;
        assert_eq!(tracked(4) == 0, root_cache < 2, "{root_cache}: the directory goes with its root");
        assert!(tracked(2) > 0, "the leaf table stays");
    }
}

#[test]
fn a_flood_of_writes_gives_up_an_upper_table() {
    let mut machine = with(Policy { flood: 4, ..Policy::DEFAULT });
    machine.read(0x5000, USER);
    let fill = |machine: &mut Machine, first: u64, count: u64| {
        for entry in first..first + count {
            machine.write(0x1000 + entry * 4, SUPERVISOR, 0);
        }
    };
    fill(&mut machine, 8, 3);
    // A link in between says that the table is in use.
    machine.write(0x1004, SUPERVISOR, 0x2067);
    assert_eq!(count(&machine, Counter::TableFlooded), 1, "that was the fourth");
    machine.read(0x5000, USER);
    fill(&mut machine, 8, 3);
    machine.read(0x40_5000, USER);
    fill(&mut machine, 8, 3);
    assert_eq!(count(&machine, Counter::TableFlooded), 1);
    fill(&mut machine, 8, 1);
    assert_eq!(count(&machine, Counter::TableFlooded), 2);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x5000));
}

#[test]
fn a_run_of_rights_taken_gives_up_a_leaf_table() {
    for gone in [0u64, 0x65] {
        let mut machine = with(Policy { teardown: 3, ..Policy::DEFAULT });
        machine.write(0x1004, SUPERVISOR, 0x4067);
        let put = |machine: &mut Machine, page: u64, flags: u64| {
            machine.write(0x4000 + page * 4, SUPERVISOR, if flags == 0 { 0 } else { (page + 8) << 12 | flags });
        };
        for page in 0..12 {
            put(&mut machine, page, 0x67);
            machine.write(0x40_0000 + (page << 12), USER, 1);
        }
        put(&mut machine, 0, gone);
        put(&mut machine, 1, gone);
        put(&mut machine, 2, 0x67);
        put(&mut machine, 3, gone);
        put(&mut machine, 4, gone);
        assert_eq!(count(&machine, Counter::TableTornDown), 0, "the run was broken");
        let before = faults(&machine);
        for page in 5..12 {
            put(&mut machine, page, gone);
        }
        assert_eq!(count(&machine, Counter::TableTornDown), 1);
        assert_eq!(faults(&machine) - before, 2, "the third of the run, and one more; the rest is native");
        machine.set_cr3(1);
        assert!(matches!(machine.write(0x40_b000, USER, 1), Verdict::Fault(_)));
    }
}
