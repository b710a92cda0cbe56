//! Breaks each invariant on purpose and sees the audit fire.

use super::machine::{Machine, ROM};
use crate::second::{Ept, SecondFormat, SecondLeaf};
use crate::{AccessKind, AuditError, Gfn, Level, Pfn, Spte, Violation};

const PLACE: u64 = 5;

/// A machine with RAM frame 5 and the ROM mapped, and room for a GiB more; what the audit says after a change. `change` gets the L1
/// table of frame 5, and the entry there.
fn audited(change: impl FnOnce(&mut Machine<Ept>, Pfn, Spte)) -> Option<AuditError> {
    let mut m = Machine::<Ept>::new(8, |config| config.guest_frames = 1 << 19);
    m.access(PLACE, AccessKind::Write).unwrap();
    m.access(ROM, AccessKind::Read).unwrap();
    m.audit();
    let table = leaf_table(&m, PLACE);
    let entry = m.store.borrow().load(table, PLACE as usize);
    change(&mut m, table, entry);
    m.second.audit(&m.slots).err()
}

/// The numbers of the invariants that a change breaks.
fn broken(change: impl FnOnce(&mut Machine<Ept>, Pfn, Spte)) -> Option<u8> {
    audited(change).map(|error| error.invariant)
}

/// The L1 table for a frame.
fn leaf_table(m: &Machine<Ept>, gfn: u64) -> Pfn {
    let down = |table, shift: u32| m.store.borrow().load(table, (gfn >> shift & 511) as usize).pfn();
    [27, 18, 9].into_iter().fold(m.second.root().table, down)
}

/// The numbers of the first L1 table, and of a region of 2 MiB and of one of a GiB that have no tables.
const TABLE: u32 = 3;
const FREE_REGION: Gfn = Gfn::new(3 << 9);
const FREE_GIB: Gfn = Gfn::new(1 << 18);

/// What the audit says when the thing is broken that a check is about.
pub(crate) fn seen(violation: Violation) -> AuditError {
    let error = audited(|m, table, entry| {
        let poke = |table, slot, spte| m.store.borrow_mut().poke(table, slot, spte);
        let at = PLACE as usize;
        match violation {
            Violation::SecondBeyond => {
                // The machine's own tables end with the second GiB.
                m.second.frames.truncate(ROM as usize);
            }
            Violation::SecondForeign => poke(table, at, leaf(Pfn::new(0x77), true)),
            Violation::SecondMalformed => poke(table, at, Spte::from_raw(entry.raw() ^ 1)),
            Violation::SecondRom => poke(leaf_table(m, ROM), (ROM & 511) as usize, leaf(m.slots.pfn(ROM), true)),
            Violation::SecondDirty => {
                let leaf = SecondLeaf { pfn: entry.pfn(), writable: false, accessed: true, dirty: true };
                poke(table, at, Ept::leaf(leaf, Level::L1));
            }
            Violation::SecondWatched => {
                let _ = m.second.watch(Gfn::new(PLACE));
                m.store.borrow_mut().poke(table, at, entry);
            }
            Violation::SecondNowhere => poke(m.second.root().table, 7, Ept::table(table)),
            Violation::SecondMiscounted => poke(table, at, Spte::ABSENT),
            Violation::SecondOrphan => drop(m.second.arena.take(FREE_GIB, Level::L1).unwrap()),
            Violation::SecondUnnamed => drop(m.second.arena.take(FREE_REGION, Level::L1).unwrap()),
            Violation::SecondRoots => m.second.root = TABLE,
            Violation::SecondLost => m.second.arena.get_mut(TABLE).unwrap().region = 2,
            Violation::SecondPool => m.second.arena.get_mut(TABLE).unwrap().level = None,
            other => panic!("{other:?} is no matter of the second level"),
        }
    });
    error.expect("the audit must see it")
}

fn leaf(pfn: Pfn, writable: bool) -> Spte {
    Ept::leaf(SecondLeaf { pfn, writable, accessed: true, dirty: writable }, Level::L1)
}

#[test]
fn i1_a_leaf_maps_a_foreign_frame() {
    let at = PLACE as usize;
    assert_eq!(broken(|m, table, _| m.store.borrow_mut().poke(table, at, leaf(Pfn::new(0x77), true))), Some(1));
    assert_eq!(broken(|m, _, _| m.slots.move_frame(PLACE)), Some(1), "memory moved without an unmap");
}

#[test]
fn i2_rom_is_writable_or_an_entry_is_malformed() {
    let rom = |m: &mut Machine<Ept>, _: Pfn, _: Spte| {
        let (table, leaf) = (leaf_table(m, ROM), leaf(m.slots.pfn(ROM), true));
        m.store.borrow_mut().poke(table, (ROM & 511) as usize, leaf);
    };
    assert_eq!(broken(rom), Some(2));
    let at = PLACE as usize;
    let flip = |bit: u64| broken(|m, t, e| m.store.borrow_mut().poke(t, at, Spte::from_raw(e.raw() ^ bit)));
    assert_eq!(flip(1), Some(2), "writable but not readable");
    assert_eq!(flip(1 << 3), Some(2), "memory type 7");
}

#[test]
fn i4_a_watched_frame_is_writable() {
    let change = |m: &mut Machine<Ept>, table: Pfn, entry: Spte| {
        assert!(m.second.watch(Gfn::new(PLACE)).is_all());
        m.store.borrow_mut().poke(table, PLACE as usize, entry);
    };
    assert_eq!(broken(change), Some(4));
}

#[test]
fn i7_a_link_or_a_count_is_wrong() {
    assert_eq!(broken(|m, table, _| m.store.borrow_mut().poke(table, PLACE as usize, Spte::ABSENT)), Some(7));
    let unlink = |m: &mut Machine<Ept>, _: Pfn, _: Spte| {
        let root = m.second.root().table;
        m.store.borrow_mut().poke(root, 0, Spte::ABSENT);
    };
    assert_eq!(broken(unlink), Some(7));
}
