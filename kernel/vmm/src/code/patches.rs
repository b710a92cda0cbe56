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
use gnomon_hw::Exit;
use gnomon_trace::Reason;
use shadow_mmu::{CodePage, Gva, Patches};

use super::patch::{DISTANCES, JUMP, Patch, Step, build, place};
use super::view::{PAGE, PatchPage, Span, View};
use super::{OFFSET, PAGE_SHIFT, sensitive};
use crate::trap::{Emulated, Exception, vector};
use crate::vcpu::flags;
use crate::vm::Vm;

/// A site is hot when it has trapped so many times in a row, as far as is remembered.
const HOT: u8 = 32;
/// Sites that are remembered.
const SITES: usize = 256;
/// Jumps among the instructions of a patch that make it go.
const MOST_ENTRIES: u8 = 64;
/// After so many times that the guest took the addresses of patches there are none any more.
const MOST_LOST: u8 = 8;
const REGION_SHIFT: u32 = 21;
const FETCH: u64 = 1 << 4;

/// What is known of all patches of a VM.
pub(crate) struct Patching {
    on: bool,
    /// Where patches are.
    place: Patches,
    /// How many times the guest took that place.
    lost: u8,
    /// How many patches there are.
    count: usize,
    /// Regions that patches were mapped for.
    regions: Vec<u32>,
    /// Which offsets of a page are bytes of any jump, or behind an STI that ends a patch.
    touched: Vec<u64>,
    hot: Vec<(u32, u8)>,
    /// The virtual IF is in NT.
    in_flags: bool,
    /// Where to enter if EIP is still what it was.
    redirect: Option<Redirect>,
    /// Counters: patches made, and undone.
    made: u64,
    undone: u64,
    /// Entries with patches blocked.
    blocked: u64,
}

#[derive(Clone, Copy)]
struct Redirect {
    eip: u32,
    to: u32,
    /// A guest instruction itself is there, so that it can be single-stepped.
    whole: bool,
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

    fn is_touched(&self, offset: usize) -> bool {
        self.touched.get(offset / 64).is_some_and(|word| word >> (offset % 64) & 1 != 0)
    }

    /// Counters and their names.
    pub(crate) fn counters(&self) -> [(&'static str, u64); 3] {
        [("sites patched", self.made), ("patches undone", self.undone), ("patches blocked", self.blocked)]
    }
}

fn offset_of(gva: u32) -> usize {
    (gva & OFFSET) as usize
}

impl Vm {
    /// CLI, STI, PUSHF or POPF at `eip` trapped and was emulated.
    pub(crate) fn note_hot(&mut self, eip: u32) {
        if self.code.patching.on && self.code.patching.heat(eip) {
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
        let body = build(&bytes, start, |offset| {
            self.code.views.get(at).map_or(super::patch::Known::Other, |view| view.known(offset))
        })?;
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
            view.patch_page = Some(PatchPage { pfn, room: super::patch::Room::new() });
        }
        Some(())
    }

    /// The view that is shown at an address.
    fn view_at(&self, gva: u32) -> Option<(usize, CodePage)> {
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
    fn undo_all_patches(&mut self) {
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

    /// Must the guest not run patches now?
    fn patches_blocked(&self) -> bool {
        let ac = self.world.context().rflags as u32 & flags::AC;
        ac | self.vcpu.system_flags & !flags::IF != 0 || !self.stack_is_big()
    }

    /// Before each entry of a deprivileged guest that has patches.
    #[inline]
    pub(crate) fn prepare_patches(&mut self) {
        if self.code.patching.count == 0 || self.cpl() != 0 {
            return;
        }
        if self.mmu.take_patches_lost() {
            self.undo_all_patches();
            return;
        }
        let blocked = self.patches_blocked();
        if blocked {
            self.code.patching.blocked = self.code.patching.blocked.saturating_add(1);
            let plan = self.mmu.unlink_patches();
            self.flush(plan);
        }
        let stepping = self.world.context().rflags as u32 & flags::TF != 0;
        let redirect = self.code.patching.redirect.filter(|redirect| redirect.eip == self.eip());
        if let Some(redirect) = redirect.filter(|redirect| !blocked && (redirect.whole || !stepping)) {
            self.set_eip(redirect.to);
        } else if stepping || redirect.is_some() {
            self.undo_patch_at_eip();
        }
        if !blocked && self.code.patching.count != 0 {
            self.code.patching.in_flags = true;
            if !self.vcpu.interrupts_on() {
                let waits = if self.bus.interrupt_pending() { flags::AC } else { 0 };
                self.world.context_mut().rflags |= u64::from(flags::NT | waits);
            }
        }
    }

    /// A patch at EIP cannot run now; the guest's own instruction can.
    fn undo_patch_at_eip(&mut self) {
        let gva = self.linear_eip();
        if self.code.patching.is_touched(offset_of(gva))
            && let Some((at, _)) = self.view_at(gva)
        {
            let offset = offset_of(gva);
            self.undo_patches(at, |patch| patch.is_inside(offset) || patch.span.first == offset);
        }
    }

    /// After each exit of a deprivileged guest: EIP and the virtual IF become what the guest knows.
    #[inline]
    pub(crate) fn leave_patch(&mut self, exit: Exit) -> Left {
        if self.code.patching.count == 0 {
            return Left::Whole;
        }
        self.leave_patches(exit)
    }

    fn leave_patches(&mut self, exit: Exit) -> Left {
        self.code.patching.redirect = None;
        if core::mem::replace(&mut self.code.patching.in_flags, false) {
            let on = self.world.context().rflags as u32 & flags::NT == 0;
            self.vcpu.set_interrupts(on);
            self.world.context_mut().rflags &= !u64::from(flags::NT | flags::AC);
        }
        if self.cpl() != 0 {
            return Left::Whole;
        }
        if matches!(exit, Exit::Vector(vector::PF)) && self.world.context().error & FETCH != 0 {
            return Left::Whole; // `on_patch_fetch`
        }
        let trapped = matches!(exit, Exit::Vector(vector::BP));
        let here = self.linear_eip().wrapping_sub(u32::from(trapped));
        let origin = here.wrapping_sub(self.code.patching.place.distance);
        if !self.code.patching.regions.contains(&(origin >> REGION_SHIFT)) {
            self.note_sti(exit, here);
            return Left::Whole;
        }
        let Some(step) = self.step_at(origin) else { return Left::Whole };
        self.leave_step(step, origin);
        let done = matches!(exit, Exit::Interrupt(_) | Exit::Vector(vector::DB));
        if step.whole || done { Left::Whole } else { Left::Emulate }
    }

    /// An interrupt right behind an STI that a patch did comes one instruction later (SDM 3A 6.8.3). A moment later does not matter if it
    /// was no STI.
    fn note_sti(&mut self, exit: Exit, here: u32) {
        let offset = offset_of(here);
        if matches!(exit, Exit::Interrupt(_))
            && self.code.patching.is_touched(offset)
            && let Some((at, _)) = self.view_at(here)
            && let Some(view) = self.code.views.get(at)
            && view.patches.iter().any(|patch| patch.ends_with_sti && patch.span.end == offset)
        {
            self.vcpu.interrupt_shadow = Some(self.eip());
        }
    }

    /// The step of the patches of the code at `origin`'s page that begins at its offset.
    fn step_at(&self, origin: u32) -> Option<Step> {
        let (at, _) = self.view_at(origin)?;
        let mut steps = self.code.views.get(at)?.patches.iter().flat_map(|patch| &patch.steps);
        steps.rfind(|step| step.at == offset_of(origin)).copied()
    }

    /// Puts back what a patch left undone before this step, and EIP to the guest's instruction.
    fn leave_step(&mut self, step: Step, origin: u32) {
        if step.restores
            && let Ok(image) = self.peek(0, 4)
        {
            self.load_flags(image, flags::REAL & !(flags::TF | flags::AC));
        }
        let esp = self.esp().wrapping_add(u32::from(step.pops).wrapping_mul(4));
        self.set_esp(esp);
        let guest = (origin & !OFFSET).wrapping_add(step.guest as u32);
        let base = self.linear_eip().wrapping_sub(self.eip());
        self.set_eip(guest.wrapping_sub(base));
        if step.after_sti {
            self.vcpu.interrupt_shadow = Some(self.eip());
        }
        self.redirect();
    }

    /// If EIP is inside a jump, the next entry is made into its patch.
    fn redirect(&mut self) {
        let gva = self.linear_eip();
        let offset = offset_of(gva);
        if !self.code.patching.is_touched(offset) {
            return;
        }
        let found = self.view_at(gva).and_then(|(at, _)| {
            self.code.views.get(at)?.patches.iter().find(|patch| patch.is_inside(offset))?.entry(offset)
        });
        let Some(step) = found else { return };
        let eip = self.eip();
        let page = (gva & !OFFSET).wrapping_add(self.code.patching.place.distance);
        let to = page.wrapping_add(step.at as u32).wrapping_sub(gva.wrapping_sub(eip));
        self.code.patching.redirect = Some(Redirect { eip, to, whole: step.whole });
    }

    /// The instruction at EIP, which a patch could not do.
    pub(crate) fn emulate_patched(&mut self) -> Emulated<()> {
        let insn = self.decode()?;
        if sensitive(&insn).is_some() {
            self.emulate_sensitive(&insn)?;
        } else {
            let (reason, next) = self.dispatch(&insn, Exception::gp(0))?;
            self.count(reason);
            self.finish(&insn, next);
        }
        self.redirect();
        Ok(())
    }

    /// A fetch from `gva` faulted. Is it one of a patch? Then it is mapped, or what it would do is emulated.
    pub(super) fn on_patch_fetch(&mut self, gva: u32) -> Option<Emulated<()>> {
        if self.code.patching.count == 0 {
            return None;
        }
        let origin = gva.wrapping_sub(self.code.patching.place.distance);
        let step = self.step_at(origin)?;
        let (at, code) = self.view_at(origin)?;
        self.leave_step(step, origin);
        if self.patches_blocked() {
            // The patch's first step is no instruction of its own.
            return Some(self.emulate_patched());
        }
        self.count(Reason::HiddenFault);
        let pfn = self.code.views.get(at)?.patch_page.as_ref()?.pfn;
        let (mapped, plan) = self.mmu.map_patches(Gva::new(origin.into()), code.gfn, pfn);
        self.flush(plan);
        let region = origin >> REGION_SHIFT;
        if !mapped {
            if self.mmu.patches_fit(self.code.patching.place, Gva::new(origin.into())) {
                self.undo_patches(at, |_| true);
            } else {
                self.undo_all_patches();
            }
        } else if !self.code.patching.regions.contains(&region) {
            self.code.patching.regions.push(region);
        }
        Some(self.check_progress(Gva::new(gva.into())))
    }

    /// A trap at EIP of the guest kernel: is it a byte of a jump, and so the guest jumped among the instructions that it covers?
    #[inline]
    pub(crate) fn on_patch_inside(&mut self) -> bool {
        self.code.patching.count != 0 && self.on_shadow_code() && self.jumped_inside()
    }

    fn jumped_inside(&mut self) -> bool {
        let gva = self.linear_eip();
        let offset = offset_of(gva);
        if !self.code.patching.is_touched(offset) {
            return false;
        }
        let Some((at, _)) = self.view_at(gva) else { return false };
        let Some(view) = self.code.views.get_mut(at) else { return false };
        let Some(patch) = view.patches.iter_mut().find(|patch| patch.is_inside(offset)) else { return false };
        patch.entries = patch.entries.saturating_add(1);
        if patch.entry(offset).is_some() && patch.entries < MOST_ENTRIES {
            self.redirect();
        } else {
            self.undo_patches(at, |patch| patch.is_inside(offset));
        }
        self.count(Reason::CodeDiscovery);
        true
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
