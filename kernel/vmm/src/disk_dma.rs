//! Disk transfers by the bus master: the bytes' way between the devices and the guest's memory.

use shadow_mmu::{GfnKind, Gpa};

use crate::dev::{DmaStep, Side};
use crate::vm::Vm;

/// Bytes that are moved in one step.
const CHUNK: usize = 1024;
/// Steps of one transfer: enough for the largest one along a table of sane regions. It bounds what a guest can cost with others.
const MOST_STEPS: u32 = 1 << 17;

impl Vm {
    /// Carries out a whole transfer: to the guest it took no time.
    #[inline(never)] // Out of the way of other port accesses.
    pub(crate) fn transfer_disk(&mut self, side: Side) {
        for _ in 0..MOST_STEPS {
            match self.bus.dma_step(side) {
                DmaStep::Entry(at) => {
                    let mut entry = [0; 8];
                    self.mmu.mem().read(Gpa::new(at), &mut entry);
                    self.bus.dma_entry(side, entry);
                }
                DmaStep::ToMemory(at, bytes) => {
                    let mut chunk = [0; CHUNK];
                    if let Some(part) = chunk.get_mut(..bytes.min(CHUNK)) {
                        self.bus.dma_take(side, part);
                        self.write_by_device(Gpa::new(at), part);
                    }
                }
                DmaStep::FromMemory(at, bytes) => {
                    let mut chunk = [0; CHUNK];
                    if let Some(part) = chunk.get_mut(..bytes.min(CHUNK)) {
                        self.mmu.mem().read(Gpa::new(at), part);
                        self.bus.dma_give(side, part);
                    }
                }
                DmaStep::Done => return,
            }
        }
        self.bus.dma_fail(side);
    }

    /// What a device writes goes to RAM, or nowhere.
    fn write_by_device(&mut self, at: Gpa, bytes: &[u8]) {
        if matches!(self.mmu.mem().kind_at(at), GfnKind::Ram(_) | GfnKind::NotResident) {
            self.write_physical(at, bytes);
        }
    }
}
