//! Changing entries: the path of tables, leaves, and giving tables up. Every change of an entry goes through [`SecondLevel::put`].

use crate::access::AccessKind;
use crate::addr::{Gfn, Level, Pfn};
use crate::mem::{GfnKind, GuestMem, TableMem};
use crate::pte::Spte;
use crate::second::arena::{self, frames_shift};
use crate::second::usage::UsageTracking;
use crate::second::{SecondFormat, SecondLeaf, SecondLevel, SecondPte};
use crate::stop::{Broken, VmStop};

impl From<Broken> for VmStop {
    fn from(broken: Broken) -> Self {
        Self::Internal { invariant: broken.0 }
    }
}

/// Frames that a 2 MiB entry maps.
const HUGE_FRAMES: u64 = 512;

impl<F: SecondFormat, T: TableMem> SecondLevel<F, T> {
    /// Maps one frame; a leaf that is there keeps or gains rights.
    pub(super) fn fill(&mut self, gfn: Gfn, pfn: Pfn, (writable, access): (bool, AccessKind)) -> Result<(), VmStop> {
        if self.leaf_place(gfn).is_some_and(|(_, _, level)| level != Level::L1) {
            // Whatever let 2 MiB stand there before no longer does.
            self.zap(gfn)?;
        }
        let place = (self.path(gfn, Level::L1)?, arena::slot(gfn, Level::L1));
        let mut leaf = self.new_leaf(pfn, writable, access);
        let old = self.entry(place)?;
        let before = match F::decode(old, Level::L1) {
            SecondPte::Leaf(before) => Some(before),
            SecondPte::Absent | SecondPte::Table(_) | SecondPte::Malformed => None,
        };
        if let Some(before) = before.filter(|before| before.pfn == pfn) {
            // I10: the TLB keeps the right, and sets no mark twice.
            leaf.writable |= before.writable && writable;
            leaf.accessed |= before.accessed;
            leaf.dirty |= before.dirty && leaf.writable;
        }
        let spte = F::leaf(leaf, Level::L1);
        if old == spte {
            self.counters.spurious = self.counters.spurious.wrapping_add(1);
            return Ok(());
        }
        if let Some(before) = before {
            self.remember_use(gfn, before);
            if before.pfn != pfn || (before.writable && !leaf.writable) {
                // I10: the TLB may hold what is lost.
                self.flush_all();
            }
        }
        self.put(place, Level::L1, spte)?;
        self.counters.filled = self.counters.filled.wrapping_add(1);
        Ok(())
    }

    /// Maps 2 MiB if the host's memory allows; false if it does not.
    pub(super) fn fill_huge<G: GuestMem>(&mut self, mem: &G, gfn: Gfn, pfn: Pfn) -> Result<bool, VmStop> {
        let (first, offset) = (gfn.align_down(9), gfn.raw() & (HUGE_FRAMES - 1));
        let base = Pfn::new(pfn.raw().wrapping_sub(offset));
        let allowed = self.usage == UsageTracking::Off
            && base.raw() & (HUGE_FRAMES - 1) == 0
            && self.arena.find(gfn, Level::L1).is_none()
            && (0..HUGE_FRAMES).all(|n| {
                let gfn = first.add(n);
                mem.kind(gfn) == GfnKind::Ram(base.add(n)) && self.state(gfn).is_some_and(|state| state.watches == 0)
            });
        if !allowed {
            return Ok(false);
        }
        let place = (self.path(gfn, Level::L2)?, arena::slot(gfn, Level::L2));
        let leaf = SecondLeaf { pfn: base, writable: true, accessed: true, dirty: true };
        let spte = F::leaf(leaf, Level::L2);
        if self.entry(place)? == spte {
            self.counters.spurious = self.counters.spurious.wrapping_add(1);
        } else {
            if self.entry(place)? != Spte::ABSENT {
                self.flush_all();
            }
            self.put(place, Level::L2, spte)?;
            self.counters.filled_huge = self.counters.filled_huge.wrapping_add(1);
        }
        Ok(true)
    }

    /// Where the leaf for `gfn` stands or would stand: in its L1 table, or in its L2 table if there is a huge one.
    pub(super) fn leaf_place(&self, gfn: Gfn) -> Option<(u32, usize, Level)> {
        if let Some(table) = self.arena.find(gfn, Level::L1) {
            return Some((table, arena::slot(gfn, Level::L1), Level::L1));
        }
        let place = (self.arena.find(gfn, Level::L2)?, arena::slot(gfn, Level::L2));
        let entry = self.entry(place).ok()?;
        (entry != Spte::ABSENT).then_some((place.0, place.1, Level::L2))
    }

    /// Clears the leaf that maps `gfn`.
    pub(super) fn zap(&mut self, gfn: Gfn) -> Result<(), VmStop> {
        let Some((table, slot, level)) = self.leaf_place(gfn) else { return Ok(()) };
        let SecondPte::Leaf(leaf) = F::decode(self.entry((table, slot))?, level) else { return Ok(()) };
        self.zap_leaf((table, slot), (gfn, level), leaf)
    }

    /// Clears a leaf of a table of `level` on the path to `gfn`.
    fn zap_leaf(&mut self, place: (u32, usize), (gfn, level): (Gfn, Level), leaf: SecondLeaf) -> Result<(), VmStop> {
        if level == Level::L1 {
            self.remember_use(gfn, leaf);
        } else {
            (0..HUGE_FRAMES).for_each(|n| self.remember_use(gfn.align_down(9).add(n), leaf));
        }
        self.put(place, level, Spte::ABSENT)?;
        self.counters.zapped = self.counters.zapped.wrapping_add(1);
        self.flush_all();
        Ok(())
    }

    /// Takes the right to write from the leaf of `gfn`. A huge one goes: its parts come back one by one.
    pub(super) fn revoke_write(&mut self, gfn: Gfn) -> Result<(), VmStop> {
        let Some((table, slot, level)) = self.leaf_place(gfn) else { return Ok(()) };
        let SecondPte::Leaf(leaf) = F::decode(self.entry((table, slot))?, level) else { return Ok(()) };
        if level != Level::L1 {
            return self.zap_leaf((table, slot), (gfn, level), leaf);
        }
        if leaf.writable {
            self.remember_use(gfn, leaf);
            self.put((table, slot), level, F::leaf(SecondLeaf { writable: false, dirty: false, ..leaf }, level))?;
            // I4: the TLB may still grant it.
            self.flush_all();
        }
        Ok(())
    }

    /// The table of `level` for `gfn`, made with all above it if need be. Room is made first, so that the path is whole after.
    fn path(&mut self, gfn: Gfn, level: Level) -> Result<u32, VmStop> {
        // I12: each turn gives up one table.
        while self.arena.free_count() < self.arena.missing(gfn, level) {
            self.evict()?;
        }
        let mut above = self.root;
        for step in [Level::L3, Level::L2, Level::L1] {
            if step < level {
                break;
            }
            above = match self.arena.find(gfn, step) {
                Some(table) => table,
                None => self.link(above, gfn, step)?,
            };
        }
        Ok(above)
    }

    /// Makes a table of `level` below `above`.
    fn link(&mut self, above: u32, gfn: Gfn, level: Level) -> Result<u32, VmStop> {
        let upper = self.arena.get(above)?.level.ok_or(Broken(7))?;
        let place = (above, arena::slot(gfn, upper));
        if let SecondPte::Leaf(leaf) = F::decode(self.entry(place)?, upper) {
            self.zap_leaf(place, (gfn, upper), leaf)?;
        }
        let table = self.arena.take(gfn, level)?;
        let spte = F::table(self.arena.get(table)?.pfn);
        self.put(place, upper, spte)?;
        Ok(table)
    }

    /// Gives up one table.
    fn evict(&mut self) -> Result<(), VmStop> {
        let victim = self.arena.victim()?;
        let table = *self.arena.get(victim)?;
        let level = table.level.ok_or(Broken(8))?;
        let first = Gfn::new(table.region << frames_shift(level));
        for slot in 0..512usize {
            if let SecondPte::Leaf(leaf) = F::decode(self.entry((victim, slot))?, level) {
                let below = first.add((slot as u64) << frames_shift(level).wrapping_sub(9));
                self.zap_leaf((victim, slot), (below, level), leaf)?;
            }
        }
        let upper = Level::from_number(level.number().wrapping_add(1)).ok_or(Broken(7))?;
        let parent = self.arena.find(first, upper).ok_or(Broken(7))?;
        self.put((parent, arena::slot(first, upper)), upper, Spte::ABSENT)?;
        self.tables.clear(table.pfn);
        self.arena.give(victim)?;
        self.counters.evicted = self.counters.evicted.wrapping_add(1);
        // The CPU may remember the table itself.
        self.flush_all();
        Ok(())
    }

    pub(super) fn entry(&self, (table, slot): (u32, usize)) -> Result<Spte, Broken> {
        Ok(self.tables.load(self.arena.get(table)?.pfn, slot))
    }

    /// Replaces an entry of a table of `level` and keeps the counts (I7).
    fn put(&mut self, (table, slot): (u32, usize), level: Level, spte: Spte) -> Result<(), VmStop> {
        let pfn = self.arena.get(table)?.pfn;
        let old = F::decode(self.tables.load(pfn, slot), level);
        let index = u16::try_from(slot).unwrap_or(u16::MAX);
        self.tables.store(pfn, slot, spte).map_err(|_| VmStop::Refused { table: pfn, index })?;
        let entry = self.arena.get_mut(table)?;
        match old {
            SecondPte::Table(_) => entry.children = entry.children.checked_sub(1).ok_or(Broken(7))?,
            SecondPte::Leaf(_) => entry.leaves = entry.leaves.checked_sub(1).ok_or(Broken(7))?,
            SecondPte::Absent | SecondPte::Malformed => {}
        }
        match F::decode(spte, level) {
            SecondPte::Table(_) => entry.children = entry.children.saturating_add(1),
            SecondPte::Leaf(_) => entry.leaves = entry.leaves.saturating_add(1),
            SecondPte::Absent | SecondPte::Malformed => {}
        }
        Ok(())
    }
}
