//! What the one CPU is doing: which world's state it holds, and whether that world can be entered as things are.

use crate::paging;
use crate::world::State;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use shadow_mmu::Pfn;
use x86::controlregs::{Cr4, cr4, cr4_write};

/// The world whose segments, FPU and control bits are in the CPU; null: none.
static RESIDENT: AtomicPtr<State> = AtomicPtr::new(ptr::null_mut());
/// The resident world, if also its root is in CR3 and the TLB holds nothing stale; else null. A run checks only this.
static ACTIVE: AtomicPtr<State> = AtomicPtr::new(ptr::null_mut());

#[inline]
pub(crate) fn resident() -> *mut State {
    RESIDENT.load(Ordering::Relaxed)
}

pub(crate) fn set_resident(world: *mut State) {
    RESIDENT.store(world, Ordering::Relaxed);
}

#[inline]
pub(crate) fn is_active(world: *mut State) -> bool {
    ptr::eq(ACTIVE.load(Ordering::Relaxed), world)
}

pub(crate) fn set_active(world: *mut State) {
    ACTIVE.store(world, Ordering::Relaxed);
}

/// Makes sure that CR3 is loaded (which empties the TLB, nothing being global) before guest code runs or guest addresses are
/// used again.
#[inline]
pub(crate) fn deactivate() {
    ACTIVE.store(ptr::null_mut(), Ordering::Relaxed);
}

/// CR4 bits that an extension in use keeps set.
static EXTENSION_CR4: AtomicU64 = AtomicU64::new(0);

/// CR4 bits that an extension in use keeps set.
pub(crate) fn extension_cr4() -> u64 {
    EXTENSION_CR4.load(Ordering::Relaxed)
}

/// Sets CR4.VMXE and keeps it set.
pub(crate) fn keep_vmxe() {
    EXTENSION_CR4.store(Cr4::CR4_ENABLE_VMX.bits() as u64, Ordering::Relaxed);
    // SAFETY: VMXE allows VMXON and changes nothing else.
    unsafe { cr4_write(cr4() | Cr4::CR4_ENABLE_VMX) };
}

/// Leaves whatever root is loaded, for roots may go away now.
pub(crate) fn forget_roots() {
    deactivate();
    if paging::host_root() != 0 {
        // SAFETY: the host's root maps the window, where all host code and data are.
        unsafe { x86::controlregs::cr3_write(paging::host_root()) };
    }
}

/// Leaves `root` if it is loaded.
pub(crate) fn leave_root(root: Pfn) {
    // SAFETY: reading CR3 at CPL 0 changes nothing.
    if unsafe { x86::controlregs::cr3() } >> 12 == root.raw() {
        forget_roots();
    }
}
