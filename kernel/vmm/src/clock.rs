//! Guest time: nanoseconds since the VM started, from the host's time stamp counter.

use gnomon_hw::time;

use crate::dev::{NANOS_PER_SECOND, Nanos};

/// A VM's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// TSC at the VM's start.
    start: u64,
    /// TSC ticks per second.
    hz: u64,
}

impl Clock {
    /// A clock that shows 0 now.
    #[must_use]
    pub(crate) fn start() -> Self {
        Self { start: time::tsc(), hz: time::tsc_hz().max(1) }
    }

    /// Time since the start.
    #[must_use]
    pub(crate) fn now(&self) -> Nanos {
        let ticks = time::tsc().saturating_sub(self.start);
        Nanos::new(scale(ticks, NANOS_PER_SECOND, self.hz))
    }

    /// The TSC value at a point of guest time.
    #[must_use]
    pub(crate) fn tsc_at(&self, when: Nanos) -> u64 {
        self.start.saturating_add(scale(when.raw(), self.hz, NANOS_PER_SECOND))
    }
}

/// `value * numerator / denominator` without overflow, saturating.
fn scale(value: u64, numerator: u64, denominator: u64) -> u64 {
    let wide = u128::from(value) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(wide).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_without_overflow() {
        assert_eq!(scale(2_600_000_000, NANOS_PER_SECOND, 2_600_000_000), NANOS_PER_SECOND);
        assert_eq!(scale(u64::MAX, 2, 1), u64::MAX);
        assert_eq!(scale(7, 1, 0), 7);
    }
}
