//! Large leaves, and the blocks that they map.

use super::super::huge::{AT, PDE, machine_with};
use super::super::memory::{BLOCK, pfn_of};
use super::*;
use crate::frames::Uses;
use crate::huge::Block;
use crate::links::NIL;
use crate::{Gfn, Perms, Pfn};

/// A large leaf at 6 MiB, and a small one beside it.
fn used(policy: Policy) -> Machine {
    let mut machine = machine_with(policy);
    machine.set_cr3(1);
    machine.write(AT, USER, 1);
    machine.read(0x40_5000, USER);
    machine
}

/// The entry of 6 MiB.
const SLOT: usize = 3;

fn poke_large(mmu: &mut Mmu, spte: Spte) {
    poke(mmu, Level::L2, SLOT, spte);
}

fn large(pfn: Pfn) -> Spte {
    Spte::leaf(pfn, Perms::ALL).large()
}

fn block(mmu: &mut Mmu, frame: u64) -> &mut Block {
    mmu.blocks.find_mut(Gfn::new(frame)).unwrap()
}

pub(super) fn seen(violation: Violation) -> AuditError {
    if violation == Violation::LargeUnlisted {
        return broken(used(VTLB), |mmu| {
            let directory = page(mmu, Level::L2);
            mmu.local.retain(|&page| page != directory);
            mmu.pool.get_mut(directory).unwrap().local = false;
        });
    }
    let first = pfn_of(BLOCK.start);
    broken(used(DEFAULT), |mmu| match violation {
        Violation::LargeElsewhere => poke_large(mmu, large(Pfn::new(first.raw() + 0x200))),
        Violation::BlockTracked => mmu.frames.get_mut(Gfn::new(0x3ff)).unwrap().watches = 1,
        Violation::LargeMisplaced => poke_large(mmu, Spte::leaf(first, Perms::ALL)),
        Violation::BlockForeign => {
            let small = mmu.frames.get(Gfn::new(5)).unwrap().rmap;
            block(mmu, BLOCK.start).rmap = small;
        }
        Violation::BlockLacks => block(mmu, BLOCK.start).rmap = NIL,
        Violation::BlockAway => mmu.mem().absent.set(Some(Gfn::new(0x2aa))),
        Violation::BlockUnused => mmu.frames.get_mut(Gfn::new(0x2aa)).unwrap().uses.remove(Uses::LOGGED),
        Violation::LargeUnwanted => mmu.policy.huge = false,
        Violation::LargeMisaligned => poke_large(mmu, large(Pfn::new(first.raw() + 1))),
        Violation::BlockNotClear => block(mmu, BLOCK.start).clear = false,
        Violation::BlockInPieces => block(mmu, 0).clear = true,
        other => panic!("{other:?} is not about large leaves"),
    })
}

#[test]
fn i2_and_i3_a_large_leaf_grants_more_than_the_guest() {
    for (invariant, entry) in [(2, 0xe5), (2, 0xe3), (2, 0x40_00e7), (2, 0), (2, 0x2067), (3, 0xc7), (3, 0xa7)] {
        let error = broken(used(DEFAULT), |mmu| {
            // The other half, which is small, would be seen first.
            let directory = page(mmu, Level::L2);
            mmu.zap(directory, SLOT - 1).unwrap();
            let _ = mmu.take_plan();
            store(mmu, PDE, entry);
        });
        assert_eq!(error.invariant, invariant, "{entry:#x}: {error}");
    }
}

#[test]
fn i4_and_i13_a_frame_of_a_large_leaf_changes_behind_its_back() {
    let frame = |breakage: fn(&mut crate::frames::Frame)| {
        broken(used(DEFAULT), |mmu| breakage(mmu.frames.get_mut(Gfn::new(0x222)).unwrap())).invariant
    };
    assert_eq!(frame(|frame| frame.watches = 1), 4);
    assert_eq!(frame(|frame| frame.uses.remove(Uses::ACCESSED)), 13);
    assert_eq!(frame(|frame| frame.uses.remove(Uses::WRITTEN)), 13);
}

#[test]
fn i6_a_large_entry_and_its_bookkeeping_differ() {
    assert_eq!(broken(used(DEFAULT), |mmu| poke_large(mmu, Spte::ABSENT)).invariant, 6);
}
