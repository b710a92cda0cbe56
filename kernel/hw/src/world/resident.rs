//! Which world is in the CPU: putting one away, loading another, and making the resident one active.

use super::segment;
use super::state::{CONTEXT_END, Fpu, GUEST_CR0, GUEST_CR4, State};
use crate::features;
use crate::{cpu, frames, gate, gdt, paging};
use core::arch::asm;
use core::ptr;
use shadow_mmu::Spte;
use x86::controlregs::{Cr0, Cr4, cr0_write, cr3_write, cr4_write};
use x86::msr::wrmsr;

/// CR0 whenever a guest runs, without the guest's bits: WP, so that read-only shadow entries bind ring 1.
const HOST_CR0: Cr0 = Cr0::CR0_ENABLE_PAGING
    .union(Cr0::CR0_PROTECTED_MODE)
    .union(Cr0::CR0_WRITE_PROTECT)
    .union(Cr0::CR0_NUMERIC_ERROR)
    .union(Cr0::CR0_EXTENSION_TYPE);

/// CR4 without the guest's bits. PGE, OSXSAVE, PKE stay off.
const HOST_CR4: Cr4 = Cr4::CR4_ENABLE_PAE;

/// CR4.PKS and IA32_PKRS: supervisor pages have protection keys. Shadow code has one that denies all but fetches, the host's pages and the
/// guest's have key 0.
const CR4_PKS: usize = 1 << 24;
const IA32_PKRS: u32 = 0x6e1;
const NO_ACCESS: u64 = 1 << (2 * Spte::UNREADABLE_KEY);

/// MXCSR and its mask in an FXSAVE image (SDM 1 10.5.1).
const MXCSR: core::ops::Range<usize> = 24..32;

/// Sets the host's control registers, before there is any world.
pub(crate) fn init() {
    write_controls(0, 0, false);
    if features::get().pks {
        // SAFETY: the CPU has the register, and no page of the host has that key.
        unsafe { wrmsr(IA32_PKRS, NO_ACCESS) };
    }
}

fn write_controls(cr0: u64, cr4: u64, fetch_guard: bool) {
    let smep = if fetch_guard && features::get().smep { Cr4::CR4_ENABLE_SMEP } else { Cr4::empty() };
    let pks = if features::get().pks { CR4_PKS } else { 0 };
    let umip = if features::get().umip { Cr4::CR4_ENABLE_UMIP } else { Cr4::empty() };
    let cr0 = HOST_CR0 | Cr0::from_bits_truncate((cr0 & GUEST_CR0) as usize);
    let extension = Cr4::from_bits_truncate(cpu::extension_cr4() as usize);
    let cr4 = HOST_CR4 | extension | umip | smep | Cr4::from_bits_truncate((cr4 & GUEST_CR4) as usize);
    // SAFETY: paging, PAE and protection stay on as they are. The bits a guest may choose change nothing for host code, which
    // uses no FPU, no debug registers and may use RDTSC in ring 0 whatever TSD says. PKS, which the crate does not know, is set only where
    // the CPU has it, and no page of the host has another key than 0.
    unsafe {
        cr0_write(cr0);
        cr4_write(Cr4::from_bits_unchecked(cr4.bits() | pks));
    }
}

/// The guest's bits of CR0 and CR4 changed.
pub(crate) fn set_controls(state: *mut State) {
    if ptr::eq(cpu::resident(), state) {
        // SAFETY: the caller holds the world, so the state is alive and unchanged meanwhile.
        let (cr0, cr4, fetch_guard) = unsafe { ((*state).cr0, (*state).cr4, (*state).fetch_guard) };
        write_controls(cr0, cr4, fetch_guard);
    }
}

/// Makes `state` the resident world with its root in CR3 and an empty TLB; active too, unless breakpoints must be armed for each run.
#[cold]
pub(crate) fn activate(state: *mut State) {
    make_resident(state);
    // SAFETY: the caller holds the world, so the state is alive and unchanged meanwhile.
    let (root, vm) = unsafe { ((*state).root, (*state).vm) };
    let root = if frames::with(|frames| gate::is_root::<gate::Shadow>(frames, vm, root)) {
        root << 12
    } else {
        if root << 12 != paging::host_root() {
            log::error!("frame {root:#x} is no root of this machine: the guest runs without memory");
        }
        paging::host_root()
    };
    // SAFETY: both kinds of root hold the window (I11), where host code goes on.
    unsafe { cr3_write(root) };
    // SAFETY: as above.
    if !unsafe { (*state).armed } {
        cpu::set_active(state);
    }
}

/// Makes `state` the resident world.
#[inline]
pub(crate) fn make_resident(state: *mut State) {
    if !ptr::eq(cpu::resident(), state) {
        exchange(state);
    }
}

#[cold]
fn exchange(state: *mut State) {
    put_away(cpu::resident());
    // SAFETY: `state` is a live world's; its GDT has the host's entries and an LDT entry.
    unsafe {
        gdt::load(&raw const (*state).gdt);
        gdt::set_exit_stack(state as u64 + CONTEXT_END as u64);
        restore_fpu(&raw const (*state).fpu);
        // An LDT segment may be in a register although LDTR is null by now.
        gdt::load_ldt(true);
        segment::load_all(state);
        gdt::load_ldt((*state).ldt_present);
    }
    cpu::set_resident(state);
    set_controls(state);
}

/// Saves what only the CPU holds of the world `old`, if there is one. Afterwards no world is resident.
fn put_away(old: *mut State) {
    cpu::deactivate();
    cpu::set_resident(ptr::null_mut());
    // FXSAVE and FXRSTOR need TS=0 and EM=0, and move the SSE registers only with OSFXSR.
    write_controls(0, 1 << 9, false);
    if !old.is_null() {
        // SAFETY: a resident world is alive: `evict` runs before one goes away.
        unsafe {
            (*old).segments = segment::read_all();
            save_fpu(&raw mut (*old).fpu);
        }
    }
}

/// Takes the world out of the CPU before its memory goes away.
pub(crate) fn evict(state: *mut State) {
    if ptr::eq(cpu::resident(), state) {
        put_away(state);
        segment::clear_all();
        gdt::load_host();
        cpu::forget_roots();
    }
}

/// Lets `change` see and change the FPU and SSE registers of a world, in FXSAVE format; true from it: it has changed them.
pub(crate) fn edit_fpu(state: *mut State, change: impl FnOnce(&mut [u8; 512]) -> bool) {
    let resident = ptr::eq(cpu::resident(), state);
    if resident {
        // As in `put_away`; the guest's own TS and EM are clear where it has just used such a register.
        write_controls(0, 1 << 9, false);
        // SAFETY: the caller holds the world, so the state is alive; TS and EM are clear.
        unsafe { save_fpu(&raw mut (*state).fpu) };
    }
    // SAFETY: the caller holds the world, and nothing else looks at the area meanwhile.
    let image = unsafe { &mut (*state).fpu.0 };
    let mut kept = [0; 8];
    kept.copy_from_slice(&image[MXCSR]);
    let changed = change(image);
    // The one field that FXRSTOR would refuse a value of.
    image[MXCSR].copy_from_slice(&kept);
    if resident {
        if changed {
            // SAFETY: its MXCSR is as it was saved; all else may have any value.
            unsafe { restore_fpu(&raw const (*state).fpu) };
        }
        set_controls(state);
    }
}

/// # Safety
/// CR0.TS and EM are clear, and `area` is a world's own.
#[inline(never)] // The build's check of the machine code knows it by its name.
unsafe fn save_fpu(area: *mut Fpu) {
    // SAFETY: the area is 512 bytes, aligned to 16. The instruction only reads the FPU.
    unsafe { asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)) };
}

/// # Safety
/// CR0.TS and EM are clear, and `area` holds an image that FXSAVE or [`State::init`] made.
#[inline(never)] // The build's check of the machine code knows it by its name.
unsafe fn restore_fpu(area: *const Fpu) {
    // SAFETY: such an image has no reserved MXCSR bit, so it does not fault; host code uses no FPU register.
    unsafe { asm!("fxrstor64 [{}]", in(reg) area, options(readonly, nostack, preserves_flags)) };
}
