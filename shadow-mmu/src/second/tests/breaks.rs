//! Breaks each invariant on purpose and sees the audit fire.

use super::machine::{Machine, ROM};
use crate::second::{Ept, SecondFormat, SecondLeaf};
use crate::{AccessKind, Gfn, Level, Pfn, Spte};

const PLACE: u64 = 5;

/// A machine with RAM frame 5 and the ROM mapped, its L1 table, and the numbers of the invariants that a change breaks.
fn broken(change: impl FnOnce(&mut Machine<Ept>, Pfn, Spte)) -> Option<u8> {
    let mut m = Machine::<Ept>::new(8, |_| {});
    m.access(PLACE, AccessKind::Write).unwrap();
    m.access(ROM, AccessKind::Read).unwrap();
    m.audit();
    let mut table = m.second.root().table;
    for _ in 0..3 {
        table = m.store.borrow().load(table, 0).pfn();
    }
    let entry = m.store.borrow().load(table, PLACE as usize);
    change(&mut m, table, entry);
    m.second.audit(&m.slots).err().map(|error| error.invariant)
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
        let pfn = m.slots.pfn(ROM);
        let mut table = m.second.root().table;
        for shift in [27, 18, 9] {
            table = m.store.borrow().load(table, (ROM >> shift & 511) as usize).pfn();
        }
        m.store.borrow_mut().poke(table, (ROM & 511) as usize, leaf(pfn, true));
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
