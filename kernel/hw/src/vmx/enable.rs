//! Turning VT-x on, once, and what this CPU's VT-x can do.

use crate::cell::SingleCpu;
use crate::frames::{self, Owner};
use crate::virt::Unavailable;
use crate::{cpu, phys};
use core::arch::asm;
use core::arch::x86_64::__cpuid;
use x86::msr::{rdmsr, wrmsr};

/// CPUID 1 ECX bit 5.
const VMX: u32 = 1 << 5;
const FEATURE_CONTROL: u32 = 0x3a;
const LOCKED: u64 = 1 << 0;
const OUTSIDE_SMX: u64 = 1 << 2;
const BASIC: u32 = 0x480;
/// BASIC: the controls' "true" MSRs exist.
const TRUE_CONTROLS: u64 = 1 << 55;

/// What this CPU's VT-x is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    pub(super) revision: u32,
    has_true: bool,
}

/// A group of controls, by the number of its capability MSR.
#[derive(Debug, Clone, Copy)]
pub(super) enum Group {
    Pin = 0x481,
    Cpu = 0x482,
    Exit = 0x483,
    Entry = 0x484,
    Second = 0x48b,
}

static CPU: SingleCpu<Option<Cpu>> = SingleCpu::new(None);

impl Cpu {
    /// `wanted` with the bits that this CPU forces, and without those that it lacks.
    pub(super) fn controls(self, group: Group, wanted: u32) -> u32 {
        let number = match group {
            Group::Second => group as u32,
            _ if self.has_true => group as u32 + 0xc,
            _ => group as u32,
        };
        // SAFETY: these MSRs exist wherever VT-x does; the secondary ones' number is asked only if those controls exist.
        let allowed = unsafe { rdmsr(number) };
        (wanted | allowed as u32) & (allowed >> 32) as u32
    }

    /// The secondary controls of `wanted` that this CPU has.
    pub(super) fn second(self, wanted: u32) -> u32 {
        let any = self.controls(Group::Cpu, super::control::SECOND) & super::control::SECOND != 0;
        if any { self.controls(Group::Second, wanted) } else { 0 }
    }
}

/// Turns VT-x on if it is not yet.
pub(super) fn enable() -> Result<Cpu, Unavailable> {
    if __cpuid(1).ecx & VMX == 0 {
        return Err(Unavailable::Missing("this CPU has no VT-x (VMX); backend=depriv needs none"));
    }
    // SAFETY: the closure only copies a value.
    if let Some(cpu) = unsafe { CPU.with(|cpu| *cpu) } {
        return Ok(cpu);
    }
    // SAFETY: every CPU with VMX has these registers; a value that is not locked may be written.
    let basic = unsafe {
        if rdmsr(FEATURE_CONTROL) & LOCKED == 0 {
            wrmsr(FEATURE_CONTROL, rdmsr(FEATURE_CONTROL) | LOCKED | OUTSIDE_SMX);
        }
        if rdmsr(FEATURE_CONTROL) & OUTSIDE_SMX == 0 {
            return Err(Unavailable::Missing("the firmware has disabled VT-x"));
        }
        rdmsr(BASIC)
    };
    let revision = basic as u32 & 0x7fff_ffff;
    let region = frames::alloc_contiguous(1, Owner::Host).ok_or(Unavailable::Memory)?;
    cpu::keep_vmxe();
    let failed: u8;
    // SAFETY: the frame was just allocated for this and starts with the revision, as VMXON wants it; CR4.VMXE was just set, and
    // stays set; CR0 has PE, NE and PG.
    unsafe {
        core::ptr::write_bytes(phys::frame::<u8>(region), 0, phys::PAGE_SIZE);
        phys::frame::<u32>(region).write_volatile(revision);
        let place = region.raw() << 12;
        asm!("vmxon [{0}]", "setbe {1}", in(reg) &raw const place, lateout(reg_byte) failed, options(nostack));
    }
    if failed != 0 {
        return Err(Unavailable::Missing("the CPU refused to turn VT-x on"));
    }
    let cpu = Cpu { revision, has_true: basic & TRUE_CONTROLS != 0 };
    // SAFETY: the closure only stores a value.
    unsafe { CPU.with(|place| *place = Some(cpu)) };
    Ok(cpu)
}
