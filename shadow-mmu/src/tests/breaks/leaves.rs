//! Leaves: I1 to I4, I13.

use super::*;
use crate::frames::Uses;
use crate::tests::memory::{MMIO, ROM, pfn_of};
use crate::{Gfn, Perms, Pfn};

/// Where the guest's entry of page 5 is.
const ENTRY: u64 = 0x2000 + 5 * 4;

pub(super) fn seen(violation: Violation) -> AuditError {
    let guest_says = |entry| broken(running_machine(), |mmu| store(mmu, ENTRY, entry));
    let unused = |uses| broken(running_machine(), |mmu| mmu.frames.get_mut(Gfn::new(9)).unwrap().uses.remove(uses));
    match violation {
        Violation::UnmappedByGuest => guest_says(0),
        Violation::OtherFrame => guest_says(0x6067),
        Violation::OtherRights => guest_says(0x5065),
        Violation::LeafBeforeA => guest_says(0x5047),
        Violation::WritableBeforeD => guest_says(0x5027),
        Violation::NotAccessed => unused(Uses::ACCESSED),
        Violation::NotWritten => unused(Uses::WRITTEN),
        _ => broken(running_machine(), |mmu| match violation {
            Violation::NoMemory => mmu.links.corrupt(node_of(page(mmu, Level::L1), 5), MMIO as u32),
            Violation::ForeignFrame => poke(mmu, Level::L1, 5, Spte::leaf(Pfn::new(0x9999), Perms::ALL)),
            Violation::RomWritable => {
                mmu.links.corrupt(node_of(page(mmu, Level::L1), 5), ROM as u32);
                poke(mmu, Level::L1, 5, Spte::leaf(pfn_of(ROM), Perms::ALL));
            }
            Violation::AbsentNotZero => poke(mmu, Level::L1, 100, Spte::from_raw(0x1000)),
            Violation::TrackedWritable => poke(mmu, Level::L1, 1, Spte::leaf(pfn_of(1), Perms::ALL)),
            Violation::FrameAway => mmu.mem().absent.set(Some(Gfn::new(9))),
            other => panic!("{other:?} is no matter of leaves"),
        }),
    }
}

#[test]
fn i2_an_entry_grants_what_the_memory_does_not() {
    let mut machine = running_machine();
    machine.write(0x2000 + 20 * 4, SUPERVISOR, ROM << 12 | 0x67);
    machine.read(20 << 12, USER);
    let error = broken(machine, |mmu| poke(mmu, Level::L1, 20, Spte::leaf(pfn_of(ROM), Perms::ALL)));
    assert_eq!(error.invariant, 2);
}

#[test]
fn i4_a_frame_becomes_tracked_while_it_is_writable() {
    breaks(4, |mmu| mmu.frames.get_mut(Gfn::new(9)).unwrap().watches = 1);
}

#[test]
fn i13_a_frame_is_writable_while_its_writes_are_logged() {
    breaks(13, |mmu| mmu.frames.get_mut(Gfn::new(9)).unwrap().uses.remove(Uses::LOGGED));
}
