//! The virtual machine control block (APM 2, appendix B).

use core::mem::offset_of;

/// A segment register.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Segment {
    pub(super) selector: u16,
    /// Bytes 5 and 6 of a descriptor without the limit: type, S, DPL, P, AVL, L, D/B, G in 12 bits.
    pub(super) access: u16,
    pub(super) limit: u32,
    pub(super) base: u64,
}

/// The control block. Fields that are not used here are holes.
#[repr(C, align(4096))]
pub(super) struct Vmcb {
    /// CR reads in the low half, CR writes in the high half.
    pub(super) intercept_cr: u32,
    pub(super) intercept_dr: u32,
    pub(super) intercept_exceptions: u32,
    pub(super) intercept_first: u32,
    pub(super) intercept_second: u32,
    _hole0: [u8; 0x40 - 0x14],
    pub(super) io_map: u64,
    pub(super) msr_map: u64,
    pub(super) tsc_offset: u64,
    pub(super) asid: u32,
    pub(super) tlb_control: u32,
    pub(super) virtual_interrupt: u64,
    pub(super) interrupt_shadow: u64,
    pub(super) exit_code: u64,
    pub(super) exit_info1: u64,
    pub(super) exit_info2: u64,
    pub(super) exit_interrupted: u64,
    pub(super) nested_enable: u64,
    _hole1: [u8; 0xa8 - 0x98],
    pub(super) inject: u64,
    pub(super) nested_cr3: u64,
    _hole2: [u8; 0x400 - 0xb8],
    pub(super) es: Segment,
    pub(super) cs: Segment,
    pub(super) ss: Segment,
    pub(super) ds: Segment,
    pub(super) fs: Segment,
    pub(super) gs: Segment,
    pub(super) gdtr: Segment,
    pub(super) ldtr: Segment,
    pub(super) idtr: Segment,
    pub(super) tr: Segment,
    _hole3: [u8; 0x4cb - 0x4a0],
    pub(super) cpl: u8,
    _hole4: u32,
    pub(super) efer: u64,
    _hole5: [u8; 0x548 - 0x4d8],
    pub(super) cr4: u64,
    pub(super) cr3: u64,
    pub(super) cr0: u64,
    pub(super) dr7: u64,
    pub(super) dr6: u64,
    pub(super) rflags: u64,
    pub(super) rip: u64,
    _hole6: [u8; 0x5d8 - 0x580],
    pub(super) rsp: u64,
    _hole7: [u8; 0x5f8 - 0x5e0],
    pub(super) rax: u64,
    pub(super) star: u64,
    pub(super) lstar: u64,
    pub(super) cstar: u64,
    pub(super) sfmask: u64,
    pub(super) kernel_gs_base: u64,
    pub(super) sysenter_cs: u64,
    pub(super) sysenter_esp: u64,
    pub(super) sysenter_eip: u64,
    pub(super) cr2: u64,
    _hole8: [u8; 0x668 - 0x648],
    pub(super) pat: u64,
    _hole9: [u8; 0x1000 - 0x670],
}

const _: () = assert!(size_of::<Vmcb>() == 4096);
const _: () = assert!(offset_of!(Vmcb, exit_code) == 0x70 && offset_of!(Vmcb, inject) == 0xa8);
const _: () =
    assert!(offset_of!(Vmcb, cpl) == 0x4cb && offset_of!(Vmcb, efer) == 0x4d0 && offset_of!(Vmcb, rip) == 0x578);
const _: () =
    assert!(offset_of!(Vmcb, rax) == 0x5f8 && offset_of!(Vmcb, cr2) == 0x640 && offset_of!(Vmcb, pat) == 0x668);

/// Exit codes (APM 2, appendix C).
pub(super) mod code {
    pub(in crate::svm) const EXCEPTION: u64 = 0x40;
    pub(in crate::svm) const EXCEPTION_LAST: u64 = 0x5f;
    pub(in crate::svm) const INTERRUPT: u64 = 0x60;
    pub(in crate::svm) const NMI: u64 = 0x61;
    pub(in crate::svm) const WINDOW: u64 = 0x64;
    pub(in crate::svm) const CPUID: u64 = 0x72;
    pub(in crate::svm) const IRET: u64 = 0x74;
    pub(in crate::svm) const PORT: u64 = 0x7b;
    pub(in crate::svm) const TASK_SWITCH: u64 = 0x7d;
    pub(in crate::svm) const SHUTDOWN: u64 = 0x7f;
    /// The last of the instructions' codes.
    pub(in crate::svm) const INSTRUCTION_LAST: u64 = 0x8d;
    pub(in crate::svm) const NESTED_FAULT: u64 = 0x400;
}

/// Bits of `intercept_first`.
pub(super) mod first {
    pub(in crate::svm) const INTERRUPT: u32 = 1 << 0;
    pub(in crate::svm) const NMI: u32 = 1 << 1;
    pub(in crate::svm) const WINDOW: u32 = 1 << 4;
    pub(in crate::svm) const CR0_SELECTED: u32 = 1 << 5;
    pub(in crate::svm) const LTR: u32 = 1 << 13;
    pub(in crate::svm) const RDPMC: u32 = 1 << 15;
    pub(in crate::svm) const CPUID: u32 = 1 << 18;
    pub(in crate::svm) const RSM: u32 = 1 << 19;
    pub(in crate::svm) const IRET: u32 = 1 << 20;
    pub(in crate::svm) const INVD: u32 = 1 << 22;
    pub(in crate::svm) const HLT: u32 = 1 << 24;
    pub(in crate::svm) const INVLPG: u32 = 1 << 25;
    pub(in crate::svm) const INVLPGA: u32 = 1 << 26;
    pub(in crate::svm) const PORTS: u32 = 1 << 27;
    pub(in crate::svm) const MSRS: u32 = 1 << 28;
    pub(in crate::svm) const TASK_SWITCH: u32 = 1 << 29;
    pub(in crate::svm) const SHUTDOWN: u32 = 1 << 31;
}

/// `intercept_second`: VMRUN VMMCALL VMLOAD VMSAVE STGI CLGI SKINIT, WBINVD, MONITOR, MWAIT (both), XSETBV.
pub(super) const SECOND: u32 = 0x7f | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13;

/// Bits of `virtual_interrupt`.
pub(super) mod interrupt {
    pub(in crate::svm) const REQUEST: u64 = 1 << 8;
    /// Above every task priority.
    pub(in crate::svm) const HIGHEST: u64 = 15 << 16 | 1 << 20;
    /// The host's IF decides about the host's interrupts.
    pub(in crate::svm) const MASKING: u64 = 1 << 24;
}
