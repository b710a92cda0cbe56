//! Leaf tables out of sync: the guest writes them natively, and their shadows catch up at its next flush. Owns I5.
//!
//! A TLB may keep a translation until the guest flushes it, so a shadow entry may lag behind its guest entry for as long. The
//! shadow of a leaf table may therefore go *unsync*: its frame loses its write protection at the first write, later writes cost
//! nothing, and the flush pays for all of them at once. Xen's out-of-sync pages (`oos.c`) and KVM's unsync pages rest on the same
//! thought. The rules:
//!
//! 1. *Leaves only.* The entries of upper tables decide which tables are tracked at all, so those tables always follow (I5).
//! 2. *One use only.* A frame that is also shadowed at a higher level does not go; when a shadow at a higher level is made of a
//!    frame that is out of sync, the frame is brought in step first.
//! 3. *Nobody watches.* A watched frame does not go, and one that becomes watched is brought in step first: I4 holds for it.
//! 4. *All or none.* The state is the frame's. All its shadow pages (roles, quadrants, modes) go together and come back together;
//!    pages made meanwhile join them. If the last is given up, the frame is plain memory.
//! 5. *INVLPG* of an address brings in step the one entry that maps it under each current root. The table stays out of sync.
//! 6. *Everything else that empties the TLB*, and every change of the root, brings all tables in step and protects them again.
//!    Other roots than the current one may have stale entries where an INVLPG was obeyed here; so nothing may be left for them.
//! 7. *No link to the unknown.* A page that is linked anew shows its entries at addresses where a TLB cannot have them. A leaf page
//!    out of sync is brought in step before that; below an upper page any could be, so there all are.
//! 8. *No code.* A table with a page of the code window (`window`) does not go: the guest's INVLPG does not name the window's
//!    addresses.
//! 9. *Bounded.* No more frames than the policy says; one more, and that which went first is brought in step.
//!
//! What needs no rule: fills read the guest's entry as it is now, which a walk may do at any time. A and D bits that a walk sets
//! go to the guest's memory first, as always. An entry that lags behind is in the reverse map of the frame that it *does* map, so
//! `begin_tracking` of that frame revokes it.

use alloc::collections::VecDeque;

use crate::addr::{Gfn, Gva, Level};
use crate::controls::PagingMode;
use crate::counters::Counter;
use crate::event::{Event, Observer};
use crate::links::NIL;
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pte::{GuestFormat, Legacy32, Long4, Pae};
use crate::role::Key;
use crate::stop::{Broken, Trouble};

/// The frames that are out of sync, that which went first in front.
#[derive(Debug)]
pub(crate) struct UnsyncSet {
    frames: VecDeque<Gfn>,
    limit: usize,
}

impl UnsyncSet {
    pub(crate) fn new(limit: usize) -> Self {
        Self { frames: VecDeque::with_capacity(limit), limit }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn has(&self, gfn: Gfn) -> bool {
        self.frames.contains(&gfn)
    }

    /// The frame that went first, if there is no room for another.
    fn excess(&self) -> Option<Gfn> {
        if self.frames.len() < self.limit { None } else { self.frames.front().copied() }
    }

    /// Breaks the set on purpose.
    #[cfg(test)]
    pub(crate) fn force(&mut self, gfn: Gfn) {
        self.frames.push_back(gfn);
    }

    pub(crate) fn remove(&mut self, gfn: Gfn) {
        if let Some(place) = self.frames.iter().position(|&frame| frame == gfn) {
            self.frames.remove(place);
        }
    }
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Lets a tracked frame go out of sync if the policy and the rules 1 to 3 allow it, and says whether they did.
    #[inline]
    pub(crate) fn go_unsync(&mut self, gfn: Gfn) -> Result<bool, Trouble> {
        if self.unsync.limit == 0 {
            return Ok(false);
        }
        let frame = self.frames.get(gfn)?;
        if frame.upper != 0 || frame.watches != 0 || self.has_code_page(gfn)? {
            return Ok(false);
        }
        if let Some(oldest) = self.unsync.excess() {
            self.resync(oldest)?;
        }
        self.frames.get_mut(gfn)?.unsync = true;
        self.unsync.frames.push_back(gfn);
        self.counters.add(Counter::TableUnsynced);
        self.observer.event(Event::Untrack { frame: gfn.base() });
        Ok(true)
    }

    /// Brings every shadow of a table that is out of sync in step, and protects its frame again.
    #[cold]
    pub(crate) fn resync(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        self.unsync.remove(gfn);
        self.bring_in_step(gfn)
    }

    /// Rule 6.
    #[cold]
    pub(crate) fn sync_all(&mut self) -> Result<(), Trouble> {
        while let Some(gfn) = self.unsync.frames.pop_front() {
            self.bring_in_step(gfn)?;
        }
        Ok(())
    }

    fn bring_in_step(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        self.counters.add(Counter::TableResynced);
        let frame = self.frames.get_mut(gfn)?;
        // From here on the frame is tracked: an entry of the table that maps the table itself becomes read-only.
        frame.unsync = false;
        let mut index = frame.pages;
        while index != NIL {
            let page = self.pool.get(index)?;
            let (next, orphan) = (page.next_same, page.parents == NIL);
            if page.key.role.is_table() {
                if orphan && self.policy.reuse_detection {
                    self.counters.add(Counter::TableReused);
                    self.zap_page(index)?;
                } else {
                    self.sync_page(index)?;
                }
            }
            index = next;
        }
        if self.frames.tracked(gfn) { self.begin_tracking(gfn, Some(Level::L1)) } else { Ok(()) }
    }

    /// Rule 5.
    #[cold]
    pub(crate) fn sync_address(&mut self, gva: Gva) -> Result<(), Trouble> {
        let [kernel_ac, user] = self.side_roots;
        for root in [self.root, kernel_ac, user].into_iter().flatten() {
            self.sync_under(root.index, gva)?;
        }
        Ok(())
    }

    fn sync_under(&mut self, root: u32, gva: Gva) -> Result<(), Trouble> {
        let mut index = root;
        loop {
            let Key { gfn, role } = self.pool.get(index)?.key;
            if role.is_leaf_table() {
                let unsync = role.is_table() && self.frames.get(gfn)?.unsync;
                return if unsync { self.sync_slot(index, gva.slot(role.level())) } else { Ok(()) };
            }
            match self.child(index, gva.slot(role.level()))? {
                Some(child) => index = child,
                None => return Ok(()),
            }
        }
    }

    /// Rule 7, of a page that is about to be linked.
    #[inline]
    pub(crate) fn sync_before_link(&mut self, index: u32) -> Result<(), Trouble> {
        if self.unsync.is_empty() {
            return Ok(());
        }
        let Key { gfn, role } = self.pool.get(index)?.key;
        if !role.is_leaf_table() {
            return self.sync_all();
        }
        if role.is_table() && self.frames.get(gfn)?.unsync { self.sync_page(index) } else { Ok(()) }
    }

    /// Brings every present entry of a leaf page in step.
    fn sync_page(&mut self, index: u32) -> Result<(), Trouble> {
        let present = self.pool.get(index)?.present;
        for (word, mut bits) in present.into_iter().enumerate() {
            while bits != 0 {
                self.sync_slot(index, word << 6 | bits.trailing_zeros() as usize)?;
                bits &= bits.wrapping_sub(1);
            }
        }
        Ok(())
    }

    #[inline]
    fn sync_slot(&mut self, page: u32, slot: usize) -> Result<(), Trouble> {
        self.counters.add(Counter::EntrySynced);
        match self.pool.get(page)?.key.role.format() {
            PagingMode::Legacy32 => self.sync_slot_as::<Legacy32>(page, slot),
            PagingMode::Pae => self.sync_slot_as::<Pae>(page, slot),
            // As leaf tables the two are alike.
            PagingMode::Long4 | PagingMode::Long5 => self.sync_slot_as::<Long4>(page, slot),
            PagingMode::Off => Err(Broken(5).into()),
        }
    }

    #[inline]
    fn sync_slot_as<F: GuestFormat>(&mut self, page: u32, slot: usize) -> Result<(), Trouble> {
        let Key { gfn, role } = self.pool.get(page)?.key;
        let entry = gfn.base().add((u64::from(role.quadrant()) << 9 | slot as u64) << F::ENTRY_SHIFT);
        self.follow_leaf::<F>((page, slot), role, entry)
    }
}
