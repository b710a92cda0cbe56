//! One 8259A programmable interrupt controller. Terms are those of Intel's data sheet: IRR, ISR, IMR, ICW1..4, OCW1..3.
//!
//! Owns the priorities, nesting and end-of-interrupt rules of eight levels. [`super::pic_pair`] joins two of them.

use bitflags::bitflags;

/// Level given out when a request has gone by the time of the acknowledge.
const SPURIOUS_LEVEL: u8 = 7;
/// The master's input that the slave's INT pin drives on a PC.
pub(super) const CASCADE: u8 = 2;

bitflags! {
    #[derive(Clone, Copy, Debug)]
    struct Icw1: u8 {
        const IC4 = 1 << 0;
        const SINGLE = 1 << 1;
        const INIT = 1 << 4;
    }

    #[derive(Clone, Copy, Debug)]
    struct Icw4: u8 {
        const AUTO_EOI = 1 << 1;
        const SPECIAL_FULLY_NESTED = 1 << 4;
    }

    #[derive(Clone, Copy, Debug)]
    struct Ocw3: u8 {
        const READ_ISR = 1 << 0;
        const READ_REGISTER = 1 << 1;
        const POLL = 1 << 2;
        const OCW3 = 1 << 3;
        const SPECIAL_MASK = 1 << 5;
        const ENABLE_SPECIAL_MASK = 1 << 6;
    }
}

/// Which of the chip's two ports (its A0 pin).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// A0 = 0: ICW1, OCW2, OCW3; reads IRR or ISR.
    Command,
    /// A0 = 1: ICW2..4, OCW1; reads IMR.
    Data,
}

/// Which initialization command word the data port waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Init {
    Ready,
    Icw2,
    Icw3,
    Icw4,
}

/// One 8259A.
#[derive(Clone, Debug)]
pub(super) struct Pic {
    /// Requests latched by an edge. For level-triggered inputs `lines` counts instead.
    latched: u8,
    isr: u8,
    imr: u8,
    /// The IR pins as the devices drive them.
    lines: u8,
    /// Edge/level control register: the inputs that are level-triggered. It replaces LTIM in ICW1 on a PC.
    elcr: u8,
    vector_base: u8,
    /// The level with the highest priority; the next ones follow in a circle.
    first: u8,
    init: Init,
    icw1: Icw1,
    icw4: Icw4,
    rotate_in_auto_eoi: bool,
    special_mask: bool,
    read_isr: bool,
    poll: bool,
}

impl Pic {
    /// A chip that was initialized with this vector base and mask, edge-triggered, as a BIOS does.
    pub(super) fn initialized(vector_base: u8, imr: u8) -> Self {
        Self {
            latched: 0,
            isr: 0,
            imr,
            lines: 0,
            elcr: 0,
            vector_base: vector_base & 0xF8,
            first: 0,
            init: Init::Ready,
            icw1: Icw1::IC4,
            icw4: Icw4::empty(),
            rotate_in_auto_eoi: false,
            special_mask: false,
            read_isr: false,
            poll: false,
        }
    }

    /// Drives an IR pin; true when its level changes. In edge-triggered mode a rising edge makes the request, which stays when the pin
    /// falls, as in QEMU, whose guests wait for the interrupt of a command that they have polled for; the data sheet makes a
    /// spurious one of it. A level-triggered request is the pin itself.
    #[inline]
    pub(super) fn set_line(&mut self, level: u8, high: bool) -> bool {
        let bit = bit(level);
        if (self.lines & bit != 0) == high {
            return false;
        }
        self.lines ^= bit;
        if high {
            self.latched |= bit;
        }
        true
    }

    /// Drives an IR pin whose request goes when it falls: the one that another chip's INT drives.
    pub(super) fn set_cascade(&mut self, level: u8, high: bool) {
        self.set_line(level, high);
        if !high {
            self.latched &= !bit(level);
        }
    }

    /// A rising edge on an IR pin whose request stays until it is acknowledged, however long the CPU takes.
    pub(super) fn pulse(&mut self, level: u8) {
        self.latched |= bit(level);
    }

    /// The INT pin.
    pub(super) fn interrupt(&self) -> bool {
        self.deliverable().is_some()
    }

    /// Interrupt acknowledge: the level that is now in service, or `None` if no request is left (spurious).
    pub(super) fn acknowledge(&mut self) -> Option<u8> {
        let level = self.deliverable()?;
        self.latched &= !bit(level);
        if !self.icw4.contains(Icw4::AUTO_EOI) {
            self.isr |= bit(level);
        } else if self.rotate_in_auto_eoi {
            self.first = next(level);
        }
        Some(level)
    }

    /// The vector for a level; the spurious one for `None`.
    pub(super) fn vector(&self, level: Option<u8>) -> u8 {
        self.vector_base | level.unwrap_or(SPURIOUS_LEVEL)
    }

    /// Whether a new edge on `level` would change anything: it is not masked and no request waits already.
    #[inline]
    pub(super) fn awaits(&self, level: u8) -> bool {
        (self.imr | self.irr()) & bit(level) == 0
    }

    pub(super) fn is_masked(&self, level: u8) -> bool {
        self.imr & bit(level) != 0
    }

    pub(super) fn elcr(&self) -> u8 {
        self.elcr
    }

    pub(super) fn set_elcr(&mut self, value: u8) {
        self.elcr = value;
    }

    /// Whether the next read is an acknowledge.
    #[inline]
    pub(super) fn is_polled(&self) -> bool {
        self.poll
    }

    /// Whether `value` at the command port is ICW1. The other command words touch neither IRR nor IMR.
    #[inline]
    pub(super) fn is_initialization(value: u8) -> bool {
        value & Icw1::INIT.bits() != 0
    }

    pub(super) fn read(&mut self, port: Port) -> u8 {
        if self.poll {
            self.poll = false;
            return self.acknowledge().map_or(0, |level| 0x80 | level);
        }
        match (port, self.read_isr) {
            (Port::Data, _) => self.imr,
            (Port::Command, true) => self.isr,
            (Port::Command, false) => self.irr(),
        }
    }

    pub(super) fn write(&mut self, port: Port, value: u8) {
        match port {
            Port::Data => self.write_data(value),
            Port::Command if Self::is_initialization(value) => self.write_icw1(Icw1::from_bits_retain(value)),
            Port::Command if value & Ocw3::OCW3.bits() != 0 => self.write_ocw3(Ocw3::from_bits_retain(value)),
            Port::Command => self.write_ocw2(value),
        }
    }

    /// The interrupt request register as software reads it.
    fn irr(&self) -> u8 {
        (self.latched & !self.elcr) | (self.lines & self.elcr)
    }

    /// The unmasked request of highest priority, if nothing in service stands above it.
    fn deliverable(&self) -> Option<u8> {
        let request = self.highest(self.irr() & !self.imr)?;
        match self.highest(self.blocking()) {
            Some(busy) if self.rank(busy) <= self.rank(request) => None,
            _ => Some(request),
        }
    }

    /// The levels in service that keep lower and equal ones back.
    fn blocking(&self) -> u8 {
        let mut busy = self.isr;
        if self.special_mask {
            busy &= !self.imr;
        }
        if self.icw4.contains(Icw4::SPECIAL_FULLY_NESTED) {
            // Only the master is used in this mode; it must let the slave's higher levels through.
            busy &= !bit(CASCADE);
        }
        busy
    }

    /// The level of highest priority among `levels`.
    fn highest(&self, levels: u8) -> Option<u8> {
        let rotated = levels.rotate_right(u32::from(self.first));
        match rotated.trailing_zeros() {
            8.. => None,
            rank => Some((self.first.wrapping_add(rank as u8)) & 7),
        }
    }

    /// 0 for the level of highest priority, 7 for the lowest.
    fn rank(&self, level: u8) -> u8 {
        level.wrapping_sub(self.first) & 7
    }

    fn write_icw1(&mut self, icw1: Icw1) {
        // Data sheet, ICW1: edge sense and IMR cleared, IR7 lowest, special mask off, status read is IRR, ICW4 zero.
        self.latched = 0;
        self.isr = 0;
        self.imr = 0;
        self.first = 0;
        self.special_mask = false;
        self.read_isr = false;
        self.poll = false;
        self.rotate_in_auto_eoi = false;
        self.icw4 = Icw4::empty();
        self.icw1 = icw1;
        self.init = Init::Icw2;
    }

    fn write_data(&mut self, value: u8) {
        self.init = match self.init {
            Init::Ready => {
                self.imr = value;
                Init::Ready
            }
            Init::Icw2 => {
                self.vector_base = value & 0xF8;
                if self.icw1.contains(Icw1::SINGLE) { self.after_icw3() } else { Init::Icw3 }
            }
            // The wiring of a PC is fixed, so ICW3 (which input is the cascade) changes nothing.
            Init::Icw3 => self.after_icw3(),
            Init::Icw4 => {
                self.icw4 = Icw4::from_bits_truncate(value);
                Init::Ready
            }
        };
    }

    fn after_icw3(&self) -> Init {
        if self.icw1.contains(Icw1::IC4) { Init::Icw4 } else { Init::Ready }
    }

    /// OCW2: R, SL and EOI in bits 7..5, a level in bits 2..0.
    fn write_ocw2(&mut self, value: u8) {
        let level = value & 7;
        match value >> 5 {
            0b000 => self.rotate_in_auto_eoi = false,
            0b100 => self.rotate_in_auto_eoi = true,
            0b001 => {
                self.end_of_highest();
            }
            0b101 => {
                if let Some(ended) = self.end_of_highest() {
                    self.first = next(ended);
                }
            }
            0b011 => self.isr &= !bit(level),
            0b111 => {
                self.isr &= !bit(level);
                self.first = next(level);
            }
            0b110 => self.first = next(level),
            _ => {} // 010: no operation
        }
    }

    /// Non-specific EOI: ends the level of highest priority in service. In special mask mode a masked level is not
    /// ended (data sheet, special mask mode).
    fn end_of_highest(&mut self) -> Option<u8> {
        let candidates = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let level = self.highest(candidates)?;
        self.isr &= !bit(level);
        Some(level)
    }

    fn write_ocw3(&mut self, ocw3: Ocw3) {
        if ocw3.contains(Ocw3::ENABLE_SPECIAL_MASK) {
            self.special_mask = ocw3.contains(Ocw3::SPECIAL_MASK);
        }
        if ocw3.contains(Ocw3::POLL) {
            self.poll = true;
        } else if ocw3.contains(Ocw3::READ_REGISTER) {
            self.read_isr = ocw3.contains(Ocw3::READ_ISR);
        }
    }
}

/// The bit of a level in IRR, ISR and IMR.
fn bit(level: u8) -> u8 {
    1 << (level & 7)
}

/// The level after this one in the circle of priorities.
fn next(level: u8) -> u8 {
    level.wrapping_add(1) & 7
}

#[cfg(test)]
#[path = "pic_tests.rs"]
mod tests;
