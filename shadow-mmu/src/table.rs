//! Changes of shadow tables: every store of an entry is here, with the bookkeeping that keeps I4, I6, I7 and I10 true.

use core::ops::Range;

use crate::addr::{Gfn, Gva, Level, Pfn};
use crate::counters::Counter;
use crate::event::{Event, Observer};
use crate::fold::is_fold_link;
use crate::links::{BLOCK, NIL, node_of, page_of, slot_of};
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::path::Path;
use crate::pool::Reservation;
use crate::pte::Spte;
use crate::role::{Key, Role};
use crate::stop::{Broken, Trouble, VmStop};

/// The entries of every root that are the hypervisor's own (I11): 8 TiB from 0xffff_8000_0000_0000 on.
pub const WINDOW: Range<usize> = 256..272;

/// What [`ShadowMmu::set_leaf`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The entry was not present.
    New,
    /// It was present and is different now.
    Changed,
    /// It maps the same frame, but grants no writes any more.
    Weaker,
    /// It was like this already.
    Same,
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Stores one entry through the last gate.
    #[inline]
    pub(crate) fn store(&mut self, page: u32, slot: usize, spte: Spte) -> Result<(), Trouble> {
        let table = self.pool.get(page)?.pfn;
        self.store_in((page, table), slot, spte)
    }

    #[inline]
    pub(crate) fn store_in(&mut self, (page, table): (u32, Pfn), slot: usize, spte: Spte) -> Result<(), Trouble> {
        self.tables.store(table, slot, spte).map_err(|_| Trouble::Refused { page, slot: slot as u16 })
    }

    /// Clears one entry through the last gate, and gives what it was.
    #[inline]
    pub(crate) fn take_from(&mut self, (page, table): (u32, Pfn), slot: usize) -> Result<Spte, Trouble> {
        self.tables.take(table, slot).map_err(|_| Trouble::Refused { page, slot: slot as u16 })
    }

    /// The entry as the CPU reads it.
    #[inline]
    pub(crate) fn load(&self, page: u32, slot: usize) -> Result<Spte, Broken> {
        Ok(self.tables.load(self.pool.get(page)?.pfn, slot))
    }

    /// Makes entry `slot` of L1 page `page` map `gfn` by `spte`, which is present.
    #[inline]
    pub(crate) fn set_leaf(
        &mut self,
        (page, slot): (u32, usize),
        gfn: Gfn,
        spte: Spte,
        gva: Gva,
    ) -> Result<Stored, Trouble> {
        let node = node_of(page, slot);
        let target = gfn.raw() as u32;
        let place = self.pool.get_mut(page)?;
        // The supervisor executes shadow code only.
        let guarded = self.window.guard && !spte.user() && !place.key.role.code();
        let spte = if guarded { spte.no_execute() } else { spte };
        let table = place.pfn;
        let mut stored = Stored::New;
        if place.has(slot) {
            let old = self.tables.load(table, slot);
            let old_target = self.links.target(node)?;
            let moved = old_target != target;
            if old == spte && !moved {
                return Ok(Stored::Same);
            }
            stored = Stored::Changed;
            if moved || old.writable() && !spte.writable() {
                let epoch = self.epoch;
                let old_frame = self.frames.get_mut(Gfn::new(u64::from(old_target)))?;
                if old.writable() {
                    // I4, I10: the TLB may keep the right until somebody asks.
                    old_frame.stale_epoch = epoch;
                }
                if !moved {
                    stored = Stored::Weaker;
                } else {
                    self.links.remove(&mut old_frame.rmap, node)?;
                    self.links.insert(&mut self.frames.get_mut(gfn)?.rmap, node, target)?;
                }
            }
        } else {
            place.set_present(slot);
            self.links.insert(&mut self.frames.get_mut(gfn)?.rmap, node, target)?;
        }
        self.store_in((page, table), slot, spte)?;
        if self.observer.is_on() {
            let entry = table.base().add((slot as u64) << 3);
            self.observer.event(Event::Fill { level: Level::L1, leaf: true, gva, entry, spte });
        }
        Ok(stored)
    }

    /// Clears a present entry. What the TLB knows of it may stay until the guest flushes; the stamps remember it.
    #[inline]
    pub(crate) fn zap(&mut self, page: u32, slot: usize) -> Result<(), Trouble> {
        let node = node_of(page, slot);
        let target = self.links.target(node)?;
        let place = self.pool.get_mut(page)?;
        let (role, table) = (place.key.role, place.pfn);
        if !role.is_leaf_table() {
            return self.zap_link((page, slot), role, target);
        }
        place.set_absent(slot);
        let old = self.take_from((page, table), slot)?;
        let epoch = self.epoch;
        let frame = self.frames.get_mut(Gfn::new(u64::from(target)))?;
        if old.writable() {
            frame.stale_epoch = epoch;
        }
        self.links.remove(&mut frame.rmap, node)?;
        if role.code() {
            // The guest's own flushes name its addresses, not those in the window.
            self.flush_all();
        }
        self.zapped(role.level(), (table, slot), old);
        Ok(())
    }

    /// The same for an entry that names page `target`.
    #[inline(never)]
    fn zap_link(&mut self, (page, slot): (u32, usize), role: Role, target: u32) -> Result<(), Trouble> {
        if is_fold_link(role, slot) {
            return self.unfold(page, slot);
        }
        if target & BLOCK != 0 {
            return self.zap_large((page, slot), role, target);
        }
        let place = self.pool.get_mut(page)?;
        let table = place.pfn;
        place.set_absent(slot);
        let old = self.take_from((page, table), slot)?;
        self.unlinked_epoch = self.epoch;
        self.path = Path::NONE;
        let child = self.pool.get_mut(target)?;
        if child.key.role.direct() || role.level() > Level::L2 {
            // A part of a large page, or what may have such parts below it.
            self.splinter_epoch = self.epoch;
        }
        let code = role.code() || child.key.role.code();
        self.links.remove(&mut child.parents, node_of(page, slot))?;
        if code {
            self.flush_all();
        }
        self.zapped(role.level(), (table, slot), old);
        Ok(())
    }

    #[inline]
    pub(crate) fn zapped(&mut self, level: Level, (table, slot): (Pfn, usize), spte: Spte) {
        self.counters.add(Counter::SpteZapped);
        if self.observer.is_on() {
            self.observer.event(Event::Zap { level, entry: table.base().add((slot as u64) << 3), spte });
        }
    }

    /// The page that entry `slot` names, if it names one.
    #[inline]
    pub(crate) fn child(&self, page: u32, slot: usize) -> Result<Option<u32>, Broken> {
        if !self.pool.get(page)?.has(slot) {
            return Ok(None);
        }
        Ok(Some(self.links.target(node_of(page, slot))?).filter(|target| target & BLOCK == 0))
    }

    /// Makes entry `slot` of `page` name the page of `key`, which is made if there is none.
    #[inline]
    pub(crate) fn link(
        &mut self,
        (page, slot): (u32, usize),
        key: Key,
        gva: Gva,
        room: &mut Reservation,
    ) -> Result<u32, Trouble> {
        if self.pool.get(page)?.has(slot) {
            let child = self.links.target(node_of(page, slot))?;
            if self.pool.get(child).is_ok_and(|page| page.key == key) {
                return Ok(child);
            }
            if !key.role.code() && self.child(page, slot)?.is_some() {
                self.note_displaced(child)?;
            }
            // A large leaf, which is no page, that has to be broken up. Else stale only if a walk set D in a large page's entry: the
            // guest's own writes were propagated.
            self.zap(page, slot)?;
        }
        self.link_new((page, slot), key, gva, room)
    }

    #[cold]
    fn link_new(
        &mut self,
        (page, slot): (u32, usize),
        key: Key,
        gva: Gva,
        room: &mut Reservation,
    ) -> Result<u32, Trouble> {
        self.pool.touch(page)?;
        let parent = self.pool.get(page)?.key;
        if parent.role.is_table() {
            self.frames.get_mut(parent.gfn)?.burst = 0;
        }
        let child = match self.find(key)? {
            Some(child) => {
                self.pool.touch(child)?;
                self.sync_before_link(child)?;
                child
            }
            None => self.make(key, room)?,
        };
        let node = node_of(page, slot);
        self.links.insert(&mut self.pool.get_mut(child)?.parents, node, child)?;
        let spte = Spte::table(self.pool.get(child)?.pfn);
        let place = self.pool.get_mut(page)?;
        place.set_present(slot);
        let (level, table) = (place.key.role.level(), place.pfn);
        self.store_in((page, table), slot, spte)?;
        let entry = table.base().add((slot as u64) << 3);
        self.observer.event(Event::Fill { level, leaf: false, gva, entry, spte });
        Ok(child)
    }

    /// I4: no entry, and no TLB entry, may grant writes to `gfn` from here on.
    #[cold]
    pub(crate) fn begin_tracking(&mut self, gfn: Gfn, level: Option<Level>) -> Result<(), Trouble> {
        let frame = self.frames.get(gfn)?;
        let stale = frame.stale_epoch == self.epoch;
        let revoked = self.revoke_writes(gfn)?;
        self.counters.add_many(Counter::WriteRevoked, revoked);
        self.observer.event(Event::Track { frame: gfn.base(), level, revoked });
        if stale || revoked != 0 {
            self.flush_all();
        }
        Ok(())
    }

    /// Takes the right to write out of every leaf that maps `gfn`; says how many had it. What the TLB keeps is for the caller. Large
    /// leaves go.
    pub(crate) fn revoke_writes(&mut self, gfn: Gfn) -> Result<u64, Trouble> {
        self.break_up(gfn)?;
        let mut node = self.frames.get(gfn)?.rmap;
        let mut revoked: u64 = 0;
        while node != NIL {
            let (page, slot) = (page_of(node), slot_of(node));
            let spte = self.load(page, slot)?;
            if spte.writable() {
                self.store(page, slot, spte.read_only())?;
                revoked = revoked.wrapping_add(1);
            }
            node = self.links.next(node)?;
        }
        Ok(revoked)
    }

    /// The reason to stop that a trouble means.
    #[cold]
    pub(crate) fn stop(&self, trouble: Trouble) -> VmStop {
        match trouble {
            Trouble::Broken(invariant) => VmStop::Internal { invariant },
            Trouble::Refused { page, slot } => match self.pool.get(page) {
                Ok(page) => VmStop::Refused { table: page.pfn, index: slot },
                Err(Broken(invariant)) => VmStop::Internal { invariant },
            },
        }
    }
}
