//! Guest time: nanoseconds since the VM started, from the host's time stamp counter.

use gnomon_hw::rtc::{self, WallClock};
use gnomon_hw::time;

use crate::dev::{DateTime, NANOS_PER_SECOND, Nanos};

/// Seconds since 1970 by the host's real-time clock, if it has one that shows a date.
#[must_use]
pub(crate) fn unix_seconds() -> Option<u64> {
    let WallClock { year, month, day, hour, minute, second } = rtc::read()?;
    let date = DateTime { year: year.into(), month, day, hour, minute, second };
    u64::try_from(date.to_unix()).ok()
}

/// A VM's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// TSC at the VM's start.
    start: u64,
    to_nanos: Ratio,
    to_ticks: Ratio,
}

/// A factor as a 32.32 fixed-point number: a multiplication where a division of 128 bits would cost hundreds of instructions.
#[derive(Clone, Copy, Debug)]
struct Ratio(u64);

impl Ratio {
    /// `numerator / denominator`, good to one part in 2^32 of 1.
    const fn new(numerator: u64, denominator: u64) -> Self {
        let denominator = if denominator == 0 { 1 } else { denominator };
        Self((((numerator as u128) << 32) / denominator as u128) as u64)
    }

    /// `value` times the factor, saturating.
    fn of(self, value: u64) -> u64 {
        let wide = (u128::from(value) * u128::from(self.0)) >> 32;
        if wide >> 64 == 0 { wide as u64 } else { u64::MAX }
    }
}

impl Clock {
    /// A clock that shows 0 now.
    #[must_use]
    pub(crate) fn start() -> Self {
        let hz = time::tsc_hz();
        Self {
            start: time::tsc(),
            to_nanos: Ratio::new(NANOS_PER_SECOND, hz),
            to_ticks: Ratio::new(hz, NANOS_PER_SECOND),
        }
    }

    /// Time since the start.
    #[must_use]
    pub(crate) fn now(&self) -> Nanos {
        Nanos::new(self.to_nanos.of(time::tsc().saturating_sub(self.start)))
    }

    /// The TSC value at a point of guest time.
    #[must_use]
    pub(crate) fn tsc_at(&self, when: Nanos) -> u64 {
        self.start.saturating_add(self.to_ticks.of(when.raw()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_without_overflow() {
        let to_nanos = Ratio::new(NANOS_PER_SECOND, 2_600_000_000);
        let second = to_nanos.of(2_600_000_000);
        assert!(second.abs_diff(NANOS_PER_SECOND) < 2, "{second}");
        assert_eq!(Ratio::new(3, 1).of(u64::MAX), u64::MAX);
        assert_eq!(Ratio::new(1, 0).of(7), 7);
    }
}
