//! Turning AMD-V on, once, and what all guests share: the permission maps and the host's areas.

use crate::cell::SingleCpu;
use crate::frames::{self, Owner};
use crate::phys;
use crate::virt::Unavailable;
use core::arch::asm;
use core::arch::x86_64::__cpuid;
use x86::msr::{IA32_EFER, rdmsr, wrmsr};

/// CPUID 8000_0001 ECX bit 2; 8000_000A EDX bit 0.
const SVM: u32 = 1 << 2;
const NESTED_PAGING: u32 = 1 << 0;
const VM_CR: u32 = 0xc001_0114;
/// VM_CR.SVMDIS: the firmware has turned it off.
const DISABLED: u64 = 1 << 4;
const VM_HSAVE_PA: u32 = 0xc001_0117;
const SVME: u64 = 1 << 12;

/// Frames: 3 of the port map, 2 of the MSR map, the CPU's save area, the host's own control block.
const PORT_MAP: usize = 3;
const MSR_MAP: usize = 2;
const FRAMES: usize = PORT_MAP + MSR_MAP + 2;

/// What this CPU offers, and the shared areas' physical addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    pub(super) asids: u32,
    pub(super) io_map: u64,
    pub(super) msr_map: u64,
    /// Where VMSAVE keeps the host's FS, GS, TR, LDTR and system call registers.
    pub(super) host: u64,
}

static CPU: SingleCpu<Option<Cpu>> = SingleCpu::new(None);

/// Turns AMD-V on if it is not yet.
pub(super) fn enable(nested: bool) -> Result<Cpu, Unavailable> {
    if __cpuid(0x8000_0000).eax < 0x8000_000a || __cpuid(0x8000_0001).ecx & SVM == 0 {
        return Err(Unavailable::Missing("this CPU has no AMD-V (SVM); backend=depriv needs none"));
    }
    let capabilities = __cpuid(0x8000_000a);
    if nested && capabilities.edx & NESTED_PAGING == 0 {
        return Err(Unavailable::Missing("this CPU has AMD-V but no nested paging; use mmu=shadow"));
    }
    // SAFETY: the closure only copies a value.
    if let Some(cpu) = unsafe { CPU.with(|cpu| *cpu) } {
        return Ok(cpu);
    }
    // SAFETY: every CPU with SVM has this register.
    if unsafe { rdmsr(VM_CR) } & DISABLED != 0 {
        return Err(Unavailable::Missing("the firmware has disabled AMD-V"));
    }
    let first = frames::alloc_contiguous(FRAMES, Owner::Host).ok_or(Unavailable::Memory)?;
    let page = phys::PAGE_SIZE as u64;
    let io_map = first.raw() << 12;
    let msr_map = io_map + PORT_MAP as u64 * page;
    let save_area = msr_map + MSR_MAP as u64 * page;
    let cpu = Cpu { asids: capabilities.ebx.max(2), io_map, msr_map, host: save_area + page };
    // SAFETY: the frames were just allocated for this; ones in the maps intercept every port and MSR. Setting SVME changes nothing
    // else, and VMSAVE writes the host's part of the last frame.
    unsafe {
        core::ptr::write_bytes(phys::frame::<u8>(first), 0xff, (PORT_MAP + MSR_MAP) * phys::PAGE_SIZE);
        core::ptr::write_bytes(phys::window::<u8>(save_area), 0, 2 * phys::PAGE_SIZE);
        wrmsr(IA32_EFER, rdmsr(IA32_EFER) | SVME);
        wrmsr(VM_HSAVE_PA, save_area);
        asm!("vmsave rax", in("rax") cpu.host, options(nostack, preserves_flags));
        CPU.with(|place| *place = Some(cpu));
    }
    Ok(cpu)
}
