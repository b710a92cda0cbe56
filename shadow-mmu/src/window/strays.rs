//! Directories that PAE paging has in more than one GiB.
//!
//! A directory's shadow has the links to code that is fetched through it, and a root, or two, can have that directory in several of their
//! four entries. In another GiB the same link would show the code at addresses that other code, or none, is fetched from. So a
//! directory has links of one GiB only: no code is linked in one that stands in two, and what it has of another address space's goes when
//! it is loaded in another place, or gets links there. The other formats cannot have that.

use crate::addr::{Gfn, Gva};
use crate::controls::PagingMode;
use crate::event::Observer;
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pte::{GuestFormat, Pae};
use crate::stop::{Broken, Trouble};

/// log2 of the bytes that a directory maps.
const GIB_SHIFT: u32 = 30;
/// The last of the GiB that 32-bit addresses have.
const LAST_GIB: u64 = 3;

/// The GiB of a place, counted from 1.
fn gib_of(place: Gva) -> u8 {
    ((place.raw() >> GIB_SHIFT & LAST_GIB) as u8).saturating_add(1)
}

/// The first address of each GiB.
fn places() -> impl Iterator<Item = Gva> {
    (0..=LAST_GIB).map(|gib| Gva::new(gib << GIB_SHIFT))
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Is `table`, the directory of a place, that of another GiB, too? A virtual TLB shares no directories.
    pub(super) fn is_named_twice(&self, table: Gfn, place: Gva) -> bool {
        let mut others = places().filter(|&other| gib_of(other) != gib_of(place));
        self.ctx.mode == PagingMode::Pae
            && !self.policy.sync.is_vtlb()
            && others.any(|other| Pae::top(&self.ctx, other) == Some(table))
    }

    /// A directory is about to get a link to code at `place`.
    pub(super) fn claim_directory(&mut self, directory: u32, place: Gva) -> Result<(), Trouble> {
        if self.is_stray(directory, place)? {
            self.unlink_code(directory)?;
        }
        self.pool.get_mut(directory)?.code_gib = gib_of(place);
        Ok(())
    }

    /// Takes the code of other GiB out of the directories of the present root.
    pub(super) fn take_out_strays(&mut self) -> Result<(), Trouble> {
        if self.ctx.mode != PagingMode::Pae {
            return Ok(());
        }
        for place in places() {
            if let Some((directory, _)) = self.slot_of_place(place)?
                && self.is_stray(directory, place)?
            {
                self.unlink_code(directory)?;
            }
        }
        Ok(())
    }

    fn unlink_code(&mut self, directory: u32) -> Result<(), Trouble> {
        let mut from = 0;
        while let Some(slot) = self.pool.get(directory)?.next_present(from) {
            if let Some(child) = self.child(directory, slot)?
                && self.pool.get(child)?.key.role.code()
            {
                self.zap(directory, slot)?;
            }
            from = slot.saturating_add(1);
        }
        self.pool.get_mut(directory)?.code_gib = 0;
        Ok(())
    }

    /// Has a directory links to code of another GiB than that of `place`?
    fn is_stray(&self, directory: u32, place: Gva) -> Result<bool, Broken> {
        let code_gib = self.pool.get(directory)?.code_gib;
        Ok(code_gib != 0 && code_gib != gib_of(place))
    }

    /// For the audit: has the present root a directory with code of another GiB?
    pub(super) fn is_astray(&self, directory: u32) -> bool {
        self.ctx.mode == PagingMode::Pae
            && places().any(|place| {
                matches!(self.slot_of_place(place), Ok(Some((found, _))) if found == directory)
                    && self.is_stray(directory, place).unwrap_or(true)
            })
    }
}
