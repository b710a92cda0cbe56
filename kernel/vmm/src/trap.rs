//! What emulation can end in: an exception for the guest, or the end of the VM.
//!
//! The four error classes of this project never mix: the guest's own event is an [`Exception`] and goes to the guest; what cannot
//! go on is a [`StopReason`] and ends that VM with a report; a lack of host frames is handled where it happens; and a bug of ours
//! is [`StopReason::Internal`].

use core::fmt;

/// An exception as the guest is to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Vector, 0..=31.
    pub vector: u8,
    /// Error code, for the vectors that push one.
    pub error: Option<u32>,
    /// Faulting linear address, for page faults.
    pub cr2: Option<u32>,
}

/// Exception vectors by their mnemonic.
pub mod vector {
    #![allow(missing_docs, reason = "the names are the manual's mnemonics")]
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const BR: u8 = 5;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const AC: u8 = 17;
    pub const MC: u8 = 18;
    pub const XM: u8 = 19;
}

impl Exception {
    /// An exception without error code.
    #[must_use]
    pub const fn plain(vector: u8) -> Self {
        Self { vector, error: None, cr2: None }
    }

    /// An exception with an error code.
    #[must_use]
    pub const fn coded(vector: u8, error: u32) -> Self {
        Self { vector, error: Some(error), cr2: None }
    }

    /// #GP with this error code.
    #[must_use]
    pub const fn gp(error: u32) -> Self {
        Self::coded(vector::GP, error)
    }

    /// #UD.
    #[must_use]
    pub const fn ud() -> Self {
        Self::plain(vector::UD)
    }

    /// A page fault.
    #[must_use]
    pub const fn page_fault(error: u32, cr2: u32) -> Self {
        Self { vector: vector::PF, error: Some(error), cr2: Some(cr2) }
    }
}

/// Why a VM cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It asked for it through a debug port, with this status.
    Exit(u32),
    /// It powered the machine off.
    PowerOff,
    /// It asked for a reset of the machine.
    Reset,
    /// An exception while delivering a double fault (SDM 3A 6.15, interrupt 8).
    TripleFault,
    /// HLT with interrupts off, and no source of NMIs: nothing can wake it. Small kernels end so.
    HaltedForever,
    /// A page table lies where the VM has no memory.
    TableOutsideMemory,
    /// An instruction fetch from a guest-physical address without memory.
    FetchOutsideMemory,
    /// CR0.PE was cleared.
    RealMode,
    /// Virtual-8086 mode was entered.
    Virtual8086,
    /// A task switch that the CPU did itself, with a CR3 of the guest's instead of the shadow's.
    UnaskedTaskSwitch,
    /// Code of privilege level 1 or 2.
    MiddleRing,
    /// EFER.LME with paging on.
    LongMode,
    /// A paging mode that the shadow MMU has no format for.
    PagingMode,
    /// An instruction that the emulator does not know, at a place where it must.
    Unemulated,
    /// The CPU refused the guest's CS or SS on entry.
    EntryFailed,
    /// The same fault again and again without progress.
    FaultLoop,
    /// The guest kernel ran 16-bit code.
    SmallCode,
    /// The guest maps all of its 4 GiB: no place for shadow code.
    NoCodeWindow,
    /// It maps an address in the hypervisor's window.
    HypervisorWindow,
    /// It maps an address that 4 levels of tables cannot hold.
    AddressBeyondHost,
    /// A bug of the hypervisor; the text says which invariant.
    Internal(&'static str),
}

impl StopReason {
    /// Whether this is an end that the guest wanted and that tells of no failure.
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Exit(0) | Self::PowerOff | Self::HaltedForever)
    }

    /// Small number for trace records; 0 is an orderly end.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Exit(_) | Self::PowerOff => 0,
            Self::Reset => 1,
            Self::TripleFault => 2,
            Self::HaltedForever => 3,
            Self::TableOutsideMemory => 4,
            Self::FetchOutsideMemory => 5,
            Self::RealMode => 6,
            Self::Virtual8086 => 7,
            Self::UnaskedTaskSwitch => 8,
            Self::MiddleRing => 9,
            Self::LongMode => 10,
            Self::PagingMode => 11,
            Self::Unemulated => 12,
            Self::EntryFailed => 13,
            Self::FaultLoop => 14,
            Self::Internal(_) => 15,
            Self::SmallCode => 16,
            Self::NoCodeWindow => 17,
            Self::HypervisorWindow => 18,
            Self::AddressBeyondHost => 19,
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exit(status) => return write!(f, "ended with status {status}"),
            Self::PowerOff => "powered off",
            Self::Reset => "asked for a reset",
            Self::TripleFault => "triple fault",
            Self::HaltedForever => "halted with interrupts off",
            Self::TableOutsideMemory => "a page table lies outside its memory",
            Self::FetchOutsideMemory => "fetched an instruction from outside its memory",
            Self::RealMode => "entered real mode, which is not run",
            Self::Virtual8086 => "entered virtual-8086 mode, which is not run",
            Self::UnaskedTaskSwitch => {
                "switched tasks, which this CPU's AMD-V does without an exit; use mmu=nested, or no backend"
            }
            Self::MiddleRing => "used privilege level 1 or 2, which is not run",
            Self::LongMode => "entered long mode, which this build does not run",
            Self::PagingMode => "chose a paging mode that is not supported",
            Self::Unemulated => "used an instruction that cannot be emulated here",
            Self::EntryFailed => "left CS or SS in a state that the CPU refuses",
            Self::FaultLoop => "faulted again and again at the same place",
            Self::SmallCode => "ran 16-bit kernel code, which is not run",
            Self::NoCodeWindow => "maps all of its address space, which leaves no place for shadow code",
            Self::HypervisorWindow => "mapped and used an address in the hypervisor's window, PML4 slots 256 to 271",
            Self::AddressBeyondHost => "mapped and used an address beyond 48 bits",
            Self::Internal(what) => return write!(f, "hypervisor bug: {what}"),
        })
    }
}

/// How emulation of something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// The guest is to get an exception.
    Exception(Exception),
    /// The VM ends.
    Stop(StopReason),
}

impl From<Exception> for Trap {
    fn from(exception: Exception) -> Self {
        Self::Exception(exception)
    }
}

impl From<StopReason> for Trap {
    fn from(reason: StopReason) -> Self {
        Self::Stop(reason)
    }
}

/// Result of a step of emulation.
pub type Emulated<T> = Result<T, Trap>;
