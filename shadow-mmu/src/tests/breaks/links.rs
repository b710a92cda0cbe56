//! Links between pages, the reverse map, keys, and the pool: I2, I3, I4, I6, I7, I9, I10, I12, I13.

use super::*;
use crate::links::NIL;
use crate::pte::Legacy32;
use crate::tests::memory::pfn_of;
use crate::walk::Walk;
use crate::{Gfn, Gva, Key, Perms, Role};

pub(super) fn seen(violation: Violation) -> AuditError {
    match violation {
        Violation::PlaceNamesTable => broken(little_used(VTLB), |mmu| {
            let index = page(mmu, Level::L1);
            mmu.pool.get_mut(index).unwrap().key.gfn = Gfn::new(1);
        }),
        Violation::PlaceShared => broken(little_used(VTLB), |mmu| {
            let (upper, lower) = (page(mmu, Level::L2), page(mmu, Level::L1));
            link(mmu, (upper, 7), lower);
        }),
        _ => broken(running_machine(), |mmu| wreck(mmu, violation)),
    }
}

fn wreck(mmu: &mut Mmu, violation: Violation) {
    let (upper, leaves) = (page(mmu, Level::L2), page(mmu, Level::L1));
    match violation {
        // The guest's directory entry names another table, or loses A.
        Violation::OtherTable => store(mmu, 0x1000, 0x3067),
        Violation::TableUnused => store(mmu, 0x1000, 0x2047),
        Violation::TablesMiscounted => mmu.frames.get_mut(Gfn::new(2)).unwrap().tables = 2,
        Violation::BitsDiffer => poke(mmu, Level::L1, 5, Spte::ABSENT),
        Violation::RmapForeign => {
            let other = mmu.frames.get(Gfn::new(6)).unwrap().rmap;
            mmu.frames.get_mut(Gfn::new(5)).unwrap().rmap = other;
        }
        Violation::RmapLacks => mmu.frames.get_mut(Gfn::new(5)).unwrap().rmap = NIL,
        Violation::FreeNamed => {
            let free = free_page(mmu);
            mmu.pool.get_mut(free).unwrap().parents = node_of(upper, 0);
        }
        Violation::LinkElsewhere => {
            let other = page(mmu, Level::L3);
            mmu.links.corrupt(node_of(upper, 0), other);
        }
        Violation::ParentForeign => mmu.pool.get_mut(leaves).unwrap().parents = node_of(leaves, 5),
        Violation::ParentLacks => mmu.pool.get_mut(leaves).unwrap().parents = NIL,
        Violation::PathElsewhere => {
            let walk = Walk { leaf: 1, ..Walk::flat(Gva::new(0x5000)) };
            mmu.keep_path::<Legacy32>(&walk, Gva::new(0x5000), upper).unwrap();
        }
        Violation::Nowhere => mmu.links.corrupt(node_of(upper, 0), 9_999),
        Violation::KeyLost => {
            // The frame's sptes stay read-only, so that only the chain is wrong.
            let frame = mmu.frames.get_mut(Gfn::new(2)).unwrap();
            assert_eq!(core::mem::replace(&mut frame.pages, NIL), leaves);
            frame.tables = 0;
        }
        Violation::ChainForeign => mmu.frames.get_mut(Gfn::new(9)).unwrap().pages = leaves,
        Violation::KeyTwice => {
            let key = mmu.pool.get(leaves).unwrap().key;
            let mut room = mmu.pool.reserve(1).unwrap();
            mmu.make(key, &mut room).unwrap();
        }
        Violation::FreeNotEmpty => {
            let free = free_page(mmu);
            let table = mmu.pool.get(free).unwrap().pfn;
            mmu.tables.poke(table, 3, Spte::leaf(pfn_of(5), Perms::ALL));
        }
        Violation::TableAway => {
            mmu.unmap(Gfn::new(2)).unwrap();
            mmu.mem().absent.set(Some(Gfn::new(2)));
        }
        Violation::PoolLists => {
            let mut room = mmu.pool.reserve(1).unwrap();
            let index = mmu.pool.take(&mut room, Key { gfn: Gfn::new(9), role: Role::NONE }).unwrap();
            mmu.pool.get_mut(index).unwrap().live = false;
        }
        other => panic!("{other:?} is no matter of links"),
    }
}

fn free_page(mmu: &Mmu) -> u32 {
    mmu.pool.iter().find(|(_, page)| !page.live).unwrap().0
}

#[test]
fn i6_an_entry_is_there_that_nobody_made() {
    breaks(6, |mmu| poke(mmu, Level::L1, 40, Spte::leaf(pfn_of(5), Perms::ALL)));
}

#[test]
fn i10_a_free_page_has_a_mark() {
    for mark in [crate::pool::Page::set_present, crate::pool::Page::set_gap] {
        breaks(10, |mmu| {
            let free = free_page(mmu);
            mark(mmu.pool.get_mut(free).unwrap(), 3);
        });
    }
}
