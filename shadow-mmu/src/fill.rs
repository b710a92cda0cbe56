//! The fault path: walk, decide, link tables, fill one leaf. Owns I12 for faults: bounded work, no loop.

use crate::access::{Access, PfErr};
use crate::addr::{Gfn, Gva, Level, Pfn};
use crate::controls::PagingMode;
use crate::counters::Counter;
use crate::event::Observer;
use crate::flush::FlushPlan;
use crate::mem::{GfnKind, GuestMem, TableMem, backing};
use crate::mmu::ShadowMmu;
use crate::outcome::{Fault, Outcome};
use crate::pool::Reservation;
use crate::propagate::{Cause, Leaf, Rules, propagate};
use crate::pte::{Flat, GuestFormat, Legacy32, Long4, Long5, Pae, is_host_address};
use crate::role::Key;
use crate::stop::{Broken, Trouble, VmStop};
use crate::table::{Stored, WINDOW};
use crate::view::View;
use crate::walk::{Walk, WalkError};

/// Most pages that one fault can need: all levels of the shadow below its root.
pub(crate) const MAX_NEW_PAGES: u32 = 4;

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// A page fault of the real CPU. Either the shadow is completed ([`Outcome::Resume`]), or somebody else has to act.
    ///
    /// Makes progress or asks for something else: a `Resume` means that the same access succeeds now, except if the guest's
    /// entries changed under the walk or while the pool was recycled.
    #[inline(always)] // For the one caller that is hot; others should have it in a function of their own.
    pub fn on_fault(&mut self, fault: Fault) -> (Outcome, FlushPlan) {
        if self.ctx.mode != PagingMode::Legacy32 {
            return self.on_fault_elsewhere(fault);
        }
        let outcome = self.fault::<Legacy32>(fault.gva, fault.access);
        (outcome.unwrap_or_else(Outcome::Stop), self.take_plan())
    }

    /// The other modes, in a function of their own: in one body all would be slower.
    #[inline(never)]
    fn on_fault_elsewhere(&mut self, fault: Fault) -> (Outcome, FlushPlan) {
        let outcome = match self.ctx.mode {
            PagingMode::Pae => self.fault::<Pae>(fault.gva, fault.access),
            PagingMode::Long4 => self.fault::<Long4>(fault.gva, fault.access),
            PagingMode::Long5 => self.fault::<Long5>(fault.gva, fault.access),
            PagingMode::Off | PagingMode::Legacy32 => self.fault::<Flat>(fault.gva, fault.access),
        };
        (outcome.unwrap_or_else(Outcome::Stop), self.take_plan())
    }

    #[inline(always)] // Once for each format, in one function or two.
    fn fault<F: GuestFormat>(&mut self, gva: Gva, access: Access) -> Result<Outcome, VmStop> {
        self.check_fault()?;
        let walk = match self.walk_as::<F>(gva, access) {
            Ok(walk) => walk,
            Err(WalkError::Fault(fault)) => {
                self.counters.add(Counter::TrueFault);
                if self.policy.mark_absent
                    && !fault.error.contains(PfErr::PRESENT)
                    && let Err(trouble) = self.mark_absent::<F>(Fault { gva, access })
                {
                    return Err(self.stop(trouble));
                }
                return Ok(Outcome::Inject(fault));
            }
            Err(WalkError::Retry) => return Ok(Outcome::Resume),
            Err(WalkError::NotResident(gfn)) => return Ok(self.not_resident(gfn)),
            Err(WalkError::NonCanonical) => return Ok(Outcome::NonCanonical(gva)),
            Err(WalkError::Stop(stop)) => return Err(stop),
        };
        if F::SPLIT {
            self.look_through(gva, access)?;
        }
        let Some(frame) = self.frames.find(walk.gfn) else {
            return Ok(self.mmio(&walk, gva));
        };
        // A watched frame's write is emulated all the same, so its tables may as well stay.
        let gives_up = self.policy.reuse_detection && access.is_user() && frame.watches == 0;
        if frame.tracked() && access.is_write() && !gives_up {
            match self.mem.kind(walk.gfn) {
                GfnKind::Ram(_) => {}
                GfnKind::NotResident => return Ok(self.not_resident(walk.gfn)),
                // A table in ROM.
                GfnKind::Rom(_) | GfnKind::Mmio | GfnKind::Hole => return Ok(self.mmio(&walk, gva)),
            }
            if !self.go_unsync(walk.gfn).map_err(|trouble| self.stop(trouble))? {
                self.counters.add(Counter::TrackedWrite);
                return Ok(Outcome::EmulateWrite(walk.gpa(gva)));
            }
        }
        let kind = self.mem.kind(walk.gfn);
        let Some((pfn, rom)) = backing(kind) else {
            if kind == GfnKind::NotResident {
                return Ok(self.not_resident(walk.gfn));
            }
            return Ok(self.mmio(&walk, gva));
        };
        if rom && access.is_write() {
            return Ok(self.mmio(&walk, gva));
        }
        match self.fill::<F>(&walk, (gva, access), (pfn, rom), Counter::HiddenFault) {
            Ok(outcome) => Ok(outcome),
            Err(trouble) => Err(self.stop(trouble)),
        }
    }

    /// Completes the shadow for a walk that allows its access to memory `pfn`.
    #[inline]
    pub(crate) fn fill<F: GuestFormat>(
        &mut self,
        walk: &Walk,
        (gva, access): (Gva, Access),
        (pfn, rom): (Pfn, bool),
        filled: Counter,
    ) -> Result<Outcome, Trouble> {
        if access.is_write() && self.frames.tracked(walk.gfn) {
            // User code does not write live page tables: data by now. Linking below may track it again; see the end.
            self.unshadow(walk.gfn)?;
        }
        let mut room = self.reserve(MAX_NEW_PAGES)?;
        if self.policy.huge
            && walk.leaf > Level::L1.number()
            && let Some(outcome) = self.fill_huge::<F>(walk, (gva, access), (&mut room, filled))?
        {
            return Ok(outcome);
        }
        let page = match self.known_path::<F>(walk, gva)? {
            Some(page) => page,
            None => self.link_path::<F>(walk, gva, &mut room)?,
        };
        self.note_large::<F>(walk);
        self.frames.note(walk.gfn, access.into());
        let leaf = Leaf {
            pfn,
            perms: walk.perms,
            accessed: true,
            dirty: walk.dirty,
            writable_frame: !rom && self.frames.get(walk.gfn)?.may_write(),
            rules: Rules::now::<F>(&self.ctx),
        };
        let spte = propagate(leaf, Cause::Access(access));
        if F::SPLIT && !spte.present() {
            return self.fetch_only((page, gva.slot(Level::L1)), walk, gva);
        }
        let spte = self.keep_global(walk, page, spte)?;
        let slot = gva.slot(Level::L1);
        let stored = self.set_leaf((page, slot), walk.gfn, spte, gva)?;
        self.note_made(page, slot..slot.wrapping_add(1))?;
        if access.is_write() && !spte.writable() {
            // The frame became tracked by this very fault: a table that maps itself.
            self.counters.add(Counter::TrackedWrite);
            return Ok(Outcome::EmulateWrite(walk.gpa(gva)));
        }
        if self.policy.prefetch > 1 && stored == Stored::New {
            self.prefetch::<F>(walk, page, gva)?;
        }
        self.counters.add(if stored == Stored::Same { Counter::SpuriousFault } else { filled });
        Ok(Outcome::Resume)
    }

    #[inline]
    pub(crate) fn check_fault(&self) -> Result<(), VmStop> {
        if let Some(stop) = self.stopped {
            return Err(stop);
        }
        if self.root.is_none() {
            return Err(VmStop::NoRoot);
        }
        Ok(())
    }

    /// Takes the view of this access, if the shadow can hold its address at all (I11).
    pub(crate) fn look_through(&mut self, gva: Gva, access: Access) -> Result<(), VmStop> {
        self.ctx.view = View::of(&self.ctx, access.privilege);
        if !is_host_address(gva) {
            return Err(VmStop::BeyondHost(gva));
        }
        if WINDOW.contains(&gva.slot(Level::L4)) {
            return Err(VmStop::InWindow(gva));
        }
        Ok(())
    }

    /// The guest may fetch there, but not read, which no entry can say.
    #[cold]
    fn fetch_only(&mut self, (page, slot): (u32, usize), walk: &Walk, gva: Gva) -> Result<Outcome, Trouble> {
        if self.pool.get(page)?.has(slot) {
            self.zap(page, slot)?;
        }
        self.counters.add(Counter::FetchEmulated);
        Ok(Outcome::EmulateFetch(walk.gpa(gva)))
    }

    #[cold]
    fn mmio(&mut self, walk: &Walk, gva: Gva) -> Outcome {
        self.counters.add(Counter::MmioAccess);
        Outcome::Mmio(walk.gpa(gva))
    }

    #[cold]
    pub(crate) fn not_resident(&mut self, gfn: Gfn) -> Outcome {
        self.counters.add(Counter::AbsentFault);
        Outcome::NotResident(gfn)
    }

    /// Links the tables from the root down to the L1 page for `gva`, and returns it.
    ///
    /// Upper links that are there are right: glue changes by control register loads only, and guest tables above the leaves are always followed. Only a
    /// large page's link can lag behind, when this walk has set its D bit. In long mode that may be an upper one.
    #[inline]
    pub(crate) fn link_path<F: GuestFormat>(
        &mut self,
        walk: &Walk,
        gva: Gva,
        room: &mut Reservation,
    ) -> Result<u32, Trouble> {
        let directory = self.link_to_directory::<F>(walk, gva, room)?;
        let key = self.key_on_path::<F>(walk, gva, Level::L1);
        let page = self.link((directory, gva.slot(Level::L2)), key, gva, room)?;
        self.keep_path::<F>(walk, gva, page)?;
        Ok(page)
    }

    /// The same down to the L2 page.
    #[inline]
    pub(crate) fn link_to_directory<F: GuestFormat>(
        &mut self,
        walk: &Walk,
        gva: Gva,
        room: &mut Reservation,
    ) -> Result<u32, Trouble> {
        if F::SPLIT {
            return self.link_long::<F>(walk, gva, room);
        }
        let root = self.root.ok_or(Broken(8))?.index;
        let directory = match self.child(root, gva.slot(Level::L4))? {
            Some(upper) => self.child(upper, gva.slot(Level::L3))?,
            None => None,
        };
        match directory {
            Some(directory) => Ok(directory),
            None => self.link_directory::<F>(root, walk, gva, room),
        }
    }

    /// Links the upper levels down to the L2 page for `gva`.
    #[cold]
    pub(crate) fn link_directory<F: GuestFormat>(
        &mut self,
        root: u32,
        walk: &Walk,
        gva: Gva,
        room: &mut Reservation,
    ) -> Result<u32, Trouble> {
        // The table may have been another root's, with links of the window in it.
        self.window.note_directory();
        let key = self.key_on_path::<F>(walk, gva, Level::L3);
        let upper = self.link((root, gva.slot(Level::L4)), key, gva, room)?;
        let key = self.key_on_path::<F>(walk, gva, Level::L2);
        self.link((upper, gva.slot(Level::L3)), key, gva, room)
    }

    /// The same in long mode, from the root of the view.
    #[inline]
    fn link_long<F: GuestFormat>(&mut self, walk: &Walk, gva: Gva, room: &mut Reservation) -> Result<u32, Trouble> {
        let mut page = self.root_of_view(self.ctx.view).ok_or(Broken(8))?.index;
        if F::LEVELS == Level::L5.number() && !self.policy.sync.is_vtlb() {
            let step = walk.step(Level::L4).ok_or(Broken(8))?;
            self.link_fold(page, gva, (step.table(), step.inherited()), room)?;
        }
        for (level, below) in [(Level::L4, Level::L3), (Level::L3, Level::L2)] {
            let key = self.key_on_path::<F>(walk, gva, below);
            page = self.link((page, gva.slot(level)), key, gva, room)?;
        }
        Ok(page)
    }

    /// Which shadow page of `level` a walk needs.
    #[inline]
    pub(crate) fn key_on_path<F: GuestFormat>(&self, walk: &Walk, gva: Gva, level: Level) -> Key {
        if self.policy.sync.is_vtlb() {
            return Key::place(self.ctx.view, level);
        }
        if level.number() < walk.leaf {
            return Key::direct(&self.ctx, level, walk.gfn, (walk.perms, walk.dirty));
        }
        match walk.step(level) {
            Some(step) if level.number() <= F::LEVELS => {
                Key::table::<F>(&self.ctx, level, gva, (step.table(), step.inherited()))
            }
            _ => Key::glue(&self.ctx, level),
        }
    }
}
