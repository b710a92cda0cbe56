//! The virtual TLB: the shadow tables as nothing but a cache of translations, as in NOVA and other microhypervisors.
//!
//! No guest table is tracked, so writes to them cost nothing; frames that the caller watches still are. A page of the shadow stands
//! for a *place* in the guest's address space. It has no key: there is one root for each view, and below it the entry that names a page is all
//! that leads there. No page is ever shared, because what one address may still translate to, another may not.
//!
//! Every leaf is filled by a fault, from a walk of the guest's tables as they are at that time, and may stay until the guest
//! flushes it, whatever becomes of those tables. So the rules are those of a TLB:
//!
//! 1. INVLPG of an address clears its leaf. If parts of large pages were filled, it clears all that one large page could have filled
//!    around it, and the TLB forgets everything, as it knows each part under its own address.
//! 2. What else empties a TLB, and every change of what a walk depends on, empties the shadow.
//! 3. A load of CR3 alone drops all leaves but those of global pages, made while CR4.PGE was set
//!    ([`Policy::keep_global`](crate::Policy::keep_global)). Their pages stay linked, since a place stays the place. Shadow code stays if
//!    the page it comes from is global, and that behind it, in which its last instruction may end.
//!
//! Emptying costs as much as was filled since it was last done, and no more.

use crate::addr::{Gva, Level};
use crate::controls::cr4;
use crate::counters::Counter;
use crate::event::Observer;
use crate::links::{NIL, SLOTS};
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pte::{GuestFormat, Spte};
use crate::stop::{Broken, Trouble};
use crate::walk::Walk;

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Rule 2.
    pub(crate) fn forget_all(&mut self) -> Result<(), Trouble> {
        self.counters.add(Counter::TlbDropped);
        (self.large, self.large_global) = (0, 0);
        while let Some(page) = self.local.pop() {
            self.pool.get_mut(page)?.local = false;
        }
        let pinned = self.pinned();
        while let Some(page) = self.pool.oldest_but(&pinned) {
            self.zap_page(page)?;
        }
        Ok(())
    }

    /// Rule 3.
    pub(crate) fn forget_local(&mut self) -> Result<(), Trouble> {
        self.counters.add(Counter::TlbTrimmed);
        self.large = self.large_global;
        while let Some(index) = self.local.pop() {
            let page = self.pool.get_mut(index)?;
            page.local = false;
            // It may have been given up meanwhile, and serve as something else.
            match page.key.role.level() {
                Level::L1 => self.drop_local_leaves(index)?,
                Level::L2 => self.zap_large_leaves(index, |spte| !spte.is_kept())?,
                _ => {}
            }
        }
        self.check_code_places()
    }

    fn drop_local_leaves(&mut self, index: u32) -> Result<(), Trouble> {
        let mut from = 0;
        while let Some(slot) = self.pool.get(index)?.next_present(from) {
            if !self.load(index, slot)?.is_kept() {
                self.zap(index, slot)?;
            }
            from = slot.saturating_add(1);
        }
        Ok(())
    }

    /// An entry that `walk` led to is about to be made in page `page`: it gets the mark of a global page, or the page is noted for
    /// the next CR3 load.
    #[inline]
    pub(crate) fn keep_global(&mut self, walk: &Walk, page: u32, spte: Spte) -> Result<Spte, Broken> {
        if self.policy.keeps_global() { self.mark_kept(walk.global, page, spte) } else { Ok(spte) }
    }

    #[cold]
    pub(crate) fn mark_kept(&mut self, global: bool, page: u32, spte: Spte) -> Result<Spte, Broken> {
        if global && self.controls.cr4 & cr4::PGE != 0 {
            self.counters.add(Counter::SpteGlobal);
            return Ok(spte.kept());
        }
        let place = self.pool.get_mut(page)?;
        if !core::mem::replace(&mut place.local, true) {
            self.local.push(page);
        }
        Ok(spte)
    }

    /// A part of a large page is about to be filled.
    #[inline]
    pub(crate) fn note_large<F: GuestFormat>(&mut self, walk: &Walk) {
        if walk.leaf > Level::L1.number() && walk.leaf <= F::LEVELS {
            self.large = self.large.max(walk.leaf);
            if walk.global {
                self.large_global = self.large_global.max(walk.leaf);
            }
        }
    }

    /// Rule 1, in each view.
    pub(crate) fn forget_address(&mut self, gva: Gva) -> Result<(), Trouble> {
        for root in self.pinned() {
            if root != NIL {
                self.forget_under(root, gva)?;
            }
        }
        Ok(())
    }

    fn forget_under(&mut self, root: u32, gva: Gva) -> Result<(), Trouble> {
        let Some(directory) = self.place_of(root, gva, Level::L2)? else { return Ok(()) };
        if self.large != 0 {
            return self.forget_around(directory, gva);
        }
        let slot = gva.slot(Level::L1);
        match self.child(directory, gva.slot(Level::L2))? {
            Some(page) if self.pool.get(page)?.has(slot) => self.zap(page, slot),
            _ => Ok(()),
        }
    }

    /// The page of `level` for an address, if there is one.
    fn place_of(&self, root: u32, gva: Gva, level: Level) -> Result<Option<u32>, Trouble> {
        let mut index = root;
        loop {
            let at = self.pool.get(index)?.key.role.level();
            if at == level {
                return Ok(Some(index));
            }
            match self.child(index, gva.slot(at))? {
                Some(child) => index = child,
                None => return Ok(None),
            }
        }
    }

    /// Clears what one large page can have filled around an address. Those of 2 and 4 MiB lie within two neighbouring entries of a
    /// directory, those of 1 GiB fill one.
    fn forget_around(&mut self, directory: u32, gva: Gva) -> Result<(), Trouble> {
        let around = gva.slot(Level::L2) & !1;
        let (first, last) = if self.large > Level::L2.number() { (0, SLOTS) } else { (around, around | 1) };
        for slot in first..=last.min(SLOTS.wrapping_sub(1)) {
            match self.child(directory, slot)? {
                Some(page) => self.zap_page(page)?,
                None if self.pool.get(directory)?.has(slot) => self.zap(directory, slot)?,
                None => {}
            }
        }
        Ok(())
    }
}
