//! The frames that are out of sync, and what their tables held when they went.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use crate::addr::Gfn;
use crate::controls::PagingMode;
use crate::mem::FRAME_BYTES;
use crate::role::Role;

/// log2 of the bytes in a word of the comparison.
pub(super) const WORD_SHIFT: u32 = 3;
/// Words that are first compared together.
const GROUP: usize = 8;
const GROUP_MASK: u64 = 0xff;

/// A table as it was when it went out of sync.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) bytes: Box<[u8; FRAME_BYTES]>,
    /// Which words of 8 bytes tell nothing any more, because a shadow entry was made of a later value.
    pub(super) suspect: [u64; FRAME_BYTES / 8 / 64],
}

impl Snapshot {
    fn new() -> Self {
        Self { bytes: Box::new([0; FRAME_BYTES]), suspect: [0; FRAME_BYTES / 8 / 64] }
    }

    /// The first of `words` that is not as it was.
    #[inline]
    pub(super) fn next_difference(&self, now: &[u8; FRAME_BYTES], words: Range<usize>) -> Option<usize> {
        let mut word = words.start;
        while word < words.end {
            if word.is_multiple_of(GROUP) && self.same_group(now, word / GROUP) {
                word = word.wrapping_add(GROUP);
                continue;
            }
            if self.differs(now, word) {
                return Some(word);
            }
            word = word.wrapping_add(1);
        }
        None
    }

    /// Are all words of a group as they were?
    #[inline]
    fn same_group(&self, now: &[u8; FRAME_BYTES], group: usize) -> bool {
        let suspect = self.suspect.get(group / (64 / GROUP)).copied().unwrap_or(u64::MAX);
        let shift = (group % (64 / GROUP)).wrapping_mul(GROUP);
        let (old, new) =
            (self.bytes.as_chunks::<{ 8 * GROUP }>().0.get(group), now.as_chunks::<{ 8 * GROUP }>().0.get(group));
        let (Some(old), Some(new)) = (old, new) else { return false };
        let pairs = old.as_chunks::<8>().0.iter().zip(new.as_chunks::<8>().0);
        let changed = pairs.fold(0, |sum, (old, new)| sum | u64::from_le_bytes(*old) ^ u64::from_le_bytes(*new));
        changed == 0 && suspect >> shift & GROUP_MASK == 0
    }

    #[inline]
    fn differs(&self, now: &[u8; FRAME_BYTES], word: usize) -> bool {
        let suspect = self.suspect.get(word >> 6).is_none_or(|bits| bits >> (word & 63) & 1 != 0);
        suspect || self.bytes.as_chunks::<8>().0.get(word) != now.as_chunks::<8>().0.get(word)
    }
}

/// The frames that are out of sync, and their snapshots. All memory is allocated at the start.
#[derive(Debug)]
pub(crate) struct UnsyncSet {
    /// That which went first in front.
    pub(super) frames: VecDeque<Gfn>,
    pub(super) snapshots: Vec<Snapshot>,
    /// Numbers of the snapshots that no frame has.
    pub(super) free: Vec<u16>,
    /// A table as it is now, for comparison.
    pub(super) now: Option<Box<[u8; FRAME_BYTES]>>,
}

/// The word of a table in which the guest's entry for an entry of a leaf page is, and whether it is the upper half.
#[inline]
fn place_of(role: Role, slot: usize) -> (usize, bool) {
    let entry = usize::from(role.quadrant()) << 9 | slot;
    if role.format() == PagingMode::Legacy32 { (entry >> 1, entry & 1 != 0) } else { (entry, false) }
}

impl UnsyncSet {
    pub(crate) fn new(limit: u16) -> Self {
        Self {
            frames: VecDeque::with_capacity(limit.into()),
            snapshots: (0..limit).map(|_| Snapshot::new()).collect(),
            free: (0..limit).rev().collect(),
            now: (limit != 0).then(|| Box::new([0; FRAME_BYTES])),
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn has(&self, gfn: Gfn) -> bool {
        self.frames.contains(&gfn)
    }

    /// Every snapshot belongs to one frame or to none.
    pub(crate) fn is_sound(&self) -> bool {
        self.frames.len().saturating_add(self.free.len()) == self.snapshots.len()
    }

    pub(crate) fn remove(&mut self, gfn: Gfn, snapshot: u16) {
        if let Some(place) = self.frames.iter().position(|&frame| frame == gfn) {
            self.frames.remove(place);
            self.give_back(snapshot);
        }
    }

    pub(super) fn give_back(&mut self, snapshot: u16) {
        self.free.extend(snapshot.checked_sub(1));
    }

    pub(super) fn snapshot(&mut self, number: u16) -> Option<&mut Snapshot> {
        self.snapshots.get_mut(usize::from(number).checked_sub(1)?)
    }

    /// Marks the words that entries of a leaf page stand for.
    #[inline]
    pub(super) fn suspect(&mut self, number: u16, (role, slots): (Role, Range<usize>)) {
        let Some(snapshot) = self.snapshot(number) else { return };
        for slot in slots {
            let (word, _) = place_of(role, slot);
            if let Some(bits) = snapshot.suspect.get_mut(word >> 6) {
                *bits |= 1 << (word & 63);
            }
        }
    }

    /// The guest's entry for an entry of a leaf page, as the snapshot has it; `None` if that tells nothing any more.
    pub(crate) fn remembered(&self, number: u16, (role, slot): (Role, usize)) -> Option<u64> {
        let snapshot = self.snapshots.get(usize::from(number).checked_sub(1)?)?;
        let (word, high) = place_of(role, slot);
        let suspect = snapshot.suspect.get(word >> 6)? >> (word & 63) & 1 != 0;
        let word = u64::from_le_bytes(*snapshot.bytes.as_chunks::<8>().0.get(word)?);
        let raw = if role.format() != PagingMode::Legacy32 {
            word
        } else if high {
            word >> 32
        } else {
            word & u64::from(u32::MAX)
        };
        (!suspect).then_some(raw)
    }

    /// Changes a snapshot on purpose.
    #[cfg(test)]
    pub(crate) fn corrupt(&mut self, number: u16, byte: usize) {
        self.snapshot(number).unwrap().bytes[byte] ^= 0xff;
    }

    /// Breaks the set on purpose.
    #[cfg(test)]
    pub(crate) fn force(&mut self, gfn: Gfn) {
        self.frames.push_back(gfn);
    }
}
