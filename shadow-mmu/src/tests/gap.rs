//! Gaps: true faults that need no walk.

use super::machine::{Machine, SUPERVISOR, Setup, USER};
use super::reference::Verdict;
use super::scenarios::{LEAF_TABLE, SETUP, count, paged};
use crate::{Counter, EagerFill, Policy, SyncPolicy};

const GAPS: Policy = Policy { mark_absent: true, ..Policy::DEFAULT };

/// A machine on whose page 40 nothing is, in a table that is in use. No link was taken away since the last flush.
fn with(policy: Policy) -> Machine {
    let mut machine = paged(Setup { policy, caching: false, ..SETUP });
    machine.read(0x5000, USER);
    machine.read(LEAF_TABLE, SUPERVISOR);
    machine.set_cr3(1);
    machine
}

fn known(machine: &Machine) -> u64 {
    count(machine, Counter::AbsentKnown)
}

#[test]
fn the_second_fault_of_an_absent_page_needs_no_walk() {
    let mut machine = with(GAPS);
    assert_eq!(machine.read(0x28000, USER), Verdict::Fault(4));
    assert_eq!(known(&machine), 0);
    for _ in 0..3 {
        assert_eq!(machine.read(0x28000, USER), Verdict::Fault(4));
        assert_eq!(machine.write(0x28000, SUPERVISOR, 0), Verdict::Fault(2));
    }
    assert_eq!(known(&machine), 6);
    // A whole directory entry.
    assert_eq!(machine.read(0x1234_5000, USER), Verdict::Fault(4));
    assert_eq!(machine.read(0x1234_5000, USER), Verdict::Fault(4));
    assert_eq!(machine.read(0x1235_5000, USER), Verdict::Fault(4), "the same entry");
    assert_eq!(known(&machine), 8);
}

#[test]
fn what_the_guest_clears_is_known_at_the_first_fault() {
    let mut machine = with(GAPS);
    machine.write(LEAF_TABLE + 5 * 4, SUPERVISOR, 0);
    machine.invlpg(0x5000);
    assert_eq!(machine.read(0x5000, USER), Verdict::Fault(4));
    assert_eq!(known(&machine), 1);
}

#[test]
fn an_entry_that_becomes_present_needs_no_flush() {
    for (eager_fill, sync) in [
        (EagerFill::IfAccessed, SyncPolicy::WriteProtect),
        (EagerFill::Never, SyncPolicy::WriteProtect),
        (EagerFill::IfAccessed, SyncPolicy::UNSYNC),
        (EagerFill::Never, SyncPolicy::VirtualTlb),
    ] {
        for flags in [0x07, 0x67] {
            let mut machine = with(Policy { eager_fill, sync, patience: 0, ..GAPS });
            assert_eq!(machine.read(0x28000, USER), Verdict::Fault(4));
            machine.write(LEAF_TABLE + 40 * 4, SUPERVISOR, 0x8000 | flags);
            assert_eq!(machine.read(0x28000, USER), Verdict::At(0x8000), "{sync:?} {eager_fill:?} {flags:#x}");
            assert_eq!(machine.read(0x1234_5000, USER), Verdict::Fault(4));
            machine.write(0x1000 + 0x48 * 4, SUPERVISOR, 0x2067);
            assert_eq!(machine.read(0x1200_5000, USER), Verdict::At(0x5000));
        }
    }
}

#[test]
fn a_table_that_goes_out_of_sync_loses_its_gaps() {
    let mut machine = with(Policy { sync: SyncPolicy::UNSYNC, patience: 0, ..GAPS });
    for _ in 0..2 {
        assert_eq!(machine.read(0x28000, USER), Verdict::Fault(4));
    }
    assert_eq!(known(&machine), 1);
    // A write of another entry, after which this one can be written unseen.
    machine.write(LEAF_TABLE + 41 * 4, SUPERVISOR, 0);
    assert_eq!(count(&machine, Counter::TableUnsynced), 1);
    for _ in 0..2 {
        assert_eq!(machine.read(0x28000, USER), Verdict::Fault(4));
    }
    assert_eq!(known(&machine), 1, "no gaps out of sync");
    machine.set_cr3(1);
    for _ in 0..2 {
        assert_eq!(machine.read(0x28000, USER), Verdict::Fault(4));
    }
    assert_eq!(known(&machine), 2);
}

#[test]
fn over_a_link_that_has_gone_there_is_a_walk() {
    let mut machine = with(GAPS);
    for _ in 0..2 {
        assert_eq!(machine.read(0x28000, USER), Verdict::Fault(4));
    }
    machine.write(0x4000 + 40 * 4, SUPERVISOR, 0x9067);
    machine.write(0x1000, SUPERVISOR, 0x4067);
    // The CPU may find the gap in the table that is no longer there.
    let fault = crate::Fault {
        gva: crate::Gva::new(0x28000),
        access: crate::Access { kind: crate::AccessKind::Read, privilege: USER },
    };
    assert_eq!(machine.mmu.known_absent(fault), None);
    assert_eq!(machine.read(0x28000, USER), Verdict::At(0x9000));
    machine.set_cr3(1);
    assert!(machine.mmu.known_absent(fault).is_some(), "nobody remembers it now");
}

#[test]
fn without_the_switch_there_are_none() {
    let mut machine = with(Policy::DEFAULT);
    for _ in 0..2 {
        assert_eq!(machine.read(0x28000, USER), Verdict::Fault(4));
    }
    assert_eq!((known(&machine), count(&machine, Counter::AbsentMarked)), (0, 0));
}
