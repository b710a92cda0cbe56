//! Finds guests that cannot get on: the same fault with the same registers, again and again.
//!
//! Nothing but a device or another CPU could end such a loop. A guest that makes any progress between two faults (a loop counter,
//! another address) is left alone, however often it faults.

use gnomon_hw::GuestContext;

/// Identical faults in a row before a VM is stopped. Timers end a fault loop on a PC as well; a guest with interrupts on gets that
/// many chances.
const LIMIT: u32 = 200_000;

/// The last fault and how often it repeated.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    state: u64,
    repeats: u32,
}

impl Progress {
    /// Notes a fault; returns whether the guest is stuck.
    pub(crate) fn stuck(&mut self, context: &GuestContext, address: u64) -> bool {
        let state = context
            .gpr
            .iter()
            .chain(&[context.rip, context.rsp, address])
            .fold(0_u64, |hash, value| (hash ^ value).rotate_left(9).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if state == self.state {
            self.repeats = self.repeats.saturating_add(1);
        } else {
            *self = Self { state, repeats: 0 };
        }
        self.repeats >= LIMIT
    }
}
