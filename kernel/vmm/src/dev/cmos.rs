//! The MC146818 real-time clock with its CMOS memory, at ports 0x70 and 0x71. Register names are those of the data sheet:
//! A to D, UIP, SET, PIE, AIE, UIE.
//!
//! The clock is computed from the time that is handed in; its second begins with each full second of guest time. The
//! memory holds what a BIOS stores there about the size of memory.

use super::calendar::DateTime;
use super::time::{NANOS_PER_SECOND, Nanos, earlier};

/// 2000-01-01, the clock's start unless told otherwise.
const DEFAULT_EPOCH: i64 = 946_684_800;
/// The end of the year 9999.
const LATEST_EPOCH: i64 = 253_402_300_799;
/// UIP is set this long before an update (data sheet: at least 244 us), so a reader that sees it clear has this time left.
const UPDATE_WARNING: u64 = 244_000;
/// The divider's crystal, in Hz.
const CRYSTAL: u64 = 32_768;
/// Seconds that are searched for an alarm after a pause of the machine.
const ALARM_SEARCH: i64 = 60;

const SECONDS: u8 = 0x00;
const SECONDS_ALARM: u8 = 0x01;
const MINUTES: u8 = 0x02;
const MINUTES_ALARM: u8 = 0x03;
const HOURS: u8 = 0x04;
const HOURS_ALARM: u8 = 0x05;
const DAY_OF_WEEK: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0A;
const REGISTER_B: u8 = 0x0B;
const REGISTER_C: u8 = 0x0C;
const REGISTER_D: u8 = 0x0D;
const CENTURY: u8 = 0x32;
/// Where PS/2 machines keep the century.
const CENTURY_PS2: u8 = 0x37;

const A_UPDATE_IN_PROGRESS: u8 = 0x80;
/// Divider on, 1024 Hz.
const A_DEFAULT: u8 = 0x26;
const B_SET: u8 = 0x80;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;
/// PIE, AIE and UIE; PF, AF and UF have the same places in register C.
const INTERRUPTS: u8 = PERIODIC | ALARM | UPDATE;
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE: u8 = 0x10;
const C_INTERRUPT: u8 = 0x80;
const D_VALID: u8 = 0x80;
/// An alarm byte with both upper bits set matches every value.
const ALARM_ANY: u8 = 0xC0;
const HOURS_PM: u8 = 0x80;

/// The clock and its memory.
#[derive(Clone, Debug)]
pub(super) struct Cmos {
    index: u8,
    memory: [u8; 128],
    /// Seconds since 1970 at [`Nanos::ZERO`].
    epoch: i64,
    /// The time at which the clock stands still while SET is 1.
    frozen: Option<i64>,
    /// PF, AF and UF.
    flags: u8,
    /// Flags up to this time were set.
    seen: Nanos,
}

impl Cmos {
    /// A clock that was set, with a memory that names neither drives nor RAM beyond 640 KiB.
    pub(super) fn new() -> Self {
        let mut cmos =
            Self { index: 0, memory: [0; 128], epoch: DEFAULT_EPOCH, frozen: None, flags: 0, seen: Nanos::ZERO };
        cmos.store(REGISTER_A, A_DEFAULT);
        cmos.store(REGISTER_B, B_24_HOURS);
        cmos.store(0x14, 0x02); // equipment: an FPU, no drives
        cmos.store_word(0x15, 640);
        cmos
    }

    /// Sets the clock's time at [`Nanos::ZERO`].
    pub(super) fn set_epoch(&mut self, unix_seconds: u64) {
        self.epoch = i64::try_from(unix_seconds).unwrap_or(LATEST_EPOCH).min(LATEST_EPOCH);
    }

    /// Stores the size of memory in bytes where BIOSes store it.
    pub(super) fn set_memory(&mut self, bytes: u64) {
        let above = |base: u64, unit: u64| {
            let units = bytes.saturating_sub(base).checked_div(unit).unwrap_or(0);
            u16::try_from(units).unwrap_or(u16::MAX)
        };
        let extended = above(1 << 20, 1 << 10);
        self.store_word(0x17, extended);
        self.store_word(0x30, extended);
        self.store_word(0x34, above(16 << 20, 64 << 10));
    }

    pub(super) fn read(&mut self, port: u16, now: Nanos) -> u8 {
        if port & 1 == 0 {
            return u8::MAX; // the index cannot be read back
        }
        self.advance(now);
        match self.index {
            REGISTER_A => self.register_a(now),
            REGISTER_C => {
                let value = self.flags | if self.interrupt() { C_INTERRUPT } else { 0 };
                self.flags = 0;
                value
            }
            REGISTER_D => D_VALID,
            index => self.time_register(index, self.date(now)).unwrap_or_else(|| self.load(index)),
        }
    }

    pub(super) fn write(&mut self, port: u16, value: u8, now: Nanos) {
        if port & 1 == 0 {
            self.index = value & 0x7F; // bit 7 masks the NMI, of which there is none
            return;
        }
        self.advance(now);
        match self.index {
            REGISTER_A => self.store(REGISTER_A, value & !A_UPDATE_IN_PROGRESS),
            REGISTER_B => self.write_register_b(value, now),
            REGISTER_C | REGISTER_D => {}
            index => {
                if !self.set_time_register(index, value, now) {
                    self.store(index, value);
                }
            }
        }
    }

    /// The interrupt output (IRQ 8).
    pub(super) fn interrupt(&self) -> bool {
        self.flags & self.load(REGISTER_B) & INTERRUPTS != 0
    }

    /// Sets the flags of what happened up to `now`.
    pub(super) fn advance(&mut self, now: Nanos) {
        let before = self.seen;
        self.seen = before.max(now);
        if self.seen == before {
            return;
        }
        if let Some(period) = self.period() {
            let passed = |time: Nanos| time.raw() / period;
            if passed(now) != passed(before) {
                self.flags |= PERIODIC;
            }
        }
        let seconds = second(now) - second(before);
        if seconds > 0 && self.frozen.is_none() {
            self.flags |= UPDATE;
            let last = self.epoch + second(now);
            let first = last - (seconds - 1).min(ALARM_SEARCH);
            if (first..=last).any(|time| self.alarm_matches(DateTime::from_unix(time))) {
                self.flags |= ALARM;
            }
        }
    }

    /// When the next interrupt that is enabled and not yet pending comes.
    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        let awaited = self.load(REGISTER_B) & INTERRUPTS & !self.flags;
        let border = |length: u64| Nanos::new((self.seen.raw() / length).saturating_add(1).saturating_mul(length));
        let periodic = self.period().filter(|_| awaited & PERIODIC != 0).map(border);
        let update = (awaited & (UPDATE | ALARM) != 0 && self.frozen.is_none()).then(|| border(NANOS_PER_SECOND));
        earlier(periodic, update)
    }

    /// The period of PF in nanoseconds, from the rate bits of register A.
    fn period(&self) -> Option<u64> {
        let ticks = match self.load(REGISTER_A) & 0x0F {
            0 => return None,
            rate @ (1 | 2) => 64_u64 << rate,
            rate => 1 << (rate - 1),
        };
        Some(ticks * NANOS_PER_SECOND / CRYSTAL)
    }

    fn register_a(&self, now: Nanos) -> u8 {
        let to_update = NANOS_PER_SECOND - now.raw() % NANOS_PER_SECOND;
        let updating = self.frozen.is_none() && to_update <= UPDATE_WARNING;
        self.load(REGISTER_A) | if updating { A_UPDATE_IN_PROGRESS } else { 0 }
    }

    fn write_register_b(&mut self, value: u8, now: Nanos) {
        let time = self.time(now);
        self.store(REGISTER_B, value);
        if value & B_SET != 0 {
            self.frozen = Some(time);
        } else if self.frozen.take().is_some() {
            self.epoch = time - second(now);
        }
    }

    /// Seconds since 1970 that the clock shows.
    fn time(&self, now: Nanos) -> i64 {
        self.frozen.unwrap_or_else(|| self.epoch.saturating_add(second(now)))
    }

    fn date(&self, now: Nanos) -> DateTime {
        DateTime::from_unix(self.time(now))
    }

    /// What a time register shows at `date`.
    fn time_register(&self, index: u8, date: DateTime) -> Option<u8> {
        let value = match index {
            SECONDS => date.second,
            MINUTES => date.minute,
            HOURS => return Some(self.encode_hour(date.hour)),
            DAY_OF_WEEK => date.day_of_week(),
            DAY => date.day,
            MONTH => date.month,
            YEAR => date.year.rem_euclid(100) as u8,
            CENTURY | CENTURY_PS2 => return Some(to_bcd((date.year / 100).rem_euclid(100) as u8)),
            _ => return None,
        };
        Some(self.encode(value))
    }

    /// Sets the time by one of its registers; false if `index` is none.
    fn set_time_register(&mut self, index: u8, value: u8, now: Nanos) -> bool {
        let mut date = self.date(now);
        let number = self.decode(value);
        let (century, year) = (date.year - date.year.rem_euclid(100), date.year.rem_euclid(100));
        match index {
            SECONDS => date.second = number,
            MINUTES => date.minute = number,
            HOURS => date.hour = self.decode_hour(value),
            DAY_OF_WEEK => {} // follows from the date
            DAY => date.day = number,
            MONTH => date.month = number,
            YEAR => date.year = century + i64::from(number),
            CENTURY | CENTURY_PS2 => date.year = i64::from(from_bcd(value)) * 100 + year,
            _ => return false,
        }
        let time = date.to_unix();
        match &mut self.frozen {
            Some(frozen) => *frozen = time,
            None => self.epoch = time - second(now),
        }
        true
    }

    fn alarm_matches(&self, date: DateTime) -> bool {
        [(SECONDS_ALARM, SECONDS), (MINUTES_ALARM, MINUTES), (HOURS_ALARM, HOURS)].into_iter().all(|(alarm, time)| {
            let alarm = self.load(alarm);
            alarm & ALARM_ANY == ALARM_ANY || self.time_register(time, date) == Some(alarm)
        })
    }

    fn is_binary(&self) -> bool {
        self.load(REGISTER_B) & B_BINARY != 0
    }

    fn encode(&self, value: u8) -> u8 {
        if self.is_binary() { value } else { to_bcd(value) }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.is_binary() { value } else { from_bcd(value) }
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.load(REGISTER_B) & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let half = if hour >= 12 { HOURS_PM } else { 0 };
        let clock_face = match hour % 12 {
            0 => 12,
            hour => hour,
        };
        self.encode(clock_face) | half
    }

    fn decode_hour(&self, value: u8) -> u8 {
        if self.load(REGISTER_B) & B_24_HOURS != 0 {
            return self.decode(value);
        }
        let half = if value & HOURS_PM != 0 { 12 } else { 0 };
        self.decode(value & !HOURS_PM) % 12 + half
    }

    fn load(&self, index: u8) -> u8 {
        self.memory.get(usize::from(index)).copied().unwrap_or(u8::MAX)
    }

    fn store(&mut self, index: u8, value: u8) {
        if let Some(slot) = self.memory.get_mut(usize::from(index)) {
            *slot = value;
        }
    }

    fn store_word(&mut self, index: u8, value: u16) {
        let [low, high] = value.to_le_bytes();
        self.store(index, low);
        self.store(index.wrapping_add(1), high);
    }
}

/// Whole seconds of guest time.
fn second(now: Nanos) -> i64 {
    i64::try_from(now.raw() / NANOS_PER_SECOND).unwrap_or(0)
}

fn to_bcd(value: u8) -> u8 {
    ((value / 10 % 10) << 4) | (value % 10)
}

fn from_bcd(value: u8) -> u8 {
    (value >> 4) * 10 + (value & 0x0F)
}

#[cfg(test)]
#[path = "cmos_tests.rs"]
mod tests;
