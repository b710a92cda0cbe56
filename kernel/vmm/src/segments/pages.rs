//! The pages that live descriptors come from: watched, opened when the guest writes them, closed when a load asks.

use alloc::vec::Vec;
use gnomon_hw::{SegReg, Table};
use shadow_mmu::{Gfn, Gpa};

use super::flat::Flat;
use super::loaded::real_selector;
use super::{Entry, Watched, table_of};
use crate::vcpu::{Descriptor, Selector};
use crate::vm::Vm;

const PAGE_MASK: u32 = 0xfff;

/// The selector of a descriptor, RPL 0.
pub(super) const fn selector_of(table: Table, index: u16) -> Selector {
    Selector(index << 3 | if matches!(table, Table::Ldt) { 4 } else { 0 })
}

impl Vm {
    /// Watches the page or pages that hold a descriptor.
    pub(super) fn watch_descriptor(&mut self, table: Table, index: u16) {
        let Some(address) = self.descriptor_address(table, index) else { return };
        for page in [address & !PAGE_MASK, address.wrapping_add(7) & !PAGE_MASK] {
            if self.live.watched.iter().any(|watched| watched.page == page) {
                continue;
            }
            if let Some(gfn) = self.frame_behind(page) {
                let plan = self.mmu.watch(gfn);
                self.flush(plan);
                self.live.watched.push(Watched { page, gfn, open: false });
            }
        }
    }

    /// The guest's GDT or LDT is another one now: nothing that is live counts any more.
    pub(crate) fn forget_descriptors(&mut self) {
        self.live.complete = false;
        while let Some(&entry) = self.live.entries.last() {
            self.remove_entry(entry.table, entry.index);
        }
        while let Some(watched) = self.live.watched.pop() {
            if !watched.open {
                self.mmu.unwatch(watched.gfn);
            }
        }
        self.live.any_open = false;
    }

    /// Whether live entries come from the page of this address.
    pub(crate) fn watches_page(&self, gva: u32) -> bool {
        self.live.watched.iter().any(|watched| watched.page == gva & !PAGE_MASK)
    }

    /// Linear addresses may mean other frames now: entries whose page moved go.
    pub(crate) fn revalidate_descriptors(&mut self) {
        let moved = self.live.watched.iter().any(|watched| self.frame_behind(watched.page) != Some(watched.gfn));
        if moved {
            self.forget_descriptors();
        }
    }

    /// Lets the guest write a watched frame; its entries are suspended until a load asks for one.
    pub(crate) fn open_descriptor_page(&mut self, gfn: Gfn) {
        for at in 0..self.live.watched.len() {
            if let Some(watched) = self.live.watched.get_mut(at)
                && watched.gfn == gfn
                && !watched.open
            {
                watched.open = true;
                self.live.any_open = true;
                self.live.flat = Flat::NONE;
                self.mmu.unwatch(gfn);
            }
        }
        self.suspend_entries();
    }

    /// Takes the entries in open pages out of the live tables. What the kernel has of them in CS and SS moves to cache slots; what user
    /// code has stays, since it reads its selectors without a trap.
    fn suspend_entries(&mut self) {
        let loaded = [SegReg::Cs, SegReg::Ss].map(|reg| Selector(real_selector(&self.world, reg)));
        for at in 0..self.live.entries.len() {
            let Some(&entry) = self.live.entries.get(at) else { continue };
            let in_use = loaded.iter().any(|s| s.index() == entry.index && table_of(*s) == entry.table);
            if entry.suspended || in_use && self.cpl() != 0 || !self.in_open_page(entry) {
                continue;
            }
            self.cache_if_loaded(SegReg::Cs, entry);
            self.cache_if_loaded(SegReg::Ss, entry);
            self.clear_live(entry.table, entry.index);
            if let Some(entry) = self.live.entries.get_mut(at) {
                entry.suspended = true;
            }
        }
    }

    fn in_open_page(&self, entry: Entry) -> bool {
        let Some(address) = self.descriptor_address(entry.table, entry.index) else { return false };
        let pages = [address & !PAGE_MASK, address.wrapping_add(7) & !PAGE_MASK];
        self.live.watched.iter().any(|watched| watched.open && pages.contains(&watched.page))
    }

    /// Closes what the guest's writes opened, so that live entries can be relied on. False: nothing was open.
    #[inline]
    pub(super) fn settle_descriptors(&mut self) -> bool {
        let open = self.live.any_open;
        if open {
            self.close_descriptor_pages();
        }
        open
    }

    /// Watches open pages again. Entries that are still what they were come back, the others go.
    #[inline(never)]
    fn close_descriptor_pages(&mut self) {
        self.live.any_open = false;
        self.live.complete = false;
        for at in 0..self.live.watched.len() {
            let Some(&Watched { page, gfn, open: true }) = self.live.watched.get(at) else { continue };
            if self.frame_behind(page) != Some(gfn) {
                self.forget_descriptors();
                return;
            }
            let plan = self.mmu.watch(gfn);
            self.flush(plan);
            if let Some(watched) = self.live.watched.get_mut(at) {
                watched.open = false;
            }
        }
        // From the last on: one that goes is replaced by the last.
        for at in (0..self.live.entries.len()).rev() {
            let Some(&entry) = self.live.entries.get(at) else { continue };
            let selector = selector_of(entry.table, entry.index);
            let now = self.read_descriptor(selector).ok().flatten().and_then(Descriptor::to_live);
            if now == Some(entry.live) {
                self.resume_entry(at);
            } else {
                self.remove_entry(entry.table, entry.index);
            }
        }
    }

    /// A watched frame was written: entries that changed go.
    pub(crate) fn descriptor_frame_written(&mut self, gpa: Gpa, len: usize) {
        self.live.complete = false;
        let offset = (gpa.raw() as u32) & PAGE_MASK;
        let hits: Vec<u32> =
            self.live.watched.iter().filter(|watched| watched.gfn == gpa.gfn()).map(|watched| watched.page).collect();
        for page in hits {
            let first = page.wrapping_add(offset);
            let last = first.wrapping_add(len as u32).wrapping_sub(1);
            let touched: Vec<Entry> = self
                .live
                .entries
                .iter()
                .copied()
                .filter(|entry| {
                    self.descriptor_address(entry.table, entry.index)
                        .is_some_and(|address| address <= last && address.wrapping_add(7) >= first)
                })
                .collect();
            for entry in touched {
                let selector = selector_of(entry.table, entry.index);
                let now = self.read_descriptor(selector).ok().flatten().and_then(Descriptor::to_live);
                if now != Some(entry.live) {
                    self.remove_entry(entry.table, entry.index);
                }
            }
        }
    }
}
