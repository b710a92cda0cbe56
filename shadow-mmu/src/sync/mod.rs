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
//! 9. *Not for one write.* Some writes since the last flush are followed first ([`Policy::patience`](crate::Policy::patience)), because
//!    to compare a whole table for one would cost more.
//! 10. *Bounded.* No more frames than the policy says; one more, and that which went first is brought in step.
//!
//! Bringing a table in step compares it with a snapshot that was taken when it went, so that it costs little for entries that did not
//! change. Where a shadow entry was made meanwhile, of whatever the guest's entry was then, the snapshot tells nothing; those words
//! are suspect, and always looked at.
//!
//! What needs no rule: fills read the guest's entry as it is now, which a walk may do at any time. A and D bits that a walk sets
//! go to the guest's memory first, as always. An entry that lags behind is in the reverse map of the frame that it *does* map, so
//! `begin_tracking` of that frame revokes it.

mod snapshot;

use core::ops::Range;

pub(crate) use snapshot::UnsyncSet;
use snapshot::WORD_SHIFT;

use crate::addr::{Gfn, Gva, Level};
use crate::controls::PagingMode;
use crate::counters::Counter;
use crate::event::{Event, Observer};
use crate::links::{NIL, SLOTS};
use crate::mem::{FRAME_BYTES, GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pte::{GuestFormat, Legacy32, Long4, Pae};
use crate::role::Key;
use crate::stop::{Broken, Trouble};

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Lets a tracked frame go out of sync if the policy and the rules 1 to 3 allow it, and says whether they did.
    #[inline]
    pub(crate) fn go_unsync(&mut self, gfn: Gfn) -> Result<bool, Trouble> {
        if self.unsync.snapshots.is_empty() {
            return Ok(false);
        }
        let has_code = self.has_code_page(gfn)?;
        let (epoch, patience) = (self.epoch, self.policy.patience);
        let frame = self.frames.get_mut(gfn)?;
        if frame.upper != 0 || frame.watches != 0 || has_code {
            return Ok(false);
        }
        if core::mem::replace(&mut frame.write_epoch, epoch) != epoch {
            frame.writes = 0;
        }
        if frame.writes < patience {
            frame.writes = frame.writes.wrapping_add(1);
            return Ok(false);
        }
        if self.policy.mark_absent {
            self.forget_gaps_of(gfn)?;
        }
        self.take_snapshot(gfn)?;
        self.counters.add(Counter::TableUnsynced);
        self.observer.event(Event::Untrack { frame: gfn.base() });
        Ok(true)
    }

    #[cold]
    fn take_snapshot(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        if self.unsync.free.is_empty()
            && let Some(&oldest) = self.unsync.frames.front()
        {
            self.resync(oldest)?;
        }
        let number = self.unsync.free.pop().ok_or(Broken(5))?.wrapping_add(1);
        let snapshot = self.unsync.snapshot(number).ok_or(Broken(5))?;
        let whole = self.mem.read_frame(gfn, &mut snapshot.bytes);
        snapshot.suspect = if whole { [0; FRAME_BYTES / 8 / 64] } else { [u64::MAX; FRAME_BYTES / 8 / 64] };
        self.frames.get_mut(gfn)?.snapshot = number;
        self.unsync.frames.push_back(gfn);
        Ok(())
    }

    /// Brings every shadow of a table that is out of sync in step, and protects its frame again.
    #[cold]
    pub(crate) fn resync(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        if let Some(place) = self.unsync.frames.iter().position(|&frame| frame == gfn) {
            self.unsync.frames.remove(place);
        }
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
        // From here on the frame is tracked: an entry of the table that maps the table itself becomes read-only.
        let number = core::mem::replace(&mut self.frames.get_mut(gfn)?.snapshot, 0);
        self.unsync.give_back(number);
        let mut now = self.unsync.now.take().ok_or(Broken(5))?;
        let whole = self.mem.read_frame(gfn, &mut now);
        let done = self.sync_pages(gfn, number, whole.then_some(&now));
        self.unsync.now = Some(now);
        done?;
        if self.frames.tracked(gfn) { self.begin_tracking(gfn, Some(Level::L1)) } else { Ok(()) }
    }

    fn sync_pages(&mut self, gfn: Gfn, number: u16, now: Option<&[u8; FRAME_BYTES]>) -> Result<(), Trouble> {
        let mut index = self.frames.get(gfn)?.pages;
        while index != NIL {
            let page = self.pool.get(index)?;
            let (next, orphan, role) = (page.next_same, page.parents == NIL, page.key.role);
            if role.is_table() {
                match (role.format(), now) {
                    _ if orphan && self.policy.reuse_detection => {
                        self.counters.add(Counter::TableReused);
                        self.zap_page(index)?;
                    }
                    (PagingMode::Legacy32, Some(now)) => self.sync_changed::<Legacy32>(index, number, now)?,
                    (PagingMode::Pae, Some(now)) => self.sync_changed::<Pae>(index, number, now)?,
                    (PagingMode::Long4 | PagingMode::Long5, Some(now)) => {
                        self.sync_changed::<Long4>(index, number, now)?;
                    }
                    _ => self.sync_page(index)?,
                }
            }
            index = next;
        }
        Ok(())
    }

    /// Brings the entries of a leaf page in step that are not what the snapshot has.
    fn sync_changed<F: GuestFormat>(
        &mut self,
        index: u32,
        number: u16,
        now: &[u8; FRAME_BYTES],
    ) -> Result<(), Trouble> {
        let Key { gfn, role } = self.pool.get(index)?.key;
        // A page of 512 entries stands for half or all of the words in a table.
        let shift = WORD_SHIFT.wrapping_sub(F::ENTRY_SHIFT);
        let words = SLOTS >> shift;
        let first = usize::from(role.quadrant()).wrapping_mul(words);
        let end = first.wrapping_add(words);
        let mut word = first;
        while let Some(next) = self.unsync.snapshot(number).ok_or(Broken(5))?.next_difference(now, word..end) {
            word = next.wrapping_add(1);
            for entry in next << shift..word << shift {
                self.counters.add(Counter::EntrySynced);
                let place = (index, entry & SLOTS.wrapping_sub(1));
                self.follow_leaf::<F>(place, role, gfn.base().add((entry as u64) << F::ENTRY_SHIFT))?;
            }
        }
        Ok(())
    }

    /// Entries of a leaf page were made of what the guest's table says now.
    #[inline]
    pub(crate) fn note_made(&mut self, page: u32, slots: Range<usize>) -> Result<(), Broken> {
        if self.unsync.is_empty() {
            return Ok(());
        }
        let Key { gfn, role } = self.pool.get(page)?.key;
        if role.is_table() {
            let number = self.frames.get(gfn)?.snapshot;
            self.unsync.suspect(number, (role, slots));
        }
        Ok(())
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
            let key = self.pool.get(index)?.key;
            let slot = gva.slot(key.role.level());
            if key.role.is_leaf_table() {
                let unsync = key.role.is_table() && self.frames.get(key.gfn)?.is_unsync();
                return if unsync { self.sync_slot((index, slot), key) } else { Ok(()) };
            }
            match self.child(index, slot)? {
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
        if role.is_table() && self.frames.get(gfn)?.is_unsync() { self.sync_page(index) } else { Ok(()) }
    }

    /// Brings every present entry of a leaf page in step.
    fn sync_page(&mut self, index: u32) -> Result<(), Trouble> {
        let page = self.pool.get(index)?;
        let (present, key) = (page.present, page.key);
        for (word, mut bits) in present.into_iter().enumerate() {
            while bits != 0 {
                self.sync_slot((index, word << 6 | bits.trailing_zeros() as usize), key)?;
                bits &= bits.wrapping_sub(1);
            }
        }
        Ok(())
    }

    #[inline]
    fn sync_slot(&mut self, (page, slot): (u32, usize), Key { gfn, role }: Key) -> Result<(), Trouble> {
        self.counters.add(Counter::EntrySynced);
        let number = self.frames.get(gfn)?.snapshot;
        self.unsync.suspect(number, (role, slot..slot.wrapping_add(1)));
        let entry = u64::from(role.quadrant()) << 9 | slot as u64;
        match role.format() {
            PagingMode::Legacy32 => self.follow_leaf::<Legacy32>((page, slot), role, gfn.base().add(entry << 2)),
            PagingMode::Pae => self.follow_leaf::<Pae>((page, slot), role, gfn.base().add(entry << 3)),
            // As leaf tables the two are alike.
            PagingMode::Long4 | PagingMode::Long5 => {
                self.follow_leaf::<Long4>((page, slot), role, gfn.base().add(entry << 3))
            }
            PagingMode::Off => Err(Broken(5).into()),
        }
    }
}
