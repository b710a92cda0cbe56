//! A whole run from bytes: how the machine is built, then event after event.

use shadow_mmu::{EagerFill, Policy, SyncPolicy};

use crate::event::{self, Event, MODES};
use crate::machine::{Machine, Setup};
use crate::reference::{Features, PSE};

/// Bytes that say how the machine is built.
pub const SETUP: usize = 8;

/// How tables are kept in step.
const SYNC: [SyncPolicy; 4] =
    [SyncPolicy::WriteProtect, SyncPolicy::UNSYNC, SyncPolicy::VirtualTlb, SyncPolicy::Unsync { tables: 1 }];

/// The machine that bytes stand for.
#[must_use]
pub fn setup(bytes: [u8; SETUP]) -> Setup {
    let [pool, switches, _, _, ahead, roots, flood, teardown] = bytes;
    let on = |bit: u32| switches >> bit & 1 != 0;
    let policy = Policy {
        sync: SYNC[usize::from(switches >> 5) % SYNC.len()],
        eager_fill: if on(0) { EagerFill::IfAccessed } else { EagerFill::Never },
        reuse_detection: on(1),
        patience: ahead >> 4 & 3,
        prefetch: 1 << (usize::from(ahead & 15) % 10),
        root_cache: [Policy::ALL_ROOTS, 0, 1, 2][usize::from(roots) % 4],
        flood: flood & 7,
        teardown: teardown & 7,
        keep_global: roots >> 2 & 1 == 0,
        mark_absent: roots >> 3 & 1 != 0,
        huge: roots >> 4 & 1 != 0,
        fill_ahead: roots >> 5 & 1 == 0,
    };
    let (pool, shape) = ([16, 24, 48, 200][usize::from(pool & 3)], pool >> 2);
    let width = [36, 36, 32, 40, 46, 52, 33, 38][usize::from(shape & 7)];
    let features = Features { width, gib_pages: shape >> 3 & 3 != 0 };
    Setup {
        pool,
        policy,
        caching: on(2),
        speculating: on(2) && shape >> 5 & 1 != 0,
        stepping: on(3) && on(4),
        code: flood >> 3 & 3 == 1,
        keys: teardown >> 3 & 1 != 0,
        features,
    }
}

/// Runs a guest. Panics where the library and the reference differ. What happened goes to `tell`, before it happens.
pub fn run(first: [u8; SETUP], events: &[[u8; event::SIZE]], mut tell: impl FnMut(&Event)) -> Machine {
    let mut machine = Machine::new(setup(first));
    machine.set_cr4(PSE, true);
    let [_, _, mode, variant, ..] = first;
    let mode = MODES[usize::from(mode) % MODES.len()];
    machine.event(Event::Rebuild(mode, u32::from(variant).wrapping_mul(0x8103_0507)));
    for bytes in events {
        let event = event::decode(bytes, machine.regs().mode());
        tell(&event);
        machine.event(event);
    }
    machine
}
