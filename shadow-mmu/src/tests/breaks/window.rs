//! Shadow code: I2, I3, I14.

use super::*;
use crate::tests::memory::pfn_of;
use crate::tests::scenarios::LEAF_TABLE;
use crate::tests::window::{DIRECTORY_ENTRY, SHADOW, WINDOW, fetch, map, windowed};
use crate::tests::{pae, window};
use crate::{CodeOutcome, Gva, Perms};

/// Runs code at 0x5000, which is in frame 5.
fn with_code(mut machine: Machine) -> Machine {
    let _ = fetch(&mut machine, 0x5000);
    map(&mut machine, 0x5000, 5);
    assert_eq!(fetch(&mut machine, 0x5000), CodeOutcome::Resume);
    machine
}

pub(super) fn seen(violation: Violation) -> AuditError {
    let guest_says = |at, entry| broken(with_code(windowed()), |mmu| store(mmu, at, entry));
    let entry = LEAF_TABLE + 5 * 4;
    match violation {
        Violation::CodeUnmapped => guest_says(entry, 0),
        Violation::CodeOtherFrame => guest_says(entry, 0x6067),
        Violation::CodeBeforeA => guest_says(entry, 0x5047),
        // The guest has something at the place.
        Violation::CodeMisplaced => guest_says(DIRECTORY_ENTRY, 0x2067),
        Violation::CodeRights => broken(with_code(windowed()), |mmu| {
            let entry = mmu.shadow_walk(Gva::new(WINDOW + 0x5000)).last().unwrap().entry;
            let slot = (entry.raw() & 0xfff) as usize / 8;
            mmu.tables.poke(entry.pfn(), slot, Spte::leaf(pfn_of(SHADOW), Perms::ALL));
        }),
        Violation::CodeForbidden => {
            // The upper half of an entry of 8 bytes.
            let machine = window::opened(pae::with_nx());
            broken(with_code(machine), |mmu| store(mmu, pae::TABLE + 5 * 8 + 4, 1 << 31))
        }
        Violation::CodeUnlisted => broken(with_code(window::opened(little_used(VTLB))), |mmu| {
            while let Some(page) = mmu.local.pop() {
                let page = mmu.pool.get_mut(page).unwrap();
                page.local = !page.key.role.code();
            }
        }),
        other => panic!("{other:?} is no matter of code"),
    }
}
