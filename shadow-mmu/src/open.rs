//! Opening tracked frames for one instruction that the emulator does not know.
//!
//! The caller opens the frame behind each write that faults, single-steps the instruction, and closes. Between the two, I4 does
//! not hold for the opened frames; nothing but that instruction runs. At the close every table in them is read again.

use crate::access::Access;
use crate::addr::{Gfn, Gva, Level, PAGE_SIZE, Pfn};
use crate::controls::PagingMode;
use crate::event::Observer;
use crate::fill::MAX_NEW_PAGES;
use crate::flush::FlushPlan;
use crate::frames::Frame;
use crate::mem::{GfnKind, GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::outcome::{Fault, Outcome};
use crate::pool::PageId;
use crate::propagate::{Cause, Leaf, Rules, propagate};
use crate::pte::{Flat, GuestFormat, Legacy32, Long4, Long5, Pae};
use crate::stop::{Trouble, VmStop};
use crate::walk::{Walk, WalkError};

/// Frames that one instruction can write: two operands, each across a page border.
pub(crate) const MAX_OPEN: usize = 4;

/// A leaf that grants writes to a tracked frame for now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    page: PageId,
    slot: usize,
    gfn: Gfn,
    gva: Gva,
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Lets the write of `fault` go on natively although its frame is tracked. [`Outcome::Resume`] means: run one instruction
    /// with interrupts held, then call [`close`](Self::close).
    ///
    /// Other outcomes are those of [`on_fault`](Self::on_fault); [`Outcome::EmulateWrite`] means that more frames are open than
    /// any instruction writes. What the instruction's other half opened before wants its [`close`](Self::close) all the same.
    pub fn open(&mut self, fault: Fault) -> (Outcome, FlushPlan) {
        let outcome = match self.ctx.mode {
            PagingMode::Off => self.open_as::<Flat>(fault.gva, fault.access),
            PagingMode::Legacy32 => self.open_as::<Legacy32>(fault.gva, fault.access),
            PagingMode::Pae => self.open_as::<Pae>(fault.gva, fault.access),
            PagingMode::Long4 => self.open_as::<Long4>(fault.gva, fault.access),
            PagingMode::Long5 => self.open_as::<Long5>(fault.gva, fault.access),
        };
        (outcome.unwrap_or_else(Outcome::Stop), self.take_plan())
    }

    fn open_as<F: GuestFormat>(&mut self, gva: Gva, access: Access) -> Result<Outcome, VmStop> {
        self.check_fault()?;
        let walk = match self.walk_as::<F>(gva, access) {
            Ok(walk) => walk,
            Err(WalkError::Fault(fault)) => return Ok(Outcome::Inject(fault)),
            Err(WalkError::Retry) => return Ok(Outcome::Resume),
            Err(WalkError::NotResident(gfn)) => return Ok(self.not_resident(gfn)),
            Err(WalkError::NonCanonical) => return Ok(Outcome::NonCanonical(gva)),
            Err(WalkError::Stop(stop)) => return Err(stop),
        };
        if F::SPLIT {
            self.look_through(gva, access)?;
        }
        let kind = self.mem.kind(walk.gfn);
        if kind == GfnKind::NotResident {
            return Ok(self.not_resident(walk.gfn));
        }
        let (Some(place), GfnKind::Ram(pfn)) = (self.opened.iter().position(Option::is_none), kind) else {
            return Ok(Outcome::EmulateWrite(walk.gpa(gva)));
        };
        match self.open_leaf::<F>(&walk, (gva, access), pfn) {
            Ok(opened) => {
                if let Some(place) = self.opened.get_mut(place) {
                    *place = Some(opened);
                }
                self.plan = self.plan.join(FlushPlan::page(gva));
                Ok(Outcome::Resume)
            }
            Err(trouble) => Err(self.stop(trouble)),
        }
    }

    fn open_leaf<F: GuestFormat>(
        &mut self,
        walk: &Walk,
        (gva, access): (Gva, Access),
        pfn: Pfn,
    ) -> Result<Opened, Trouble> {
        let mut room = self.reserve(MAX_NEW_PAGES)?;
        let page = self.link_path::<F>(walk, gva, &mut room)?;
        self.note_large::<F>(walk);
        self.frames.note(walk.gfn, access.into());
        let leaf = Leaf {
            pfn,
            perms: walk.perms,
            accessed: true,
            dirty: walk.dirty,
            writable_frame: true,
            // For one write, which the guest may make, the entry may be one that SMAP does not hold back.
            rules: Rules { smap: false, ..Rules::now::<F>(&self.ctx) },
        };
        let slot = gva.slot(Level::L1);
        let spte = self.keep_global(walk, page, propagate(leaf, Cause::Access(access)))?;
        self.set_leaf((page, slot), walk.gfn, spte, gva)?;
        self.note_made(page, slot..slot.wrapping_add(1))?;
        Ok(Opened { page: self.pool.id(page)?, slot, gfn: walk.gfn, gva })
    }

    /// Is any frame open?
    #[must_use]
    #[inline]
    pub const fn is_open(&self) -> bool {
        matches!(self.opened, [Some(_), ..])
    }

    /// Closes what [`open`](Self::open) opened, and follows what was written. Returns the plan, and calls
    /// `written` for each frame that was open, for the caller's own watches: also for one that nobody watches, or that was not written.
    pub fn close(&mut self, mut written: impl FnMut(Gfn)) -> FlushPlan {
        for place in 0..MAX_OPEN {
            let Some(opened) = self.opened.get_mut(place).and_then(Option::take) else { continue };
            if let Err(trouble) = self.close_one(opened) {
                self.remember(trouble);
            }
            written(opened.gfn);
        }
        self.take_plan()
    }

    fn close_one(&mut self, opened: Opened) -> Result<(), Trouble> {
        let Opened { page, slot, gfn, gva } = opened;
        if self.pool.checked(page).is_some_and(|page| page.has(slot)) {
            let spte = self.load(page.index, slot)?;
            if self.ctx.smap && !self.ctx.wp {
                // It may have become a supervisor page, which escapes SMAP.
                self.zap(page.index, slot)?;
            } else {
                self.store(page.index, slot, spte.read_only())?;
            }
        }
        self.plan = self.plan.join(FlushPlan::page(gva));
        if self.frames.find(gfn).is_some_and(Frame::followed) {
            self.follow_write(gfn.base(), PAGE_SIZE as usize, None)?;
        }
        Ok(())
    }
}
