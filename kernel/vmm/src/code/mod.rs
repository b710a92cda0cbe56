//! Shadow code: the guest kernel runs copies of its code in which sensitive instructions trap.
//!
//! Ring 1 executes the instructions of `sensitive.rs` without a trap and gets the wrong result. So the CPU never executes the guest
//! kernel's own pages, but *shadow code*: a page of it begins as all INT3, and what the kernel reaches is discovered, decoded and shown at
//! its own place, but for the sensitive instructions. EIP is the guest's own always; the base of the live code segment moves the fetches
//! to the code window (`shadow_mmu`, `window.rs`), and data accesses go to the untouched page.
//!
//! | What happens | File |
//! |---|---|
//! | which instructions trap, and why | `sensitive.rs` |
//! | decoding along control flow | `discover.rs` |
//! | marks of a page, and the bytes that follow from them | `view.rs` |
//! | fetch faults, INT3, stepping over a hidden instruction, moving the window | `exits.rs` |
//! | hot sites that run without exits | `patch.rs`, `patch_room.rs`, `patches.rs`, `patch_run.rs` |
//! | the guest's own breakpoints | `breakpoints.rs` |
//! | the guest writes code, or data beside code | `writes.rs` |
//! | emulation of what trapped | `emul/sensitive.rs` |
//!
//! A [`View`] is the shadow of one frame in front of one following frame, at whatever linear addresses. The following frame is in the
//! key because of instructions that reach into the next page: where another frame follows, another view is shown, so that half an
//! instruction never meets a foreign half. (Nor does a frame ever change behind a view's page, which Bochs would not notice.)

mod breakpoints;
mod discover;
mod exits;
mod patch;
mod patch_room;
mod patch_run;
mod patch_undo;
mod patches;
mod sensitive;
mod view;
mod writes;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use gnomon_hw::code::CodeFrames;
use gnomon_hw::frames::VmId;
use shadow_mmu::{CodePage, Gfn};

use patch_undo::Undo;
pub(crate) use patches::{Left, Patching};
pub(crate) use sensitive::sensitive;
use view::{PAGE, Span, View};

use crate::vcpu::Descriptor;
use crate::vm::Vm;

/// Where the window is first: kernels that live in the top GiB are then fetched from what is usually the empty middle of the lower
/// three, and kernels that live low from above them.
const FIRST_SHIFT: u32 = 0xa000_0000;
/// Views, at least and at most, and guest frames for each.
const LEAST_VIEWS: u64 = 64;
const MOST_VIEWS: u64 = 2048;
const FRAMES_PER_VIEW: u64 = 32;
/// Bytes that are shown at a time.
const PART: usize = 64;
/// Bytes that an instruction can reach into the next page.
const NEXT_BYTES: usize = 16;
/// Addresses of sensitive instructions that are remembered, and what stands for none: where no instruction of two bytes fits.
const SITES: usize = 256;
const NO_SITE: u32 = u32::MAX;
const PAGE_SHIFT: u32 = 12;
/// log2 of the bytes of a region, which is what one table of the window, or of patches, maps.
const REGION_SHIFT: u32 = 21;
const OFFSET: u32 = 0xfff;

/// The shadow code of one VM.
pub(crate) struct ShadowCode {
    on: bool,
    /// What is added to an address to get where it is fetched from.
    shift: u32,
    /// How many times the window has borrowed a place.
    turn: u32,
    frames: CodeFrames,
    views: Vec<View>,
    /// How many views there may be.
    limit: usize,
    /// Where the search for a view to give up goes on.
    hand: usize,
    sources: BTreeMap<u64, Source>,
    sites: Sites,
    /// Where code is read to be decoded.
    bytes: Vec<u8>,
    /// An instruction that is shown for one step.
    unveiled: Option<Unveiled>,
    /// Hot sites.
    pub(crate) patching: Patching,
    /// How many times a view was given up for another.
    pub(crate) recycled: u64,
}

/// A guest frame with code that was discovered; it is watched unless it is open.
struct Source {
    /// Its views, by number.
    views: Vec<u16>,
    /// Writes since it was watched.
    writes: u32,
    /// After so many writes it is opened.
    patience: u32,
    /// The guest may write it; its views are out of the window. What its lines held when it was opened.
    open: Option<Box<Lines>>,
}

/// Sensitive instructions that trapped lately, by address: known to be discovered.
struct Sites {
    recent: [u32; SITES],
}

impl Sites {
    /// Notes an address; says whether it was not known.
    fn is_new(&mut self, eip: u32) -> bool {
        match self.recent.get_mut(Self::place(eip)) {
            Some(known) if *known != eip => {
                *known = eip;
                true
            }
            _ => false,
        }
    }

    /// Whether an address is known.
    #[inline]
    fn knows(&self, eip: u32) -> bool {
        self.recent.get(Self::place(eip)) == Some(&eip)
    }

    #[inline]
    const fn place(eip: u32) -> usize {
        (eip ^ eip >> 10) as usize % SITES
    }

    /// Marks changed: nothing is known any more.
    fn clear(&mut self) {
        self.recent.fill(NO_SITE);
    }
}

/// A sum of each 64 bytes of a page.
type Lines = [u32; PAGE / 64];

/// An instruction that is shown as it is, for one step.
#[derive(Clone, Copy)]
struct Unveiled {
    view: usize,
    span: Span,
    /// The view of its rest, and how many bytes that is.
    rest: Option<(usize, usize)>,
}

/// How many views a guest of this size may have.
pub(crate) fn view_limit(guest_frames: u64) -> u64 {
    (guest_frames / FRAMES_PER_VIEW).clamp(LEAST_VIEWS, MOST_VIEWS)
}

impl ShadowCode {
    /// No code yet.
    pub(crate) fn new(vm: VmId, guest_frames: u64, on: bool, patches: bool) -> Self {
        Self {
            on,
            patching: Patching::new(on && patches),
            shift: FIRST_SHIFT,
            turn: 0,
            frames: CodeFrames::new(vm),
            views: Vec::new(),
            limit: view_limit(guest_frames) as usize,
            hand: 0,
            sources: BTreeMap::new(),
            sites: Sites { recent: [NO_SITE; SITES] },
            bytes: alloc::vec![0; PAGE.saturating_add(NEXT_BYTES)],
            unveiled: None,
            recycled: 0,
        }
    }

    /// Whether the guest kernel runs on shadow code.
    pub(crate) const fn is_on(&self) -> bool {
        self.on
    }

    /// Whether a sensitive instruction that traps at this address is discovered.
    #[inline]
    pub(crate) fn knows_site(&self, eip: u32) -> bool {
        self.sites.knows(eip)
    }

    /// Whether writes to a frame are of interest here.
    pub(crate) fn is_source(&self, gfn: Gfn) -> bool {
        self.sources.contains_key(&gfn.raw())
    }

    /// The descriptor that the CPU must have for the kernel code segment `live`: moved to the window, and not readable, so that a data
    /// segment register cannot be loaded with it natively.
    pub(crate) fn windowed(&self, live: Descriptor) -> Descriptor {
        if self.on && is_kernel_code(live) { live.moved(self.shift).execute_only() } else { live }
    }

    /// The reverse, for a descriptor that CS holds.
    pub(crate) fn unwindowed(&self, loaded: Descriptor) -> Descriptor {
        if self.on && is_kernel_code(loaded) { loaded.moved(self.shift.wrapping_neg()) } else { loaded }
    }

    fn find(&self, code: CodePage) -> Option<usize> {
        self.views_of(code.gfn).find(|&at| self.views.get(at).is_some_and(|view| view.code == code))
    }

    /// The views of a frame.
    fn views_of(&self, gfn: Gfn) -> impl Iterator<Item = usize> {
        let all = self.sources.get(&gfn.raw()).map_or(&[][..], |source| &source.views);
        all.iter().map(|&at| usize::from(at))
    }

    /// How many bytes at the start of a frame belong to instructions that begin in the page before.
    fn head_of(&self, gfn: Gfn) -> usize {
        let before = self.views.iter().filter(|view| view.code.following == Some(gfn));
        before.map(View::tail).max().unwrap_or(0)
    }

    /// The views in front of a frame.
    fn views_before(&self, gfn: Gfn) -> Vec<usize> {
        let before = |(at, view): (usize, &View)| (view.code.following == Some(gfn)).then_some(at);
        self.views.iter().enumerate().filter_map(before).collect()
    }
}

fn is_kernel_code(live: Descriptor) -> bool {
    live.is_code() && live.is_big() && live.dpl() == 1
}

impl Vm {
    /// Whether the code that runs is the guest kernel's, on shadow code.
    pub(crate) fn on_shadow_code(&self) -> bool {
        self.code.on && self.cpl() == 0
    }

    /// The view of a page, made if there is none.
    fn view_of(&mut self, code: CodePage) -> Option<usize> {
        self.watch_source(code.gfn);
        if let Some(at) = self.code.find(code) {
            return Some(at);
        }
        let at = self.room_for_view(code)?;
        // Making room may have given up this very source.
        self.watch_source(code.gfn);
        if let Some(source) = self.code.sources.get_mut(&code.gfn.raw()) {
            source.views.push(at as u16);
        }
        let head = self.code.head_of(code.gfn);
        if let Some(view) = self.code.views.get_mut(at) {
            view.head = head;
        }
        self.show(at, Span::new(0, head));
        Some(at)
    }

    /// A place for a new view, all INT3.
    fn room_for_view(&mut self, code: CodePage) -> Option<usize> {
        if self.code.views.len() < self.code.limit
            && let Some(pfn) = self.code.frames.alloc()
        {
            self.code.views.push(View::new(code, pfn));
            return Some(self.code.views.len().saturating_sub(1));
        }
        let at = self.victim()?;
        self.code.recycled = self.code.recycled.saturating_add(1);
        let view = self.code.views.get(at)?;
        let (old, pfn) = (view.code.gfn, view.pfn);
        // The window shows it no more, so its frame may change.
        let plan = self.mmu.unmap_code(old);
        self.flush(plan);
        if let Some(source) = self.code.sources.get_mut(&old.raw()) {
            source.views.retain(|&number| usize::from(number) != at);
        }
        self.code.sites.clear();
        let view = self.code.views.get_mut(at)?;
        self.code.patching.forget(view.patches.len(), Undo::Recycled);
        let patches = view.patch_page.as_ref().map(|page| page.pfn);
        view.reuse(code);
        self.drop_idle_source(old);
        if let Some(patches) = patches {
            let _ = self.code.frames.fill(patches);
        }
        let _ = self.code.frames.fill(pfn);
        Some(at)
    }

    /// The view to give up: the first that was not used since the search last came by. One with patches is used without an exit that
    /// would show it; it goes when there are no others.
    fn victim(&mut self) -> Option<usize> {
        let count = self.code.views.len();
        for tried in 0..=count.saturating_mul(3) {
            let at = self.code.hand.checked_rem(count)?;
            self.code.hand = at.saturating_add(1);
            let spared = tried < count.saturating_mul(2);
            let view = self.code.views.get_mut(at)?;
            if !core::mem::replace(&mut view.used, false) && (view.patches.is_empty() || !spared) {
                return Some(at);
            }
        }
        None
    }

    /// Ends the watch of a frame that no view is of, nor reaches into.
    fn drop_idle_source(&mut self, gfn: Gfn) {
        let idle = self.code.sources.get(&gfn.raw()).is_some_and(|source| source.views.is_empty())
            && self.code.views_before(gfn).is_empty();
        if idle
            && let Some(source) = self.code.sources.remove(&gfn.raw())
            && source.open.is_none()
        {
            self.mmu.unwatch(gfn);
        }
    }

    /// Reads a page of the guest's code.
    fn read_code(&self, gfn: Gfn) -> [u8; PAGE] {
        let mut bytes = [0; PAGE];
        self.mmu.mem().read(gfn.base(), &mut bytes);
        bytes
    }

    /// Brings what the CPU sees of a view in line with its marks.
    fn show(&mut self, at: usize, span: Span) {
        self.each_part(at, span, View::render);
    }

    /// Shows the guest's own bytes.
    fn show_original(&mut self, at: usize, span: Span) {
        self.each_part(at, span, |_, _, _| ());
    }

    /// Writes what `make` makes of the guest's bytes of a span.
    fn each_part(&mut self, at: usize, span: Span, make: impl Fn(&View, Span, &mut [u8])) {
        let Some(view) = self.code.views.get(at) else { return };
        let mut bytes = [0; PART];
        for first in (span.first..span.end).step_by(PART) {
            let part = Span::new(first, span.end.min(first.saturating_add(PART)));
            let Some(bytes) = bytes.get_mut(..part.end.saturating_sub(first)) else { return };
            self.mmu.mem().read(view.code.gfn.base().add(first as u64), bytes);
            make(view, part, bytes);
            // The frame is ours; if it were not, the page would stay INT3.
            let _ = self.code.frames.write(view.pfn, first, bytes);
        }
    }
}
