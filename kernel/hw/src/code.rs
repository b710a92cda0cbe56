//! Frames of shadow code: what the CPU runs in place of the guest kernel's own code.
//!
//! Their content is the monitor's. The gate lets only the supervisor of their guest fetch from them or read them, and nobody write.
//! Whatever stands in them runs in ring 1, where the guest's own code would.

use crate::frames::{self, Owner, Tag, VmId};
use crate::phys::{self, Foreign, PAGE_SIZE};
use shadow_mmu::Pfn;

/// INT3: what stands where nothing was discovered.
const FILLER: u8 = 0xcc;

/// The frames of shadow code of one guest.
#[derive(Debug)]
pub struct CodeFrames {
    vm: VmId,
}

impl CodeFrames {
    /// The frames owned by `Code(vm)`.
    #[must_use]
    pub const fn new(vm: VmId) -> Self {
        Self { vm }
    }

    /// A new frame, all INT3. `None`: memory is used up.
    #[must_use]
    pub fn alloc(&self) -> Option<Pfn> {
        let pfn = frames::alloc(Owner::Code(self.vm))?;
        self.fill(pfn).ok()?;
        Some(pfn)
    }

    /// Makes a frame all INT3.
    ///
    /// # Errors
    /// [`Foreign`] if the frame is none of these.
    pub fn fill(&self, pfn: Pfn) -> Result<(), Foreign> {
        let place = self.range(pfn, 0, PAGE_SIZE)?;
        // SAFETY: the whole frame is shadow code of this guest, which is never borrowed, and the guest does not run meanwhile.
        unsafe { core::ptr::write_bytes(place, FILLER, PAGE_SIZE) };
        Ok(())
    }

    /// Copies `bytes` into the frame from `offset` on.
    ///
    /// # Errors
    /// [`Foreign`] if the frame is none of these, or the bytes leave it.
    pub fn write(&self, pfn: Pfn, offset: usize, bytes: &[u8]) -> Result<(), Foreign> {
        let place = self.range(pfn, offset, bytes.len())?;
        // SAFETY: the range lies in a frame of shadow code of this guest; `bytes` is the host's, so the two do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Ok(())
    }

    fn range(&self, pfn: Pfn, offset: usize, size: usize) -> Result<*mut u8, Foreign> {
        let owner = Tag::new(Owner::Code(self.vm));
        let mine = frames::with(|frames| frames.get(pfn.raw()).is_some_and(|f| f.owner == owner));
        if !mine || offset > PAGE_SIZE || size > PAGE_SIZE - offset {
            return Err(Foreign);
        }
        Ok(phys::frame::<u8>(pfn).wrapping_add(offset))
    }
}
