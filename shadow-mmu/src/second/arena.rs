//! The bounded pool of second-level tables and the directory that finds them. Every table stands for one aligned region of guest
//! frames, so its place in the tree follows from its level and the region's number, and nothing needs to be searched.

use alloc::vec;
use alloc::vec::Vec;

use crate::addr::{Gfn, Level, Pfn};
use crate::links::NIL;
use crate::stop::Broken;

/// One table of the pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) pfn: Pfn,
    /// `None`: free.
    pub(super) level: Option<Level>,
    /// Which region of that level it stands for.
    pub(super) region: u64,
    /// Entries that name tables.
    pub(super) children: u16,
    /// Entries that map memory.
    pub(super) leaves: u16,
}

/// All tables of one VM.
#[derive(Debug)]
pub(super) struct Arena {
    tables: Vec<Table>,
    free: Vec<u32>,
    /// Tables by region, for the levels L1, L2, L3, L4.
    directory: [Vec<u32>; 4],
    /// Where the next search for a victim begins.
    hand: u32,
}

/// log2 of the guest frames below one table of `level`.
pub(super) const fn frames_shift(level: Level) -> u32 {
    (level.number() as u32).wrapping_mul(9)
}

/// The region of `gfn` at `level`.
pub(super) const fn region(gfn: Gfn, level: Level) -> u64 {
    gfn.raw() >> frames_shift(level)
}

/// The entry of a table of `level` that `gfn` goes through.
pub(super) const fn slot(gfn: Gfn, level: Level) -> usize {
    (gfn.raw() >> frames_shift(level).wrapping_sub(9) & 511) as usize
}

impl Arena {
    pub(super) fn new(frames: &[Pfn], guest_frames: u64) -> Self {
        let free = |&pfn| Table { pfn, level: None, region: 0, children: 0, leaves: 0 };
        let places = |level| {
            let last = region(Gfn::new(guest_frames.saturating_sub(1)), level);
            vec![NIL; usize::try_from(last).unwrap_or(0).saturating_add(1)]
        };
        Self {
            tables: frames.iter().map(free).collect(),
            free: (0..frames.len() as u32).rev().collect(),
            directory: [places(Level::L1), places(Level::L2), places(Level::L3), places(Level::L4)],
            hand: 0,
        }
    }

    pub(super) fn get(&self, index: u32) -> Result<&Table, Broken> {
        self.tables.get(index as usize).ok_or(Broken(7))
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Result<&mut Table, Broken> {
        self.tables.get_mut(index as usize).ok_or(Broken(7))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Table)> {
        self.tables.iter().enumerate().map(|(n, table)| (n as u32, table))
    }

    pub(super) fn free_count(&self) -> usize {
        self.free.len()
    }

    fn place(&mut self, level: Level, region: u64) -> Result<&mut u32, Broken> {
        let level = usize::from(level.number().wrapping_sub(1));
        let places = self.directory.get_mut(level).ok_or(Broken(9))?;
        usize::try_from(region).ok().and_then(|n| places.get_mut(n)).ok_or(Broken(9))
    }

    /// The table of `level` on the path to `gfn`, if there is one.
    #[inline]
    pub(super) fn find(&self, gfn: Gfn, level: Level) -> Option<u32> {
        let places = self.directory.get(usize::from(level.number().wrapping_sub(1)))?;
        let index = *places.get(usize::try_from(region(gfn, level)).ok()?)?;
        (index != NIL).then_some(index)
    }

    /// How many tables the path to `gfn` lacks, down to `level`.
    pub(super) fn missing(&self, gfn: Gfn, level: Level) -> usize {
        let below = [Level::L3, Level::L2, Level::L1].into_iter().filter(|&l| l >= level);
        below.filter(|&l| self.find(gfn, l).is_none()).count()
    }

    /// Takes a free table for a place that has none.
    pub(super) fn take(&mut self, gfn: Gfn, level: Level) -> Result<u32, Broken> {
        let region = region(gfn, level);
        let index = self.free.pop().ok_or(Broken(8))?;
        *self.place(level, region)? = index;
        let table = self.get_mut(index)?;
        *table = Table { pfn: table.pfn, level: Some(level), region, children: 0, leaves: 0 };
        Ok(index)
    }

    /// Gives back a table that has no entries left.
    pub(super) fn give(&mut self, index: u32) -> Result<(), Broken> {
        let table = self.get_mut(index)?;
        let (level, region) = (table.level.take().ok_or(Broken(8))?, table.region);
        *self.place(level, region)? = NIL;
        self.free.push(index);
        Ok(())
    }

    /// A table to give up: the next, round the pool, that names no tables and is not the root.
    pub(super) fn victim(&mut self) -> Result<u32, Broken> {
        let count = self.tables.len() as u32;
        for _ in 0..count {
            self.hand = self.hand.checked_add(1).filter(|&n| n < count).unwrap_or(0);
            let table = self.get(self.hand)?;
            if table.children == 0 && table.level.is_some_and(|level| level < Level::L4) {
                return Ok(self.hand);
            }
        }
        Err(Broken(8))
    }
}
