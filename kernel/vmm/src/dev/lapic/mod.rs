//! The local APIC of the one CPU, in xAPIC mode (SDM 3A chapter 10): priorities, the local vector table, interprocessor
//! interrupts to itself, and its timer.
//!
//! It begins as a BIOS leaves it, in virtual wire mode: software-enabled, LINT0 passes the 8259s' interrupts on (ExtINT), LINT1
//! is the NMI.

mod message;
mod registers;
mod timer;

pub(super) use self::message::{Delivery, Message};
pub(super) use self::registers::Written;
use self::timer::Timer;
use super::time::Nanos;
use super::vectors::Vectors;

/// IA32_APIC_BASE: where the registers are after reset, and the bits that are not address.
const DEFAULT_BASE: u64 = 0xFEE0_0000;
const BASE_BSP: u64 = 1 << 8;
const BASE_ENABLE: u64 = 1 << 11;
/// 36 bits of physical address, in pages.
const BASE_ADDRESS: u64 = 0xF_FFFF_F000;

const SVR_ENABLE: u32 = 1 << 8;
const DFR_FLAT: u32 = 0xF;
const LVT_MASKED: u32 = 1 << 16;
const LVT_PERIODIC: u32 = 1 << 17;

/// LVT entries in the order of their registers, 0x320 to 0x370.
const TIMER: usize = 0;
const LINT0: usize = 3;

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
mod tests;
