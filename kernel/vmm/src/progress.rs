//! Finds guests that cannot get on: the same fault with the same registers, again and again.
//!
//! Nothing but a device or another CPU could end such a loop. A guest that makes any progress between two faults (a loop counter,
//! another address) is left alone, however often it faults.

use gnomon_hw::GuestContext;

/// Identical faults in a row before a VM is stopped. Timers end a fault loop on a PC as well; a guest with interrupts on gets that
/// many chances.
const LIMIT: u32 = 200_000;

/// After so many faults the guest's state is taken to be compared with.
const SAMPLES: u32 = 1024;

/// General registers that 32-bit code has.
const GPRS: usize = 8;

/// A fault, as far as a guest that is stuck repeats it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fault {
    rip: u64,
    rsp: u64,
    address: u64,
    gpr: [u64; GPRS],
}

/// A fault of the past, and how often it came since.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    sample: Fault,
    faults: u32,
    repeats: u32,
}

impl Progress {
    /// Notes a fault; returns whether the guest is stuck.
    #[inline]
    pub(crate) fn stuck(&mut self, context: &GuestContext, address: u64) -> bool {
        self.faults = self.faults.wrapping_add(1);
        let sample = &self.sample;
        // The first difference decides, which is nearly always among these.
        let differs = |(one, other): (&u64, &u64)| one != other;
        if sample.address != address || sample.rip != context.rip || sample.gpr.iter().zip(&context.gpr).any(differs) {
            self.repeats = 0;
            if self.faults.is_multiple_of(SAMPLES) {
                self.take(context, address);
            }
            return false;
        }
        self.repeat(context)
    }

    #[cold]
    fn take(&mut self, context: &GuestContext, address: u64) {
        let gpr = context.gpr.first_chunk().copied().unwrap_or_default();
        self.sample = Fault { rip: context.rip, rsp: context.rsp, address, gpr };
    }

    #[cold]
    fn repeat(&mut self, context: &GuestContext) -> bool {
        self.repeats = if self.sample.rsp == context.rsp { self.repeats.saturating_add(1) } else { 0 };
        self.repeats >= LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(progress: &mut Progress, count: u32, mut change: impl FnMut(&mut GuestContext, u32)) -> bool {
        (0..count).any(|number| {
            let mut context = GuestContext { rip: 0x1000, rsp: 0x2000, ..GuestContext::default() };
            change(&mut context, number);
            progress.stuck(&context, 0x4000_0000)
        })
    }

    #[test]
    fn the_same_fault_for_ever_is_found() {
        assert!(faults(&mut Progress::default(), LIMIT + SAMPLES + 1, |_, _| {}));
    }

    #[test]
    fn a_counter_is_progress() {
        assert!(!faults(&mut Progress::default(), 2 * LIMIT, |context, number| context.gpr[1] = number.into()));
        assert!(!faults(&mut Progress::default(), 2 * LIMIT, |context, number| context.rsp = number.into()));
    }

    #[test]
    fn one_other_fault_between_starts_anew() {
        let mut progress = Progress::default();
        assert!(!faults(&mut progress, LIMIT, |_, _| {}));
        assert!(!faults(&mut progress, 1, |context, _| context.rip = 0));
        assert!(!faults(&mut progress, LIMIT - SAMPLES, |_, _| {}));
    }
}
