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

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use crate::addr::{Gfn, Gva, Level};
use crate::controls::PagingMode;
use crate::counters::Counter;
use crate::event::{Event, Observer};
use crate::links::{NIL, SLOTS};
use crate::mem::{FRAME_BYTES, GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pte::{GuestFormat, Legacy32, Long4, Pae};
use crate::role::{Key, Role};
use crate::stop::{Broken, Trouble};

/// log2 of the bytes in a word of the comparison.
const WORD_SHIFT: u32 = 3;
/// Words that are first compared together.
const GROUP: usize = 8;
const GROUP_MASK: u64 = 0xff;

/// A table as it was when it went out of sync.
#[derive(Debug)]
struct Snapshot {
    bytes: Box<[u8; FRAME_BYTES]>,
    /// Which words of 8 bytes tell nothing any more, because a shadow entry was made of a later value.
    suspect: [u64; FRAME_BYTES / 8 / 64],
}

impl Snapshot {
    fn new() -> Self {
        Self { bytes: Box::new([0; FRAME_BYTES]), suspect: [0; FRAME_BYTES / 8 / 64] }
    }

    /// The first of `words` that is not as it was.
    #[inline]
    fn next_difference(&self, now: &[u8; FRAME_BYTES], words: Range<usize>) -> Option<usize> {
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
    frames: VecDeque<Gfn>,
    snapshots: Vec<Snapshot>,
    /// Numbers of the snapshots that no frame has.
    free: Vec<u16>,
    /// A table as it is now, for comparison.
    now: Option<Box<[u8; FRAME_BYTES]>>,
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

    fn give_back(&mut self, snapshot: u16) {
        self.free.extend(snapshot.checked_sub(1));
    }

    fn snapshot(&mut self, number: u16) -> Option<&mut Snapshot> {
        self.snapshots.get_mut(usize::from(number).checked_sub(1)?)
    }

    /// Marks the word that an entry of a leaf page stands for.
    #[inline]
    fn suspect(&mut self, number: u16, (role, slot): (Role, usize)) {
        let (word, _) = place_of(role, slot);
        if let Some(bits) = self.snapshot(number).and_then(|snapshot| snapshot.suspect.get_mut(word >> 6)) {
            *bits |= 1 << (word & 63);
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

    /// An entry of a leaf page was made of what the guest's table says now.
    #[inline]
    pub(crate) fn note_made(&mut self, page: u32, slot: usize) -> Result<(), Broken> {
        if self.unsync.is_empty() {
            return Ok(());
        }
        let Key { gfn, role } = self.pool.get(page)?.key;
        if role.is_table() {
            let number = self.frames.get(gfn)?.snapshot;
            self.unsync.suspect(number, (role, slot));
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
        self.unsync.suspect(number, (role, slot));
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
