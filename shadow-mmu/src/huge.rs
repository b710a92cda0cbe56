//! Large leaves: a shadow entry of level 2 that maps 2 MiB. Owns I16.
//!
//! ```text
//! guest    a page of 2 MiB, half of one of 4 MiB, a piece of one of 1 GiB, or paging off
//! block    guest frames n * 512 .. n * 512 + 511
//! host     as many frames, one behind the other, from a border of 2 MiB on
//! ```
//! 512 shadow entries and as many hidden faults become one. What stands against it are frames that need entries of their own:
//! guest page tables, frames that the caller watches (code, descriptor tables), those of which it is asked whether they are used
//! or written, those that are away, ROM, devices, and nothing. So:
//!
//! 1. *Clear blocks only.* A block is *clear* if all its frames are RAM, in the host as in the guest, and
//!    [plain](Frame::is_plain). A fault there makes a large leaf. In any other block it makes an entry of 4 KiB in a direct page,
//!    as without this switch.
//! 2. *Broken up first.* What makes a frame of a clear block need an entry of its own clears every large leaf of the block
//!    before, by the block's own reverse map (`break_up`). Faults bring the parts back one by one, and may make a large leaf
//!    again when the last such frame is plain.
//! 3. *No two sizes.* When a large leaf goes, loses the right to write, or takes the place of small ones, the whole TLB goes with
//!    it. So a large leaf leaves nothing behind that I4 or I10 had to remember, the guest's INVLPG of one half of its 4 MiB drops
//!    nothing too little, and no CPU ever holds translations of both sizes for an address, which some do not bear (SDM 3A
//!    4.10.2.3; Intel's "machine check error on page size change", CVE-2018-12207). It costs little, as it is rare.
//!
//! The rights of a large leaf, A and D are those of its guest entry, by the same rules as a small one's. An upper guest table is
//! always followed, so the leaf is never out of sync; what the guest writes there is compared with the leaf (`follow_huge`). In
//! the virtual TLB it is a part of a large page like others.
//!
//! To ask a block is a look at one bit if it is clear, and at one frame as long as that still is the obstacle; else it is a look
//! at 512.

use alloc::vec;
use alloc::vec::Vec;

use crate::access::{Access, Perms};
use crate::addr::{Gfn, Gva, Level, Pfn};
use crate::counters::Counter;
use crate::event::{Event, Observer};
use crate::frames::Frame;
use crate::links::{BLOCK, NIL, node_of, page_of, slot_of};
use crate::mem::{GfnKind, GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::outcome::Outcome;
use crate::pool::Reservation;
use crate::propagate::{Cause, Leaf, Rules, propagate};
use crate::pte::{GuestFormat, GuestPte, Spte, frame_index};
use crate::role::Role;
use crate::stop::{Broken, Trouble};
use crate::table::Stored;
use crate::walk::{Walk, frame_in_leaf};

/// log2 of the frames in a block.
const ORDER: u32 = 9;
/// Frames that a large leaf maps.
pub(crate) const BLOCK_FRAMES: u64 = 1 << ORDER;
/// Bytes that it maps.
pub(crate) const BLOCK_BYTES: u64 = BLOCK_FRAMES << 12;

/// What is known about 512 guest frames together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// First node of the reverse map: the large leaves that map this block.
    pub(crate) rmap: u32,
    /// All its frames were found plain and in one piece, and none has become anything else since. I16.
    pub(crate) clear: bool,
    /// Which frame was the obstacle last time.
    obstacle: u16,
}

/// All whole blocks of guest frames; none without the switch.
#[derive(Debug)]
pub(crate) struct Blocks(Vec<Block>);

/// The number of the block that holds a frame.
#[inline]
const fn number_of(gfn: Gfn) -> u64 {
    gfn.raw() >> ORDER
}

/// The first frame of a block.
#[inline]
pub(crate) const fn first_of(number: u64) -> Gfn {
    Gfn::new(number << ORDER)
}

impl Blocks {
    pub(crate) fn new(frames: usize) -> Self {
        Self(vec![Block { rmap: NIL, clear: false, obstacle: 0 }; frames >> ORDER])
    }

    fn find(&self, gfn: Gfn) -> Option<&Block> {
        self.0.get(usize::try_from(number_of(gfn)).ok()?)
    }

    pub(crate) fn find_mut(&mut self, gfn: Gfn) -> Option<&mut Block> {
        self.0.get_mut(usize::try_from(number_of(gfn)).ok()?)
    }

    /// Each block, with its first frame.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Gfn, &Block)> {
        (0..).map(first_of).zip(&self.0)
    }
}

/// The block that the target of a node names, if it is a large leaf's: its first frame.
#[inline]
pub(crate) const fn block_of(target: u32) -> Option<Gfn> {
    if target & BLOCK != 0 { Some(first_of((target & !BLOCK) as u64)) } else { None }
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Rule 1: one large leaf for a walk that allows its access. `None` if there cannot be one.
    #[inline(never)]
    pub(crate) fn fill_huge<F: GuestFormat>(
        &mut self,
        walk: &Walk,
        (gva, access): (Gva, Access),
        (room, filled): (&mut Reservation, Counter),
    ) -> Result<Option<Outcome>, Trouble> {
        if !self.is_clear(walk.gfn) {
            return Ok(None);
        }
        let directory = self.link_to_directory::<F>(walk, gva, room)?;
        // A table on the way may lie in the block: now it is tracked.
        let Some(pfn) = self.base_of(walk.gfn).filter(|_| self.is_clear(walk.gfn)) else { return Ok(None) };
        let (perms, dirty, rules) = (walk.perms, walk.dirty, Rules::now::<F>(&self.ctx));
        let leaf = Leaf { pfn, perms, accessed: true, dirty, writable_frame: true, rules };
        let spte = propagate(leaf, Cause::Access(access)).large();
        if !spte.present() {
            // Only to be fetched from: see `fill`, which finds the same.
            return Ok(None);
        }
        self.note_large::<F>(walk);
        let spte = self.keep_global(walk, directory, spte)?;
        let stored = self.set_large((directory, gva.slot(Level::L2)), walk.gfn, spte, gva)?;
        if access.is_write() && !spte.writable() {
            // A supervisor's write past a clear CR0.WP and under SMAP.
            self.counters.add(Counter::TrackedWrite);
            return Ok(Some(Outcome::EmulateWrite(walk.gpa(gva))));
        }
        self.counters.add(if stored == Stored::Same { Counter::SpuriousFault } else { filled });
        Ok(Some(Outcome::Resume))
    }

    /// May large leaves map the block of this frame?
    fn is_clear(&mut self, gfn: Gfn) -> bool {
        let Some(&Block { clear, obstacle, .. }) = self.blocks.find(gfn) else { return false };
        if clear {
            return true;
        }
        let Some(base) = self.base_of(gfn) else { return false };
        let first = gfn.align_down(ORDER);
        let mut frames = (0..BLOCK_FRAMES).filter(|&n| !self.fits((first, base), n));
        if !self.fits((first, base), u64::from(obstacle)) {
            return false;
        }
        let found = frames.next();
        if let Some(block) = self.blocks.find_mut(gfn) {
            block.clear = found.is_none();
            block.obstacle = found.unwrap_or(0) as u16;
        }
        found.is_none()
    }

    /// The host frame behind the first of the block, if it lies where a large leaf can map it.
    fn base_of(&self, gfn: Gfn) -> Option<Pfn> {
        match self.mem.kind(gfn.align_down(ORDER)) {
            GfnKind::Ram(pfn) if pfn.raw().is_multiple_of(BLOCK_FRAMES) => Some(pfn),
            _ => None,
        }
    }

    /// Is frame `n` of a block plain, and where a large leaf maps it?
    fn fits(&self, (first, base): (Gfn, Pfn), n: u64) -> bool {
        let gfn = first.add(n);
        self.frames.find(gfn).is_some_and(Frame::is_plain) && self.mem.kind(gfn) == GfnKind::Ram(base.add(n))
    }

    /// Rule 2: frame `gfn` is about to need entries of its own. I4, I13.
    #[inline]
    pub(crate) fn break_up(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        if self.policy.huge { self.break_block(gfn) } else { Ok(()) }
    }

    #[cold]
    fn break_block(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        let Some(block) = self.blocks.find_mut(gfn) else { return Ok(()) };
        block.clear = false;
        block.obstacle = (gfn.raw() & BLOCK_FRAMES.wrapping_sub(1)) as u16;
        while let Some(&Block { rmap: node, .. }) = self.blocks.find(gfn)
            && node != NIL
        {
            self.counters.add(Counter::HugeBroken);
            self.zap(page_of(node), slot_of(node))?;
        }
        Ok(())
    }

    /// Makes entry `slot` of L2 page `page` map the block of `gfn` by `spte`, which is present.
    fn set_large(&mut self, (page, slot): (u32, usize), gfn: Gfn, spte: Spte, gva: Gva) -> Result<Stored, Trouble> {
        let node = node_of(page, slot);
        let target = BLOCK | number_of(gfn) as u32;
        let spte = self.guarded(spte);
        let place = self.pool.get(page)?;
        let (table, has) = (place.pfn, place.has(slot));
        let mut stored = Stored::New;
        if has && self.links.target(node)? == target {
            let old = self.tables.load(table, slot);
            if old == spte {
                return Ok(Stored::Same);
            }
            if old.writable() && !spte.writable() {
                self.flush_all();
            }
            stored = Stored::Changed;
        } else {
            if has {
                self.clear_for_large(page, slot)?;
            }
            if self.unlinked_epoch == self.epoch {
                // Rule 3: small ones may be in the TLB.
                self.flush_all();
            }
            self.note_new(page)?;
            self.pool.get_mut(page)?.set_present(slot);
            let block = self.blocks.find_mut(gfn).ok_or(Broken(16))?;
            self.links.insert(&mut block.rmap, node, target)?;
            self.counters.add(Counter::HugeFilled);
        }
        self.store_in((page, table), slot, spte)?;
        let entry = table.base().add((slot as u64) << 3);
        self.observer.event(Event::Fill { level: Level::L2, leaf: true, gva, entry, spte });
        Ok(stored)
    }

    /// A new entry of an L2 page: it is in use, and its table is no flood of writes without one.
    fn note_new(&mut self, page: u32) -> Result<(), Trouble> {
        self.pool.touch(page)?;
        let key = self.pool.get(page)?.key;
        if key.role.is_table() {
            self.frames.get_mut(key.gfn)?.burst = 0;
        }
        Ok(())
    }

    /// The supervisor executes shadow code only.
    fn guarded(&self, spte: Spte) -> Spte {
        if self.window.guard && !spte.user() { spte.no_execute() } else { spte }
    }

    /// Takes out what stands where a large leaf is to stand. A page of the virtual TLB that nothing names could not be found
    /// again.
    pub(crate) fn clear_for_large(&mut self, page: u32, slot: usize) -> Result<(), Trouble> {
        let child = self.child(page, slot)?;
        if let Some(child) = child {
            self.note_displaced(child)?;
        }
        match child {
            Some(child) if self.pool.get(child)?.key.role.is_place() => self.zap_page(child),
            _ => self.zap(page, slot),
        }
    }

    /// Clears a large leaf; `target` is that of its node.
    #[cold]
    pub(crate) fn zap_large(&mut self, (page, slot): (u32, usize), role: Role, target: u32) -> Result<(), Trouble> {
        let place = self.pool.get_mut(page)?;
        let table = place.pfn;
        place.set_absent(slot);
        let old = self.take_from((page, table), slot)?;
        let block = block_of(target).and_then(|first| self.blocks.find_mut(first)).ok_or(Broken(16))?;
        self.links.remove(&mut block.rmap, node_of(page, slot))?;
        // Rule 3.
        self.flush_all();
        self.zapped(role.level(), (table, slot), old);
        Ok(())
    }

    /// Clears those large leaves of an L2 page that `which` names.
    pub(crate) fn zap_large_leaves(&mut self, page: u32, which: impl Fn(Spte) -> bool) -> Result<(), Trouble> {
        let mut from = 0;
        while let Some(slot) = self.pool.get(page)?.next_present(from) {
            let spte = self.load(page, slot)?;
            if spte.is_large() && which(spte) {
                self.zap(page, slot)?;
            }
            from = slot.saturating_add(1);
        }
        Ok(())
    }

    /// The guest has written the entry behind a large leaf, which says `pte` now: the leaf stays if it would be made like this
    /// again, else it goes and the next access fills anew.
    #[cold]
    pub(crate) fn follow_huge<F: GuestFormat>(
        &mut self,
        (page, slot): (u32, usize),
        role: Role,
        pte: GuestPte,
    ) -> Result<(), Trouble> {
        let block = block_of(self.links.target(node_of(page, slot))?);
        let old = self.load(page, slot)?;
        let place = frame_index(role.level(), role.quadrant(), slot);
        let wanted = match pte {
            GuestPte::Leaf { gfn, perms, accessed, dirty, .. }
                if Some(frame_in_leaf::<F>(gfn, role.level(), place)) == block =>
            {
                self.large_of::<F>(old.pfn(), role, (perms & role.perms(), accessed, dirty))
            }
            _ => Spte::ABSENT,
        };
        if wanted == old { Ok(()) } else { self.zap(page, slot) }
    }

    /// The large leaf that a table page of `role` has for such an entry, if nobody asks for it now.
    fn large_of<F: GuestFormat>(&self, pfn: Pfn, role: Role, (perms, accessed, dirty): (Perms, bool, bool)) -> Spte {
        let rules = Rules::of::<F>(role, self.pkru);
        let leaf = Leaf { pfn, perms, accessed, dirty, writable_frame: true, rules };
        self.guarded(propagate(leaf, Cause::GpteWrite).large())
    }
}
