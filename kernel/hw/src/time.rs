//! The host's clocks: the time stamp counter, measured against the 8254, and the 8254 as a one-shot timer.
//!
//! Source: Intel 8254 data sheet; port 0x61 as in the IBM PC AT technical reference.

use core::sync::atomic::{AtomicU64, Ordering};
use x86::io::{inb, outb};

/// The 8254's clock in Hz.
const PIT_HZ: u64 = 1_193_182;
/// The longest one shot, in ticks of the 8254: 16 bits, 0 meaning 65536 left out.
const PIT_MAX: u64 = 0xffff;
/// How long the measurement takes at least, in ticks: 10 ms.
const MEASURE: u16 = 11_932;
/// How often it is tried.
const MEASUREMENTS: u32 = 50;

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

/// Channel 2's count and the time stamp at that moment.
#[derive(Clone, Copy)]
struct Sample {
    tsc: u64,
    count: u16,
    /// How long the look took, in cycles: the moment is known to half of that.
    width: u64,
}

impl Sample {
    /// One look: the count stands still from the latch command on.
    ///
    /// # Safety
    /// Channel 2 counts.
    unsafe fn take() -> Self {
        // SAFETY: the timer's ports have no effect on memory.
        unsafe {
            let before = tsc();
            outb(MODE, 0x80);
            let width = tsc() - before;
            let count = u16::from_le_bytes([inb(CHANNEL_2), inb(CHANNEL_2)]);
            Self { tsc: before + width / 2, count, width }
        }
    }

    /// The quickest of a few: the others were interrupted by whatever the machine runs on.
    ///
    /// # Safety
    /// Channel 2 counts.
    unsafe fn take_best() -> Self {
        // SAFETY: the caller's.
        let (first, others) = unsafe { (Self::take(), [Self::take(), Self::take(), Self::take(), Self::take()]) };
        others.into_iter().fold(first, |best, other| if other.width < best.width { other } else { best })
    }

    /// Ticks of the 8254 from an earlier look to this one. Channel 2 counts down.
    const fn since(self, earlier: Self) -> u16 {
        earlier.count.wrapping_sub(self.count)
    }

    /// The frequency that two looks show.
    fn frequency(self, earlier: Self) -> u64 {
        let ticks = u64::from(self.since(earlier)).max(1);
        (self.tsc.saturating_sub(earlier.tsc) * PIT_HZ / ticks).max(1)
    }
}

/// Stops the periodic timer that the firmware left running on channel 0, and measures the TSC's frequency while channel 2 counts
/// down, for 10 ms or somewhat more. An emulator that does not run for a while, on a busy machine, lets both clocks go on, so that only
/// the moments of the two looks matter; a pause beyond the count's end, in a word of 16 bits, makes the measurement begin again.
pub(crate) fn init() {
    // Expires while the measurement runs, before the interrupt controllers listen; after that channel 0 is silent.
    arm_timer(0);
    let mut hz = 0;
    for _ in 0..MEASUREMENTS {
        // SAFETY: timer and speaker ports have no effect on memory. Channel 2 is the speaker's, which stays off (bit 1), and counts
        // when looked at.
        let ended = unsafe {
            let system = inb(SYSTEM) & !3;
            outb(SYSTEM, system | 1);
            outb(MODE, 0xb0);
            outb(CHANNEL_2, 0xff);
            outb(CHANNEL_2, 0xff);
            // The count is loaded with the next tick.
            while !(1..0xfff0).contains(&Sample::take().count) {}
            let first = Sample::take_best();
            while Sample::take().since(first) < MEASURE {}
            hz = Sample::take_best().frequency(first);
            let ended = inb(SYSTEM) & 0x20 != 0;
            outb(SYSTEM, system);
            ended
        };
        if !ended {
            break;
        }
    }
    HZ.store(hz.max(1), Ordering::Relaxed);
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
    fn a_frequency_comes_of_two_looks_however_far_apart() {
        let first = Sample { tsc: 1_000, count: 0xff00, width: 10 };
        for ticks in [11_932_u16, 40_000, 60_000] {
            let tsc = 1_000 + u64::from(ticks) * 2_000_000_000 / PIT_HZ;
            let hz = Sample { tsc, count: 0xff00 - ticks, width: 10 }.frequency(first);
            assert!((1_999_000_000..2_001_000_000).contains(&hz), "{hz}");
        }
        assert_eq!(first.frequency(first), 1, "and never 0");
    }

    #[test]
    fn a_deadline_becomes_a_count() {
        assert_eq!(count(0, 1_000_000_000), 1);
        assert_eq!(count(1_000_000, 1_000_000_000), 1193);
        assert_eq!(count(u64::MAX, 1), 0xffff);
        assert_eq!(count(1, 0), 0xffff);
    }
}
