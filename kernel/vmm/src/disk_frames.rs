//! Changed blocks of a guest's disks in frames of the host. When the host has none to spare, writes to new blocks fail.

use gnomon_hw::frames::{self, Owner, VmId};
use gnomon_hw::phys::GuestWindow;
use shadow_mmu::Pfn;

use crate::dev::{BLOCK, BlockId, BlockStore};

/// Frames that stay free for everything else of the host.
const HOST_RESERVE: usize = 256;

/// The blocks of one disk. Their frames belong to the VM, but are no part of its memory.
#[derive(Debug)]
pub(crate) struct DiskFrames {
    vm: VmId,
    window: GuestWindow,
}

impl DiskFrames {
    /// No blocks yet.
    pub(crate) const fn new(vm: VmId) -> Self {
        Self { vm, window: GuestWindow::new(vm) }
    }
}

impl BlockStore for DiskFrames {
    fn add(&mut self, bytes: &[u8; BLOCK]) -> Option<BlockId> {
        if frames::stats().free <= HOST_RESERVE {
            return None;
        }
        let frame = frames::alloc(Owner::Guest(self.vm))?;
        self.window.copy_in(frame, 0, bytes).ok()?;
        Some(BlockId(frame.raw()))
    }

    fn read(&self, block: BlockId, offset: usize, bytes: &mut [u8]) {
        if self.window.copy_out(Pfn::new(block.0), offset, bytes).is_err() {
            bytes.fill(0); // not a frame of this VM: a number that this store never gave out
        }
    }

    fn write(&mut self, block: BlockId, offset: usize, bytes: &[u8]) {
        // As for reads; dropping it is the safe answer.
        let _ = self.window.copy_in(Pfn::new(block.0), offset, bytes);
    }
}
