//! The host's clocks: the time stamp counter, measured against the 8254, and the 8254 as a one-shot timer.
//!
//! Source: Intel 8254 data sheet; port 0x61 as in the IBM PC AT technical reference.

use core::sync::atomic::{AtomicU64, Ordering};
use x86::io::{inb, outb};

/// The 8254's clock in Hz.
const PIT_HZ: u64 = 1_193_182;
/// The longest one shot, in ticks of the 8254: 16 bits, 0 meaning 65536 left out.
const PIT_MAX: u64 = 0xffff;
/// How long the measurement takes, in ticks: 10 ms.
const MEASURE: u16 = 11_932;

const CHANNEL_0: u16 = 0x40;
const CHANNEL_2: u16 = 0x42;
const MODE: u16 = 0x43;
const SYSTEM: u16 = 0x61;

static HZ: AtomicU64 = AtomicU64::new(1_000_000_000);

/// The time stamp counter.
#[must_use]
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: RDTSC reads a counter; CR4.TSD does not bind ring 0.
    unsafe { x86::time::rdtsc() }
}

/// Its frequency, as measured at boot (one part in a thousand or so); 1 GHz before that.
#[must_use]
#[inline]
pub fn tsc_hz() -> u64 {
    HZ.load(Ordering::Relaxed)
}

/// Stops the periodic timer that the firmware left running on channel 0, and measures the TSC's frequency: channel 2 counts
/// down 10 ms in mode 0.
pub(crate) fn init() {
    // Expires while the measurement runs, before the interrupt controllers listen; after that channel 0 is silent.
    arm_timer(0);
    // SAFETY: timer and speaker ports have no effect on memory. Channel 2 is the speaker's, which stays off (bit 1).
    let ticks = unsafe {
        let system = inb(SYSTEM) & !3;
        outb(SYSTEM, system | 1);
        outb(MODE, 0xb0);
        outb(CHANNEL_2, MEASURE as u8);
        outb(CHANNEL_2, (MEASURE >> 8) as u8);
        let start = tsc();
        while inb(SYSTEM) & 0x20 == 0 {}
        let ticks = tsc() - start;
        outb(SYSTEM, system);
        ticks
    };
    HZ.store((ticks * PIT_HZ / u64::from(MEASURE)).max(1), Ordering::Relaxed);
}

/// The 8254 count for a deadline `cycles` of the TSC away, at `hz`: at least 1, and no later than the timer can count.
fn count(cycles: u64, hz: u64) -> u16 {
    let ticks = u128::from(cycles) * u128::from(PIT_HZ) / u128::from(hz.max(1));
    ticks.clamp(1, u128::from(PIT_MAX)) as u16
}

/// Raises host interrupt 0 once, when the TSC reaches `deadline`, at once if that is past. The timer counts 55 ms at most: a
/// later deadline interrupts early, and the caller arms it again. Each call replaces the one before.
pub fn arm_timer(deadline: u64) {
    let count = count(deadline.saturating_sub(tsc()), tsc_hz());
    // SAFETY: the timer's ports have no effect on memory.
    unsafe {
        outb(MODE, 0x30);
        outb(CHANNEL_0, count as u8);
        outb(CHANNEL_0, (count >> 8) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_becomes_a_count() {
        assert_eq!(count(0, 1_000_000_000), 1);
        assert_eq!(count(1_000_000, 1_000_000_000), 1193);
        assert_eq!(count(u64::MAX, 1), 0xffff);
        assert_eq!(count(1, 0), 0xffff);
    }
}
