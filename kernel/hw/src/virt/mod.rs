//! What the two hardware back ends, `svm` and `vmx`, have in common: the guest runs unmodified at its own privilege levels in 32-bit
//! protected mode, and the CPU leaves it for what is intercepted.
//!
//! A world of this kind is a [`World`](crate::World) too: its general registers, EIP, ESP and flags are in the same
//! [`GuestContext`](crate::GuestContext), copied at each transition, and its FPU registers stay in the CPU as for every world. What else
//! there is of the guest lives in the vendor's control structure, which only this crate writes.

mod pdpt;
mod task;

pub(crate) use pdpt::Pdpt;
pub use task::{DescriptorTables, Segment, SegmentRegister, TaskCause, TaskSwitch};

use crate::frames::VmId;
use crate::irq::Irq;
use crate::world::{SegReg, State};
use alloc::boxed::Box;
use core::fmt;
use shadow_mmu::{FlushPlan, Root};

/// Who walks which tables while a hardware guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translation {
    /// The CPU walks shadow tables; the guest's CR3, CR0, CR4 and page faults are intercepted.
    Shadow,
    /// The CPU walks the guest's tables and second-level tables (EPT, NPT).
    Nested,
}

/// Whose extension runs a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// AMD-V.
    Svm,
    /// VT-x.
    Vmx,
}

/// Why a hardware world cannot be made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The CPU or its firmware does not offer this.
    Missing(&'static str),
    /// There is not enough memory below 4 GiB.
    Memory,
    /// The root is not one of this machine's.
    Root,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) => write!(f, "{what}"),
            Self::Memory => f.write_str("too few free frames below 4 GiB for a guest CPU"),
            Self::Root => f.write_str("hypervisor bug: the second-level root is not one of this machine's"),
        }
    }
}

/// An instruction that the guest was left for. `next` is where it ends, if the CPU tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intercepted {
    /// Which, as far as the CPU tells.
    pub what: Instruction,
    /// EIP behind it.
    pub next: Option<u32>,
}

/// The instructions that are told apart without decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// CPUID.
    Cpuid,
    /// IN or OUT, not the string forms. The permission check was the CPU's.
    Port {
        /// The port.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
        /// OUT.
        output: bool,
    },
    /// INVLPG of this linear address.
    Invalidate(u32),
    /// MOV to CR3 from the general register of this number.
    LoadCr3(u8),
    /// MOV from CR3 to the general register of this number.
    ReadCr3(u8),
    /// Something that has to be decoded.
    Other,
}

/// A guest-physical access that the second-level tables did not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The address.
    pub gpa: u64,
    /// What was tried.
    pub kind: shadow_mmu::AccessKind,
    /// The CPU wanted an entry of the guest's page tables.
    pub table: bool,
}

/// Why a hardware guest was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardwareExit {
    /// An exception that is intercepted, as for every world.
    Vector(u8),
    /// A device of the host, as for every world.
    Interrupt(Irq),
    /// An instruction is to be emulated.
    Intercepted(Intercepted),
    /// The second-level tables did not allow an access.
    Nested(Violation),
    /// Nothing happened, or the window that was asked for is open.
    Window,
    /// A task switch, which the CPU leaves to the monitor.
    TaskSwitch(TaskSwitch),
    /// An exception while delivering a double fault.
    Shutdown,
    /// The guest was not entered: it may write its TSS. Then a CPU that does not intercept task switches, as QEMU's AMD-V, would load
    /// CR3 from a TSS of the guest's, past the shadow tables. The first thing that it does in a switch is a write to the TSS that it
    /// leaves, so where that faults no switch gets so far.
    TaskSegmentOpen,
    /// The CPU has switched tasks and loaded CR3 without the exit that was asked for: the guest must not run on.
    Unasked,
    /// The CPU refused the guest's state, or left it for a reason that was not asked for; its number.
    Refused(u64),
}

/// How an event is delivered by the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A device's interrupt.
    External,
    /// The non-maskable interrupt.
    Nmi,
    /// An exception.
    Exception,
    /// INT n.
    Software,
}

/// An event for the CPU to deliver at the next run, or one whose delivery was cut short by the exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injection {
    /// Its kind.
    pub kind: EventKind,
    /// Vector.
    pub vector: u8,
    /// Error code to push.
    pub error: Option<u32>,
}

/// The guest's control registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControlRegisters {
    /// CR0.
    pub cr0: u32,
    /// CR2.
    pub cr2: u32,
    /// CR3.
    pub cr3: u32,
    /// CR4.
    pub cr4: u32,
}

/// The registers of the fast system calls, and EFER, as the guest wrote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyscallRegisters {
    /// SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP.
    pub sysenter: [u32; 3],
    /// STAR.
    pub star: u64,
    /// EFER; only SCE and NXE act.
    pub efer: u64,
}

/// One guest CPU in a vendor's control structure. What each function does stands at those of [`World`](crate::World).
pub(crate) trait HardwareCpu {
    fn set_controls(&mut self, cr0: u64, cr4: u64);
    fn set_pdptes(&mut self, entries: [u64; 4]);
    fn controls(&self) -> ControlRegisters;
    fn set_cr2(&mut self, cr2: u32);
    fn set_cr3(&mut self, cr3: u32);
    fn set_syscalls(&mut self, registers: &SyscallRegisters);
    fn set_tsc_offset(&mut self, offset: u64);
    fn inject(&mut self, event: Injection);
    fn injecting(&self) -> bool;
    fn interrupted(&self) -> Option<Injection>;
    fn interrupt_shadow(&self) -> bool;
    fn keeps_shadow(&self) -> bool;
    fn nmi_blocked(&self) -> bool;
    fn block_nmi(&mut self, blocked: bool);
    fn request_window(&mut self);
    fn request_nmi_window(&mut self);
    fn flush(&mut self, plan: FlushPlan);
    fn selector(&self, reg: SegReg) -> u16;
    fn descriptor(&self, reg: SegReg) -> u64;
    fn descriptor_tables(&self) -> DescriptorTables;
    fn set_descriptor_tables(&mut self, gdtr: (u32, u16), idtr: (u32, u16));
    fn hide_task_segment(&mut self, _hide: bool) {}
    fn set_segment(&mut self, register: SegmentRegister, segment: Segment);
    /// Base of the code segment, and whether it is a 32-bit one.
    fn code(&self) -> (u32, bool);
    /// The world is resident, `state` its state, and `root` the frame of its shadow root.
    fn run(&mut self, state: *mut State, root: u64) -> HardwareExit;
}

/// Makes a guest CPU.
pub(crate) fn make(vendor: Vendor, vm: VmId, nested: Option<Root>) -> Result<Box<dyn HardwareCpu>, Unavailable> {
    match vendor {
        Vendor::Svm => crate::svm::make(vm, nested),
        Vendor::Vmx => crate::vmx::make(vm, nested),
    }
}

pub(crate) const EFER_SCE: u64 = 1 << 0;
pub(crate) const EFER_NXE: u64 = 1 << 11;

/// CR0 and CR4 bits that a guest on shadow tables may choose itself: MP EM TS AM, and VME PVI TSD DE MCE PCE OSFXSR OSXMMEXCPT.
const SHADOW_CR0: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 18;
const SHADOW_CR4: u64 = 0b11 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 8 | 1 << 9 | 1 << 10;
/// PE, ET, NE, WP, PG; PAE.
const SHADOW_CR0_FORCED: u64 = 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
const SHADOW_CR4_FORCED: u64 = 1 << 5;
/// What the emulated machine has of CR4; the monitor refuses the rest already.
const NESTED_CR4: u64 = 0x7ff;

/// CR0 and CR4 for the CPU, from those the guest believes in. Shadow tables are in PAE format, write-protected for the kernel too.
pub(crate) const fn real_controls(translation: Translation, cr0: u64, cr4: u64) -> (u64, u64) {
    match translation {
        Translation::Shadow => (cr0 & SHADOW_CR0 | SHADOW_CR0_FORCED, cr4 & SHADOW_CR4 | SHADOW_CR4_FORCED),
        Translation::Nested => (cr0 & 0xe005_003f | 1 << 4, cr4 & NESTED_CR4),
    }
}

/// A code or data segment as the two vendors' structures hold it, as a descriptor.
pub(crate) const fn descriptor(base: u32, limit: u32, access: u16) -> u64 {
    let limit = if access & 0x800 != 0 { limit >> 12 } else { limit } as u64;
    let (base, access) = (base as u64, access as u64);
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | (access & 0xff) << 40
        | (limit >> 16 & 0xf) << 48
        | (access >> 8 & 0xf) << 52
        | (base >> 24) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_on_shadow_tables_cannot_turn_protection_off() {
        let (cr0, cr4) = real_controls(Translation::Shadow, 0, 0);
        assert_eq!(cr0 & (1 | 1 << 16 | 1 << 31), 1 | 1 << 16 | 1 << 31);
        assert_eq!(cr4, 1 << 5);
        let (_, cr4) = real_controls(Translation::Shadow, u64::MAX, u64::MAX);
        assert_eq!(
            cr4 & (1 << 4 | 1 << 7 | 1 << 12 | 1 << 13 | 1 << 17 | 1 << 20 | 1 << 21),
            0,
            "PSE PGE LA57 VMXE PCIDE SMEP SMAP"
        );
    }

    #[test]
    fn descriptors_are_put_together() {
        assert_eq!(descriptor(0, u32::MAX, 0xc9b), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(0x1234_5678, 0x67, 0x08b), 0x1200_8b34_5678_0067);
    }
}
