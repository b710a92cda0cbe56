//! The kernel's heap. Used when machines are made; the exit path does not allocate.
//!
//! Small sizes are powers of two from 16 bytes to half a frame, each with a list of free pieces. Larger ones are runs of
//! neighbouring frames, which go back to the frame table when freed.

use crate::cell::SingleCpu;
use crate::frames::{self, Owner};
use crate::phys::{self, PAGE_SIZE};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use gnomon_boot::WINDOW_BASE;
use shadow_mmu::Pfn;

const SMALLEST: usize = 16;
/// 16, 32, ... 2048.
const CLASSES: usize = 8;

/// The global allocator of the kernel binary.
pub struct Heap {
    free: SingleCpu<[*mut Piece; CLASSES]>,
}

/// A free piece of a class: points to the next.
struct Piece {
    next: *mut Self,
}

impl Heap {
    /// An empty heap: it takes frames as it needs them.
    #[must_use]
    pub const fn new() -> Self {
        Self { free: SingleCpu::new([ptr::null_mut(); CLASSES]) }
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

/// The class for a layout; `None`: whole frames.
fn class(layout: Layout) -> Option<usize> {
    let size = layout.size().max(layout.align()).max(SMALLEST).next_power_of_two();
    let class = (size / SMALLEST).trailing_zeros() as usize;
    (class < CLASSES).then_some(class)
}

/// Frames come from the lower part of memory, which scattered allocation leaves alone.
fn take_frames<T>(count: usize) -> *mut T {
    frames::alloc_contiguous(count, Owner::Host).map_or(ptr::null_mut(), phys::frame)
}

// SAFETY: pieces and runs come from frames that belong to the host and to nothing else in it; a piece is on its free list or with
// one caller, never both; its alignment is its size, and a frame's is 4096, the largest that is given out.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > PAGE_SIZE {
            return ptr::null_mut();
        }
        let Some(class) = class(layout) else {
            return take_frames(layout.size().div_ceil(PAGE_SIZE));
        };
        // SAFETY: the closure touches the lists and fresh frames only. Pieces on a list are unused memory of their class's size.
        unsafe {
            self.free.with(|free| {
                if free[class].is_null() {
                    free[class] = split(take_frames(1), SMALLEST << class);
                }
                let piece = free[class];
                if !piece.is_null() {
                    free[class] = (*piece).next;
                }
                piece.cast()
            })
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        match class(layout) {
            Some(class) => {
                #[expect(clippy::cast_ptr_alignment, reason = "a piece is aligned to its size of at least 16")]
                let piece = place.cast::<Piece>();
                // SAFETY: the caller gives back what `alloc` gave for this layout: unused memory of the class's size.
                unsafe {
                    self.free.with(|free| {
                        (*piece).next = free[class];
                        free[class] = piece;
                    });
                }
            }
            None => {
                let first = Pfn::new((place as u64 - WINDOW_BASE) >> 12);
                // SAFETY: `alloc` took these frames for this place, and the caller gives them back.
                unsafe { frames::free_host(first, layout.size().div_ceil(PAGE_SIZE)) };
            }
        }
    }
}

/// Makes a list of the pieces of one frame; null for null.
///
/// # Safety
/// `frame` is null or a frame that nothing uses.
unsafe fn split(frame: *mut Piece, size: usize) -> *mut Piece {
    if frame.is_null() {
        return ptr::null_mut();
    }
    let mut list = ptr::null_mut();
    for offset in (0..PAGE_SIZE).step_by(size).rev() {
        let piece = frame.wrapping_byte_add(offset);
        // SAFETY: the piece lies in the frame, aligned to its size of at least 16.
        unsafe { piece.write(Piece { next: list }) };
        list = piece;
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_size_and_alignment() {
        let of = |size, align| class(Layout::from_size_align(size, align).unwrap());
        assert_eq!(of(1, 1), Some(0));
        assert_eq!(of(17, 1), Some(1));
        assert_eq!(of(8, 64), Some(2));
        assert_eq!(of(2048, 8), Some(7));
        assert_eq!(of(2049, 8), None);
        assert_eq!(of(8, 4096), None);
    }
}
