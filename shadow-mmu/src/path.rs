//! The path that the last fault went down: from the root to the L1 page of a region. Faults come in neighbourhoods, and to find the page
//! and judge its key each time is a sixth of a hidden fault.
//!
//! It stays right as long as no upper link is taken out and the control registers stay: links above the leaves are those that the
//! guest's tables call for, whatever leads there ([`ShadowMmu::link_path`]). Only a large page's can lag behind, so its path is not kept.

use crate::addr::{Gva, Level};
use crate::event::Observer;
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pte::GuestFormat;
use crate::stop::Broken;
use crate::walk::Walk;

/// log2 of the bytes that an L1 page maps.
const REGION_SHIFT: u32 = 21;

/// A path that was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    root: u32,
    region: u64,
    page: u32,
}

impl Path {
    /// No path: no address is in this region.
    pub(crate) const NONE: Self = Self { root: 0, region: u64::MAX, page: 0 };
}

const fn region_of(gva: Gva) -> u64 {
    gva.raw() >> REGION_SHIFT
}

/// Views have a root each, and so paths of their own.
fn is_kept<F: GuestFormat>(walk: &Walk) -> bool {
    !F::SPLIT && walk.leaf == Level::L1.number()
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// The L1 page for a walk to `gva`, if the last path led there.
    #[inline]
    pub(crate) fn known_path<F: GuestFormat>(&self, walk: &Walk, gva: Gva) -> Result<Option<u32>, Broken> {
        let Path { root, region, page } = self.path;
        let same = region == region_of(gva) && root == self.root.ok_or(Broken(8))?.index;
        Ok((same && is_kept::<F>(walk)).then_some(page))
    }

    /// The path of a walk to `gva` leads to `page`.
    #[inline]
    pub(crate) fn keep_path<F: GuestFormat>(&mut self, walk: &Walk, gva: Gva, page: u32) -> Result<(), Broken> {
        if is_kept::<F>(walk) {
            self.path = Path { root: self.root.ok_or(Broken(8))?.index, region: region_of(gva), page };
        }
        Ok(())
    }

    /// For the audit: does the path lead where the tables do, if its root is the present one?
    pub(crate) fn is_path_right(&self) -> Result<bool, Broken> {
        let Path { root, region, page } = self.path;
        if region == u64::MAX || self.root.is_none_or(|now| now.index != root) {
            return Ok(true);
        }
        let gva = Gva::new(region << REGION_SHIFT);
        let mut at = root;
        for level in [Level::L4, Level::L3, Level::L2] {
            let Some(child) = self.child(at, gva.slot(level))? else { return Ok(false) };
            at = child;
        }
        Ok(at == page)
    }
}
