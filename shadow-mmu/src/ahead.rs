//! Filling ahead: the guest's own fault was handled, and the access is about to be made again.
//!
//! Where every write to a leaf table is followed, the handler's write has made the shadow entry already. Elsewhere nobody has seen it, and
//! the second try would fault for the shadow's sake alone. So the caller tells when a handler returns to what faulted, and the entry is made
//! then. A CPU may fill its TLB at any time from entries that need no mark (SDM 3A 4.10.2.3); no guest can tell.
//!
//! 1. *No marks.* A must be set on the whole way, and D for a write: the walk that would set them is that of an access (I3). Linux and most
//!    kernels make entries with both.
//! 2. *No news for the host.* The frame must count as used in this way already (I13), must be memory, and not caught for writes.

use crate::access::Access;
use crate::addr::Gva;
use crate::controls::PagingMode;
use crate::counters::Counter;
use crate::event::Observer;
use crate::flush::FlushPlan;
use crate::frames::NoteWalk;
use crate::mem::{GuestMem, TableMem, backing};
use crate::mmu::ShadowMmu;
use crate::outcome::Fault;
use crate::pte::{GuestFormat, Legacy32, Long4, Long5, Pae};
use crate::stop::Trouble;
use crate::walk::{Mark, walk};

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// The handler of a fault that was the guest's own returns to the access that faulted: completes the shadow for it, if that needs no
    /// marks in the guest's tables and nobody else has to act. Else the access will fault, as ever; so nothing is lost by not calling this.
    ///
    /// Does nothing under a policy that has seen the handler's write, or without [`Policy::fill_ahead`](crate::Policy::fill_ahead).
    pub fn fill_ahead(&mut self, fault: Fault) -> FlushPlan {
        if !self.policy.fills_ahead() || self.is_open() || self.check_fault().is_err() {
            return FlushPlan::NONE;
        }
        let Fault { gva, access } = fault;
        let done = match self.ctx.mode {
            PagingMode::Off => Ok(()),
            PagingMode::Legacy32 => self.fill_marked::<Legacy32>(gva, access),
            PagingMode::Pae => self.fill_marked::<Pae>(gva, access),
            PagingMode::Long4 => self.fill_marked::<Long4>(gva, access),
            PagingMode::Long5 => self.fill_marked::<Long5>(gva, access),
        };
        if let Err(trouble) = done {
            self.remember(trouble);
        }
        self.take_plan()
    }

    #[inline(always)] // Once for each format.
    fn fill_marked<F: GuestFormat>(&mut self, gva: Gva, access: Access) -> Result<(), Trouble> {
        let mut noting = NoteWalk { frames: &mut self.frames, observer: &mut self.observer };
        let walk = walk::<F, G, _>(&self.mem, &self.ctx, (gva, access), Mark::Demand, &mut noting);
        let Ok(walk) = walk else { return Ok(()) };
        if F::SPLIT && self.look_through(gva, access).is_err() {
            return Ok(());
        }
        let Some(frame) = self.frames.find(walk.gfn) else { return Ok(()) };
        let used = if access.is_write() { frame.may_write() } else { frame.may_map() };
        match backing(self.mem.kind(walk.gfn)) {
            Some((pfn, rom)) if used && !(rom && access.is_write()) => {
                let _ = self.fill::<F>(&walk, (gva, access), (pfn, rom), Counter::FilledAhead)?;
            }
            _ => {}
        }
        Ok(())
    }
}
