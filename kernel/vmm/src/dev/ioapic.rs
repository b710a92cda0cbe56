//! The I/O APIC (Intel 82093AA data sheet): 24 inputs, each with a redirection entry that says which message it becomes.
//!
//! The inputs here are "asserted or not": whether an entry says active high or low makes no difference.

use super::lapic::{Delivery, Message};

/// Inputs.
pub(super) const PINS: u8 = 24;
/// Version 0x11; the number of the last entry in bits 23..16.
const VERSION: u32 = 0x11 | ((PINS as u32 - 1) << 16);

const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const REMOTE_IRR: u32 = 1 << 14;
const LOGICAL: u32 = 1 << 11;
/// What of the low half of an entry can be written: not the delivery status, not remote IRR.
const WRITABLE: u32 = 0x1_AFFF;

/// One redirection entry.
#[derive(Clone, Copy, Debug)]
struct Entry {
    low: u32,
    /// Destination in bits 31..24.
    high: u32,
}

/// The chip.
#[derive(Clone, Debug)]
pub(super) struct IoApic {
    id: u32,
    select: u8,
    entries: [Entry; PINS as usize],
    /// The inputs that are asserted.
    lines: u32,
    /// The inputs whose entries are not masked.
    open: u32,
}

impl IoApic {
    /// As after reset, with the ID that the MP table names.
    pub(super) fn new(id: u8) -> Self {
        let entries = [Entry { low: MASKED, high: 0 }; PINS as usize];
        Self { id: u32::from(id & 0xF) << 24, select: 0, entries, lines: 0, open: 0 }
    }

    /// Whether an edge at `pin` would be passed on.
    #[inline]
    pub(super) fn is_open(&self, pin: u8) -> bool {
        self.open & bit(pin) != 0
    }

    /// Whether any input that is not masked makes NMIs.
    pub(super) fn sends_nmis(&self) -> bool {
        let is_nmi = |entry: &Entry| entry.low & MASKED == 0 && Delivery::from_bits(entry.low) == Delivery::Nmi;
        self.entries.iter().any(is_nmi)
    }

    /// Drives an input; the message that follows.
    #[inline]
    pub(super) fn set_line(&mut self, pin: u8, asserted: bool) -> Option<Message> {
        let was = self.lines & bit(pin) != 0;
        if was == asserted {
            return None;
        }
        self.lines ^= bit(pin);
        if asserted && self.is_open(pin) { self.fire(pin) } else { None }
    }

    /// An edge on an input. While its entry is masked an edge is lost (data sheet, interrupt mask).
    pub(super) fn pulse(&mut self, pin: u8) -> Option<Message> {
        if self.is_open(pin) { self.fire(pin) } else { None }
    }

    /// Reads at `offset` in its page.
    pub(super) fn read(&self, offset: u16) -> u32 {
        match offset {
            0x00 => self.select.into(),
            0x10 => self.register(),
            _ => 0,
        }
    }

    /// Writes at `offset` in its page; the message of a level that waited for its entry.
    pub(super) fn write(&mut self, offset: u16, value: u32) -> Option<Message> {
        match offset {
            0x00 => self.select = value as u8,
            0x10 => return self.write_register(value),
            _ => {}
        }
        None
    }

    /// The CPU ended a level-triggered interrupt: inputs that are still asserted fire again.
    pub(super) fn end_of_interrupt(&mut self, vector: u8, mut send: impl FnMut(Message)) {
        for pin in 0..PINS {
            let Some(entry) = self.entries.get_mut(usize::from(pin)) else { continue };
            if entry.low & REMOTE_IRR == 0 || entry.low as u8 != vector {
                continue;
            }
            entry.low &= !REMOTE_IRR;
            if let Some(message) = self.waiting_level(pin) {
                send(message);
            }
        }
    }

    /// The entry behind the selected register, and whether it is the upper half.
    fn selected(&self) -> Option<(u8, bool)> {
        let number = self.select.checked_sub(0x10)?;
        (number / 2 < PINS).then_some((number / 2, number % 2 == 1))
    }

    fn register(&self) -> u32 {
        match (self.select, self.selected()) {
            (0 | 2, _) => self.id,
            (1, _) => VERSION,
            (_, Some((pin, upper))) => {
                let entry = self.entries.get(usize::from(pin));
                entry.map_or(0, |entry| if upper { entry.high } else { entry.low })
            }
            _ => 0,
        }
    }

    fn write_register(&mut self, value: u32) -> Option<Message> {
        if self.select == 0 {
            self.id = value & 0x0F00_0000;
            return None;
        }
        let (pin, upper) = self.selected()?;
        let entry = self.entries.get_mut(usize::from(pin))?;
        if upper {
            entry.high = value & 0xFF00_0000;
            return None;
        }
        // Remote IRR belongs to level-triggered entries only; making one edge-triggered clears it.
        let kept = if value & LEVEL != 0 { entry.low & REMOTE_IRR } else { 0 };
        entry.low = value & WRITABLE | kept;
        if value & MASKED == 0 {
            self.open |= bit(pin)
        } else {
            self.open &= !bit(pin)
        }
        self.waiting_level(pin)
    }

    /// The message of an asserted level-triggered input that is not in service.
    fn waiting_level(&mut self, pin: u8) -> Option<Message> {
        let entry = self.entries.get(usize::from(pin))?;
        let waits = entry.low & LEVEL != 0 && self.lines & bit(pin) != 0 && self.is_open(pin);
        if waits { self.fire(pin) } else { None }
    }

    fn fire(&mut self, pin: u8) -> Option<Message> {
        let entry = self.entries.get_mut(usize::from(pin))?;
        let level = entry.low & LEVEL != 0;
        if level && entry.low & REMOTE_IRR != 0 {
            return None;
        }
        if level {
            entry.low |= REMOTE_IRR;
        }
        Some(Message {
            vector: entry.low as u8,
            delivery: Delivery::from_bits(entry.low),
            destination: (entry.high >> 24) as u8,
            logical: entry.low & LOGICAL != 0,
            level,
        })
    }
}

const fn bit(pin: u8) -> u32 {
    1 << (pin % 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(apic: &mut IoApic, pin: u8, low: u32, high: u32) -> Option<Message> {
        apic.write(0x00, u32::from(0x11 + 2 * pin));
        assert_eq!(apic.write(0x10, high), None);
        apic.write(0x00, u32::from(0x10 + 2 * pin));
        apic.write(0x10, low)
    }

    fn low(apic: &mut IoApic, pin: u8) -> u32 {
        apic.write(0x00, u32::from(0x10 + 2 * pin));
        apic.read(0x10)
    }

    #[test]
    fn identity_and_version() {
        let mut apic = IoApic::new(1);
        assert_eq!(apic.read(0x10), 1 << 24);
        assert_eq!(apic.write(0x00, 1), None);
        assert_eq!(apic.read(0x10), 0x0017_0011);
        apic.write(0x00, 0x40);
        assert_eq!((apic.read(0x10), apic.write(0x10, u32::MAX)), (0, None));
        assert_eq!(low(&mut apic, 23), MASKED);
    }

    #[test]
    fn an_edge_is_one_message() {
        let mut apic = IoApic::new(1);
        assert_eq!(apic.pulse(2), None);
        assert_eq!(program(&mut apic, 2, 0x31, 0), None);
        let message = Message { vector: 0x31, delivery: Delivery::Fixed, destination: 0, logical: false, level: false };
        assert_eq!(apic.set_line(2, true), Some(message));
        assert_eq!(apic.set_line(2, true), None);
        assert_eq!(apic.set_line(2, false), None);
        assert_eq!(apic.pulse(2), Some(message));
        assert_eq!(program(&mut apic, 2, 0x31 | MASKED, 0), None);
        assert_eq!((apic.set_line(2, true), program(&mut apic, 2, 0x31, 0)), (None, None)); // lost
    }

    #[test]
    fn a_level_waits_for_the_end_of_interrupt() {
        let mut apic = IoApic::new(1);
        assert_eq!(apic.set_line(9, true), None);
        let message = program(&mut apic, 9, 0x41 | LEVEL | LOGICAL | 0x100, 0x0300_0000).unwrap();
        assert_eq!((message.delivery, message.destination), (Delivery::LowestPriority, 3));
        assert!(message.level && message.logical);
        assert_eq!(low(&mut apic, 9) & REMOTE_IRR, REMOTE_IRR);
        assert_eq!((apic.set_line(9, false), apic.set_line(9, true)), (None, None));
        let mut sent = 0;
        apic.end_of_interrupt(0x42, |_| sent += 1);
        assert_eq!(sent, 0);
        apic.end_of_interrupt(0x41, |again| {
            assert_eq!(again, message);
            sent += 1;
        });
        assert_eq!(sent, 1);
        apic.set_line(9, false);
        apic.end_of_interrupt(0x41, |_| sent += 1);
        assert_eq!((sent, low(&mut apic, 9) & REMOTE_IRR), (1, 0));
    }
}
