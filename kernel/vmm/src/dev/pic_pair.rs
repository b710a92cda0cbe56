//! The two 8259As of a PC: the slave's INT pin drives the master's input 2. Levels 0..7 are the master's, 8..15 the
//! slave's.

use super::pic::{CASCADE, Pic, Port};

/// What a PC BIOS leaves behind (SeaBIOS as seen in QEMU): vectors 0x08 and 0x70, most inputs masked.
const BIOS_MASTER: (u8, u8) = (0x08, 0xB8);
const BIOS_SLAVE: (u8, u8) = (0x70, 0x8E);
/// Inputs that are always edge-triggered: timer, keyboard, cascade on the master; clock and FPU on the slave.
const ELCR_MASTER: u8 = 0xF8;
const ELCR_SLAVE: u8 = 0xDE;

/// The cascaded pair.
#[derive(Clone, Debug)]
pub(super) struct PicPair {
    master: Pic,
    slave: Pic,
    /// The master's INT pin, as [`Self::settle`] found it.
    interrupt: bool,
}

impl PicPair {
    /// The pair as a BIOS leaves it.
    pub(super) fn new() -> Self {
        Self {
            master: Pic::initialized(BIOS_MASTER.0, BIOS_MASTER.1),
            slave: Pic::initialized(BIOS_SLAVE.0, BIOS_SLAVE.1),
            interrupt: false,
        }
    }

    /// Drives the pin of an IRQ (0..15).
    #[inline]
    pub(super) fn set_line(&mut self, irq: u8, high: bool) {
        match irq {
            0..=7 if self.master.set_line(irq, high) => self.settle_master(),
            8.. if self.slave.set_line(irq & 7, high) => self.settle(),
            _ => {}
        }
    }

    /// An edge on the pin of an IRQ (0..15) whose request stays until it is acknowledged.
    pub(super) fn pulse(&mut self, irq: u8) {
        match irq {
            0..=7 => self.master.pulse(irq),
            _ => self.slave.pulse(irq & 7),
        }
        self.settle();
    }

    /// Whether a new edge on the pin of an IRQ (0..15) would change anything: it is not masked and no request waits.
    #[inline]
    pub(super) fn awaits(&self, irq: u8) -> bool {
        match irq {
            0..=7 => self.master.awaits(irq),
            _ => self.slave.awaits(irq & 7) && !self.master.is_masked(CASCADE),
        }
    }

    /// Whether the guest has initialized the master, and lets an IRQ of it (0..7) through.
    pub(super) fn is_opened(&self, irq: u8) -> bool {
        self.master.vector(Some(0)) != BIOS_MASTER.0 && !self.master.is_masked(irq)
    }

    /// The master's INT pin, which is the CPU's INTR.
    #[inline]
    pub(super) fn interrupt(&self) -> bool {
        self.interrupt
    }

    /// The CPU's interrupt acknowledge cycle: the vector on the bus. Without a request it is the spurious vector of
    /// level 7, or of the slave's level 7 (IRQ 15) when the slave withdrew.
    pub(super) fn acknowledge(&mut self) -> u8 {
        let level = self.master.acknowledge();
        let vector = if level == Some(CASCADE) {
            let slave_level = self.slave.acknowledge();
            // The slave's INT pin falls with the acknowledge and rises again for its next request: a new edge.
            self.master.set_cascade(CASCADE, false);
            self.slave.vector(slave_level)
        } else {
            self.master.vector(level)
        };
        self.settle();
        vector
    }

    /// Whether the next read acknowledges an interrupt (poll mode), and so changes what [`Self::awaits`] says.
    #[inline]
    pub(super) fn is_polled(&self) -> bool {
        self.master.is_polled() || self.slave.is_polled()
    }

    pub(super) fn read(&mut self, port: u16) -> u8 {
        let polled = self.is_polled();
        let value = match port {
            0x20 => self.master.read(Port::Command),
            0x21 => self.master.read(Port::Data),
            0xA0 => self.slave.read(Port::Command),
            0xA1 => self.slave.read(Port::Data),
            0x4D0 => self.master.elcr(),
            0x4D1 => self.slave.elcr(),
            _ => u8::MAX,
        };
        if polled {
            self.settle();
        }
        value
    }

    /// Writes a port. True if [`Self::awaits`] may say something new: not after an end of interrupt.
    #[must_use]
    pub(super) fn write(&mut self, port: u16, value: u8) -> bool {
        match port {
            0x20 => self.master.write(Port::Command, value),
            0x21 => self.master.write(Port::Data, value),
            0xA0 => self.slave.write(Port::Command, value),
            0xA1 => self.slave.write(Port::Data, value),
            0x4D0 => self.master.set_elcr(value & ELCR_MASTER),
            0x4D1 => self.slave.set_elcr(value & ELCR_SLAVE),
            _ => {}
        }
        match port {
            0x20 | 0x21 | 0x4D0 => self.settle_master(),
            _ => self.settle(),
        }
        !matches!(port, 0x20 | 0xA0) || Pic::is_initialization(value)
    }

    /// Lets a change go through the cascade to the master's INT pin.
    fn settle(&mut self) {
        self.master.set_cascade(CASCADE, self.slave.interrupt());
        self.settle_master();
    }

    /// Takes over the INT pin after a change at the master alone.
    fn settle_master(&mut self) {
        self.interrupt = self.master.interrupt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> PicPair {
        let mut pair = PicPair::new();
        for (port, value) in
            [(0x20, 0x11), (0xA0, 0x11), (0x21, 0x20), (0xA1, 0x28), (0x21, 4), (0xA1, 2), (0x21, 1), (0xA1, 1)]
        {
            let _ = pair.write(port, value);
        }
        pair
    }

    #[test]
    fn starts_as_a_bios_leaves_it() {
        let mut pair = PicPair::new();
        assert_eq!((pair.read(0x21), pair.read(0xA1)), (0xB8, 0x8E));
        pair.pulse(0);
        assert_eq!(pair.acknowledge(), 0x08);
    }

    #[test]
    fn the_slave_interrupts_through_level_2() {
        let mut pair = pair();
        pair.set_line(12, true);
        assert!(pair.interrupt());
        assert_eq!(pair.acknowledge(), 0x2C);
        let _ = pair.write(0x20, 0x0B);
        let _ = pair.write(0xA0, 0x0B);
        assert_eq!((pair.read(0x20), pair.read(0xA0)), (0x04, 0x10));
        pair.set_line(14, true);
        let _ = pair.write(0xA0, 0x20);
        assert!(!pair.interrupt()); // level 2 is still in service at the master
        let _ = pair.write(0x20, 0x20);
        assert_eq!(pair.acknowledge(), 0x2E);
    }

    #[test]
    fn slave_requests_follow_each_other_with_automatic_eoi() {
        let mut pair = pair();
        for port in [0x20, 0xA0] {
            let _ = pair.write(port, 0x11);
            for value in [if port == 0x20 { 0x20 } else { 0x28 }, 0, 3] {
                let _ = pair.write(port + 1, value);
            }
        }
        pair.set_line(8, true);
        pair.set_line(9, true);
        assert_eq!(pair.acknowledge(), 0x28);
        assert!(pair.interrupt());
        assert_eq!(pair.acknowledge(), 0x29);
        assert!(!pair.interrupt());
    }

    #[test]
    fn spurious_interrupts() {
        let mut pair = pair();
        assert_eq!(pair.acknowledge(), 0x27);
        // The slave withdraws: its request leaves with its pin, so the master shows none either.
        pair.set_line(10, true);
        let _ = pair.write(0xA1, 0x04);
        assert!(!pair.interrupt());
    }

    #[test]
    fn a_slave_that_withdraws_between_int_and_inta_gives_irq_15() {
        let mut pair = pair();
        pair.master.pulse(CASCADE);
        assert_eq!(pair.acknowledge(), 0x2F);
        let _ = pair.write(0x20, 0x0B);
        let _ = pair.write(0xA0, 0x0B);
        assert_eq!((pair.read(0x20), pair.read(0xA0)), (0x04, 0x00)); // the master needs an EOI, the slave none
    }

    #[test]
    fn polling_the_slave_lowers_the_cascade() {
        let mut pair = pair();
        pair.set_line(9, true);
        let _ = pair.write(0xA0, 0x0C);
        assert_eq!(pair.read(0xA0), 0x81);
        assert!(!pair.interrupt());
    }

    #[test]
    fn fixed_inputs_stay_edge_triggered() {
        let mut pair = pair();
        let _ = pair.write(0x4D0, 0xFF);
        let _ = pair.write(0x4D1, 0xFF);
        assert_eq!((pair.read(0x4D0), pair.read(0x4D1)), (0xF8, 0xDE));
    }

    #[test]
    fn masks_of_both_chips_count() {
        let mut pair = pair();
        assert!(pair.awaits(8));
        let _ = pair.write(0x21, 0x04);
        assert!(!pair.awaits(8) && pair.awaits(0));
        let _ = pair.write(0x21, 0x00);
        let _ = pair.write(0xA1, 0x01);
        assert!(!pair.awaits(8) && pair.awaits(9));
        pair.pulse(9);
        assert!(!pair.awaits(9) && pair.awaits(10));
    }
}
