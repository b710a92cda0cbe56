//! Stepping over instructions that the emulator does not know: the tracked frames they write are opened, one instruction runs
//! natively under TF, and what it wrote is read again. Never wrong, only slower.

use alloc::vec::Vec;
use gnomon_trace::Reason;
use shadow_mmu::{Fault, Gfn, Outcome};

use crate::exit::{NOT_RESIDENT, ShortWays, mmu_stop};
use crate::ram::PAGE;
use crate::trap::{Emulated, Exception, StopReason};
use crate::vm::Vm;

impl Vm {
    /// Opens the tracked frame behind a faulting write and arranges for one instruction to run.
    pub(crate) fn step_over(&mut self, fault: Fault) -> Emulated<()> {
        self.short_ways = ShortWays::Closed;
        self.count(Reason::TrackedWrite);
        let (outcome, plan) = self.mmu.open(fault);
        self.flush(plan);
        match outcome {
            Outcome::Resume => {
                self.begin_step();
                Ok(())
            }
            Outcome::Inject(fault) => Err(Exception::page_fault(fault.error.bits(), fault.gva.raw() as u32).into()),
            Outcome::EmulateWrite(_) | Outcome::Mmio(_) => Err(StopReason::Unemulated.into()),
            Outcome::NotResident(_) => Err(NOT_RESIDENT.into()),
            Outcome::EmulateFetch(_) | Outcome::NonCanonical(_) => Err(super::fault::LONG_MODE_ONLY.into()),
            Outcome::Stop(stop) => Err(mmu_stop(stop).into()),
        }
    }

    /// Ends the opening of frames; tables and descriptors in them follow what was written.
    pub(crate) fn close_frames(&mut self) {
        if !self.mmu.is_open() {
            return;
        }
        self.world.hide_task_segment(false);
        let mut written: Vec<Gfn> = Vec::new();
        let plan = self.mmu.close(|gfn| written.push(gfn));
        self.flush(plan);
        for gfn in written {
            if self.mmu.write_kind(gfn).watched {
                self.code_frame_written(gfn.base(), PAGE as usize);
                self.descriptor_frame_written(gfn.base(), PAGE as usize);
            }
        }
    }
}
