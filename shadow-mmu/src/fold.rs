//! 5-level guests on a host of 4 levels: three guest tables folded into one root.
//!
//! ```text
//! guest    PML5[0] -> PML4 a [0..256]          lower half, bits 63..47 all 0
//!          PML5[511] -> PML4 b [256..512]      upper half, bits 63..47 all 1, but for the window
//! shadow   root [0..256] = a's entries, root [272..512] = b's
//! ```
//! The root stands for the PML5. A *fold* page stands for each PML4: it stays empty, and is in the pool so that the PML4 is
//! tracked and its writes find the roots it is folded into. Entries 256 and 257 of a root, which are the hypervisor's in the table
//! itself, serve in the bookkeeping as the links to the two fold pages. While such a link is absent so is the half.

use core::ops::Range;

use crate::access::Perms;
use crate::addr::{Gfn, Gpa, Gva, Level};
use crate::controls::PagingMode;
use crate::event::Observer;
use crate::links::{NIL, SLOTS, node_of, page_of, slot_of};
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pool::Reservation;
use crate::pte::{GuestFormat, GuestPte, Long5, frame_index};
use crate::role::{Key, Role};
use crate::stop::{Broken, Trouble};
use crate::table::WINDOW;
use crate::write::child_key;

/// Where a root's bookkeeping keeps the links to its fold pages: lower half, upper half.
const LINKS: Range<usize> = WINDOW.start..WINDOW.start + 2;

/// Is entry `slot` of a page with `role` a link to a fold page?
#[inline]
pub(crate) fn is_fold_link(role: Role, slot: usize) -> bool {
    role.is_root() && role.format() == PagingMode::Long5 && LINKS.contains(&slot)
}

/// The fold link that covers entry `slot` of a root.
#[inline]
const fn link_over(slot: usize) -> usize {
    LINKS.start | (slot >> 8 & 1)
}

/// The entries of a root that a fold link covers.
const fn covered(link: usize) -> Range<usize> {
    if link == LINKS.start { 0..WINDOW.start } else { WINDOW.end..SLOTS }
}

/// The entry of the PML5 behind a fold link.
const fn pml5_index(link: usize) -> u64 {
    if link == LINKS.start { 0 } else { 511 }
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Makes sure that `root` has the fold page of the PML4 `table`, which `gva` goes through.
    #[inline]
    pub(crate) fn link_fold(
        &mut self,
        root: u32,
        gva: Gva,
        table: (Gfn, Perms),
        room: &mut Reservation,
    ) -> Result<(), Trouble> {
        let link = link_over(gva.slot(Level::L4));
        let key = Key::fold(&self.ctx, table);
        if let Some(fold) = self.child(root, link)? {
            if self.pool.get(fold)?.key == key {
                return Ok(());
            }
            self.unfold(root, link)?;
        }
        let fold = match self.find(key)? {
            Some(fold) => fold,
            None => self.make(key, room)?,
        };
        self.pool.touch(fold)?;
        self.links.insert(&mut self.pool.get_mut(fold)?.parents, node_of(root, link), fold)?;
        self.pool.get_mut(root)?.set_present(link);
        Ok(())
    }

    /// Takes a half out of a root, and the link to its fold page.
    #[cold]
    pub(crate) fn unfold(&mut self, root: u32, link: usize) -> Result<(), Trouble> {
        for slot in covered(link) {
            if self.pool.get(root)?.has(slot) {
                self.zap(root, slot)?;
            }
        }
        let node = node_of(root, link);
        let fold = self.links.target(node)?;
        self.links.remove(&mut self.pool.get_mut(fold)?.parents, node)?;
        self.pool.get_mut(root)?.set_absent(link);
        Ok(())
    }

    /// Bytes `first..=last` of a PML5 were written: the halves of its root stay if their entries still lead to the same PML4.
    pub(crate) fn follow_pml5(&mut self, root: u32, key: Key, (first, last): (u64, u64)) -> Result<(), Trouble> {
        for link in LINKS {
            let Some(fold) = self.child(root, link)? else { continue };
            let touched = (first >> 3..=last >> 3).contains(&pml5_index(link));
            if touched && self.fold_key(key, link) != Some(self.pool.get(fold)?.key) {
                self.unfold(root, link)?;
            }
        }
        Ok(())
    }

    /// Bytes `first..=last` of a PML4 were written: in every root it is folded into, links that are no longer right go.
    pub(crate) fn follow_fold(&mut self, fold: u32, key: Key, (first, last): (u64, u64)) -> Result<(), Trouble> {
        for index in first >> 3..=last >> 3 {
            let slot = (index & 511) as usize;
            let wanted = self.folded_key(key, slot);
            let mut node = self.pool.get(fold)?.parents;
            while node != NIL {
                let (root, link) = (page_of(node), slot_of(node));
                if link == link_over(slot)
                    && !WINDOW.contains(&slot)
                    && let Some(child) = self.child(root, slot)?
                    && wanted != Some(self.pool.get(child)?.key)
                {
                    self.zap(root, slot)?;
                }
                node = self.links.next(node)?;
            }
        }
        Ok(())
    }

    /// Which fold page a link of the root with `key` must name, if any.
    pub(crate) fn fold_key(&self, Key { gfn, role }: Key, link: usize) -> Option<Key> {
        let ctx = role.ctx(&self.ctx);
        let raw = Long5::read(&self.mem, entry_at(gfn, pml5_index(link)))?;
        match Long5::decode(raw, Level::L5, &ctx) {
            GuestPte::Table { gfn, perms, accessed: true } => Some(Key::fold(&ctx, (gfn, perms & role.perms()))),
            _ => None,
        }
    }

    /// Which page entry `slot` must name in the roots that the PML4 of fold page `key` is folded into, if any.
    pub(crate) fn folded_key(&self, Key { gfn, role }: Key, slot: usize) -> Option<Key> {
        let ctx = role.ctx(&self.ctx);
        let raw = Long5::read(&self.mem, entry_at(gfn, slot as u64))?;
        child_key::<Long5>(&ctx, role, frame_index(Level::L4, 0, slot), Long5::decode(raw, Level::L4, &ctx))
    }

    /// Which page entry `slot` of a root must name, if its half is there.
    pub(crate) fn key_through_fold(&self, root: u32, slot: usize) -> Result<Option<Key>, Broken> {
        let Some(fold) = self.child(root, link_over(slot))? else { return Ok(None) };
        Ok(self.folded_key(self.pool.get(fold)?.key, slot))
    }
}

const fn entry_at(table: Gfn, index: u64) -> Gpa {
    table.base().add((index & 511) << 3)
}
