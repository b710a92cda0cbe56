//! Fields of the VMCS (SDM 3D, appendix B) and access to the current one.

use core::arch::asm;

macro_rules! fields {
    ($($name:ident = $encoding:literal,)*) => {
        /// Encodings of the fields that are used.
        #[allow(missing_docs, reason = "the names are the manual's")]
        pub(super) mod field {
            $(pub(in crate::vmx) const $name: u32 = $encoding;)*
        }
    };
}

fields! {
    VPID = 0x0000,
    GUEST_ES = 0x0800,
    GUEST_CS = 0x0802,
    GUEST_SS = 0x0804,
    HOST_ES = 0x0c00,
    HOST_CS = 0x0c02,
    HOST_TR = 0x0c0c,
    TSC_OFFSET = 0x2010,
    EPT_POINTER = 0x201a,
    GUEST_PHYSICAL = 0x2400,
    LINK = 0x2800,
    GUEST_EFER = 0x2806,
    GUEST_PDPTE0 = 0x280a,
    HOST_EFER = 0x2c02,
    PIN_CONTROLS = 0x4000,
    CPU_CONTROLS = 0x4002,
    EXCEPTIONS = 0x4004,
    EXIT_CONTROLS = 0x400c,
    ENTRY_CONTROLS = 0x4012,
    ENTRY_EVENT = 0x4016,
    ENTRY_ERROR = 0x4018,
    SECOND_CONTROLS = 0x401e,
    EXIT_REASON = 0x4402,
    EXIT_EVENT = 0x4404,
    EXIT_ERROR = 0x4406,
    VECTORING = 0x4408,
    VECTORING_ERROR = 0x440a,
    LENGTH = 0x440c,
    GUEST_ES_LIMIT = 0x4800,
    GUEST_GDTR_LIMIT = 0x4810,
    GUEST_IDTR_LIMIT = 0x4812,
    GUEST_ES_ACCESS = 0x4814,
    INTERRUPTIBILITY = 0x4824,
    SYSENTER_CS = 0x482a,
    CR0_MASK = 0x6000,
    CR4_MASK = 0x6002,
    CR0_SHADOW = 0x6004,
    CR4_SHADOW = 0x6006,
    QUALIFICATION = 0x6400,
    GUEST_CR0 = 0x6800,
    GUEST_CR3 = 0x6802,
    GUEST_CR4 = 0x6804,
    GUEST_ES_BASE = 0x6806,
    GUEST_GDTR_BASE = 0x6816,
    GUEST_IDTR_BASE = 0x6818,
    DR7 = 0x681a,
    GUEST_RSP = 0x681c,
    GUEST_RIP = 0x681e,
    GUEST_RFLAGS = 0x6820,
    SYSENTER_ESP = 0x6824,
    SYSENTER_EIP = 0x6826,
    HOST_CR0 = 0x6c00,
    HOST_CR3 = 0x6c02,
    HOST_CR4 = 0x6c04,
    HOST_TR_BASE = 0x6c0a,
    HOST_GDTR_BASE = 0x6c0c,
    HOST_IDTR_BASE = 0x6c0e,
    HOST_RSP = 0x6c14,
    HOST_RIP = 0x6c16,
}

/// Reads a field of the current VMCS; 0 if there is none or no such field.
#[inline]
pub(super) fn read(field: u32) -> u64 {
    let value: u64;
    // SAFETY: callers have turned VMX on. Reading changes nothing but flags; without a current VMCS the register stays 0.
    unsafe {
        asm!("vmread {0}, {1}", inout(reg) 0_u64 => value, in(reg) u64::from(field), options(nostack));
    }
    value
}

/// Writes a field of the current VMCS.
///
/// # Safety
/// 1. VMX is on, and the current VMCS is one that this crate made.
/// 2. The value keeps what the next entry relies on: host state, controls and tables are as `Vmx::set_up` has them, or checked.
#[inline]
pub(super) unsafe fn write(field: u32, value: u64) {
    // SAFETY: the caller gives both.
    unsafe { asm!("vmwrite {0}, {1}", in(reg) u64::from(field), in(reg) value, options(nostack)) };
}

/// Bits of the controls (SDM 3C, chapter "VM-execution control fields").
pub(super) mod control {
    pub(in crate::vmx) const PIN_INTERRUPT: u32 = 1 << 0;
    pub(in crate::vmx) const PIN_NMI: u32 = 1 << 3;
    /// The guest's own NMIs are blocked until its IRET.
    pub(in crate::vmx) const PIN_VIRTUAL_NMI: u32 = 1 << 5;

    pub(in crate::vmx) const WINDOW: u32 = 1 << 2;
    pub(in crate::vmx) const TSC_OFFSET: u32 = 1 << 3;
    pub(in crate::vmx) const HLT: u32 = 1 << 7;
    pub(in crate::vmx) const INVLPG: u32 = 1 << 9;
    pub(in crate::vmx) const MWAIT: u32 = 1 << 10;
    pub(in crate::vmx) const RDPMC: u32 = 1 << 11;
    pub(in crate::vmx) const CR3_LOAD: u32 = 1 << 15;
    pub(in crate::vmx) const CR3_STORE: u32 = 1 << 16;
    pub(in crate::vmx) const CR8: u32 = 1 << 19 | 1 << 20;
    pub(in crate::vmx) const NMI_WINDOW: u32 = 1 << 22;
    pub(in crate::vmx) const DEBUG_REGISTERS: u32 = 1 << 23;
    pub(in crate::vmx) const PORTS: u32 = 1 << 24;
    pub(in crate::vmx) const MONITOR: u32 = 1 << 29;
    pub(in crate::vmx) const SECOND: u32 = 1 << 31;

    pub(in crate::vmx) const EPT: u32 = 1 << 1;
    pub(in crate::vmx) const VPID: u32 = 1 << 5;
    pub(in crate::vmx) const WBINVD: u32 = 1 << 6;
    pub(in crate::vmx) const UNRESTRICTED: u32 = 1 << 7;

    pub(in crate::vmx) const EXIT_64: u32 = 1 << 9;
    pub(in crate::vmx) const EXIT_ACKNOWLEDGE: u32 = 1 << 15;
    pub(in crate::vmx) const EXIT_LOAD_EFER: u32 = 1 << 21;
    pub(in crate::vmx) const ENTRY_LOAD_EFER: u32 = 1 << 15;
}
