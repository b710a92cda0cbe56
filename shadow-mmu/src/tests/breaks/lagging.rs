//! What lags behind the guest's tables, or says more than they: tables out of sync, the virtual TLB, gaps. I5, I14, I15.

use super::*;
use crate::Gfn;

pub(super) fn seen(violation: Violation) -> AuditError {
    match violation {
        Violation::LeafUnlisted => broken(little_used(VTLB), |mmu| {
            let page = mmu.local.pop().unwrap();
            mmu.pool.get_mut(page).unwrap().local = false;
        }),
        Violation::LocalUnlisted => broken(little_used(VTLB), |mmu| assert!(mmu.local.pop().is_some())),
        Violation::GapUnwanted => broken(little_used(GAPS), |mmu| mmu.policy.mark_absent = false),
        Violation::GapUnfollowed => broken(little_used(GAPS), |mmu| out_of_sync(mmu, 2)),
        Violation::GapLies => broken(little_used(GAPS), |mmu| store(mmu, 0x2000 + 40 * 4, 0x8007)),
        _ => broken(running_machine(), |mmu| match violation {
            Violation::UnsyncUnlisted => mmu.unsync.force(Gfn::new(2)),
            Violation::UnsyncUpper => out_of_sync(mmu, 1),
            Violation::UnsyncNoTable => out_of_sync(mmu, 9),
            // This machine has no snapshots.
            Violation::UnsyncTooMany => out_of_sync(mmu, 2),
            other => panic!("{other:?} does not lag"),
        }),
    }
}

fn out_of_sync(mmu: &mut Mmu, gfn: u64) {
    mmu.frames.get_mut(Gfn::new(gfn)).unwrap().snapshot = 1;
    mmu.unsync.force(Gfn::new(gfn));
}

#[test]
fn i5_a_watched_table_or_one_that_is_not_listed_is_out_of_sync() {
    breaks(5, |mmu| {
        out_of_sync(mmu, 2);
        mmu.frames.get_mut(Gfn::new(2)).unwrap().watches = 1;
    });
    breaks(5, |mmu| mmu.frames.get_mut(Gfn::new(2)).unwrap().snapshot = 1);
}

#[test]
fn i5_a_snapshot_is_not_what_the_shadow_was_made_of() {
    let policy = Policy { sync: SyncPolicy::UNSYNC, patience: 0, ..DEFAULT };
    let breaks_byte = |byte: usize| {
        let mut machine = machine_with(policy);
        machine.read(0x2000, SUPERVISOR);
        // The table is mapped by itself, and goes out of sync. Entry 7 is no more than the guest's own business.
        machine.write(0x2000 + 7 * 4, SUPERVISOR, 0);
        let number = machine.mmu.frames.get(Gfn::new(2)).unwrap().snapshot;
        assert_ne!(number, 0, "out of sync");
        machine.mmu.audit().expect("sound before");
        machine.mmu.unsync.corrupt(number, byte);
        machine.mmu.audit()
    };
    // Flags of an entry that is present, its frame, and an entry that the shadow does not have.
    assert_eq!(breaks_byte(5 * 4).expect_err("seen").invariant, 5);
    assert_eq!(breaks_byte(5 * 4 + 1).expect_err("seen").invariant, 5);
    breaks_byte(100 * 4).expect("nothing depends on it");
}

#[test]
fn i15_a_gap_is_where_the_pool_knows_of_one() {
    assert_eq!(broken(little_used(GAPS), |mmu| poke(mmu, Level::L1, 40, Spte::ABSENT)).invariant, 15);
    assert_eq!(broken(little_used(GAPS), |mmu| poke(mmu, Level::L1, 41, Spte::GAP)).invariant, 2);
}
