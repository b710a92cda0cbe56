//! Interrupt messages: from the I/O APIC, from the local sources, and those that the CPU sends to itself (SDM 3A 10.6).

use super::{DFR_FLAT, LVT_MASKED, LocalApic};

const LVT_LEVEL: u32 = 1 << 15;
const ICR_ASSERT: u32 = 1 << 14;
const ICR_LOGICAL: u32 = 1 << 11;
const ICR_LEVEL: u32 = 1 << 15;
/// What of the low half of the ICR is kept: all but the delivery status and reserved bits.
const ICR_KEPT: u32 = 0x000C_CFFF;
pub(super) const ERROR_SEND_ILLEGAL: u32 = 1 << 5;
const ERROR_RECEIVE_ILLEGAL: u32 = 1 << 6;
/// Vectors below this are the CPU's own.
const FIRST_VECTOR: u8 = 16;
const ERROR: usize = 5;

/// Delivery modes (SDM 3A 10.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dev) enum Delivery {
    Fixed,
    LowestPriority,
    Nmi,
    ExtInt,
    /// SMI, INIT, start-up: nothing here takes them.
    Other,
}

impl Delivery {
    /// From bits 10..8 of an LVT entry, ICR or redirection entry.
    pub(in crate::dev) fn from_bits(entry: u32) -> Self {
        match entry >> 8 & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            4 => Self::Nmi,
            7 => Self::ExtInt,
            _ => Self::Other,
        }
    }
}

/// An interrupt message on its way to the local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dev) struct Message {
    pub(in crate::dev) vector: u8,
    pub(in crate::dev) delivery: Delivery,
    /// APIC ID, or a set of logical destinations.
    pub(in crate::dev) destination: u8,
    pub(in crate::dev) logical: bool,
    pub(in crate::dev) level: bool,
}

impl LocalApic {
    /// Takes a message, if it is for this CPU.
    pub(in crate::dev) fn receive(&mut self, message: Message) {
        if self.is_on() && self.is_addressed(message.destination, message.logical) {
            self.accept(message.delivery, message.vector, message.level);
        }
    }

    /// A write of the low half of the ICR sends an interprocessor interrupt (SDM 3A 10.6.1).
    pub(super) fn send(&mut self, value: u32) {
        self.icr[0] = value & ICR_KEPT;
        let destination = (self.icr[1] >> 24) as u8;
        let to_self = match value >> 18 & 3 {
            0 => self.is_addressed(destination, value & ICR_LOGICAL != 0),
            1 | 2 => true,
            _ => false, // all but self: nobody
        };
        let delivery = Delivery::from_bits(value);
        let vectored = matches!(delivery, Delivery::Fixed | Delivery::LowestPriority);
        if vectored && (value as u8) < FIRST_VECTOR {
            self.report(ERROR_SEND_ILLEGAL);
            return;
        }
        // A level-triggered message without assert is INIT's end, which means nothing to this CPU.
        let ends = value & ICR_LEVEL != 0 && value & ICR_ASSERT == 0;
        if to_self && !ends && delivery != Delivery::ExtInt {
            self.accept(delivery, value as u8, false);
        }
    }

    /// Whether a destination means this CPU (SDM 3A 10.6.2).
    fn is_addressed(&self, destination: u8, logical: bool) -> bool {
        if destination == u8::MAX {
            return true;
        }
        if !logical {
            return destination == self.id;
        }
        if self.dfr == DFR_FLAT {
            return destination & self.ldr != 0;
        }
        let cluster = destination >> 4 == self.ldr >> 4 || destination >> 4 == 0xF;
        cluster && destination & self.ldr & 0xF != 0
    }

    /// A local interrupt source fires.
    pub(super) fn raise_local(&mut self, index: usize) {
        let entry = self.entry(index);
        if entry & LVT_MASKED == 0 {
            let delivery = Delivery::from_bits(entry);
            if delivery != Delivery::ExtInt {
                self.accept(delivery, entry as u8, entry & LVT_LEVEL != 0);
            }
        }
    }

    pub(super) fn accept(&mut self, delivery: Delivery, vector: u8, level: bool) {
        match delivery {
            Delivery::Nmi => self.nmi = true,
            Delivery::Fixed | Delivery::LowestPriority if !self.accepts() => {}
            Delivery::Fixed | Delivery::LowestPriority if vector < FIRST_VECTOR => self.report(ERROR_RECEIVE_ILLEGAL),
            Delivery::Fixed | Delivery::LowestPriority => {
                self.irr.set(vector, true);
                self.tmr.set(vector, level);
                self.settle();
            }
            Delivery::ExtInt | Delivery::Other => {}
        }
    }

    /// Notes an error and raises the error interrupt, whose own vector may be wrong, too.
    pub(super) fn report(&mut self, error: u32) {
        self.errors |= error;
        let entry = self.entry(ERROR);
        if entry & LVT_MASKED == 0 && self.accepts() {
            let vector = entry as u8;
            if vector < FIRST_VECTOR {
                self.errors |= ERROR_RECEIVE_ILLEGAL;
            } else {
                self.irr.set(vector, true);
                self.tmr.set(vector, false);
                self.settle();
            }
        }
    }
}
