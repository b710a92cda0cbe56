//! The bounded pool of shadow pages. Owns I9 (with the chains of `frames`) and the reservation half of I8.
//!
//! A page is in exactly one of two lists, both doubly linked through the pages: the free list, taken from its oldest end so that
//! a frame rests as long as possible before it is used again, or the LRU list of live pages.

use alloc::vec::Vec;

use crate::addr::{Gfn, Pfn};
use crate::links::{NIL, SLOTS};
use crate::role::{Key, Role};
use crate::stop::Broken;

/// Name of a shadow page that can be kept: it is checked against reuse. Stale use finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// One shadow page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its host frame.
    pub(crate) pfn: Pfn,
    /// What it stands for, while it is live.
    pub(crate) key: Key,
    pub(crate) live: bool,
    /// Counts its uses, so that old [`PageId`]s fail.
    pub(crate) generation: u32,
    /// First node of the entries that name it.
    pub(crate) parents: u32,
    /// Next page of the same guest frame.
    pub(crate) next_same: u32,
    /// Flush epoch in which it was freed.
    pub(crate) freed_epoch: u32,
    /// Of a root: the number of its last load.
    pub(crate) stamp: u32,
    /// Of a root: the window's epoch in which its links to code were last looked at.
    pub(crate) code_epoch: u64,
    /// Of a directory: in which GiB, counted from 1, the code is fetched that it has links to; 0 if it has none.
    pub(crate) code_gib: u8,
    /// It was used since it was last considered for eviction. One store, where a touch would be a dozen.
    pub(crate) used: bool,
    /// It is in the list of pages with leaves that the next CR3 load drops.
    pub(crate) local: bool,
    /// Which entries are present.
    pub(crate) present: [u64; SLOTS / 64],
    /// Which are gaps.
    pub(crate) gaps: [u64; SLOTS / 64],
    prev: u32,
    next: u32,
}

impl Page {
    #[inline]
    pub(crate) fn has(&self, slot: usize) -> bool {
        self.present.get(slot >> 6).is_some_and(|word| word >> (slot & 63) & 1 != 0)
    }

    #[inline]
    pub(crate) fn set_present(&mut self, slot: usize) {
        if let Some(word) = self.present.get_mut(slot >> 6) {
            *word |= 1 << (slot & 63);
        }
        self.clear_gap(slot);
    }

    #[inline]
    pub(crate) fn has_gap(&self, slot: usize) -> bool {
        self.gaps.get(slot >> 6).is_some_and(|word| word >> (slot & 63) & 1 != 0)
    }

    pub(crate) fn set_gap(&mut self, slot: usize) {
        if let Some(word) = self.gaps.get_mut(slot >> 6) {
            *word |= 1 << (slot & 63);
        }
    }

    #[inline]
    pub(crate) fn clear_gap(&mut self, slot: usize) {
        if let Some(word) = self.gaps.get_mut(slot >> 6) {
            *word &= !(1 << (slot & 63));
        }
    }

    /// A gap, the lowest.
    pub(crate) fn first_gap(&self) -> Option<usize> {
        first_bit(&self.gaps)
    }

    #[inline]
    pub(crate) fn set_absent(&mut self, slot: usize) {
        if let Some(word) = self.present.get_mut(slot >> 6) {
            *word &= !(1 << (slot & 63));
        }
    }

    /// The lowest present entry from `from` on.
    pub(crate) fn next_present(&self, from: usize) -> Option<usize> {
        let mut mask = u64::MAX << (from & 63);
        for (word, bits) in self.present.iter().enumerate().skip(from >> 6) {
            if bits & mask != 0 {
                return Some(word << 6 | (bits & mask).trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }

    /// A present entry, the lowest.
    #[inline]
    pub(crate) fn first_present(&self) -> Option<usize> {
        first_bit(&self.present)
    }
}

#[inline]
fn first_bit(words: &[u64; SLOTS / 64]) -> Option<usize> {
    let (word, bits) = words.iter().enumerate().find(|(_, bits)| **bits != 0)?;
    Some(word << 6 | bits.trailing_zeros() as usize)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct List {
    first: u32,
    last: u32,
}

/// Permission to take pages: whoever holds it can take `left` pages without anything being evicted meanwhile.
#[must_use]
#[derive(Debug)]
pub(crate) struct Reservation {
    left: u32,
}

/// All shadow pages of one VM.
#[derive(Debug)]
pub(crate) struct Pool {
    pages: Vec<Page>,
    free: List,
    lru: List,
    free_count: u32,
}

impl Pool {
    pub(crate) fn new(frames: &[Pfn]) -> Self {
        let key = Key { gfn: Gfn::new(0), role: Role::NONE };
        let pages = frames
            .iter()
            .map(|&pfn| Page {
                pfn,
                key,
                live: false,
                generation: 0,
                parents: NIL,
                next_same: NIL,
                freed_epoch: 0,
                stamp: 0,
                code_epoch: 0,
                code_gib: 0,
                used: false,
                local: false,
                present: [0; SLOTS / 64],
                gaps: [0; SLOTS / 64],
                prev: NIL,
                next: NIL,
            })
            .collect();
        let empty = List { first: NIL, last: NIL };
        let mut pool = Self { pages, free: empty, lru: empty, free_count: 0 };
        for index in 0..frames.len() as u32 {
            // Cannot fail: the index is in range.
            let _ = pool.push_free(index);
        }
        pool
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> Result<&Page, Broken> {
        self.pages.get(index as usize).ok_or(Broken(7))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Result<&mut Page, Broken> {
        self.pages.get_mut(index as usize).ok_or(Broken(7))
    }

    /// The page that `id` names, if it is still that one.
    #[inline]
    pub(crate) fn checked(&self, id: PageId) -> Option<&Page> {
        self.pages.get(id.index as usize).filter(|page| page.live && page.generation == id.generation)
    }

    #[inline]
    pub(crate) fn id(&self, index: u32) -> Result<PageId, Broken> {
        Ok(PageId { index, generation: self.get(index)?.generation })
    }

    #[inline]
    pub(crate) const fn free_count(&self) -> u32 {
        self.free_count
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Page)> {
        self.pages.iter().enumerate().map(|(n, page)| (n as u32, page))
    }

    /// A reservation of `count` pages, if so many are free.
    #[inline]
    pub(crate) fn reserve(&self, count: u32) -> Option<Reservation> {
        (self.free_count >= count).then_some(Reservation { left: count })
    }

    /// Takes the page that has been free for longest and makes it live.
    pub(crate) fn take(&mut self, reservation: &mut Reservation, key: Key) -> Result<u32, Broken> {
        reservation.left = reservation.left.checked_sub(1).ok_or(Broken(8))?;
        let index = self.free.first;
        self.free = self.unlink(self.free, index)?;
        self.free_count = self.free_count.wrapping_sub(1);
        let page = self.get_mut(index)?;
        page.key = key;
        page.live = true;
        page.stamp = 0;
        page.code_epoch = 0;
        page.code_gib = 0;
        page.generation = page.generation.wrapping_add(1);
        page.parents = NIL;
        page.next_same = NIL;
        self.lru = self.append(self.lru, index)?;
        Ok(index)
    }

    /// The live page that was touched longest ago and is none of `pinned`.
    pub(crate) fn oldest_but(&self, pinned: &[u32]) -> Option<u32> {
        let mut index = self.lru.first;
        while pinned.contains(&index) && index != NIL {
            index = self.get(index).ok()?.next;
        }
        (index != NIL).then_some(index)
    }

    /// Gives a live page back.
    pub(crate) fn give(&mut self, index: u32, epoch: u32) -> Result<(), Broken> {
        self.lru = self.unlink(self.lru, index)?;
        let page = self.get_mut(index)?;
        page.live = false;
        page.freed_epoch = epoch;
        self.push_free(index)
    }

    /// Makes a live page the most recently used.
    #[inline]
    pub(crate) fn touch(&mut self, index: u32) -> Result<(), Broken> {
        if self.lru.last == index {
            return Ok(());
        }
        self.lru = self.unlink(self.lru, index)?;
        self.lru = self.append(self.lru, index)?;
        Ok(())
    }

    /// The least recently used page that is none of `pinned`. Pages marked as used get a second chance, once.
    pub(crate) fn victim(&mut self, pinned: &[u32]) -> Result<u32, Broken> {
        for _ in 0..=self.pages.len() {
            let first = self.lru.first;
            let page = self.get_mut(first)?;
            if !pinned.contains(&first) && !page.used {
                return Ok(first);
            }
            page.used = false;
            self.touch(first)?;
        }
        Err(Broken(8))
    }

    /// Do the two lists hold every page once, `live` of them in the LRU list?
    pub(crate) fn lists_are_sound(&self, live: usize) -> bool {
        let length = |list: List, alive: bool| {
            let (mut count, mut prev, mut index) = (0usize, NIL, list.first);
            while let Ok(page) = self.get(index) {
                if page.live != alive || page.prev != prev || count > self.pages.len() {
                    return None;
                }
                count = count.saturating_add(1);
                (prev, index) = (index, page.next);
            }
            (prev == list.last).then_some(count)
        };
        length(self.lru, true) == Some(live)
            && length(self.free, false) == Some(self.free_count as usize)
            && live.saturating_add(self.free_count as usize) == self.pages.len()
    }

    fn push_free(&mut self, index: u32) -> Result<(), Broken> {
        self.free = self.append(self.free, index)?;
        self.free_count = self.free_count.wrapping_add(1);
        Ok(())
    }

    #[inline]
    fn append(&mut self, list: List, index: u32) -> Result<List, Broken> {
        let page = self.get_mut(index)?;
        page.prev = list.last;
        page.next = NIL;
        if list.last == NIL {
            return Ok(List { first: index, last: index });
        }
        self.get_mut(list.last)?.next = index;
        Ok(List { first: list.first, last: index })
    }

    #[inline]
    fn unlink(&mut self, list: List, index: u32) -> Result<List, Broken> {
        let (prev, next) = {
            let page = self.get(index)?;
            (page.prev, page.next)
        };
        let mut list = list;
        if prev == NIL {
            list.first = next;
        } else {
            self.get_mut(prev)?.next = next;
        }
        if next == NIL {
            list.last = prev;
        } else {
            self.get_mut(next)?.prev = prev;
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_ids_find_nothing_and_old_frames_rest_longest() {
        let key = Key { gfn: Gfn::new(0), role: Role::NONE };
        let mut pool = Pool::new(&[Pfn::new(7), Pfn::new(8), Pfn::new(9)]);
        let mut room = pool.reserve(3).unwrap();
        assert!(pool.reserve(4).is_none());
        let a = pool.take(&mut room, key).unwrap();
        let id = pool.id(a).unwrap();
        assert!(pool.checked(id).is_some());
        pool.give(a, 0).unwrap();
        assert!(pool.checked(id).is_none());
        let b = pool.take(&mut room, key).unwrap();
        assert_ne!(a, b);
        let c = pool.take(&mut room, key).unwrap();
        assert!(pool.take(&mut room, key).is_err(), "the reservation is used up");
        assert_eq!(pool.victim(&[]).unwrap(), b);
        pool.touch(b).unwrap();
        assert_eq!(pool.victim(&[]).unwrap(), c);
        assert_eq!(pool.victim(&[c]).unwrap(), b);
        pool.get_mut(b).unwrap().used = true;
        assert_eq!(pool.victim(&[]).unwrap(), c, "a second chance for b");
        assert_eq!(pool.victim(&[c]).unwrap(), b, "but only one");
    }
}
