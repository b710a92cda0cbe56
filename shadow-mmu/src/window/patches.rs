//! Patches: code of the caller's own that shadow code jumps to.
//!
//! A page of shadow code may have a second one, its patches, at a constant distance: code at `gva` finds its patches at
//! `gva + distance`, which is fetched from `place + distance`. The pages are found by the same guest tables and follow the same writes as
//! the shadow code, so the two are always of one kind, in every address space and through every alias.
//!
//! The place must be absent in the guest's directory, and the guest must not run code at the address. If that is absent, too, it is sure;
//! else it is believed until code is fetched from the same 2 MiB. When the guest takes one of them, the pages leave the window, and
//! [`ShadowMmu::take_patches_lost`] says so; the caller must then see to it that nothing jumps there any more.

use crate::access::Perms;
use crate::addr::{Gfn, Gpa, Gva, Level, Pfn};
use crate::controls::PagingMode;
use crate::event::Observer;
use crate::fill::MAX_NEW_PAGES;
use crate::flush::FlushPlan;
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pte::{Flat, GuestFormat, Legacy32, Pae, Spte};
use crate::role::Key;
use crate::stop::{Broken, Trouble};
use crate::window::{MAX_REGIONS, REGION_SHIFT};

/// Where patches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patches {
    /// From the code to its patches, a multiple of 4 MiB; 0: there are none.
    pub distance: u32,
    /// Only where the guest maps nothing at the address.
    pub sure: bool,
}

fn region_of(gva: Gva) -> u16 {
    (gva.raw() >> REGION_SHIFT) as u16
}

impl Patches {
    pub(crate) const NONE: Self = Self { distance: 0, sure: true };
}

fn moved(gva: Gva, distance: u32) -> Gva {
    Gva::new(u64::from((gva.raw() as u32).wrapping_add(distance)))
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Could the patches of the code at `gva` lie there, in the address space of now?
    #[must_use]
    pub fn patches_fit(&self, patches: Patches, gva: Gva) -> bool {
        !self.patches_meet(patches.distance) && self.are_patches_free(patches, gva)
    }

    fn are_patches_free(&self, patches: Patches, gva: Gva) -> bool {
        match self.ctx.mode {
            PagingMode::Off => self.patches_free::<Flat>(patches, gva),
            PagingMode::Legacy32 => self.patches_free::<Legacy32>(patches, gva),
            PagingMode::Pae => self.patches_free::<Pae>(patches, gva),
            PagingMode::Long4 | PagingMode::Long5 => false,
        }
    }

    fn patches_free<F: GuestFormat>(&self, Patches { distance, sure }: Patches, gva: Gva) -> bool {
        // Under the virtual TLB, directories are not looked at when the guest writes them.
        !self.policy.sync.is_vtlb()
            && self.free_directory::<F>(moved(self.window.place(gva), distance)).is_some()
            && !self.window.regions().contains(&region_of(moved(gva, distance)))
            && (!sure || self.is_without_code::<F>(moved(gva, distance)))
    }

    /// Would code in this region lie where the patches of other code can be, or its patches where other code is? Then a jump to a patch
    /// could go to code: a page of code has one shadow, with one jump, wherever it is mapped.
    pub(super) fn meets_patches(&self, region: u16) -> bool {
        let Patches { distance, .. } = self.window.patches;
        distance != 0 && [distance, distance.wrapping_neg()].iter().any(|&far| self.is_code_from(region, far))
    }

    /// Is code run at this distance from a region?
    fn is_code_from(&self, region: u16, distance: u32) -> bool {
        let there = moved(Gva::new(u64::from(region) << REGION_SHIFT), distance);
        self.window.regions().contains(&region_of(there))
    }

    /// Would the patches of some code lie where other code is?
    fn patches_meet(&self, distance: u32) -> bool {
        distance != 0 && self.window.regions().iter().any(|&region| self.is_code_from(region, distance))
    }

    /// Does the guest map nothing in the region of this address, so that none of its code can be there?
    fn is_without_code<F: GuestFormat>(&self, gva: Gva) -> bool {
        if F::LEVELS == 0 {
            self.is_hole(Gpa::new(gva.raw() >> REGION_SHIFT << REGION_SHIFT).gfn())
        } else {
            self.free_directory::<F>(gva).is_some()
        }
    }

    /// Says where patches are. Nothing is mapped there yet, nor may anything be mapped where they were. They are lost at once if
    /// [they do not fit](Self::patches_fit) for the code that has run.
    pub fn set_patches(&mut self, patches: Patches) {
        self.window.patches = patches;
        self.window.patched = 0;
        self.window.patches_lost = self.patches_meet(patches.distance);
        self.window.depend_anew();
    }

    /// Whether the guest took an address that patches were at, since [`Self::take_patches_lost`] was last called.
    #[inline]
    #[must_use]
    pub const fn are_patches_lost(&self) -> bool {
        self.window.patches_lost
    }

    /// Whether the guest took an address that patches were at, since the last call.
    pub const fn take_patches_lost(&mut self) -> bool {
        core::mem::replace(&mut self.window.patches_lost, false)
    }

    /// Maps `pfn`, the patches of the code of `gfn` at `gva`. Says whether it is there now: not if the guest uses the place, or does not
    /// run this code from `gva`. `pfn` stays until [`Self::unmap_code`].
    pub fn map_patches(&mut self, gva: Gva, gfn: Gfn, pfn: Pfn) -> (bool, FlushPlan) {
        let done = match self.ctx.mode {
            PagingMode::Off => self.set_patch_leaf::<Flat>(gva, gfn, pfn),
            PagingMode::Legacy32 => self.set_patch_leaf::<Legacy32>(gva, gfn, pfn),
            PagingMode::Pae => self.set_patch_leaf::<Pae>(gva, gfn, pfn),
            PagingMode::Long4 | PagingMode::Long5 => Ok(false),
        };
        let done = done.unwrap_or_else(|trouble| {
            self.remember(trouble);
            false
        });
        (done, self.take_plan())
    }

    fn set_patch_leaf<F: GuestFormat>(&mut self, gva: Gva, gfn: Gfn, pfn: Pfn) -> Result<bool, Trouble> {
        if !self.patches_free::<F>(self.window.patches, gva) {
            return Ok(false);
        }
        let place = self.window.place(gva);
        // Where the code is, its patches may be: what that depends on was looked at when it was linked.
        let Some((directory, slot)) = self.slot_of_place(place)? else { return Ok(false) };
        let Some(code) = self.child(directory, slot)? else { return Ok(false) };
        let key = self.pool.get(code)?.key;
        let at = gva.slot(Level::L1);
        if !key.role.code() || key.role.patches() || !self.pool.get(code)?.has(at) {
            return Ok(false);
        }
        let number = self.window.regions().iter().position(|&region| region == region_of(gva));
        let Some(number) = number else { return Ok(false) };
        self.window.patched |= 1 << (number % MAX_REGIONS);
        let target = moved(place, self.window.patches.distance);
        let Some(above) = self.free_directory::<F>(target) else { return Ok(false) };
        let mut room = self.reserve(MAX_NEW_PAGES)?;
        self.root.ok_or(Broken(8))?;
        let directory = self.directory_in_window::<F>(&above, target, &mut room)?;
        let page = self.link((directory, target.slot(Level::L2)), key.patches(), target, &mut room)?;
        let spte = Spte::leaf(pfn, Perms::new(false, false, true)).unreadable();
        self.set_leaf((page, at), gfn, spte, target)?;
        Ok(true)
    }

    /// Takes the links to all patches out of the address space of now: the next jump to one faults.
    pub fn unlink_patches(&mut self) -> FlushPlan {
        for at in 0..self.window.count {
            if let Err(trouble) = self.unlink_patches_of(at) {
                self.remember(trouble);
            }
        }
        self.take_plan()
    }

    fn unlink_patches_of(&mut self, at: usize) -> Result<(), Trouble> {
        let Some(&region) = self.window.regions.get(at) else { return Ok(()) };
        if let Some((directory, slot, _)) = self.patch_link(Gva::new(u64::from(region) << REGION_SHIFT))? {
            self.zap(directory, slot)?;
        }
        Ok(())
    }

    /// The entry that leads to the patches of a region, and the key of what it names.
    fn patch_link(&self, gva: Gva) -> Result<Option<(u32, usize, Key)>, Trouble> {
        if self.window.patches.distance == 0 {
            return Ok(None);
        }
        let target = moved(self.window.place(gva), self.window.patches.distance);
        let Some((directory, slot)) = self.slot_of_place(target)? else { return Ok(None) };
        let Some(child) = self.child(directory, slot)? else { return Ok(None) };
        let key = self.pool.get(child)?.key;
        Ok(key.role.patches().then_some((directory, slot, key)))
    }

    /// Takes the link to a region's patches out if the guest's directories, as they are now, do not allow it.
    pub(super) fn check_patch_link(&mut self, gva: Gva) -> Result<(), Trouble> {
        let Some((directory, slot, key)) = self.patch_link(gva)? else { return Ok(()) };
        if !self.are_patches_free(self.window.patches, gva) {
            self.window.patches_lost = true;
        } else if self.wanted_in_window(gva, self.window.place(gva)).map(Key::patches) == Some(key) {
            return Ok(());
        }
        self.zap(directory, slot)
    }

    /// For the audit: may entry `slot` of page `directory` name the page of `key`?
    pub(super) fn audit_patches(&self, (directory, slot): (u32, usize), key: Key) -> bool {
        let here = self.code_regions().find(|&gva| {
            self.patch_link(gva).is_ok_and(|link| link.is_some_and(|(page, at, _)| (page, at) == (directory, slot)))
        });
        here.is_none_or(|gva| self.wanted_in_window(gva, self.window.place(gva)).map(Key::patches) == Some(key))
    }
}
