//! The local APIC of the one CPU, in xAPIC mode (SDM 3A chapter 10): priorities, the local vector table, interprocessor
//! interrupts to itself, and its timer.
//!
//! It begins as a BIOS leaves it, in virtual wire mode: software-enabled, LINT0 passes the 8259s' interrupts on (ExtINT), LINT1
//! is the NMI.

use super::lapic_timer::Timer;
use super::time::Nanos;
use super::vectors::Vectors;

/// Version 0x14 with six LVT entries, as QEMU's.
const VERSION: u32 = 0x0005_0014;
/// IA32_APIC_BASE: where the registers are after reset, and the bits that are not address.
const DEFAULT_BASE: u64 = 0xFEE0_0000;
const BASE_BSP: u64 = 1 << 8;
const BASE_ENABLE: u64 = 1 << 11;
/// 36 bits of physical address, in pages.
const BASE_ADDRESS: u64 = 0xF_FFFF_F000;

const SVR_ENABLE: u32 = 1 << 8;
const SVR_WRITABLE: u32 = 0x1FF;
const DFR_FLAT: u32 = 0xF;
const LVT_MASKED: u32 = 1 << 16;
const LVT_PERIODIC: u32 = 1 << 17;
const LVT_LEVEL: u32 = 1 << 15;
const ICR_ASSERT: u32 = 1 << 14;
const ICR_LOGICAL: u32 = 1 << 11;
const ICR_LEVEL: u32 = 1 << 15;
/// What of the low half of the ICR is kept: all but the delivery status and reserved bits.
const ICR_KEPT: u32 = 0x000C_CFFF;

const ERROR_SEND_ILLEGAL: u32 = 1 << 5;
const ERROR_RECEIVE_ILLEGAL: u32 = 1 << 6;
const ERROR_ILLEGAL_REGISTER: u32 = 1 << 7;
/// Vectors below this are the CPU's own.
const FIRST_VECTOR: u8 = 16;

/// LVT entries in the order of their registers, 0x320 to 0x370.
const TIMER: usize = 0;
const LINT0: usize = 3;
const ERROR: usize = 5;
/// What of each can be written.
const LVT_WRITABLE: [u32; 6] = [0x3_00FF, 0x1_07FF, 0x1_07FF, 0x1_A7FF, 0x1_A7FF, 0x1_00FF];

/// Delivery modes (SDM 3A 10.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Fixed,
    LowestPriority,
    Nmi,
    ExtInt,
    /// SMI, INIT, start-up: nothing here takes them.
    Other,
}

impl Delivery {
    /// From bits 10..8 of an LVT entry, ICR or redirection entry.
    pub(super) fn from_bits(entry: u32) -> Self {
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
pub(super) struct Message {
    pub(super) vector: u8,
    pub(super) delivery: Delivery,
    /// APIC ID, or a set of logical destinations.
    pub(super) destination: u8,
    pub(super) logical: bool,
    pub(super) level: bool,
}

/// What a register write asks of the other devices.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Nothing,
    /// The end of a level-triggered interrupt goes out to the I/O APIC.
    EndOfLevel(u8),
}

/// The local APIC.
#[derive(Clone, Debug)]
pub(super) struct LocalApic {
    base: u64,
    id: u8,
    tpr: u8,
    svr: u32,
    ldr: u8,
    /// The model in the upper four bits of DFR.
    dfr: u32,
    irr: Vectors,
    isr: Vectors,
    tmr: Vectors,
    /// Errors since ESR was written last, and what it shows.
    errors: u32,
    esr: u32,
    icr: [u32; 2],
    lvt: [u32; 6],
    timer: Timer,
    lint0: bool,
    nmi: bool,
    /// The vector that the CPU can take now.
    ready: Option<u8>,
    /// The 8259s' INTR reaches the CPU.
    passes_pic: bool,
}

impl LocalApic {
    /// As a BIOS leaves it.
    pub(super) fn new() -> Self {
        Self {
            base: DEFAULT_BASE | BASE_BSP | BASE_ENABLE,
            id: 0,
            tpr: 0,
            svr: SVR_ENABLE | 0xFF,
            ldr: 0,
            dfr: DFR_FLAT,
            irr: Vectors::default(),
            isr: Vectors::default(),
            tmr: Vectors::default(),
            errors: 0,
            esr: 0,
            icr: [0; 2],
            lvt: [LVT_MASKED, LVT_MASKED, LVT_MASKED, 0x700, 0x400, LVT_MASKED],
            timer: Timer::default(),
            lint0: false,
            nmi: false,
            ready: None,
            passes_pic: true,
        }
    }

    /// A CPU without one: the 8259s' INTR is the CPU's.
    pub(super) fn absent() -> Self {
        Self { base: DEFAULT_BASE | BASE_BSP, ..Self::new() }
    }

    /// IA32_APIC_BASE.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Writes IA32_APIC_BASE; false if the value is refused.
    #[must_use]
    pub(super) fn set_base(&mut self, value: u64) -> bool {
        // There is no x2APIC, so its bit is reserved like the others.
        if value & !(BASE_ADDRESS | BASE_ENABLE | BASE_BSP) != 0 {
            return false;
        }
        if self.is_on() && value & BASE_ENABLE == 0 {
            *self = Self { base: value, ..Self::reset() };
        }
        self.base = value;
        self.settle();
        true
    }

    /// Software-disabled with everything masked (SDM 3A 10.4.7.1).
    fn reset() -> Self {
        Self { svr: 0xFF, lvt: [LVT_MASKED; 6], passes_pic: false, ..Self::new() }
    }

    /// The address of its page of registers, while it is on.
    #[inline]
    pub(super) fn page(&self) -> Option<u64> {
        self.is_on().then_some(self.base & BASE_ADDRESS)
    }

    fn is_on(&self) -> bool {
        self.base & BASE_ENABLE != 0
    }

    fn accepts(&self) -> bool {
        self.is_on() && self.svr & SVR_ENABLE != 0
    }

    /// Whether a vector of its own waits that the CPU can take.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// Whether the CPU sees the 8259s' INTR.
    #[inline]
    pub(super) fn passes_pic(&self) -> bool {
        self.passes_pic
    }

    /// The CPU takes the waiting vector.
    pub(super) fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.ready?;
        self.irr.set(vector, false);
        self.isr.set(vector, true);
        self.settle();
        Some(vector)
    }

    /// An NMI waits.
    #[inline]
    pub(super) fn nmi(&self) -> bool {
        self.nmi
    }

    /// An NMI waits, or the 8259s' interrupts are NMIs. (Nothing is wired to LINT1.)
    pub(super) fn nmi_may_come(&self) -> bool {
        let lint0 = self.entry(LINT0);
        self.nmi || (lint0 & LVT_MASKED == 0 && Delivery::from_bits(lint0) == Delivery::Nmi)
    }

    /// The CPU takes the NMI.
    pub(super) fn acknowledge_nmi(&mut self) {
        self.nmi = false;
    }

    /// Drives LINT0, which the 8259s' INTR is wired to.
    #[inline]
    pub(super) fn set_lint0(&mut self, high: bool) {
        let rises = high && !self.lint0;
        self.lint0 = high;
        if rises && self.accepts() {
            self.raise_local(LINT0);
        }
    }

    /// Takes a message, if it is for this CPU.
    pub(super) fn receive(&mut self, message: Message) {
        if self.is_on() && self.is_addressed(message.destination, message.logical) {
            self.accept(message.delivery, message.vector, message.level);
        }
    }

    /// When the timer must be looked at for its interrupt to come in time.
    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        let entry = self.entry(TIMER);
        let awaited = entry & LVT_MASKED == 0 && self.accepts() && !self.irr.contains(entry as u8);
        self.timer.expiry().filter(|_| awaited)
    }

    /// Lets the timer run.
    pub(super) fn advance(&mut self, now: Nanos) {
        let entry = self.entry(TIMER);
        let expired = self.timer.advance(now, entry & LVT_PERIODIC != 0);
        if expired && entry & LVT_MASKED == 0 && self.accepts() {
            self.accept(Delivery::Fixed, entry as u8, false);
        }
    }

    /// Reads the register at `offset` in the page.
    pub(super) fn read(&mut self, offset: u16, now: Nanos) -> u32 {
        let index = usize::from(offset >> 4);
        match offset & 0xFF0 {
            0x020 => u32::from(self.id) << 24,
            0x030 => VERSION,
            0x080 => self.tpr.into(),
            0x090 | 0x0A0 => self.ppr().into(),
            0x0B0 | 0x0C0 => 0,
            0x0D0 => u32::from(self.ldr) << 24,
            0x0E0 => self.dfr << 28 | 0x0FFF_FFFF,
            0x0F0 => self.svr,
            0x100..=0x170 => self.isr.register(index & 7),
            0x180..=0x1F0 => self.tmr.register(index & 7),
            0x200..=0x270 => self.irr.register(index & 7),
            0x280 => self.esr,
            0x300 => self.icr[0],
            0x310 => self.icr[1],
            0x320..=0x370 => self.entry(index - 0x32),
            0x380 => self.timer.initial(),
            0x390 => {
                self.advance(now);
                self.timer.current(now)
            }
            0x3E0 => self.timer.divide(),
            _ => {
                self.report(ERROR_ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Writes the register at `offset` in the page.
    pub(super) fn write(&mut self, offset: u16, value: u32, now: Nanos) -> Written {
        match offset & 0xFF0 {
            0x0B0 => return self.end_of_interrupt(),
            0x380 => {
                self.timer.start(value, now);
                return Written::Nothing;
            }
            0x020 => self.id = (value >> 24) as u8,
            0x080 => self.tpr = value as u8,
            0x0D0 => self.ldr = (value >> 24) as u8,
            0x0E0 => self.dfr = value >> 28,
            0x0F0 => self.write_svr(value),
            0x280 => self.esr = core::mem::take(&mut self.errors),
            0x300 => self.send(value),
            0x310 => self.icr[1] = value & 0xFF00_0000,
            0x320..=0x370 => self.write_entry(usize::from(offset >> 4) - 0x32, value, now),
            0x3E0 => {
                self.advance(now);
                self.timer.set_divide(value, now);
            }
            0x030 | 0x090..=0x0C0 | 0x100..=0x270 | 0x390 => {} // to be read only
            _ => self.report(ERROR_ILLEGAL_REGISTER),
        }
        self.settle();
        Written::Nothing
    }

    fn write_svr(&mut self, value: u32) {
        self.svr = value & SVR_WRITABLE;
        if self.svr & SVR_ENABLE == 0 {
            self.lvt.iter_mut().for_each(|entry| *entry |= LVT_MASKED); // SDM 3A 10.4.7.2
        }
    }

    fn write_entry(&mut self, index: usize, value: u32, now: Nanos) {
        self.advance(now); // an expiry before the write counts by the entry before
        let forced = if self.svr & SVR_ENABLE == 0 { LVT_MASKED } else { 0 };
        if let (Some(entry), Some(writable)) = (self.lvt.get_mut(index), LVT_WRITABLE.get(index)) {
            *entry = value & writable | forced;
        }
    }

    fn entry(&self, index: usize) -> u32 {
        self.lvt.get(index).copied().unwrap_or(LVT_MASKED)
    }

    /// Ends the interrupt of highest priority in service.
    fn end_of_interrupt(&mut self) -> Written {
        let Some(vector) = self.isr.highest() else { return Written::Nothing };
        self.isr.set(vector, false);
        self.settle();
        if self.tmr.contains(vector) { Written::EndOfLevel(vector) } else { Written::Nothing }
    }

    /// A write of the low half of the ICR sends an interprocessor interrupt (SDM 3A 10.6.1).
    fn send(&mut self, value: u32) {
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
    fn raise_local(&mut self, index: usize) {
        let entry = self.entry(index);
        if entry & LVT_MASKED == 0 {
            let delivery = Delivery::from_bits(entry);
            if delivery != Delivery::ExtInt {
                self.accept(delivery, entry as u8, entry & LVT_LEVEL != 0);
            }
        }
    }

    fn accept(&mut self, delivery: Delivery, vector: u8, level: bool) {
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
    fn report(&mut self, error: u32) {
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

    /// The processor priority (SDM 3A 10.8.3.1).
    fn ppr(&self) -> u8 {
        let serving = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= serving >> 4 { self.tpr } else { serving & 0xF0 }
    }

    /// Finds anew what the CPU sees.
    fn settle(&mut self) {
        let ppr = self.ppr();
        self.ready = self.irr.highest().filter(|vector| self.is_on() && vector >> 4 > ppr >> 4);
        let lint0 = self.entry(LINT0);
        let extint = lint0 & LVT_MASKED == 0 && Delivery::from_bits(lint0) == Delivery::ExtInt;
        self.passes_pic = !self.is_on() || extint;
    }
}

#[cfg(test)]
#[path = "lapic_tests.rs"]
mod tests;
