//! The top of the shadow tables in the format that a 32-bit guest's CPU wants: outside long mode CR3 names four PDPTEs, whose
//! R/W, U/S and A bits are reserved (SDM 3A 4.4.1), where the shadow root is a PML4.

use crate::frames::{self, VmId};
use crate::{gate, phys};
use shadow_mmu::Pfn;

const PRESENT: u64 = 1;
/// Present and writable.
const MAY_WRITE: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// Four PDPTEs, each naming a table that the gate knows as an L2 table of the machine, or nothing.
#[derive(Debug)]
pub(crate) struct Pdpt {
    vm: VmId,
    /// Below 4 GiB.
    place: Pfn,
}

impl Pdpt {
    /// In a zeroed frame of the host that nothing else uses.
    pub(crate) const fn new(vm: VmId, place: Pfn) -> Self {
        Self { vm, place }
    }

    /// What CR3 must hold.
    pub(crate) const fn cr3(&self) -> u64 {
        self.place.raw() << 12
    }

    /// Makes the four entries those of the shadow root `root`, or none if it is no root of this machine. Says whether any changed.
    #[inline]
    pub(crate) fn follow(&self, root: u64) -> bool {
        let checked = frames::with(|frames| gate::is_root::<gate::Shadow>(frames, self.vm, root));
        let upper = if checked { load(root, 0) } else { 0 };
        let mut changed = false;
        for index in 0..4 {
            // The gate lets a root name L3 tables only, and those L2 tables only, all of them this machine's.
            let raw = if upper & PRESENT != 0 { load((upper & FRAME) >> 12, index) } else { 0 };
            let entry = if raw & PRESENT != 0 { raw & FRAME | PRESENT } else { 0 };
            if load(self.place.raw(), index) != entry {
                // SAFETY: the frame is this value's own, and the index below 512.
                unsafe { phys::frame::<u64>(self.place).wrapping_add(index).write_volatile(entry) };
                changed = true;
            }
        }
        changed
    }

    /// Whether the tables, as they are, let the kernel write at a linear address.
    #[inline]
    pub(crate) fn lets_write(&self, address: u32) -> bool {
        let middle = self.middle(address);
        if middle & MAY_WRITE != MAY_WRITE || middle & LARGE != 0 {
            return middle & MAY_WRITE == MAY_WRITE;
        }
        load((middle & FRAME) >> 12, address as usize >> 12 & 511) & MAY_WRITE == MAY_WRITE
    }

    /// A linear address where they let nobody write, if there is one outside all L1 tables.
    #[cold]
    pub(crate) fn hole(&self) -> Option<u32> {
        (0..2048).map(|index| index << 21).find(|&address| self.middle(address) & MAY_WRITE != MAY_WRITE)
    }

    /// The entry of an L2 table that a linear address goes through.
    #[inline]
    fn middle(&self, address: u32) -> u64 {
        let upper = load(self.place.raw(), address as usize >> 30);
        if upper & PRESENT == 0 { 0 } else { load((upper & FRAME) >> 12, address as usize >> 21 & 511) }
    }
}

#[inline]
fn load(table: u64, index: usize) -> u64 {
    // SAFETY: callers pass a table that the gate knows, one that such a table names, or the PDPT's own frame; the window shows them.
    unsafe { phys::frame::<u64>(Pfn::new(table)).wrapping_add(index).read_volatile() }
}
