//! The local APIC's timer (SDM 3A 10.5.4): counts down from an initial count, once or again and again.
//!
//! Its clock runs at 1 GHz, as in QEMU, so that a tick before division is one nanosecond.

use super::super::time::Nanos;

/// Shortest time between two interrupts of a periodic timer: with one shorter than its handler takes a guest would do nothing else.
const SHORTEST: u64 = 100_000;

/// The timer's counters. Whether it interrupts, and with which vector, is the local vector table's business.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timer {
    initial: u32,
    /// The divide configuration register as written.
    divide: u32,
    /// When the count reaches 0; `None` while it does not run.
    expiry: Option<Nanos>,
}

impl Timer {
    pub(super) fn initial(&self) -> u32 {
        self.initial
    }

    pub(super) fn divide(&self) -> u32 {
        self.divide
    }

    /// log2 of what the clock is divided by: bits 0, 1 and 3 of the register, 0b000 is 2 and 0b111 is 1.
    fn shift(&self) -> u32 {
        let value = (self.divide & 3) | (self.divide >> 1 & 4);
        (value + 1) & 7
    }

    /// Writes the initial count: starts the timer, or stops it with 0.
    pub(super) fn start(&mut self, initial: u32, now: Nanos) {
        self.initial = initial;
        self.expiry = (initial != 0).then(|| now.plus(self.nanos(initial)));
    }

    /// Writes the divide configuration register; a running count goes on at the new speed.
    pub(super) fn set_divide(&mut self, value: u32, now: Nanos) {
        let current = self.current(now);
        self.divide = value & 0b1011;
        self.expiry = self.expiry.map(|_| now.plus(self.nanos(current)));
    }

    /// The current count. Call [`Self::advance`] first.
    pub(super) fn current(&self, now: Nanos) -> u32 {
        let left = self.expiry.map_or(0, |expiry| expiry.since(now));
        // More than a period if some are left out.
        let left = left.checked_sub(1).map_or(0, |left| left % self.nanos(self.initial).max(1) + 1);
        u32::try_from(left.div_ceil(1 << self.shift())).unwrap_or(u32::MAX)
    }

    /// Lets the count run up to `now`; whether it reached 0. A periodic timer that did so several times did it once, and one with a very
    /// short period leaves some out.
    pub(super) fn advance(&mut self, now: Nanos, periodic: bool) -> bool {
        let Some(expiry) = self.expiry.filter(|&expiry| expiry <= now) else { return false };
        let period = self.nanos(self.initial);
        self.expiry = (periodic && period != 0).then(|| {
            let elapsed = now.since(expiry).saturating_add(SHORTEST.saturating_sub(period));
            let periods = elapsed.checked_div(period).unwrap_or(0).saturating_add(1);
            expiry.plus(period.saturating_mul(periods))
        });
        true
    }

    /// When it reaches 0 next.
    pub(super) fn expiry(&self) -> Option<Nanos> {
        self.expiry
    }

    fn nanos(&self, count: u32) -> u64 {
        u64::from(count) << self.shift()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Nanos {
        Nanos::new(nanos)
    }

    #[test]
    fn the_divisor_follows_the_table() {
        for (value, divisor) in [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)] {
            let mut timer = Timer::default();
            timer.set_divide(value, Nanos::ZERO);
            timer.start(10, Nanos::ZERO);
            assert_eq!(timer.expiry(), Some(at(10 * divisor)), "{value:#b}");
        }
    }

    #[test]
    fn one_shot_reaches_zero_once() {
        let mut timer = Timer::default();
        timer.set_divide(11, Nanos::ZERO);
        timer.start(1000, at(50));
        assert_eq!(timer.current(at(50)), 1000);
        assert_eq!(timer.current(at(150)), 900);
        assert!(!timer.advance(at(1049), false));
        assert!(timer.advance(at(1050), false));
        assert_eq!((timer.current(at(2000)), timer.expiry()), (0, None));
        assert!(!timer.advance(at(9000), false));
        timer.start(0, at(9000));
        assert_eq!(timer.expiry(), None);
    }

    #[test]
    fn periodic_keeps_its_phase_after_a_pause() {
        let mut timer = Timer::default();
        timer.start(500_000, Nanos::ZERO); // divided by 2: 1 ms
        assert!(timer.advance(at(3_500_000), true));
        assert_eq!(timer.expiry(), Some(at(4_000_000)));
        assert_eq!(timer.current(at(3_500_000)), 250_000);
    }

    #[test]
    fn a_very_short_period_leaves_some_out() {
        let mut timer = Timer::default();
        timer.set_divide(11, Nanos::ZERO);
        timer.start(3000, Nanos::ZERO);
        assert!(timer.advance(at(3000), true));
        assert_eq!(timer.expiry(), Some(at(102_000)), "a multiple of the period");
        assert_eq!((timer.current(at(3000)), timer.current(at(3001)), timer.current(at(6000))), (3000, 2999, 3000));
        assert!(timer.advance(at(150_000), true));
        assert_eq!(timer.expiry(), Some(at(249_000)));
    }

    #[test]
    fn a_new_divisor_scales_what_is_left() {
        let mut timer = Timer::default();
        timer.start(500, Nanos::ZERO);
        timer.set_divide(11, at(500)); // 250 left, now one a nanosecond
        assert_eq!(timer.expiry(), Some(at(750)));
    }
}
