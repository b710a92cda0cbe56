//! Hot sites: CLI, STI, PUSHF and POPF that trap again and again get a patch (`patch.rs`), and stop trapping.
//!
//! While patches run, the virtual IF is in the real NT; at each exit it moves to `vcpu`, at each entry back. The real AC is set while an
//! interrupt waits for the guest to set IF: STI and POPF trap then, so that it is delivered right where the guest lets it in. State that
//! the patches do not know (IOPL, NT, AC, a 16-bit stack) *blocks* them: they leave the window, the jump to one faults, and the instruction
//! is emulated.
//!
//! EIP is in a patch only while the guest runs. An exit moves it to the border of a guest instruction. Among the instructions that the
//! jump covers this border is no place to go on at, so the next entry is *redirected* into the patch. Only exits that left a patch, or
//! return to code, have the next entry [look](Patching::look) for that.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use shadow_mmu::{CodePage, Gva, Patches};

use super::patch::{JUMP, Known, build};
use super::patch_room::{DISTANCES, Room, place};
use super::patch_undo::Undo;
use super::view::{PAGE, PatchPage};
use super::{OFFSET, PAGE_SHIFT, REGION_SHIFT};
use crate::vm::Vm;

/// A site is hot when it has trapped so many times in a row, as far as is remembered.
const HOT: u8 = 32;
/// Sites that are remembered.
const SITES: usize = 256;
/// Jumps among the instructions of a patch that make it go.
pub(super) const MOST_ENTRIES: u8 = 16;
/// Pages whose views are remembered.
const SEEN: usize = 8;
pub(super) const FETCH: u64 = 1 << 4;

/// What is known of all patches of a VM.
pub(crate) struct Patching {
    pub(super) on: bool,
    /// Where patches are.
    pub(super) place: Patches,
    /// How many times the guest took that place.
    pub(super) lost: u8,
    /// How many patches there are.
    pub(crate) count: usize,
    /// Where patches were mapped: a bit for each region of the address space.
    pub(super) regions: Box<[u32; 64]>,
    /// Which offsets of a page are bytes of any jump, or behind an STI that ends a patch.
    touched: Vec<u64>,
    hot: Vec<(u32, u8)>,
    /// How the guest was entered the last time.
    pub(super) entered: Entered,
    /// EIP may be inside a jump: the next entry looks.
    pub(super) look: bool,
    /// Where control went into a patch at the last entry that looked, and the guest's EIP for it.
    pub(super) entry: Option<(u32, u32)>,
    /// Which views are shown, as found lately.
    seen: Vec<Seen>,
    /// Counters: patches made, those undone by what undid them, and entries with patches blocked.
    made: u64,
    pub(super) undone: [u64; Undo::NAMES.len()],
    pub(super) blocked: u64,
}

/// A view that is shown at a page. What is shown changes only behind a fetch that faults (it may go without), so until then this is true
/// of whatever the CPU ran.
#[derive(Clone, Copy)]
struct Seen {
    /// Which address space, see [`Vm::space`].
    space: u64,
    page: u32,
    view: u16,
}

impl Seen {
    /// No page has this number.
    const NOTHING: Self = Self { space: 0, page: u32::MAX, view: 0 };
}

/// How the guest was entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    /// As guests without patches are.
    Plain,
    /// The virtual IF is in NT.
    Lent,
    /// Not at all: the instruction at EIP is hidden by a patch, and is to be emulated.
    Emulate,
}

/// What an exit from a patch means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// EIP is where the exit happened.
    Whole,
    /// The guest instruction at EIP has not begun; it is to be emulated.
    Emulate,
    /// The guest is to try again what is at EIP.
    Again,
}

impl Patching {
    pub(super) fn new(on: bool) -> Self {
        Self {
            on,
            place: Patches { distance: 0, sure: true },
            lost: 0,
            count: 0,
            regions: Box::new([0; 64]),
            touched: vec![0; PAGE / 64],
            hot: vec![(0, 0); SITES],
            entered: Entered::Plain,
            look: false,
            entry: None,
            seen: vec![Seen::NOTHING; SEEN],
            made: 0,
            undone: [0; _],
            blocked: 0,
        }
    }

    /// Counts a trap of a site; says whether it is hot now.
    fn heat(&mut self, eip: u32) -> bool {
        let Some((known, times)) = self.hot.get_mut(Self::place_of(eip)) else { return false };
        if *known != eip {
            (*known, *times) = (eip, 0);
        }
        // One that got no patch is tried again when the count has come around.
        *times = times.wrapping_add(1);
        *times == HOT
    }

    /// A site whose patch was no use has to trap many times until it gets another.
    pub(super) fn cool(&mut self, eip: u32) {
        if let Some(site) = self.hot.get_mut(Self::place_of(eip)) {
            *site = (eip, HOT);
        }
    }

    const fn place_of(eip: u32) -> usize {
        (eip ^ eip >> 8) as usize % SITES
    }

    fn touch(&mut self, offset: usize) {
        if let Some(word) = self.touched.get_mut(offset / 64) {
            *word |= 1 << (offset % 64);
        }
    }

    pub(super) fn is_touched(&self, offset: usize) -> bool {
        self.touched.get(offset / 64).is_some_and(|word| word >> (offset % 64) & 1 != 0)
    }

    /// Can this linear address be in a patch?
    #[inline]
    pub(super) fn are_at(&self, gva: u32) -> bool {
        let region = gva >> REGION_SHIFT;
        self.regions.get((region >> 5) as usize & 63).is_some_and(|word| word >> (region & 31) & 1 != 0)
    }

    /// From now on there are patches at this address.
    pub(super) fn note_region(&mut self, gva: u32) {
        let region = gva >> REGION_SHIFT;
        if let Some(word) = self.regions.get_mut((region >> 5) as usize & 63) {
            *word |= 1 << (region & 31);
        }
    }

    /// Is the virtual IF in NT?
    #[inline]
    pub(super) fn is_lent(&self) -> bool {
        self.entered == Entered::Lent
    }

    /// Was the last entry none, because a patch hides the instruction at EIP?
    #[inline]
    pub(crate) fn is_hidden(&self) -> bool {
        self.entered == Entered::Emulate
    }

    /// What is shown may change.
    pub(super) fn forget_seen(&mut self) {
        self.seen.fill(Seen::NOTHING);
    }

    /// Was the last entry one with patches?
    #[inline]
    pub(crate) fn was_entered(&self) -> bool {
        self.entered != Entered::Plain
    }

    /// Control returns to this address of the guest kernel's.
    #[inline]
    pub(crate) fn note_return(&mut self, eip: u32) {
        if self.count != 0 && self.is_touched(offset_of(eip)) {
            self.look = true;
        }
    }

    /// Counters and their names.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let undone = Undo::NAMES.into_iter().zip(self.undone);
        [("sites patched", self.made), ("patches blocked", self.blocked)].into_iter().chain(undone)
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
            if let Err(why) = self.make_patch(gva) {
                let bytes = self.world.fetch(gva).unwrap_or(0).to_le_bytes();
                log::debug!("guest {}: no patch at {gva:#x}, {bytes:02x?}: {why}", self.name);
            }
            self.code.patching.look = true;
        }
    }

    #[cold]
    fn make_patch(&mut self, gva: u32) -> Result<(), &'static str> {
        let (at, code) = self.view_at(gva).ok_or("its page is not shown")?;
        let start = offset_of(gva);
        let view = self.code.views.get(at).ok_or("no view")?;
        if start < view.head || view.patches.iter().any(|patch| patch.span.first < start && start < patch.span.end) {
            return Err("it is part of another one");
        }
        self.choose_distance(gva)?;
        let bytes = self.read_code(code.gfn);
        let known = |offset| self.code.views.get(at).map_or(Known::Other, |view| view.known(offset));
        let body = build(&bytes, start, known).ok_or("the code does not allow it")?;
        // Those whose jumps this one would overwrite.
        self.undo_patches(at, Undo::Replaced, |patch| {
            patch.span.first >= start && patch.span.first < start.saturating_add(JUMP)
        });
        self.make_patch_page(at).ok_or("no frame is free")?;
        let distance = self.code.patching.place.distance;
        let page = self.code.views.get_mut(at).and_then(|view| view.patch_page.as_mut()).ok_or("no page")?;
        let (patch, pieces) = place(&body, &mut page.room, distance).ok_or("no place that a jump reaches")?;
        let pfn = page.pfn;
        for (offset, bytes) in &pieces {
            self.code.frames.write(pfn, *offset, bytes).map_err(|_| "a foreign frame")?;
        }
        let shown = patch.shown();
        let patching = &mut self.code.patching;
        (shown.first..shown.end).for_each(|offset| patching.touch(offset));
        patching.touch(patch.span.end);
        patching.count = patching.count.saturating_add(1);
        patching.made = patching.made.saturating_add(1);
        if let Some(view) = self.code.views.get_mut(at) {
            view.patches.push(patch);
        }
        self.show(at, shown);
        Ok(())
    }

    fn choose_distance(&mut self, gva: u32) -> Result<(), &'static str> {
        let gva = Gva::new(gva.into());
        if self.code.patching.place.distance == 0 {
            // A guest that mapped something at the addresses once does so again: user stacks, most often.
            let sure = [true, false].into_iter().skip(usize::from(self.code.patching.lost != 0));
            let mut places =
                sure.flat_map(|sure| DISTANCES.into_iter().map(move |distance| Patches { distance, sure }));
            let place = places.find(|&place| self.mmu.patches_fit(place, gva)).ok_or("both places are used")?;
            self.code.patching.place = place;
            self.mmu.set_patches(place);
        }
        if self.mmu.patches_fit(self.code.patching.place, gva) { Ok(()) } else { Err("its place is used") }
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

    /// The same, as far as the CPU has run it: it may be gone by now.
    pub(super) fn view_seen(&mut self, gva: u32) -> Option<usize> {
        let (space, page) = (self.space(), gva >> PAGE_SHIFT);
        let place = page as usize % SEEN;
        if let Some(seen) = self.code.patching.seen.get(place).filter(|seen| (seen.space, seen.page) == (space, page)) {
            return Some(seen.view.into());
        }
        let (at, _) = self.view_at(gva)?;
        if let Some(seen) = self.code.patching.seen.get_mut(place) {
            *seen = Seen { space, page, view: at as u16 };
        }
        Some(at)
    }

    /// What decides about the meaning of addresses.
    fn space(&self) -> u64 {
        let modes = self.vcpu.cr0 ^ self.vcpu.cr4.rotate_left(16);
        u64::from(self.vcpu.cr3) << 32 | u64::from(modes)
    }
}

const _: () = assert!(PAGE == 1 << PAGE_SHIFT);
