//! Hot sites: CLI, STI, PUSHF and POPF that trap again and again get a patch (`patch.rs`), and stop trapping.
//!
//! While patches run, the virtual IF is in the real NT; at each exit it moves to `vcpu`, at each entry back. The real AC is set while an
//! interrupt waits for the guest to set IF: STI and POPF trap then, so that it is delivered right where the guest lets it in. State that
//! the patches do not know (IOPL, NT, AC, a 16-bit stack) *blocks* them: they leave the window, the jump to one faults, and the instruction
//! is emulated.
//!
//! EIP is in a patch only while the guest runs. An exit moves it to the border of a guest instruction. Among the instructions that the
//! jump covers this border is no place to go on at, so the next entry is *redirected* into the patch.

use alloc::vec;
use alloc::vec::Vec;
use shadow_mmu::{CodePage, Gva, Patches};

use super::patch::{JUMP, Known, Patch, build};
use super::patch_room::{DISTANCES, Room, place};
use super::view::{PAGE, PatchPage, Span, View};
use super::{OFFSET, PAGE_SHIFT};
use crate::vm::Vm;

/// A site is hot when it has trapped so many times in a row, as far as is remembered.
const HOT: u8 = 32;
/// Sites that are remembered.
const SITES: usize = 256;
/// Jumps among the instructions of a patch that make it go.
pub(super) const MOST_ENTRIES: u8 = 64;
/// After so many times that the guest took the addresses of patches there are none any more.
const MOST_LOST: u8 = 8;
pub(super) const REGION_SHIFT: u32 = 21;
pub(super) const FETCH: u64 = 1 << 4;

/// What is known of all patches of a VM.
pub(crate) struct Patching {
    on: bool,
    /// Where patches are.
    pub(super) place: Patches,
    /// How many times the guest took that place.
    lost: u8,
    /// How many patches there are.
    pub(crate) count: usize,
    /// Regions that patches were mapped for.
    pub(super) regions: Vec<u32>,
    /// Which offsets of a page are bytes of any jump, or behind an STI that ends a patch.
    touched: Vec<u64>,
    hot: Vec<(u32, u8)>,
    /// The virtual IF is in NT.
    pub(super) in_flags: bool,
    /// Where to enter if EIP is still what it was.
    pub(super) redirect: Option<Redirect>,
    /// Counters: patches made, and undone.
    made: u64,
    undone: u64,
    /// Entries with patches blocked.
    pub(super) blocked: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Redirect {
    pub(super) eip: u32,
    pub(super) to: u32,
    /// A guest instruction itself is there, so that it can be single-stepped.
    pub(super) whole: bool,
}

/// What an exit from a patch means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// EIP is where the exit happened.
    Whole,
    /// The guest instruction at EIP has not begun; it is to be emulated.
    Emulate,
}

impl Patching {
    pub(super) fn new(on: bool) -> Self {
        Self {
            on,
            place: Patches { distance: 0, sure: true },
            lost: 0,
            count: 0,
            regions: Vec::new(),
            touched: vec![0; PAGE / 64],
            hot: vec![(0, 0); SITES],
            in_flags: false,
            redirect: None,
            made: 0,
            undone: 0,
            blocked: 0,
        }
    }

    /// Counts a trap of a site; says whether it is hot now.
    fn heat(&mut self, eip: u32) -> bool {
        let place = (eip ^ eip >> 8) as usize % SITES;
        let Some((known, times)) = self.hot.get_mut(place) else { return false };
        if *known != eip {
            (*known, *times) = (eip, 0);
        }
        // One that got no patch is tried again when the count has come around.
        *times = times.wrapping_add(1);
        *times == HOT
    }

    fn touch(&mut self, offset: usize) {
        if let Some(word) = self.touched.get_mut(offset / 64) {
            *word |= 1 << (offset % 64);
        }
    }

    pub(super) fn is_touched(&self, offset: usize) -> bool {
        self.touched.get(offset / 64).is_some_and(|word| word >> (offset % 64) & 1 != 0)
    }

    /// Counters and their names.
    pub(crate) fn counters(&self) -> [(&'static str, u64); 3] {
        [("sites patched", self.made), ("patches undone", self.undone), ("patches blocked", self.blocked)]
    }
}

pub(super) fn offset_of(gva: u32) -> usize {
    (gva & OFFSET) as usize
}

impl Vm {
    /// CLI, STI, PUSHF or POPF at `eip` trapped and was emulated.
    #[inline]
    pub(crate) fn note_hot(&mut self, eip: u32) {
        if self.code.patching.on {
            self.heat_site(eip);
        }
    }

    #[inline(never)] // out of the way of guests that have no patches
    fn heat_site(&mut self, eip: u32) {
        if self.code.patching.heat(eip) {
            let gva = self.segment_base(gnomon_hw::SegReg::Cs).wrapping_add(eip);
            let _ = self.make_patch(gva);
            self.redirect();
        }
    }

    #[cold]
    fn make_patch(&mut self, gva: u32) -> Option<()> {
        let (at, code) = self.view_at(gva)?;
        let start = offset_of(gva);
        let view = self.code.views.get(at)?;
        if start < view.head || view.patches.iter().any(|patch| patch.span.first < start && start < patch.span.end) {
            return None;
        }
        self.choose_distance(gva)?;
        let bytes = self.read_code(code.gfn);
        let body =
            build(&bytes, start, |offset| self.code.views.get(at).map_or(Known::Other, |view| view.known(offset)))?;
        // Those whose jumps this one would overwrite.
        self.undo_patches(at, |patch| patch.span.first >= start && patch.span.first < start.saturating_add(JUMP));
        self.make_patch_page(at)?;
        let distance = self.code.patching.place.distance;
        let page = self.code.views.get_mut(at)?.patch_page.as_mut()?;
        let (patch, pieces) = place(&body, &mut page.room, distance)?;
        let pfn = page.pfn;
        for (offset, bytes) in &pieces {
            self.code.frames.write(pfn, *offset, bytes).ok()?;
        }
        let shown = patch.shown();
        let patching = &mut self.code.patching;
        (shown.first..shown.end).for_each(|offset| patching.touch(offset));
        patching.touch(patch.span.end);
        patching.count = patching.count.saturating_add(1);
        patching.made = patching.made.saturating_add(1);
        self.code.views.get_mut(at)?.patches.push(patch);
        self.show(at, shown);
        Some(())
    }

    fn choose_distance(&mut self, gva: u32) -> Option<()> {
        let gva = Gva::new(gva.into());
        if self.code.patching.place.distance == 0 {
            // A guest that mapped something at the addresses once does so again: user stacks, most often.
            let sure = [true, false].into_iter().skip(usize::from(self.code.patching.lost != 0));
            let mut places =
                sure.flat_map(|sure| DISTANCES.into_iter().map(move |distance| Patches { distance, sure }));
            let place = places.find(|&place| self.mmu.patches_fit(place, gva))?;
            self.code.patching.place = place;
            self.mmu.set_patches(place);
        }
        self.mmu.patches_fit(self.code.patching.place, gva).then_some(())
    }

    fn make_patch_page(&mut self, at: usize) -> Option<()> {
        let view = self.code.views.get_mut(at)?;
        if view.patch_page.is_none() {
            let pfn = self.code.frames.alloc()?;
            view.patch_page = Some(PatchPage { pfn, room: Room::new() });
        }
        Some(())
    }

    /// The view that is shown at an address.
    pub(super) fn view_at(&self, gva: u32) -> Option<(usize, CodePage)> {
        let code = self.mmu.code_page(Gva::new(gva.into()))?;
        Some((self.code.find(code)?, code))
    }

    /// Undoes patches of a view.
    pub(super) fn undo_patches(&mut self, at: usize, which: impl Fn(&Patch) -> bool) {
        let Some(view) = self.code.views.get_mut(at) else { return };
        let before = view.patches.len();
        let mut changed = Span::EMPTY;
        let View { patches, patch_page, .. } = view;
        patches.retain(|patch| {
            let goes = which(patch);
            if let (true, Some(page)) = (goes, patch_page.as_mut()) {
                changed = changed.join(patch.shown());
                patch.room.iter().for_each(|&span| page.room.give(span));
            }
            !goes
        });
        let undone = before.saturating_sub(view.patches.len());
        if undone != 0 {
            self.code.patching.forget(undone);
            self.show(at, changed);
        }
    }

    /// The guest took the addresses of patches.
    #[cold]
    pub(super) fn undo_all_patches(&mut self) {
        for at in 0..self.code.views.len() {
            self.undo_patches(at, |_| true);
        }
        log::debug!("guest {}: the place of its patches is lost", self.name);
        let patching = &mut self.code.patching;
        patching.regions.clear();
        patching.place.distance = 0;
        patching.lost = patching.lost.saturating_add(1);
        patching.on = patching.lost < MOST_LOST;
        // The frames may be elsewhere by the next time.
        for at in 0..self.code.views.len() {
            if let Some(gfn) =
                self.code.views.get(at).filter(|view| view.patch_page.is_some()).map(|view| view.code.gfn)
            {
                let plan = self.mmu.unmap_code(gfn);
                self.flush(plan);
            }
        }
        self.mmu.set_patches(Patches { distance: 0, sure: true });
    }
}

impl Patching {
    /// So many patches are gone.
    pub(super) fn forget(&mut self, patches: usize) {
        self.redirect = None;
        self.count = self.count.saturating_sub(patches);
        self.undone = self.undone.saturating_add(patches as u64);
    }
}

const _: () = assert!(PAGE == 1 << PAGE_SHIFT);
