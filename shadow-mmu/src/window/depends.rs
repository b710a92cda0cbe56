//! Which entries of the guest's directories the links of the window depend on. Few do, and each process that a kernel starts writes
//! dozens of others.

use super::{REGION_SHIFT, Window};
use crate::addr::Level;
use crate::event::Observer;
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pte::{GuestFormat, ratio_shift};
use crate::stop::Trouble;

/// Regions in 4 GiB.
const REGIONS: usize = 1 << (u32::BITS - REGION_SHIFT);
const WORD: usize = u64::BITS as usize;

/// A bit for each region of the address space whose directory entry counts.
#[derive(Debug)]
pub(super) struct Depends([u64; REGIONS / WORD]);

impl Depends {
    pub(super) const NOTHING: Self = Self([0; _]);

    fn add(&mut self, region: u32) {
        let region = region as usize % REGIONS;
        if let Some(word) = self.0.get_mut(region / WORD) {
            *word |= 1 << (region % WORD);
        }
    }

    fn on(&self, region: usize) -> bool {
        self.0.get(region / WORD).is_some_and(|word| word >> (region % WORD) & 1 != 0)
    }
}

impl Window {
    /// Links are made for the code of a region from now on. They depend on the entries above the code and above the place that it is
    /// fetched from, those of patches on the same at their distance.
    pub(super) fn depend_on(&mut self, region: u16) {
        let code = u32::from(region);
        let place = code.wrapping_add(self.shift >> REGION_SHIFT);
        for region in [code, place] {
            self.depends.add(region);
            self.depends.add(region.wrapping_add(self.patches.distance >> REGION_SHIFT));
        }
    }

    /// The same for all regions, since there are patches at another distance.
    pub(super) fn depend_anew(&mut self) {
        for at in 0..self.count {
            if let Some(&region) = self.regions.get(at) {
                self.depend_on(region);
            }
        }
    }

    /// The guest wrote the bytes `first..=last` of a table above the leaves. No link depends on entries that none depended on when they
    /// were written: it was made later, from what they are now.
    #[inline]
    pub(crate) fn note_directory_write<F: GuestFormat>(&mut self, level: Level, (first, last): (u64, u64)) {
        if self.count != 0 && (level != Level::L2 || self.depends_on::<F>(first, last)) {
            self.note_change();
        }
    }

    fn depends_on<F: GuestFormat>(&self, first: u64, last: u64) -> bool {
        let ratio = ratio_shift::<F>(Level::L2);
        // A directory of PAE paging maps a GiB, nobody knows which of the four.
        let table = 1 << F::INDEX_BITS << ratio;
        (first >> F::ENTRY_SHIFT..=last >> F::ENTRY_SHIFT).any(|index| {
            let region = (index << ratio) as usize;
            let halves = region..region.saturating_add(1 << ratio);
            halves.into_iter().any(|half| (half..REGIONS).step_by(table).any(|region| self.depends.on(region)))
        })
    }
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Code of a region was linked.
    pub(super) fn note_region(&mut self, region: u16) -> Result<(), Trouble> {
        if self.window.regions().contains(&region) {
            return Ok(());
        }
        self.window.patches_lost |= self.meets_patches(region);
        let count = self.window.count;
        if let Some(place) = self.window.regions.get_mut(count) {
            *place = region;
            self.window.count = count.saturating_add(1);
            self.window.depend_on(region);
            return Ok(());
        }
        // The present fetch will fault again, and link again.
        self.window.forget_regions();
        self.drop_code_pages()
    }
}
