//! Control register loads and the roots they name. Owns I8 and I11.
//!
//! Every PML4 in the pool is a cached root: a load finds it by its key in the chain of the guest's own root frame. The shadows
//! of its guest tables stay tracked meanwhile, so nothing has to be checked at the switch.

use crate::addr::Level;
use crate::controls::{ControlFault, ControlWrite, Controls, PagingCtx, cr4};
use crate::counters::Counter;
use crate::event::Observer;
use crate::flush::FlushPlan;
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::role::Key;
use crate::stop::Trouble;

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// The guest's control registers change to `controls` by a write of `why`.
    ///
    /// The plan empties the TLB if the architecture says so (SDM 3A 4.10.4.1) or if the root changed. Call it for CR3 loads, and
    /// for CR0, CR4 and EFER writes that may matter to paging; others are harmless and cheap.
    ///
    /// # Errors
    /// [`ControlFault`] if the CPU would refuse, or if this build cannot shadow the mode; nothing is changed then.
    pub fn load_controls(&mut self, controls: Controls, why: ControlWrite) -> Result<FlushPlan, ControlFault> {
        if why == ControlWrite::Cr3 && self.root.is_some() && self.only_cr3_differs(controls) {
            return self.load_cr3(controls.cr3);
        }
        let ctx = PagingCtx::new(controls, self.maxphyaddr)?;
        let changed = ctx != self.ctx || self.root.is_none();
        let flushing = match why {
            ControlWrite::Cr3 | ControlWrite::Reset => true,
            ControlWrite::Cr4 => (controls.cr4 ^ self.controls.cr4) & cr4::FLUSHING != 0,
            ControlWrite::Cr0 | ControlWrite::Efer => false,
        };
        if changed && let Err(trouble) = self.switch(ctx) {
            return Err(ControlFault::Stop(self.stop(trouble)));
        }
        self.ctx = ctx;
        self.controls = controls;
        if changed || flushing {
            self.flush_all();
        }
        Ok(self.take_plan())
    }

    /// The frequent case: a switch of address spaces in one mode.
    #[inline]
    fn load_cr3(&mut self, cr3: u64) -> Result<FlushPlan, ControlFault> {
        let root = self.ctx.root_of(cr3);
        if root != self.ctx.root {
            let before = core::mem::replace(&mut self.ctx.root, root);
            if let Err(trouble) = self.switch(self.ctx) {
                self.ctx.root = before;
                return Err(ControlFault::Stop(self.stop(trouble)));
            }
        }
        self.controls.cr3 = cr3;
        self.flush_all();
        Ok(self.take_plan())
    }

    #[inline]
    fn only_cr3_differs(&self, controls: Controls) -> bool {
        controls.cr0 == self.controls.cr0 && controls.cr4 == self.controls.cr4 && controls.efer == self.controls.efer
    }

    /// Makes the root of `ctx` the current one.
    fn switch(&mut self, ctx: PagingCtx) -> Result<(), Trouble> {
        let key = if self.frames.find(ctx.root).is_some() { Key::glue(&ctx, Level::L4) } else { Key::void(&ctx) };
        let index = match self.find(key)? {
            Some(index) => {
                self.counters.add(Counter::RootHit);
                self.pool.get_mut(index)?.used = true;
                self.move_to_front(key.gfn, index)?;
                index
            }
            None => {
                self.counters.add(Counter::RootMiss);
                self.make_root(key)?
            }
        };
        self.root = Some(self.pool.id(index)?);
        Ok(())
    }

    /// I8: the old root stays pinned until the new one exists. I11: the last gate puts the hypervisor's window into it.
    #[cold]
    fn make_root(&mut self, key: Key) -> Result<u32, Trouble> {
        let mut room = self.reserve(1)?;
        let index = self.make(key, &mut room)?;
        let table = self.pool.get(index)?.pfn;
        match self.tables.make_root(table) {
            Ok(()) => Ok(index),
            Err(_) => Err(Trouble::Refused { page: index, slot: 0 }),
        }
    }
}
