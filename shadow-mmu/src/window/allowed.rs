//! Which parts of the window the guest's directories allow, and the links that they no longer do.

use super::{DEVICES, REGION_SHIFT};
use crate::access::Perms;
use crate::addr::{Gfn, Gpa, Gva, Level};
use crate::controls::PagingMode;
use crate::event::Observer;
use crate::links::NIL;
use crate::mem::{GfnKind, GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pool::Page;
use crate::pte::{Flat, GuestFormat, GuestPte, Legacy32, Pae, entry_gpa};
use crate::role::Key;
use crate::stop::{Broken, Trouble};
use crate::walk::{Step, Walk, frame_in_leaf};

/// Frames that one L1 page maps, less one.
const LAST_FRAME: u64 = 511;

/// Which entries of directories a window may stand for: those without memory, or those with memory as well.
pub(super) const NO_MEMORY: bool = false;
pub(super) const MEMORY: bool = true;

/// In place of a leaf's level: the guest has no directory there, nor the shadow a page for it.
pub(super) const NO_DIRECTORY: u8 = u8::MAX;

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// What stands above a code page at `place`, if the guest has nothing there.
    pub(super) fn free_directory<F: GuestFormat>(&self, place: Gva) -> Option<Walk> {
        self.directory_for::<F>(place, NO_MEMORY)
    }

    /// The same for a window that may be borrowed.
    pub(super) fn window_directory<F: GuestFormat>(&self, place: Gva) -> Option<Walk> {
        self.directory_for::<F>(place, self.window.borrowed)
    }

    pub(super) fn directory_for<F: GuestFormat>(&self, place: Gva, memory: bool) -> Option<Walk> {
        let first = Gpa::new(place.raw() >> REGION_SHIFT << REGION_SHIFT).gfn();
        let mut above = Walk::flat(place);
        if F::LEVELS == 0 {
            let free = place.raw() < DEVICES && self.is_hole(first);
            // A shadow page of the whole GiB exists where its first frame is memory.
            if self.frames.find(first.align_down(18)).is_none() {
                above.leaf = NO_DIRECTORY;
            }
            return free.then_some(above);
        }
        above.leaf = Level::L1.number();
        let Some(table) = F::top(&self.ctx, place) else {
            above.leaf = NO_DIRECTORY;
            return Some(above);
        };
        if self.is_named_twice(table, place) {
            return None;
        }
        let raw = F::read(&self.mem, entry_gpa::<F>(table, Level::L2, place))?;
        let free = match F::decode(raw, Level::L2, &self.ctx) {
            GuestPte::Absent => true,
            GuestPte::Leaf { gfn, .. } => {
                let frame = frame_in_leaf::<F>(gfn, Level::L2, place).align_down(9);
                frame.base().raw() < DEVICES && (memory || self.is_hole(frame))
            }
            GuestPte::Table { .. } => memory,
            _ => false,
        };
        *above.steps.get_mut(1)? = Step::new(table, Perms::ALL);
        free.then_some(above)
    }

    /// No memory and no device in the 2 MiB from this frame on?
    pub(super) fn is_hole(&self, first: Gfn) -> bool {
        let last = first.add(LAST_FRAME);
        [first, last].iter().all(|&gfn| self.frames.find(gfn).is_none() && self.mem.kind(gfn) == GfnKind::Hole)
    }

    /// What [`check_code_links`](Self::check_code_links) does, after a load of CR3 alone: nothing to do if no directory changed since the root was last looked at.
    #[inline]
    pub(crate) fn recheck_code_links(&mut self) -> Result<(), Trouble> {
        let root = self.root.ok_or(Broken(8))?.index;
        if self.window.dirty || self.pool.get(root)?.code_epoch != self.window.epoch {
            return self.check_code_links();
        }
        Ok(())
    }

    /// Takes out the links that the guest's directories, as they are now, do not allow.
    pub(crate) fn check_code_links(&mut self) -> Result<(), Trouble> {
        let epoch = self.window.epoch;
        self.take_out_code_links()?;
        if let Some(root) = self.root {
            self.pool.get_mut(root.index)?.code_epoch = epoch;
        }
        Ok(())
    }

    fn take_out_code_links(&mut self) -> Result<(), Trouble> {
        self.window.dirty = false;
        if self.policy.sync.is_vtlb() {
            // What the guest may know stands in a TLB, so does this: until its next flush.
            return Ok(());
        }
        self.take_out_strays()?;
        for at in 0..self.window.count {
            let Some(&region) = self.window.regions.get(at) else { break };
            let gva = Gva::new(u64::from(region) << REGION_SHIFT);
            let place = self.window.place(gva);
            if self.window.is_patched(at) {
                self.check_patch_link(gva)?;
            }
            let Some((directory, slot)) = self.slot_of_place(place)? else { continue };
            let Some(child) = self.child(directory, slot)? else { continue };
            let key = self.pool.get(child)?.key;
            if key.role.code() && !key.role.patches() && self.wanted_in_window(gva, place) != Some(key) {
                self.zap(directory, slot)?;
            }
        }
        Ok(())
    }

    /// The same for a virtual TLB that outlives a load of CR3: where the guest has something in its new address space, the window is no
    /// longer.
    pub(crate) fn check_code_places(&mut self) -> Result<(), Trouble> {
        for at in 0..self.window.count {
            let Some(&region) = self.window.regions.get(at) else { break };
            let place = self.window.place(Gva::new(u64::from(region) << REGION_SHIFT));
            let Some((directory, slot)) = self.slot_of_place(place)? else { continue };
            let Some(child) = self.child(directory, slot)? else { continue };
            if self.pool.get(child)?.key.role.code() && !self.is_allowed(place) {
                self.zap_page(child)?;
            }
        }
        Ok(())
    }

    /// The guest's INVLPG, of a virtual TLB: the shadow code of that page, and of the one before, whose last instruction may reach
    /// into it.
    pub(crate) fn forget_code_at(&mut self, gva: Gva) -> Result<(), Trouble> {
        if self.window.count == 0 {
            return Ok(());
        }
        let before = Gva::new(u64::from((gva.raw() as u32).wrapping_sub(0x1000)));
        self.forget_address(self.window.place(gva))?;
        if self.large != 0 {
            // The other half of a page of 4 MiB, which lies elsewhere in the window if that begins in the middle of one.
            self.forget_address(self.window.place(Gva::new(gva.raw() ^ 1 << REGION_SHIFT)))?;
        }
        self.forget_address(self.window.place(before))
    }

    /// May the window stand at a place?
    fn is_allowed(&self, place: Gva) -> bool {
        match self.ctx.mode {
            PagingMode::Off => self.window_directory::<Flat>(place).is_some(),
            PagingMode::Legacy32 => self.window_directory::<Legacy32>(place).is_some(),
            PagingMode::Pae => self.window_directory::<Pae>(place).is_some(),
            PagingMode::Long4 | PagingMode::Long5 => false,
        }
    }

    /// Does the guest have nothing at a place?
    pub(super) fn is_free(&self, place: Gva) -> bool {
        match self.ctx.mode {
            PagingMode::Off => self.free_directory::<Flat>(place).is_some(),
            PagingMode::Legacy32 => self.free_directory::<Legacy32>(place).is_some(),
            PagingMode::Pae => self.free_directory::<Pae>(place).is_some(),
            PagingMode::Long4 | PagingMode::Long5 => false,
        }
    }

    pub(super) fn wanted_in_window(&self, gva: Gva, place: Gva) -> Option<Key> {
        match self.ctx.mode {
            PagingMode::Off => self.wanted_code::<Flat>(gva, place),
            PagingMode::Legacy32 => self.wanted_code::<Legacy32>(gva, place),
            PagingMode::Pae => self.wanted_code::<Pae>(gva, place),
            PagingMode::Long4 | PagingMode::Long5 => None,
        }
    }

    /// Which code page the guest's directories call for.
    fn wanted_code<F: GuestFormat>(&self, gva: Gva, place: Gva) -> Option<Key> {
        self.window_directory::<F>(place)?;
        if F::LEVELS == 0 {
            return Some(
                Key::direct(&self.ctx, Level::L1, Gpa::new(gva.raw()).gfn(), (Perms::ALL, true)).code(&self.ctx),
            );
        }
        self.slot_of_place(gva).ok()??;
        let table = F::top(&self.ctx, gva)?;
        let raw = F::read(&self.mem, entry_gpa::<F>(table, Level::L2, gva))?;
        let key = match F::decode(raw, Level::L2, &self.ctx) {
            GuestPte::Table { gfn, perms, accessed: true } => Key::table::<F>(&self.ctx, Level::L1, gva, (gfn, perms)),
            GuestPte::Leaf { gfn, perms, accessed: true, dirty, .. } => {
                let frame = frame_in_leaf::<F>(gfn, Level::L2, gva);
                Key::direct(&self.ctx, Level::L1, frame, (perms, dirty))
            }
            _ => return None,
        };
        Some(key.code(&self.ctx))
    }

    /// Does a guest table have a page of the code window?
    pub(crate) fn has_code_page(&self, gfn: Gfn) -> Result<bool, Broken> {
        let mut index = self.frames.get(gfn)?.pages;
        while index != NIL {
            let page = self.pool.get(index)?;
            if page.key.role.code() {
                return Ok(true);
            }
            index = page.next_same;
        }
        Ok(false)
    }

    /// For the audit: may `child` be linked in entry `slot` of `page` as a part of the window? In the root of now the directories
    /// must call for it; of others it is asked when they are loaded.
    pub(crate) fn audit_window(&self, (index, page, slot): (u32, &Page, usize), child: &Page) -> bool {
        let level = page.key.role.level();
        if child.key.role.code() && self.is_astray(index) {
            return false;
        }
        if child.key.role.is_place() {
            return level == Level::L2;
        }
        if child.key.role.window() {
            return level == Level::L3;
        }
        if child.key.role.patches() {
            return self.audit_patches((index, slot), child.key);
        }
        let here = self.code_regions().find(|&gva| {
            let place = self.window.place(gva);
            self.slot_of_place(place).is_ok_and(|found| found == Some((index, slot)))
        });
        level == Level::L2
            && here.is_none_or(|gva| self.wanted_in_window(gva, self.window.place(gva)) == Some(child.key))
    }
}
