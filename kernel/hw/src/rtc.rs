//! The host's real-time clock, read once. Source: Motorola MC146818 data sheet; the century's register as PC BIOSes use it.

use x86::io::{inb, outb};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
const PM: u8 = 1 << 7;
/// Seconds, minutes, hours, day, month, year, century.
const REGISTERS: [u8; 7] = [0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32];
/// Looks at the clock before it counts as absent; an update takes 2 ms.
const PATIENCE: u32 = 100_000;

/// A date and time of day as the clock shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallClock {
    /// With the century.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

fn register(index: u8) -> u8 {
    // SAFETY: the clock's ports have no effect on memory; reading these registers has none on the clock.
    unsafe {
        outb(INDEX, index);
        inb(DATA)
    }
}

/// Reads the clock, between two of its updates. `None` if there is none.
#[must_use]
pub fn read() -> Option<WallClock> {
    let mut last = None;
    for _ in 0..PATIENCE {
        if register(STATUS_A) & UPDATE_IN_PROGRESS != 0 {
            last = None;
            continue;
        }
        let now = REGISTERS.map(register);
        if last == Some(now) {
            return decode(now, register(STATUS_B));
        }
        last = Some(now);
    }
    None
}

fn decode(registers: [u8; 7], mode: u8) -> Option<WallClock> {
    let number = |value: u8| if mode & BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) };
    let [second, minute, hour, day, month, year, century] = registers;
    let (half, hour) = if mode & HOURS_24 != 0 { (0, number(hour)) } else { (hour & PM, number(hour & !PM) % 12) };
    let hour = if half != 0 { hour + 12 } else { hour };
    // The century is in BCD on every PC.
    let century = u16::from((century >> 4) * 10 + (century & 0xf));
    let [second, minute, day, month] = [second, minute, day, month].map(number);
    let clock = WallClock { year: century * 100 + u16::from(number(year)), month, day, hour, minute, second };
    let good = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    (good && (1970..=9999).contains(&clock.year)).then_some(clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_counting() {
        let clock = WallClock { year: 2026, month: 11, day: 25, hour: 15, minute: 59, second: 8 };
        assert_eq!(decode([0x08, 0x59, 0x15, 0x25, 0x11, 0x26, 0x20], HOURS_24), Some(clock));
        assert_eq!(decode([0x08, 0x59, 0x83, 0x25, 0x11, 0x26, 0x20], 0), Some(clock));
        assert_eq!(decode([8, 59, 15, 25, 11, 26, 0x20], HOURS_24 | BINARY), Some(clock));
        let midnight = decode([0, 0, 0x12, 1, 1, 0, 0x20], 0).map(|clock| clock.hour);
        assert_eq!(midnight, Some(0));
    }

    #[test]
    fn an_absent_clock_reads_ones() {
        assert_eq!(decode([0xff; 7], 0xff), None);
    }
}
