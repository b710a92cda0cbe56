//! The fixed registers of ACPI's power management (ACPI 1.0, 4.7.3): enough for a kernel to power the machine off, and the
//! timer. They are where QEMU has them; port 0xB004 is Bochs' control register.

use super::time::{NANOS_PER_SECOND, Nanos};

/// Event registers: two bytes of status, two of enables.
pub(crate) const EVENTS: u16 = 0x600;
/// The control register.
pub(crate) const CONTROL: u16 = 0x604;
/// The timer.
pub(crate) const TIMER: u16 = 0x608;
/// The interrupt that the tables name; nothing here raises it.
pub(crate) const SCI: u8 = 9;
/// The sleep type that means "off".
pub(crate) const SLEEP_OFF: u8 = 0;
/// The timer's frequency in Hz.
const TIMER_HZ: u128 = 3_579_545;

/// SCI_EN: always on, so the machine is in ACPI mode from the start.
const SCI_ENABLED: u8 = 1;
/// SLP_EN and SLP_TYP in the upper byte of the control register.
const SLEEP: u8 = 1 << 5;
const SLEEP_TYPE: u8 = 0b1_1100;

/// The registers.
#[derive(Clone, Debug, Default)]
pub(super) struct Power {
    enables: [u8; 2],
    sleep_type: u8,
}

impl Power {
    pub(super) fn read(&self, port: u16, now: Nanos) -> u8 {
        match port {
            0x602 => self.enables[0],
            0x603 => self.enables[1],
            CONTROL => SCI_ENABLED,
            0x605 => self.sleep_type,
            TIMER..=0x60B => {
                let ticks = u128::from(now.raw()) * TIMER_HZ / u128::from(NANOS_PER_SECOND);
                let bits = ticks as u32 & 0x00FF_FFFF;
                bits.to_le_bytes().get(usize::from(port & 3)).copied().unwrap_or(0)
            }
            _ => 0, // no event ever happens
        }
    }

    /// Writes a byte; whether the machine is to be off.
    #[must_use]
    pub(super) fn write(&mut self, port: u16, value: u8) -> bool {
        match port {
            0x602 => self.enables[0] = value,
            0x603 => self.enables[1] = value,
            0x605 | 0xB005 => {
                self.sleep_type = value & SLEEP_TYPE;
                return value & SLEEP != 0 && self.sleep_type >> 2 == SLEEP_OFF;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_needs_type_and_enable() {
        let mut power = Power::default();
        assert!(!power.write(CONTROL, 0x00) && !power.write(0x605, 0x00));
        assert!(!power.write(0x605, 0x24)); // another sleep state
        assert!(power.write(0x605, 0x20));
        assert!(power.write(0xB005, 0x20));
        assert_eq!(power.read(CONTROL, Nanos::ZERO), 1);
    }

    #[test]
    fn the_timer_counts_24_bits() {
        let power = Power::default();
        let timer =
            |now: Nanos| u32::from_le_bytes([TIMER, TIMER + 1, TIMER + 2, TIMER + 3].map(|port| power.read(port, now)));
        assert_eq!(timer(Nanos::new(NANOS_PER_SECOND)), 3_579_545);
        assert_eq!(timer(Nanos::new(5 * NANOS_PER_SECOND)), 5 * 3_579_545 - (1 << 24));
    }
}
