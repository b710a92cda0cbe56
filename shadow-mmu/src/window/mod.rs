//! The code window: where the CPU fetches the guest kernel's *shadow code* from.
//!
//! The guest kernel's code segment has a base that moves its fetches by a constant, the *shift*: an instruction at linear address
//! `gva` is fetched from `place = gva + shift` (mod 4 GiB). There the shadow tables map pages of the caller's, executable, read-only
//! and for the supervisor only, while data accesses go to `gva` as ever.
//!
//! ```text
//!   guest's page directory        shadow L2                         code L1 page of that guest table
//!   [gva's entry]  ---------->    [gva]    ---> L1 page: data       one entry for each entry of the guest's table,
//!   [place's: absent]             [place]  -----------------------> naming the shadow of the code that the guest's entry maps
//! ```
//!
//! A code page of level 1 stands for a guest page table (or a part of a large page) like any other, with a bit of its own in its key: it
//! is found again after a CR3 load, shared by roots that share the table, and follows writes to that table. It is linked in the slot
//! of `place`, which must be empty in the guest's own directory; the guest's own use of that slot always wins. What the links depend on
//! is checked whenever a directory or the root changes (`check_code_links`).
//!
//! It is for 32-bit guests: long mode has no such window.
//!
//! What a window cannot hide: the supervisor reads shadow code where it would read nothing, at places that it leaves absent. Under the
//! virtual TLB, which does not look at directories when they are written, that is so until the guest's next load of CR3 even if it has
//! mapped something there meanwhile.
//!
//! Where the guest's directory has no empty entry, the window can *borrow* one that the guest does not use: see `borrowed.rs`.
//!
//! With the window in use no guest page may be executed with supervisor rights: see [`ShadowMmu::set_fetch_guard`]. So a fetch that
//! goes to a place which the guest maps faults, and the caller moves the window.

mod allowed;
mod borrowed;
mod depends;
mod patches;
mod strays;

pub use borrowed::Place;
pub use patches::Patches;

use allowed::NO_DIRECTORY;
use depends::Depends;

use crate::access::{Access, AccessKind, GuestFault, Perms, Privilege};
use crate::addr::{Gfn, Gpa, Gva, Level, Pfn};
use crate::controls::PagingMode;
use crate::event::Observer;
use crate::fill::MAX_NEW_PAGES;
use crate::flush::FlushPlan;
use crate::links::{NIL, page_of, slot_of};
use crate::mem::{GfnKind, GuestMem, TableMem, backing};
use crate::mmu::ShadowMmu;
use crate::pool::Reservation;
use crate::pte::{Flat, GuestFormat, Legacy32, Pae, Spte};
use crate::role::Key;
use crate::stop::{Broken, Trouble, VmStop};
use crate::table::Stored;
use crate::walk::{Walk, WalkError};

/// Regions of 2 MiB that code is run from at a time. When there are more, all links are made anew.
const MAX_REGIONS: usize = u64::BITS as usize;
/// log2 of the bytes that one L1 page maps.
const REGION_SHIFT: u32 = 21;
/// Addresses from here on are devices', whatever the guest maps.
const DEVICES: u64 = 0xf000_0000;

const FETCH: Access = Access { kind: AccessKind::Fetch, privilege: Privilege::Supervisor };

/// What a fetch through the window needs.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeOutcome {
    /// The fetch succeeds now.
    Resume,
    /// A page of shadow code for this frame must be given by [`ShadowMmu::map_code`].
    Wanted(CodePage),
    /// A true fault, at the guest's own address.
    Inject(GuestFault),
    /// The guest uses the place, or its directory for it is not resident, so that nobody can tell: move the window.
    Taken,
    /// The guest fetches from where it has no memory.
    Mmio(Gpa),
    /// The fetch, or the walk for it, needs this frame, which is [not resident](GfnKind::NotResident).
    NotResident(Gfn),
    /// The VM cannot go on.
    Stop(VmStop),
}

/// Which code a window page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodePage {
    /// The frame of the code.
    pub gfn: Gfn,
    /// The frame that the next linear page is fetched from. `None` if none is, or if it may be another one in an address space that
    /// shares this page's table: an instruction that reaches into the next page must not run unseen then.
    pub following: Option<Gfn>,
}

/// Where the window is and what it is used for.
#[derive(Debug)]
pub(crate) struct Window {
    shift: u32,
    regions: [u16; MAX_REGIONS],
    count: usize,
    /// A directory was written: the links must be looked at.
    pub(crate) dirty: bool,
    /// Counts those writes, so that the links of other roots are looked at when they are loaded, and only then. Never 0.
    epoch: u64,
    /// No guest page is executable with supervisor rights.
    pub(crate) guard: bool,
    /// The guest may have something at the places of the window.
    borrowed: bool,
    /// The guest has used such a place: the window must move.
    displaced: bool,
    /// Where patches are.
    patches: Patches,
    /// Of which regions some were ever mapped, by number.
    patched: u64,
    /// The guest took addresses that patches are at.
    patches_lost: bool,
    /// Which entries of directories the links depend on.
    depends: Depends,
}

impl Window {
    pub(crate) const fn new() -> Self {
        Self {
            shift: 0,
            regions: [0; MAX_REGIONS],
            count: 0,
            dirty: false,
            epoch: 1,
            guard: false,
            borrowed: false,
            displaced: false,
            patches: Patches::NONE,
            patched: 0,
            patches_lost: false,
            depends: Depends::NOTHING,
        }
    }

    /// What the links depend on changed.
    #[inline]
    pub(crate) fn note_change(&mut self) {
        self.dirty = true;
        self.epoch = self.epoch.saturating_add(1);
    }

    /// A directory was linked in the current root. What links of the window it has already, nobody has looked at since it was linked before.
    pub(crate) const fn note_directory(&mut self) {
        self.dirty |= self.count != 0;
    }

    /// Nothing is mapped in the window any more, or will be in a moment.
    const fn forget_regions(&mut self) {
        (self.count, self.patched) = (0, 0);
        self.depends = Depends::NOTHING;
    }

    /// Were patches mapped for region number `at`?
    const fn is_patched(&self, at: usize) -> bool {
        self.patched >> (at % MAX_REGIONS) & 1 != 0
    }

    fn regions(&self) -> &[u16] {
        self.regions.get(..self.count).unwrap_or(&[])
    }

    /// Where `gva` is fetched from.
    fn place(&self, gva: Gva) -> Gva {
        Gva::new(u64::from((gva.raw() as u32).wrapping_add(self.shift)))
    }
}

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// From now on guest pages that only the supervisor may use are not executable. The caller sees to it that the supervisor cannot
    /// execute user pages either (SMEP). Call it before the first fault.
    pub const fn set_fetch_guard(&mut self, on: bool) {
        self.window.guard = on;
    }

    /// Moves the window. Nothing is mapped in it afterwards. `shift` is in bytes, a multiple of 2 MiB; a multiple of 4 MiB keeps the two
    /// halves of the guest's large pages together.
    pub fn set_window(&mut self, shift: u32) -> FlushPlan {
        if let Err(trouble) = self.drop_code_pages() {
            self.remember(trouble);
        }
        self.window.shift = shift;
        (self.window.borrowed, self.window.displaced) = (false, false);
        self.window.forget_regions();
        self.take_plan()
    }

    /// Would a window with this shift be free for the code at `gva`, in the address space of now?
    #[must_use]
    pub fn window_fits(&self, shift: u32, gva: Gva) -> bool {
        self.is_free(Gva::new(u64::from((gva.raw() as u32).wrapping_add(shift))))
    }

    /// The first address of each region of 2 MiB that code was fetched from since the window moved.
    pub fn code_regions(&self) -> impl Iterator<Item = Gva> + '_ {
        self.window.regions().iter().map(|&region| Gva::new(u64::from(region) << REGION_SHIFT))
    }

    /// The supervisor fetched the instruction at `gva` through the window, and it faulted.
    pub fn on_code_fetch(&mut self, gva: Gva) -> (CodeOutcome, FlushPlan) {
        let outcome = match self.ctx.mode {
            PagingMode::Off => self.code_fetch::<Flat>(gva),
            PagingMode::Legacy32 => self.code_fetch::<Legacy32>(gva),
            PagingMode::Pae => self.code_fetch::<Pae>(gva),
            PagingMode::Long4 | PagingMode::Long5 => Err(VmStop::NoCodeWindow(gva)),
        };
        (outcome.unwrap_or_else(CodeOutcome::Stop), self.take_plan())
    }

    fn code_fetch<F: GuestFormat>(&mut self, gva: Gva) -> Result<CodeOutcome, VmStop> {
        self.check_fault()?;
        let walk = match self.walk_as::<F>(gva, FETCH) {
            Ok(walk) => walk,
            Err(WalkError::Fault(fault)) => return Ok(CodeOutcome::Inject(fault)),
            Err(WalkError::Retry) => return Ok(CodeOutcome::Resume),
            Err(WalkError::NotResident(gfn)) => return Ok(CodeOutcome::NotResident(gfn)),
            Err(WalkError::NonCanonical) => return Err(VmStop::NoCodeWindow(gva)),
            Err(WalkError::Stop(stop)) => return Err(stop),
        };
        if self.mem.kind(walk.gfn) == GfnKind::NotResident {
            return Ok(CodeOutcome::NotResident(walk.gfn));
        }
        if self.frames.find(walk.gfn).is_none() || backing(self.mem.kind(walk.gfn)).is_none() {
            return Ok(CodeOutcome::Mmio(walk.gpa(gva)));
        }
        self.frames.note(walk.gfn, FETCH.into());
        let above = self.window_directory::<F>(self.window.place(gva)).filter(|_| !self.window.displaced);
        let Some(above) = above else { return Ok(CodeOutcome::Taken) };
        match self.link_code::<F>(&walk, &above, gva) {
            Ok(true) => Ok(CodeOutcome::Resume),
            Ok(false) => Ok(CodeOutcome::Wanted(CodePage { gfn: walk.gfn, following: self.following(gva) })),
            Err(trouble) => Err(self.stop(trouble)),
        }
    }

    /// Which code the window shows, or would show, for `gva`; `None` if the guest cannot fetch from there.
    #[must_use]
    pub fn code_page(&self, gva: Gva) -> Option<CodePage> {
        let gfn = self.frame_behind(gva, FETCH)?;
        backing(self.mem.kind(gfn)).map(|_| CodePage { gfn, following: self.following(gva) })
    }

    /// The frame behind the next page, if every address space that shares the L1 page of this one has the same there.
    fn following(&self, gva: Gva) -> Option<Gfn> {
        let next = gva.page().raw().wrapping_add(0x1000);
        if next >> REGION_SHIFT != gva.raw() >> REGION_SHIFT {
            return None;
        }
        let gfn = self.frame_behind(Gva::new(next), FETCH)?;
        backing(self.mem.kind(gfn)).map(|_| gfn)
    }

    /// Is what [`CodePage`] says of `gva` true of every address space, as far as a TLB knows?
    fn code_is_global(&self, gva: Gva) -> bool {
        let is_global = |gva| self.look(gva, FETCH).is_ok_and(|walk| walk.global);
        // Where nothing follows, nothing is relied on.
        let next = Gva::new(gva.page().raw().wrapping_add(0x1000));
        is_global(gva) && (self.following(gva).is_none() || is_global(next))
    }

    /// Links the code page for `gva`; says whether its entry is there already.
    fn link_code<F: GuestFormat>(&mut self, walk: &Walk, above: &Walk, gva: Gva) -> Result<bool, Trouble> {
        let place = self.window.place(gva);
        let mut room = self.reserve(MAX_NEW_PAGES)?;
        let directory = self.directory_in_window::<F>(above, place, &mut room)?;
        if F::LEVELS != 0 && !self.policy.sync.is_vtlb() && self.slot_of_place(gva)?.is_none() {
            // The entry for `gva` decides about the link, so its table must be tracked.
            self.link_directory::<F>(self.root.ok_or(Broken(8))?.index, walk, gva, &mut room)?;
        }
        let key = self.key_on_path::<F>(walk, gva, Level::L1).code(&self.ctx);
        if key.role.is_table() && self.frames.get(key.gfn)?.is_unsync() {
            self.resync(key.gfn)?;
        }
        self.displace_guest(directory, place.slot(Level::L2))?;
        let page = self.link((directory, place.slot(Level::L2)), key, place, &mut room)?;
        self.note_large::<F>(walk);
        self.note_region((gva.raw() >> REGION_SHIFT) as u16)?;
        Ok(self.pool.get(page)?.has(gva.slot(Level::L1)))
    }

    fn directory_in_window<F: GuestFormat>(
        &mut self,
        above: &Walk,
        place: Gva,
        room: &mut Reservation,
    ) -> Result<u32, Trouble> {
        self.window.note_directory();
        let root = self.root.ok_or(Broken(8))?.index;
        let vtlb = self.policy.sync.is_vtlb();
        let key = if F::LEVELS == 0 || vtlb {
            self.key_on_path::<F>(above, place, Level::L3)
        } else {
            Key::glue(&self.ctx, Level::L3)
        };
        let upper = self.link((root, place.slot(Level::L4)), key, place, room)?;
        let key = if above.leaf == NO_DIRECTORY && !vtlb {
            Key::window_directory(&self.ctx, place)
        } else {
            self.key_on_path::<F>(above, place, Level::L2)
        };
        let directory = self.link((upper, place.slot(Level::L3)), key, place, room)?;
        self.claim_directory(directory, place)?;
        Ok(directory)
    }

    /// Gives the page that [`CodeOutcome::Wanted`] asked for. `pfn` shows the code of `gfn`, and stays until [`Self::unmap_code`].
    pub fn map_code(&mut self, gva: Gva, gfn: Gfn, pfn: Pfn) -> FlushPlan {
        if let Err(trouble) = self.set_code_leaf(gva, gfn, pfn) {
            self.remember(trouble);
        }
        self.take_plan()
    }

    fn set_code_leaf(&mut self, gva: Gva, gfn: Gfn, pfn: Pfn) -> Result<(), Trouble> {
        let place = self.window.place(gva);
        // If the link is gone meanwhile, the fetch faults again.
        let Some((directory, slot)) = self.slot_of_place(place)? else { return Ok(()) };
        let Some(page) = self.child(directory, slot)? else { return Ok(()) };
        if self.pool.get(page)?.key.role.code() {
            let mut spte = Spte::leaf(pfn, Perms::new(false, false, true)).unreadable();
            if self.policy.keeps_global() {
                spte = self.mark_kept(self.code_is_global(gva), page, spte)?;
            }
            if self.set_leaf((page, gva.slot(Level::L1)), gfn, spte, place)? == Stored::Changed {
                self.flush_all();
            }
        }
        Ok(())
    }

    /// The shadow entry above the L1 page of a place, if its table exists.
    fn slot_of_place(&self, place: Gva) -> Result<Option<(u32, usize)>, Trouble> {
        let Some(root) = self.root else { return Ok(None) };
        let Some(upper) = self.child(root.index, place.slot(Level::L4))? else { return Ok(None) };
        let directory = self.child(upper, place.slot(Level::L3))?;
        Ok(directory.map(|directory| (directory, place.slot(Level::L2))))
    }

    /// Takes the shadow code of a frame out of the window, everywhere.
    pub fn unmap_code(&mut self, gfn: Gfn) -> FlushPlan {
        if let Err(trouble) = self.zap_code_of(gfn) {
            self.remember(trouble);
        }
        // Tables may have been given up while the TLB kept what they held.
        self.flush_all();
        self.take_plan()
    }

    fn zap_code_of(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        let Some(frame) = self.frames.find(gfn) else { return Ok(()) };
        let mut node = frame.rmap;
        while node != NIL {
            let next = self.links.next(node)?;
            if self.pool.get(page_of(node))?.key.role.code() {
                self.zap(page_of(node), slot_of(node))?;
            }
            node = next;
        }
        Ok(())
    }

    fn drop_code_pages(&mut self) -> Result<(), Trouble> {
        for index in 0..self.pool.len() as u32 {
            let page = self.pool.get(index)?;
            if page.live && page.key.role.code() {
                self.zap_page(index)?;
            }
        }
        Ok(())
    }

    /// The guest wrote entries of a table that has a code page: what they mapped goes, and the page before, whose last instruction
    /// may reach into it.
    pub(crate) fn follow_code<F: GuestFormat>(&mut self, page: u32, (first, last): (u64, u64)) -> Result<(), Trouble> {
        let quadrant = u64::from(self.pool.get(page)?.key.role.quadrant());
        for index in (first >> F::ENTRY_SHIFT).saturating_sub(1)..=last >> F::ENTRY_SHIFT {
            let slot = (index & 511) as usize;
            if index >> 9 == quadrant && self.pool.get(page)?.has(slot) {
                self.zap(page, slot)?;
            }
        }
        Ok(())
    }
}
