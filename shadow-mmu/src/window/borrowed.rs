//! Where the guest leaves no place for the window, because its directory has no empty entry: a place is *borrowed*.
//!
//! The window then stands where the guest has a page table or a large page of memory, as if nothing were there. The guest's first use of
//! that place faults, since no window entry lets anybody write, user code read, or, where the CPU has keys for supervisor pages, the
//! supervisor read. That use puts the guest's own page in place of the window's, and the next fetch is told that the place is
//! [taken](super::CodeOutcome::Taken). So at any time the place is one's or the other's, and no access meets what is not there. An instruction
//! that uses the place it is fetched from moves the window; of a thousand places it uses few.
//!
//! Without such keys the supervisor reads shadow code meanwhile. So a caller should borrow only places that are [empty](Place::Empty)
//! then, where nothing can be read.

use super::allowed::MEMORY;
use super::{DEVICES, REGION_SHIFT};
use crate::addr::{Gfn, Gva, Level};
use crate::controls::PagingMode;
use crate::event::Observer;
use crate::flush::FlushPlan;
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pte::{Flat, GuestFormat, GuestPte, Legacy32, Pae, entry_gpa};
use crate::stop::Trouble;

/// Pages in a region of 2 MiB.
const PAGES: u64 = 512;

/// How good a place is for the window; the less the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The guest's directory has nothing there, or a large page without memory.
    Free,
    /// It has a page table, which maps no memory there.
    Empty,
    /// It has memory there, which it has not used lately.
    Idle,
    /// It has memory there.
    Used,
    /// No window can be there.
    Unfit,
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// What a window with this shift would find where the code at `gva` is to be fetched from, in the address space of now.
    #[must_use]
    pub fn window_place(&self, shift: u32, gva: Gva) -> Place {
        let place = Gva::new(u64::from((gva.raw() as u32).wrapping_add(shift)));
        match self.ctx.mode {
            PagingMode::Off => self.kind_of_place::<Flat>(place),
            PagingMode::Legacy32 => self.kind_of_place::<Legacy32>(place),
            PagingMode::Pae => self.kind_of_place::<Pae>(place),
            PagingMode::Long4 | PagingMode::Long5 => Place::Unfit,
        }
    }

    fn kind_of_place<F: GuestFormat>(&self, place: Gva) -> Place {
        if self.free_directory::<F>(place).is_some() {
            Place::Free
        } else if self.directory_for::<F>(place, MEMORY).is_none() {
            Place::Unfit
        } else if self.is_empty_half::<F>(place) {
            Place::Empty
        } else {
            let linked = self.slot_of_place(place).ok().flatten();
            let used = linked.is_some_and(|(page, slot)| self.pool.get(page).is_ok_and(|page| page.has(slot)));
            if used { Place::Used } else { Place::Idle }
        }
    }

    /// Does a page table of the guest map no memory and no device in the 2 MiB of a place?
    fn is_empty_half<F: GuestFormat>(&self, place: Gva) -> bool {
        let first = place.raw() >> REGION_SHIFT << REGION_SHIFT;
        let Some(directory) = F::top(&self.ctx, place) else { return false };
        let raw = F::read(&self.mem, entry_gpa::<F>(directory, Level::L2, place));
        let Some(GuestPte::Table { gfn, .. }) = raw.map(|raw| F::decode(raw, Level::L2, &self.ctx)) else {
            return false;
        };
        let is_nothing = |gva| {
            let raw = F::read(&self.mem, entry_gpa::<F>(gfn, Level::L1, gva));
            match raw.map(|raw| F::decode(raw, Level::L1, &self.ctx)) {
                Some(GuestPte::Absent) => true,
                Some(GuestPte::Leaf { gfn, .. }) => gfn.base().raw() < DEVICES && self.is_nothing(gfn),
                _ => false,
            }
        };
        (0..PAGES).all(|page| is_nothing(Gva::new(first.saturating_add(page << 12))))
    }

    /// [Moves the window](Self::set_window) to places that the guest may have something at.
    pub fn borrow_window(&mut self, shift: u32) -> FlushPlan {
        let plan = self.set_window(shift);
        self.window.borrowed = true;
        plan
    }

    /// Something of the guest's takes the place of page `child`. If that was shadow code, the window must move.
    #[cold]
    pub(crate) fn note_displaced(&mut self, child: u32) -> Result<(), Trouble> {
        if self.pool.get(child)?.key.role.code() {
            self.window.displaced = true;
        }
        Ok(())
    }

    /// Takes what the guest has at a borrowed place out of the entry that leads to the window.
    pub(super) fn displace_guest(&mut self, directory: u32, slot: usize) -> Result<(), Trouble> {
        if self.window.borrowed && self.pool.get(directory)?.has(slot) {
            match self.child(directory, slot)? {
                Some(child) if self.pool.get(child)?.key.role.code() => {}
                _ => self.clear_for_large(directory, slot)?,
            }
        }
        Ok(())
    }

    /// No memory and no device in a frame?
    fn is_nothing(&self, gfn: Gfn) -> bool {
        self.frames.find(gfn).is_none() && self.mem.kind(gfn) == crate::mem::GfnKind::Hole
    }
}
