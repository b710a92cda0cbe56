//! The virtual CPU: architectural state as the guest believes it, and nothing else.
//!
//! General registers, EIP, ESP, the arithmetic flags and the live segment registers are in the real CPU's state
//! ([`gnomon_hw::World`]); here is what the real CPU must not hold for the guest: control registers, descriptor table registers, the
//! system part of EFLAGS, MSRs.

pub mod cpuid;
mod debug;
mod descriptor;
mod msr;

pub use debug::{DebugRegisters, dr6, dr7};
pub use descriptor::{Descriptor, Gate, Selector, SystemType};
pub use msr::{Msrs, Written, efer, number as msr_number};

use crate::v86::Segments;

/// Bits of EFLAGS.
pub mod flags {
    #![allow(missing_docs, reason = "the names are the manual's mnemonics")]
    pub const CF: u32 = 1 << 0;
    pub const FIXED: u32 = 1 << 1;
    pub const PF: u32 = 1 << 2;
    pub const AF: u32 = 1 << 4;
    pub const ZF: u32 = 1 << 6;
    pub const SF: u32 = 1 << 7;
    pub const TF: u32 = 1 << 8;
    pub const IF: u32 = 1 << 9;
    pub const DF: u32 = 1 << 10;
    pub const OF: u32 = 1 << 11;
    pub const IOPL: u32 = 3 << 12;
    pub const NT: u32 = 1 << 14;
    pub const RF: u32 = 1 << 16;
    pub const VM: u32 = 1 << 17;
    pub const AC: u32 = 1 << 18;
    pub const VIF: u32 = 1 << 19;
    pub const VIP: u32 = 1 << 20;
    pub const ID: u32 = 1 << 21;
    /// Flags of arithmetic results.
    pub const STATUS: u32 = CF | PF | AF | ZF | SF | OF;
    /// Flags that the real CPU keeps for the guest; the others are virtual.
    pub const REAL: u32 = STATUS | TF | DF | AC | ID;
    /// Flags that any code of the guest may have set; all others read 0.
    pub const KNOWN: u32 = REAL | IF | IOPL | NT | RF | VM | VIF | VIP;
}

/// Bits of CR0.
pub mod cr0 {
    #![allow(missing_docs, reason = "the names are the manual's mnemonics")]
    pub const PE: u32 = 1 << 0;
    pub const MP: u32 = 1 << 1;
    pub const EM: u32 = 1 << 2;
    pub const TS: u32 = 1 << 3;
    pub const ET: u32 = 1 << 4;
    pub const NE: u32 = 1 << 5;
    pub const WP: u32 = 1 << 16;
    pub const AM: u32 = 1 << 18;
    pub const NW: u32 = 1 << 29;
    pub const CD: u32 = 1 << 30;
    pub const PG: u32 = 1 << 31;
    pub const KNOWN: u32 = PE | MP | EM | TS | ET | NE | WP | AM | NW | CD | PG;
    /// Bits that change what an address means.
    pub const PAGING: u32 = PE | WP | PG;
}

/// CR4 bits (SDM 3A 2.5).
pub mod cr4 {
    #![allow(missing_docs, reason = "the names are the manual's mnemonics")]
    pub const TSD: u32 = 1 << 2;
    pub const PSE: u32 = 1 << 4;
    pub const PAE: u32 = 1 << 5;
    pub const PGE: u32 = 1 << 7;
    pub const UMIP: u32 = 1 << 11;
    pub const SMEP: u32 = 1 << 20;
    pub const SMAP: u32 = 1 << 21;
    /// Bits that every virtual CPU has: VME to OSXMMEXCPT. Most of the others are long-mode business, or change what user code could do
    /// natively.
    pub const ALWAYS: u32 = 0x7ff;
    /// Bits that change what an address means.
    pub const PAGING: u32 = PSE | PAE | PGE | SMEP | SMAP;
}

/// A descriptor table register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRegister {
    /// Linear address of the table.
    pub base: u32,
    /// Last valid byte offset.
    pub limit: u16,
}

/// LDTR or TR: the visible selector and what was loaded with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemSegment {
    /// Visible selector.
    pub selector: Selector,
    /// Base address.
    pub base: u32,
    /// Last valid byte offset.
    pub limit: u32,
    /// Whether the register holds a usable segment.
    pub usable: bool,
}

impl SystemSegment {
    /// The unusable segment of a null selector.
    pub const NULL: Self = Self { selector: Selector(0), base: 0, limit: 0, usable: false };
}

/// State of the virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    /// CR0 as the guest reads it.
    pub cr0: u32,
    /// CR2.
    pub cr2: u32,
    /// CR3.
    pub cr3: u32,
    /// CR4.
    pub cr4: u32,
    /// The bits of CR4 that this virtual CPU has.
    pub cr4_offered: u32,
    /// GDTR.
    pub gdtr: TableRegister,
    /// IDTR.
    pub idtr: TableRegister,
    /// LDTR.
    pub ldtr: SystemSegment,
    /// TR.
    pub tr: SystemSegment,
    /// Whether TR holds a 32-bit TSS.
    pub tss_wide: bool,
    /// Virtual IF, IOPL, NT and VM, at their places in EFLAGS; all other bits 0.
    pub system_flags: u32,
    /// The segment registers while VM is set.
    pub v86: Segments,
    /// While EIP has this value, interrupts wait for one more instruction (STI, MOV SS, POP SS; SDM 3A 6.8.3).
    pub interrupt_shadow: Option<u32>,
    /// HLT waits for an interrupt.
    pub halted: bool,
    /// An NMI was delivered, and no IRET was executed since.
    pub nmi_blocked: bool,
    /// MOV SS or POP SS was the last instruction emulated: a single step waits for the next.
    pub holds_step: bool,
    /// IA32_TSC_ADJUST: what the guest's time stamp counter is ahead of the host's.
    pub tsc_adjust: u64,
    /// The debug registers.
    pub debug: DebugRegisters,
    /// Model-specific registers.
    pub msrs: Msrs,
}

impl Vcpu {
    /// The CPU as the multiboot specification hands it over: protected mode, paging off, interrupts off.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cr0: cr0::PE | cr0::ET,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            cr4_offered: cr4::ALWAYS,
            gdtr: TableRegister { base: 0, limit: 0 },
            idtr: TableRegister { base: 0, limit: 0 },
            ldtr: SystemSegment::NULL,
            tr: SystemSegment::NULL,
            tss_wide: false,
            system_flags: 0,
            v86: Segments([0; 6]),
            interrupt_shadow: None,
            halted: false,
            nmi_blocked: false,
            holds_step: false,
            tsc_adjust: 0,
            debug: DebugRegisters::new(),
            msrs: Msrs::new(),
        }
    }

    /// Virtual IF.
    #[must_use]
    pub const fn interrupts_on(&self) -> bool {
        self.system_flags & flags::IF != 0
    }

    /// Sets or clears virtual IF.
    pub const fn set_interrupts(&mut self, on: bool) {
        if on {
            self.system_flags |= flags::IF;
        } else {
            self.system_flags &= !flags::IF;
        }
    }

    /// Virtual IOPL.
    #[must_use]
    pub const fn iopl(&self) -> u8 {
        ((self.system_flags & flags::IOPL) >> 12) as u8
    }

    /// Whether paging is in PAE format.
    #[must_use]
    pub const fn pae(&self) -> bool {
        self.paging() && self.cr4 & 1 << 5 != 0
    }

    /// Whether paging is on.
    #[must_use]
    pub const fn paging(&self) -> bool {
        self.cr0 & cr0::PG != 0
    }
}

impl Default for Vcpu {
    fn default() -> Self {
        Self::new()
    }
}
