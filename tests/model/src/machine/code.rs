//! Shadow code: the guest's kernel of 32 bits fetches through the code window, and all else of it goes to its own pages.
//!
//! What the window shows of a frame is a host frame of its own, whose number says which frame that is and which one it takes the next
//! page for. As a kernel does, the machine watches each frame that it shows, and shows it no longer once it is written.

use std::collections::BTreeSet;

use shadow_mmu::{CodeOutcome, CodePage, Gfn, GfnKind, GuestMem, Gva, Patches, Pfn, Place, SyncPolicy, VmStop};

use super::Machine;
use crate::ram::{FRAME, FRAMES, MMIO, ROM, Ram};
use crate::reference::{Entry, Mode, Verdict, What, Who};

/// Where the window can be.
const SHIFTS: [u32; 6] = [0x4000_0000, 0x00c0_0000, 0x0140_0000, 0x8000_0000, 0xc000_0000, 0x7fe0_0000];
/// How far patches can be from their code.
const DISTANCES: [u32; 3] = [0, 0x1000_0000, 0x0040_0000];
/// Frames from here on are devices'.
const DEVICES: u64 = 0xf_0000;
/// Host frames of shadow code, and of patches.
const SHOWN: u64 = 0x1_0000;
const PATCHED: u64 = 0x40_0000;
/// What a frame's number is multiplied by: more than there are frames.
const STRIDE: u64 = 2 * FRAMES;
const _: () = assert!(SHOWN + FRAMES * STRIDE <= PATCHED);

/// The window, as its owner knows it.
#[derive(Debug, Default)]
pub(super) struct Code {
    /// The guest's kernel runs on shadow code.
    pub(super) on: bool,
    shift: u32,
    /// The guest may have something where the window is.
    borrowed: bool,
    distance: u32,
    /// They are only where the guest maps nothing.
    sure: bool,
    /// The frames that are shown, and watched.
    shown: BTreeSet<u64>,
    /// The guest wrote memory since it last loaded CR3.
    pub(super) unflushed: bool,
}

fn shown(CodePage { gfn, following }: CodePage) -> Pfn {
    Pfn::new(SHOWN + gfn.raw() * STRIDE + following.map_or(0, |next| next.raw() + 1))
}

const FETCH: (What, Who) = (What::Fetch, Who::Supervisor);

impl Machine {
    /// From now on shadow code is used.
    pub(super) fn use_code(&mut self) {
        self.code.on = true;
        self.mmu.set_fetch_guard(true);
        self.move_window(0);
    }

    /// Is the code of a frame shown, and the frame watched?
    #[must_use]
    pub fn shows(&self, frame: u64) -> bool {
        self.code.shown.contains(&frame)
    }

    /// How far from their own addresses instructions are fetched.
    #[must_use]
    pub fn window_shift(&self) -> u32 {
        self.code.shift
    }

    /// Does the guest's kernel run on shadow code now?
    pub(super) fn runs_on_code(&self) -> bool {
        self.code.on && !self.regs.is_long()
    }

    /// May there be shadow code in place of what the supervisor would read there? That it sees it is the one thing that a window cannot
    /// hide without keys: only where the guest itself has nothing. A virtual TLB learns only by a flush that the guest has something there now.
    pub(super) fn is_in_window(&self, gva: u64) -> bool {
        let place =
            |code: Gva, far: u32| u64::from((code.raw() as u32).wrapping_add(self.code.shift).wrapping_add(far));
        let mut regions = self.mmu.code_regions();
        let late = self.setup.policy.sync == SyncPolicy::VirtualTlb && self.code.unflushed;
        self.runs_on_code()
            && !self.setup.keys
            && (late || !self.is_taken(gva))
            && regions.any(|code| [0, self.code.distance].iter().any(|&far| place(code, far) >> 21 == gva >> 21))
    }

    /// The window moves to another place.
    pub(super) fn move_window(&mut self, choice: u8) {
        if self.code.on {
            self.code.shift = SHIFTS[usize::from(choice) % SHIFTS.len()];
            self.code.borrowed = false;
            let plan = self.mmu.set_window(self.code.shift);
            self.execute(plan);
        }
    }

    /// The window moves to the best place for the code at `gva`, if there is any, but not where it is.
    fn move_window_for(&mut self, gva: u64) -> bool {
        let place = |shift: u32| self.mmu.window_place(shift, Gva::new(gva));
        let worst = if self.setup.keys { Place::Used } else { Place::Free };
        let others = (0..SHIFTS.len()).filter(|&choice| SHIFTS[choice] != self.code.shift);
        let Some(choice) = others.min_by_key(|&choice| place(SHIFTS[choice])) else { return false };
        let place = place(SHIFTS[choice]);
        if place <= worst {
            self.move_window(choice as u8);
            if place != Place::Free {
                self.code.borrowed = true;
                let plan = self.mmu.borrow_window(self.code.shift);
                self.execute(plan);
            }
        }
        place <= worst
    }

    /// Patches are put elsewhere, or nowhere.
    pub(super) fn move_patches(&mut self, choice: u8) {
        if self.code.on {
            let plan = self.mmu.unlink_patches();
            self.execute(plan);
            self.code.distance = DISTANCES[usize::from(choice) % DISTANCES.len()];
            self.code.sure = choice & 0x80 != 0;
            self.mmu.set_patches(Patches { distance: self.code.distance, sure: self.code.sure });
        }
    }

    /// A fetch by the guest's kernel. `None` if a frame had to be brought back first.
    pub(super) fn fetch_code(&mut self, gva: u64) -> Option<Verdict> {
        let gva = gva & 0xffff_ffff;
        // One turn for the link, one for the page; the window moves at most once.
        for _ in 0..4 {
            if let Some(frame) = self.code_target(gva) {
                self.note(frame, false);
                self.try_patches(gva, frame);
                return Some(Verdict::At(frame << 12 | gva & (FRAME - 1)));
            }
            let walk = self.regs.access(&self.twin, gva, What::Fetch, Who::Supervisor, true);
            let (outcome, plan) = self.mmu.on_code_fetch(Gva::new(gva));
            self.execute(plan);
            self.note_walk(&walk);
            self.observe();
            match (outcome, walk.verdict) {
                (CodeOutcome::NotResident(gfn), _) => {
                    assert!(walk.needs(gfn.raw()), "frame {gfn} for {gva:#x}: {walk:x?}");
                    self.bring_back(gfn);
                    return None;
                }
                (CodeOutcome::Resume, Verdict::At(_)) => {}
                (CodeOutcome::Wanted(page), Verdict::At(at)) => {
                    assert_eq!((page.gfn.raw(), self.mmu.code_page(Gva::new(gva))), (at >> 12, Some(page)));
                    self.note(page.gfn.raw(), false);
                    self.show(gva, page);
                }
                (CodeOutcome::Inject(fault), Verdict::Fault(error)) => {
                    assert_eq!((fault.gva, fault.error.bits()), (Gva::new(gva), error));
                    return Some(walk.verdict);
                }
                (CodeOutcome::Mmio(gpa), Verdict::At(at)) => {
                    assert!(gpa.raw() == at && (!Ram::is_memory(at >> 12) || at >> 12 == MMIO));
                    return Some(walk.verdict);
                }
                (CodeOutcome::Stop(VmStop::TableOutsideMemory { entry, .. }), Verdict::Lost(at)) => {
                    assert_eq!(entry.raw(), at);
                    return Some(walk.verdict);
                }
                (CodeOutcome::Taken, Verdict::At(_)) => {
                    let place = self.place_of(gva);
                    let taken = self.is_taken(place) || self.is_unknown(place);
                    assert!(self.code.borrowed || taken && !self.mmu.window_fits(self.code.shift, Gva::new(gva)));
                    if !self.move_window_for(gva) {
                        return Some(walk.verdict);
                    }
                }
                other => panic!("fetch of {gva:#x}: {other:x?}"),
            }
        }
        panic!("no end of a fetch through the window");
    }

    /// Where code at `gva` is fetched from.
    fn place_of(&self, gva: u64) -> u64 {
        u64::from((gva as u32).wrapping_add(self.code.shift))
    }

    /// Does the guest have anything in the 2 MiB around a place? Or would what is put there stand at another address, too?
    fn is_taken(&self, place: u64) -> bool {
        let is_something = |frame| Ram::is_memory(frame) || frame == MMIO || frame >= DEVICES;
        let lies_at = |at: u64| (at >> 21 << 9..).take(512).any(is_something);
        let mode = self.regs.mode();
        if mode == Mode::Off {
            return lies_at(place);
        }
        let Some(top) = self.regs.top(place) else { return false };
        let shift = if mode == Mode::Legacy { 22 } else { 21 };
        let twice = mode == Mode::Pae && (1..4).any(|n| self.regs.top(place.wrapping_add(n << 30)) == Some(top));
        match self.regs.read(&self.twin, self.regs.entry_at(top, place, shift)).map(|raw| self.regs.decode(raw, shift))
        {
            Some(Entry::Absent) => twice && self.setup.policy.sync != SyncPolicy::VirtualTlb,
            Some(Entry::Page(page)) => lies_at(page.base + (place & ((1 << page.shift) - 1))),
            None | Some(Entry::Reserved | Entry::Table(..)) => true,
        }
    }

    /// Is the directory for a place paged out, so that nobody can tell what the guest has there?
    fn is_unknown(&self, place: u64) -> bool {
        let shift = if self.regs.mode() == Mode::Legacy { 22 } else { 21 };
        let entry = self.regs.top(place).map(|top| self.regs.entry_at(top, place, shift));
        entry.is_some_and(|entry| self.mmu.mem().kind(Gfn::new(entry >> 12)) == GfnKind::NotResident)
    }

    fn show(&mut self, gva: u64, page: CodePage) {
        if self.code.shown.insert(page.gfn.raw()) {
            let plan = self.mmu.watch(page.gfn);
            self.execute(plan);
        }
        let plan = self.mmu.map_code(Gva::new(gva), page.gfn, shown(page));
        self.execute(plan);
    }

    /// The frame whose code the real CPU gets for a fetch by the guest's kernel, which must be right.
    fn code_target(&mut self, gva: u64) -> Option<u64> {
        let found = self.fetch_from(gva, 0)?.raw();
        if found >= PATCHED && !self.code.sure {
            // Patches that only believed that no code is here trap wherever they are not jumped to.
            return None;
        }
        assert!((SHOWN..PATCHED).contains(&found), "{gva:#x} is fetched from {found:#x}, which is no shadow code");
        let (frame, following) = ((found - SHOWN) / STRIDE, (found - SHOWN) % STRIDE);
        assert!(self.code.shown.contains(&frame), "the code of frame {frame:#x} was taken back");
        assert!(self.may_fetch(gva, frame, true), "the code of frame {frame:#x} is at {gva:#x}");
        if let Some(next) = following.checked_sub(1) {
            assert!(
                self.may_fetch((gva & !0xfff) + FRAME, next, false),
                "{next:#x} does not follow {frame:#x} at {gva:#x}"
            );
        }
        Some(frame)
    }

    /// Where the real CPU fetches from for the guest's kernel.
    fn fetch_from(&mut self, gva: u64, far: u32) -> Option<Pfn> {
        let place = u64::from((gva as u32).wrapping_add(self.code.shift).wrapping_add(far));
        self.who = Who::Supervisor;
        let root = self.root(Who::Supervisor);
        self.cpu.access(self.mmu.tables(), root, place, FETCH)
    }

    /// May the guest's kernel fetch from `gva` what is in `frame`? If it has `marked` what it went through.
    fn may_fetch(&self, gva: u64, frame: u64, marked: bool) -> bool {
        let walk = self.regs.access(&self.twin, gva, What::Fetch, Who::Supervisor, false);
        let fresh = walk.verdict == Verdict::At(frame << 12 | gva & (FRAME - 1)) && (walk.was_marked() || !marked);
        fresh || self.lags() && self.caches.permit(&self.regs, gva, What::Fetch, Who::Supervisor, frame)
    }

    /// Patches for the code that was just fetched, and a jump to them.
    fn try_patches(&mut self, gva: u64, frame: u64) {
        if self.code.distance == 0 {
            return;
        }
        let pfn = Pfn::new(PATCHED + frame);
        let (done, plan) = self.mmu.map_patches(Gva::new(gva), Gfn::new(frame), pfn);
        self.execute(plan);
        if self.mmu.take_patches_lost() {
            // As a hypervisor does: nothing jumps there any more.
            return self.move_patches(0);
        }
        let found = self.fetch_from(gva, self.code.distance);
        assert!(!done || found == Some(pfn), "patches of {gva:#x}: {found:x?}");
        if let Some(found) = found {
            let of = found.raw().checked_sub(PATCHED).filter(|&frame| frame < FRAMES);
            assert!(of.is_some_and(|frame| self.may_fetch(gva, frame, true)), "{found} for the patches of {gva:#x}");
        }
    }

    /// Memory was written: of these frames no code may be shown any more.
    pub(super) fn hide_code(&mut self, at: u64, len: usize) {
        let last = (at + len.max(1) as u64 - 1) >> 12;
        for frame in at >> 12..=last {
            if frame != ROM && self.code.shown.remove(&frame) {
                let plan = self.mmu.unmap_code(Gfn::new(frame));
                self.execute(plan);
                self.mmu.unwatch(Gfn::new(frame));
            }
        }
    }
}
