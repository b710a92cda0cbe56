//! The direct map: how the hypervisor reaches physical memory, and the checked access to a guest's frames.
//!
//! Guest memory may change at any time (the guest's page tables name it too), so it is never borrowed: only volatile loads and
//! stores, and atomic compare-exchange, leave this module.

use crate::frames::{self, Owner, Tag, VmId};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use gnomon_boot::{Module, WINDOW_BASE, WINDOW_SIZE};
use shadow_mmu::Pfn;

/// Bytes in a frame.
pub const PAGE_SIZE: usize = 4096;

/// Where physical address `address` appears, as a pointer to whatever is there. Meaningful below [`WINDOW_SIZE`].
#[inline]
pub(crate) const fn window<T>(address: u64) -> *mut T {
    debug_assert!(address < WINDOW_SIZE);
    (WINDOW_BASE + address) as *mut T
}

/// Where a frame appears.
#[inline]
pub(crate) const fn frame<T>(pfn: Pfn) -> *mut T {
    window(pfn.raw() << 12)
}

/// The bytes of a boot module, which never change: its frames are reserved. Empty for a range that is not all reserved frames
/// of memory the kernel knows, so no made-up module shows anything that is used.
#[must_use]
pub fn module_bytes(module: &Module) -> &'static [u8] {
    let page = PAGE_SIZE as u64;
    let frames = module.start / page..module.end.min(WINDOW_SIZE).div_ceil(page);
    let reserved = frames::with(|table| {
        frames.clone().all(|f| table.get(f).is_some_and(|f| f.owner == Tag::new(Owner::Reserved)))
    });
    if !reserved || module.end > WINDOW_SIZE || module.end <= module.start {
        return &[];
    }
    let len = (module.end - module.start) as usize;
    // SAFETY: the frames are in the frame table, so the window shows them, and reserved, so nothing ever writes them. The loader
    // put the module there before the kernel ran.
    unsafe { core::slice::from_raw_parts(window(module.start), len) }
}

/// The frame does not belong to this guest, or the access leaves the frame. Always a bug of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign;

/// Access to the frames of one guest: a gate that looks up the owner of each frame at each access.
#[derive(Debug)]
pub struct GuestWindow {
    owner: Tag,
}

macro_rules! access {
    ($load:ident, $store:ident, $type:ty, $bytes:literal) => {
        #[doc = concat!("Loads ", $bytes, " at `offset`, which must be a multiple of their number.")]
        #[inline]
        pub fn $load(&self, pfn: Pfn, offset: usize) -> Result<$type, Foreign> {
            let place = self.place(pfn, offset, size_of::<$type>())?;
            // SAFETY: `place` proved that the bytes are in a frame of this guest and that they are aligned; the window shows it.
            Ok(unsafe { place.cast::<$type>().read_volatile() })
        }

        #[doc = concat!("Stores ", $bytes, " at `offset`, which must be a multiple of their number.")]
        #[inline]
        pub fn $store(&self, pfn: Pfn, offset: usize, value: $type) -> Result<(), Foreign> {
            let place = self.place(pfn, offset, size_of::<$type>())?;
            // SAFETY: as for the load; the frame is guest memory, which the host never borrows.
            unsafe { place.cast::<$type>().write_volatile(value) };
            Ok(())
        }
    };
}

#[allow(clippy::cast_ptr_alignment, reason = "`place` checks the alignment")]
impl GuestWindow {
    /// A window to the frames owned by `Guest(vm)`.
    #[must_use]
    pub const fn new(vm: VmId) -> Self {
        Self { owner: Tag::new(Owner::Guest(vm)) }
    }

    access!(load_u8, store_u8, u8, "1 byte");
    access!(load_u16, store_u16, u16, "2 bytes");
    access!(load_u32, store_u32, u32, "4 bytes");
    access!(load_u64, store_u64, u64, "8 bytes");

    /// Replaces 4 bytes if they are `old`; the inner error is the value found instead.
    #[inline]
    pub fn cmpxchg_u32(&self, pfn: Pfn, offset: usize, old: u32, new: u32) -> Result<Result<(), u32>, Foreign> {
        let place = self.place(pfn, offset, 4)?;
        // SAFETY: aligned and in a frame of this guest, see `place`; the guest and the host access it only by such means.
        let cell = unsafe { AtomicU32::from_ptr(place.cast()) };
        Ok(cell.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ()))
    }

    /// Replaces 8 bytes if they are `old`; the inner error is the value found instead.
    #[inline]
    pub fn cmpxchg_u64(&self, pfn: Pfn, offset: usize, old: u64, new: u64) -> Result<Result<(), u64>, Foreign> {
        let place = self.place(pfn, offset, 8)?;
        // SAFETY: aligned and in a frame of this guest, see `place`; the guest and the host access it only by such means.
        let cell = unsafe { AtomicU64::from_ptr(place.cast()) };
        Ok(cell.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ()))
    }

    /// Copies `bytes` into the frame from `offset` on.
    pub fn copy_in(&self, pfn: Pfn, offset: usize, bytes: &[u8]) -> Result<(), Foreign> {
        let place = self.range(pfn, offset, bytes.len())?;
        // SAFETY: the range lies in a frame of this guest. `bytes` is the host's, so the two do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Ok(())
    }

    /// Copies from `offset` on into `bytes`.
    pub fn copy_out(&self, pfn: Pfn, offset: usize, bytes: &mut [u8]) -> Result<(), Foreign> {
        let place = self.range(pfn, offset, bytes.len())?;
        // SAFETY: as for `copy_in`, the other way round. The guest does not run meanwhile: there is one CPU.
        unsafe { core::ptr::copy_nonoverlapping(place.cast_const(), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies a whole frame, by words of 8 bytes.
    pub fn copy_frame(&self, pfn: Pfn, bytes: &mut [u8; PAGE_SIZE]) -> Result<(), Foreign> {
        let place = self.range(pfn, 0, PAGE_SIZE)?;
        // SAFETY: both are PAGE_SIZE bytes and do not overlap, as for `copy_in`; DF is clear in host code (System V ABI).
        unsafe {
            core::arch::asm!(
                "rep movsq",
                inout("rcx") PAGE_SIZE / 8 => _,
                inout("rsi") place => _,
                inout("rdi") bytes.as_mut_ptr() => _,
                options(nostack, preserves_flags),
            );
        }
        Ok(())
    }

    /// Makes the frame all zeroes.
    pub fn zero(&self, pfn: Pfn) -> Result<(), Foreign> {
        let place = self.range(pfn, 0, PAGE_SIZE)?;
        // SAFETY: the whole frame is this guest's memory.
        unsafe { core::ptr::write_bytes(place, 0, PAGE_SIZE) };
        Ok(())
    }

    #[inline]
    fn place(&self, pfn: Pfn, offset: usize, size: usize) -> Result<*mut u8, Foreign> {
        if offset & (size - 1) != 0 { Err(Foreign) } else { self.range(pfn, offset, size) }
    }

    #[inline]
    fn range(&self, pfn: Pfn, offset: usize, size: usize) -> Result<*mut u8, Foreign> {
        let mine = frames::with(|frames| frames.get(pfn.raw()).is_some_and(|f| f.owner == self.owner));
        if !mine || offset > PAGE_SIZE || size > PAGE_SIZE - offset {
            return Err(Foreign);
        }
        Ok(frame::<u8>(pfn).wrapping_add(offset))
    }
}
