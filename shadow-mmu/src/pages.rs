//! The life of shadow pages: found, made, emptied, given up, evicted. Upholds I8 and I9, and the counts behind I4.

use crate::addr::{Gfn, Level};
use crate::counters::Counter;
use crate::event::{Event, Observer};
use crate::links::{NIL, page_of, slot_of};
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pool::Reservation;
use crate::role::Key;
use crate::stop::{Broken, Trouble};

/// Pages taken back at once when the pool is empty, so that one flush serves several reuses.
const EVICTION_BATCH: u32 = 8;

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// The live page of a key.
    #[inline]
    pub(crate) fn find(&self, key: Key) -> Result<Option<u32>, Broken> {
        if !key.role.has_key() {
            return Ok(None);
        }
        let mut index = self.frames.get(key.gfn)?.pages;
        while index != NIL {
            let page = self.pool.get(index)?;
            if page.key.role == key.role {
                return Ok(Some(index));
            }
            index = page.next_same;
        }
        Ok(None)
    }

    /// Makes the page of a key. The frame of a guest table is tracked from here on.
    pub(crate) fn make(&mut self, key: Key, room: &mut Reservation) -> Result<u32, Trouble> {
        let upper = key.role.is_table() && !key.role.is_leaf_table();
        if upper && self.frames.get(key.gfn)?.is_unsync() {
            self.resync(key.gfn)?;
        }
        let index = self.pool.take(room, key)?;
        let frame = self.frames.get_mut(key.gfn)?;
        let first = if key.role.has_key() { core::mem::replace(&mut frame.pages, index) } else { NIL };
        let begins = key.role.is_table() && {
            let was = frame.tracked();
            frame.tables = frame.tables.checked_add(1).ok_or(Broken(9))?;
            frame.upper = frame.upper.checked_add(u16::from(upper)).ok_or(Broken(9))?;
            !was && frame.tracked()
        };
        let page = self.pool.get_mut(index)?;
        page.next_same = first;
        let (pfn, freed) = (page.pfn, page.freed_epoch);
        if freed == self.epoch {
            // I10: the paging-structure caches may still name this frame as the table it was.
            self.flush_all();
        }
        let level = key.role.level();
        self.counters.add(Counter::TableMade);
        self.observer.event(Event::Table { level, came: true, guest: key.gfn.base(), table: pfn.base() });
        if begins {
            self.begin_tracking(key.gfn, Some(level))?;
        }
        Ok(index)
    }

    /// Clears all entries of a page.
    pub(crate) fn empty(&mut self, index: u32) -> Result<(), Trouble> {
        while let Some(slot) = self.pool.get(index)?.first_present() {
            self.zap(index, slot)?;
        }
        self.forget_gaps(index)
    }

    /// Gives up a page: its entries, the entries that name it, and its place in the pool.
    pub(crate) fn zap_page(&mut self, index: u32) -> Result<(), Trouble> {
        self.empty(index)?;
        loop {
            let node = self.pool.get(index)?.parents;
            if node == NIL {
                break;
            }
            self.zap(page_of(node), slot_of(node))?;
        }
        let key = self.pool.get(index)?.key;
        if key.role.has_key() {
            self.unchain(key.gfn, index)?;
        }
        let table = self.pool.get(index)?.pfn;
        if key.role.is_root() && self.tables.retire_root(table).is_err() {
            return Err(Trouble::Refused { page: index, slot: 0 });
        }
        self.pool.give(index, self.epoch)?;
        self.counters.add(Counter::TableFreed);
        let level = key.role.level();
        self.observer.event(Event::Table { level, came: false, guest: key.gfn.base(), table: table.base() });
        if level == Level::L2 || level == Level::L3 {
            // What the window's links depend on must be tracked, and found from the root.
            self.window.note_change();
        }
        if key.role.is_table() {
            let frame = self.frames.get_mut(key.gfn)?;
            let was = frame.tracked();
            frame.tables = frame.tables.checked_sub(1).ok_or(Broken(4))?;
            let upper = u16::from(!key.role.is_leaf_table());
            frame.upper = frame.upper.checked_sub(upper).ok_or(Broken(4))?;
            if frame.tables == 0 && frame.is_unsync() {
                let snapshot = core::mem::replace(&mut frame.snapshot, 0);
                self.unsync.remove(key.gfn, snapshot);
            } else if was && !frame.tracked() {
                self.observer.event(Event::Untrack { frame: key.gfn.base() });
            }
        }
        Ok(())
    }

    /// Puts a page in front of the chain of its guest frame, where the next search finds it at once.
    #[inline]
    pub(crate) fn move_to_front(&mut self, gfn: Gfn, index: u32) -> Result<(), Broken> {
        let first = self.frames.get(gfn)?.pages;
        if first == index {
            return Ok(());
        }
        self.unchain(gfn, index)?;
        self.pool.get_mut(index)?.next_same = first;
        self.frames.get_mut(gfn)?.pages = index;
        Ok(())
    }

    /// Takes a page out of the chain of its guest frame.
    fn unchain(&mut self, gfn: Gfn, index: u32) -> Result<(), Broken> {
        let next = self.pool.get(index)?.next_same;
        let first = self.frames.get(gfn)?.pages;
        if first == index {
            self.frames.get_mut(gfn)?.pages = next;
            return Ok(());
        }
        let mut at = first;
        while at != NIL {
            let after = self.pool.get(at)?.next_same;
            if after == index {
                self.pool.get_mut(at)?.next_same = next;
                return Ok(());
            }
            at = after;
        }
        Err(Broken(9))
    }

    /// Gives up every shadow of a guest table that seems to be data by now. Its frame is plain again, unless it is watched.
    pub(crate) fn unshadow(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        self.counters.add(Counter::TableReused);
        self.give_up_tables(gfn)
    }

    /// Room for `count` pages; old pages are given up for it if need be. The current root stays.
    #[inline]
    pub(crate) fn reserve(&mut self, count: u32) -> Result<Reservation, Trouble> {
        match self.pool.reserve(count) {
            Some(room) => Ok(room),
            None => self.evict(count),
        }
    }

    #[cold]
    fn evict(&mut self, count: u32) -> Result<Reservation, Trouble> {
        let pinned = self.pinned();
        for root in pinned {
            self.touch_below(root)?;
        }
        let wanted = count.max(EVICTION_BATCH.min((self.pool.len() / 2) as u32));
        while self.pool.free_count() < wanted {
            let victim = self.pool.victim(&pinned)?;
            self.zap_page(victim)?;
            self.counters.add(Counter::TableEvicted);
        }
        Ok(self.pool.reserve(count).ok_or(Broken(8))?)
    }

    /// The pages that must stay: the current roots, or [`NIL`].
    #[inline]
    pub(crate) fn pinned(&self) -> [u32; 3] {
        let [kernel_ac, user] = self.side_roots;
        [self.root, kernel_ac, user].map(|root| root.map_or(NIL, |root| root.index))
    }

    #[inline]
    pub(crate) fn is_pinned(&self, index: u32) -> bool {
        self.pinned().contains(&index)
    }

    /// The upper pages of a current root see no fills of their own, so they would look old.
    fn touch_below(&mut self, root: u32) -> Result<(), Broken> {
        if root == NIL {
            return Ok(());
        }
        self.pool.touch(root)?;
        let mut slot = 0;
        while let Some(below) = self.next_child(root, &mut slot)? {
            self.pool.touch(below)?;
            let mut slot = 0;
            while let Some(lower) = self.next_child(below, &mut slot)? {
                self.pool.touch(lower)?;
            }
        }
        Ok(())
    }

    /// The next page that `page` names from entry `slot` on; `slot` moves past it.
    fn next_child(&self, page: u32, slot: &mut usize) -> Result<Option<u32>, Broken> {
        let Some(found) = self.pool.get(page)?.next_present(*slot) else { return Ok(None) };
        *slot = found.saturating_add(1);
        self.child(page, found)
    }
}
