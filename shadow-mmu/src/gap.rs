//! Gaps: shadow entries that say that the guest's entry is not present, so that the page fault itself tells. Owns I15.
//!
//! An absent shadow entry means "not known", and a fault on it needs a walk. A [gap](Spte::GAP) is present to the CPU, but has address
//! bits set that no CPU has, so the fault's error code has [`PfErr::RESERVED`] where it would have no bit of its own. No guest's entry is
//! ever copied into a shadow, so such a fault has no other cause, and is the guest's own at once ([`ShadowMmu::known_absent`]). KVM once
//! had the same with the meanings exchanged (`shadow_notrap_nonpresent_pte`), for CPUs that deliver such faults past the hypervisor.
//!
//! 1. *Followed tables only.* No TLB keeps an entry that is not present, so the guest may make one present without a flush. So a gap
//!    stands in the shadow of a table whose every write is followed; when the table goes out of sync, its gaps go first. The virtual TLB
//!    has none.
//! 2. *Where it costs nothing to know.* A gap is made when the guest writes an entry that is not present, and when a fault has found one
//!    in a table that has a shadow.
//! 3. *Not over a stale way.* While the CPU may remember a link that has gone since the last whole flush, it may have met the gap of another
//!    table than the guest has there now. The CPU of a guest without us may do so, too; but then we walk, and stay exact.
//!
//! A gap is no entry: it has no node, no target, and does not count as present.

use crate::access::{GuestFault, PfErr};
use crate::addr::Level;
use crate::counters::Counter;
use crate::event::Observer;
use crate::links::NIL;
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::outcome::Fault;
use crate::pte::{GuestFormat, GuestPte, Spte, entry_gpa, frame_index, is_host_address};
use crate::role::Key;
use crate::stop::{Broken, Trouble};
use crate::table::WINDOW;
use crate::view::View;

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// The real CPU reported [`PfErr::RESERVED`] for `fault`: the fault to inject, if that is known without a walk. Else ask
    /// [`on_fault`](Self::on_fault), which finds the same by a walk; so nothing is lost by not calling this.
    ///
    /// Happens with [`Policy::mark_absent`](crate::Policy::mark_absent) only.
    #[must_use]
    #[inline]
    pub fn known_absent(&mut self, fault: Fault) -> Option<GuestFault> {
        let exact = self.policy.mark_absent && self.unlinked_epoch != self.epoch && !self.is_open();
        if !exact || self.stopped.is_some() {
            return None;
        }
        self.counters.add(Counter::TrueFault);
        self.counters.add(Counter::AbsentKnown);
        Some(self.ctx.fault(fault.gva, fault.access, PfErr::empty()))
    }

    /// A walk for `fault` met an entry that is not present: makes a gap of it, if its table has a shadow.
    #[cold]
    pub(crate) fn mark_absent<F: GuestFormat>(&mut self, fault: Fault) -> Result<(), Trouble> {
        let gva = fault.gva;
        if F::SPLIT && (!is_host_address(gva) || WINDOW.contains(&gva.slot(Level::L4))) {
            return Ok(());
        }
        let view = View::of(&self.ctx, fault.access.privilege);
        let mut page = self.root_of_view(view).ok_or(Broken(8))?.index;
        loop {
            let slot = gva.slot(self.pool.get(page)?.key.role.level());
            if self.pool.get(page)?.key.role.is_leaf_table() {
                return self.note_gap::<F>((page, slot));
            }
            match self.child(page, slot)? {
                Some(child) => page = child,
                None => return self.note_gap::<F>((page, slot)),
            }
        }
    }

    /// The guest has written the entry behind `slot`: what the shadow said of it no longer counts.
    #[inline]
    pub(crate) fn forget_gap(&mut self, (page, slot): (u32, usize)) -> Result<(), Trouble> {
        if !self.pool.get(page)?.has_gap(slot) {
            return Ok(());
        }
        self.pool.get_mut(page)?.clear_gap(slot);
        self.store(page, slot, Spte::ABSENT)
    }

    /// Makes a gap of an absent entry, if the guest's is not present and its table is followed. I15.
    pub(crate) fn note_gap<F: GuestFormat>(&mut self, (page, slot): (u32, usize)) -> Result<(), Trouble> {
        let place = self.pool.get(page)?;
        let Key { gfn, role } = place.key;
        let may =
            role.is_table() && !role.code() && role.level() <= Level::L2 && !place.has(slot) && !place.has_gap(slot);
        if !may || self.frames.get(gfn)?.is_unsync() {
            return Ok(());
        }
        let entry = entry_gpa::<F>(gfn, role.level(), frame_index(role.level(), role.quadrant(), slot));
        let Some(raw) = F::read(&self.mem, entry) else { return Ok(()) };
        if F::decode(raw, role.level(), &role.ctx(&self.ctx)) == GuestPte::Absent {
            self.pool.get_mut(page)?.set_gap(slot);
            self.store(page, slot, Spte::GAP)?;
            self.counters.add(Counter::AbsentMarked);
        }
        Ok(())
    }

    /// Makes all gaps of a page plain absent entries.
    pub(crate) fn forget_gaps(&mut self, page: u32) -> Result<(), Trouble> {
        while let Some(slot) = self.pool.get(page)?.first_gap() {
            self.forget_gap((page, slot))?;
        }
        Ok(())
    }

    /// The same for every shadow of a table that is about to go out of sync. Rule 1.
    pub(crate) fn forget_gaps_of(&mut self, gfn: crate::Gfn) -> Result<(), Trouble> {
        let mut index = self.frames.get(gfn)?.pages;
        while index != NIL {
            self.forget_gaps(index)?;
            index = self.pool.get(index)?.next_same;
        }
        Ok(())
    }
}
