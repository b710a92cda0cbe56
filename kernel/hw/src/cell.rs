//! Global state of a kernel that runs on one CPU with interrupts off.

use core::cell::UnsafeCell;

/// A global that only the one CPU touches, and never from an interrupt: host code runs with IF=0, and the handlers of the few
/// exceptions that may arrive in host mode (see `fault`) use none of these cells except on the way to the end.
pub(crate) struct SingleCpu<T>(UnsafeCell<T>);

// SAFETY: there is one CPU and host code is not interrupted, so no two accesses overlap in time.
unsafe impl<T> Sync for SingleCpu<T> {}

impl<T> SingleCpu<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Runs `f` with the value.
    ///
    /// # Safety
    /// `f` must not reach the same cell again.
    #[inline]
    pub(crate) unsafe fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: one CPU, no interrupts, and the caller promises that `f` does not come back here: the reference is unique.
        f(unsafe { &mut *self.0.get() })
    }

    /// The address of the value, for the CPU's tables.
    pub(crate) const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }
}
