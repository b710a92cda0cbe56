//! Exits of shadow code: a fetch that finds no page, an INT3, and the step over an instruction that is hidden.

use alloc::vec::Vec;
use core::cell::Cell;

use gnomon_trace::Reason;
use iced_x86::Mnemonic;
use shadow_mmu::{CodeOutcome, CodePage, Gva, Place};

use super::discover::discover;
use super::patch::Patch;
use super::view::{Found, PAGE, REACH, Span, TRAP, View};
use super::{FIRST_SHIFT, NEXT_BYTES, OFFSET, PAGE_SHIFT, REGION_SHIFT, Undo, Unveiled, sensitive};
use crate::exit::{NOT_RESIDENT, mmu_stop};
use crate::trap::{Emulated, Exception, StopReason};
use crate::vm::Vm;

/// The window moves in steps of this size.
const STEP: u32 = 4 << 20;
/// Where a page is decoded: anywhere, since only branches within it are followed, and they are relative.
const PAGE_ADDRESS: u32 = 0x10_0000;

impl Vm {
    /// The guest kernel's fetch from `place`, an address in the code window, faulted.
    pub(crate) fn on_code_fetch(&mut self, place: u32) -> Emulated<()> {
        if self.code_segment_is_small() {
            return Err(StopReason::SmallCode.into());
        }
        self.code.patching.forget_seen();
        let gva = place.wrapping_sub(self.code.shift);
        if let Some(done) = self.on_patch_fetch(gva) {
            return done;
        }
        let (outcome, plan) = self.mmu.on_code_fetch(Gva::new(gva.into()));
        self.flush(plan);
        match outcome {
            CodeOutcome::Resume => self.count(Reason::HiddenFault),
            CodeOutcome::Wanted(code) => {
                self.count(Reason::CodeDiscovery);
                self.show_code(gva, code)?;
            }
            CodeOutcome::Taken => {
                self.count(Reason::CodeDiscovery);
                self.move_window(gva)?;
            }
            CodeOutcome::Inject(fault) => {
                self.count(Reason::TrueFault);
                self.check_progress(fault.gva)?;
                return Err(Exception::page_fault(fault.error.bits(), fault.gva.raw() as u32).into());
            }
            CodeOutcome::Mmio(_) => return Err(StopReason::FetchOutsideMemory.into()),
            CodeOutcome::NotResident(_) => return Err(NOT_RESIDENT.into()),
            CodeOutcome::Stop(stop) => return Err(mmu_stop(stop).into()),
        }
        self.check_progress(Gva::new(gva.into()))
    }

    /// Puts the page for `gva` into the window. If the instruction at EIP lies in it, it is discovered at once.
    fn show_code(&mut self, gva: u32, code: CodePage) -> Emulated<()> {
        let page = gva >> PAGE_SHIFT;
        let no_view = StopReason::Internal("no page for shadow code could be had");
        let at = self.view_of(code).ok_or(no_view)?;
        let view = self.code.views.get_mut(at).ok_or(no_view)?;
        view.used = true;
        let pfn = view.pfn;
        let plan = self.mmu.map_code(Gva::new(gva.into()), code.gfn, pfn);
        self.flush(plan);
        let eip = self.linear_eip();
        if eip >> PAGE_SHIFT == page {
            self.discover_at(at, (eip & OFFSET) as usize);
        }
        Ok(())
    }

    /// INT3 in shadow code: EIP is behind the byte that trapped.
    pub(crate) fn on_code_trap(&mut self) -> Emulated<()> {
        let eip = self.eip().wrapping_sub(1);
        self.set_eip(eip);
        if self.on_patch_inside() {
            return Ok(());
        }
        let insn = self.decode()?;
        if sensitive(&insn).is_some() {
            if self.code.sites.is_new(eip) {
                self.note_site();
            }
            if insn.mnemonic() == Mnemonic::Iretd && self.return_fast() {
                return Ok(());
            }
            let done = self.emulate_sensitive(&insn);
            if matches!(insn.mnemonic(), Mnemonic::Pushfd | Mnemonic::Popfd) {
                self.note_hot(eip);
            }
            return done;
        }
        self.count(Reason::CodeDiscovery);
        let gva = self.linear_eip();
        self.check_progress(Gva::new(gva.into()))?;
        let offset = (gva & OFFSET) as usize;
        let found = self.mmu.code_page(Gva::new(gva.into())).and_then(|code| self.code.find(code));
        let Some(at) = found else {
            // The page is not what it was when it was put into the window: the next fetch puts it there anew.
            return self.on_code_fetch(gva.wrapping_add(self.code.shift));
        };
        let Some(view) = self.code.views.get_mut(at) else { return Ok(()) };
        view.used = true;
        match view.mark(offset) {
            0 => self.discover_at(at, offset),
            mark if mark & TRAP != 0 => {
                if view.reach(offset) {
                    self.show_for_good(at, offset);
                } else {
                    self.unveil(at, offset, insn.len());
                }
            }
            // It is shown by now.
            mark => self.show(at, Span::new(offset, offset.saturating_add(usize::from(mark)))),
        }
        Ok(())
    }

    /// A sensitive instruction trapped that may not be discovered yet: if it lies inside another instruction, that one must not be shown.
    #[cold]
    fn note_site(&mut self) {
        let gva = self.linear_eip();
        let found = self.mmu.code_page(Gva::new(gva.into()));
        if let Some(at) = found.and_then(|code| self.code.find(code)) {
            if let Some(view) = self.code.views.get_mut(at) {
                view.used = true;
            }
            self.discover_at(at, (gva & OFFSET) as usize);
        }
    }

    /// Discovers code from an offset of a view on, and shows it.
    fn discover_at(&mut self, at: usize, offset: usize) {
        let Some(view) = self.code.views.get(at) else { return };
        if view.mark(offset) != 0 {
            return;
        }
        let code = view.code;
        let mut bytes = core::mem::take(&mut self.code.bytes);
        let length = self.read_with_rest(code, &mut bytes);
        let Some(view) = self.code.views.get_mut(at) else { return };
        let known = |offset| view.mark(offset) != 0;
        let found = discover(bytes.get(..length).unwrap_or(&[]), PAGE_ADDRESS, offset, known);
        self.code.bytes = bytes;
        let overlapped = overlapped(view, &found);
        for &one in &found {
            view.enter(one);
        }
        let runs: Vec<Span> = runs(&found).map(|run| view.settle(run)).collect();
        let head = view.head;
        if let Some(trap) = view.first_trap(head) {
            self.cut_before(at, trap);
        }
        let end = self.join_next(at);
        self.undo_patches(at, Undo::Overlapped, |patch| overlapped.contains(&patch.span.first));
        for span in runs.into_iter().chain([end]) {
            self.show(at, span);
        }
        self.hide_breakpoints();
    }

    /// Shows an instruction that was shy.
    fn show_for_good(&mut self, at: usize, offset: usize) {
        let Some(view) = self.code.views.get_mut(at) else { return };
        let span = view.settle(Span::new(offset, offset.saturating_add(REACH)));
        let span = span.join(self.join_next(at));
        self.show(at, span);
    }

    /// The bytes of a page of code, and the first of the next page; gives how many there are.
    fn read_with_rest(&self, code: CodePage, bytes: &mut [u8]) -> usize {
        let Some((page, rest)) = bytes.split_at_mut_checked(PAGE) else { return 0 };
        self.mmu.mem().read(code.gfn.base(), page);
        match code.following {
            Some(following) => {
                self.mmu.mem().read(following.base(), rest);
                PAGE + NEXT_BYTES
            }
            None => PAGE,
        }
    }

    /// Instructions before a view that reach over a trap in it become traps.
    fn cut_before(&mut self, at: usize, trap: usize) {
        let Some(view) = self.code.views.get_mut(at) else { return };
        let gfn = view.code.gfn;
        for before in self.code.views_before(gfn) {
            if let Some(view) = self.code.views.get_mut(before) {
                let span = view.cut_tail(trap, false);
                self.show(before, span);
            }
        }
        for next in self.code.views_of(gfn).collect::<Vec<_>>() {
            if let Some(view) = self.code.views.get_mut(next) {
                view.head = view.head.min(trap);
            }
        }
    }

    /// Shows the rest of instructions that reach into the next page there. Where that cannot be, they become traps; gives the span that
    /// changes by it.
    fn join_next(&mut self, at: usize) -> Span {
        let Some(view) = self.code.views.get(at) else { return Span::EMPTY };
        let tail = view.tail();
        let (true, Some(following)) = (tail != 0, view.code.following) else { return Span::EMPTY };
        // Its bytes count from now on, so writes to them must be seen.
        self.watch_source(following);
        let next: Vec<usize> = self.code.views_of(following).collect();
        let trap = next.iter().filter_map(|&next| self.code.views.get(next)?.first_trap(tail)).min();
        let Some(view) = self.code.views.get_mut(at) else { return Span::EMPTY };
        let span = trap.map_or(Span::EMPTY, |trap| view.cut_tail(trap, false));
        let tail = view.tail();
        for next in next {
            if let Some(view) = self.code.views.get_mut(next)
                && view.head < tail
            {
                view.head = tail;
                self.undo_patches(next, Undo::Overlapped, |patch| patch.span.first < tail);
                self.show(next, Span::new(0, tail));
            }
        }
        span
    }

    /// Shows a hidden instruction for one step: one that has a trap inside, or whose rest is in a page that may be another one elsewhere.
    fn unveil(&mut self, at: usize, offset: usize, length: usize) {
        let end = offset.saturating_add(length);
        let span = Span::new(offset, end);
        self.show_original(at, span);
        let rest = end.saturating_sub(PAGE);
        let rest = if rest == 0 { None } else { self.unveil_rest(rest) };
        self.code.unveiled = Some(Unveiled { view: at, span, rest });
        self.begin_step();
    }

    fn unveil_rest(&mut self, length: usize) -> Option<(usize, usize)> {
        let next = (self.linear_eip() & !OFFSET).wrapping_add(PAGE as u32);
        let code = self.mmu.code_page(Gva::new(next.into()))?;
        let next = self.code.find(code)?;
        self.show_original(next, Span::new(0, length));
        Some((next, length))
    }

    /// Hides the instruction again that was shown for one step.
    #[cold]
    pub(crate) fn veil(&mut self) {
        let Some(Unveiled { view, span, rest }) = self.code.unveiled.take() else { return };
        self.show(view, span);
        if let Some((next, length)) = rest {
            self.show(next, Span::new(0, length));
        }
    }

    /// Whether an instruction is shown for one step.
    pub(crate) const fn is_unveiled(&self) -> bool {
        self.code.unveiled.is_some()
    }

    /// The guest uses the place where the code at `gva` would be fetched from: another shift.
    fn move_window(&mut self, gva: u32) -> Emulated<()> {
        let shift = self.shift_for(gva).ok_or(StopReason::NoCodeWindow)?;
        log::debug!("guest {}: the code window moves from {:#x} to {shift:#x}", self.name, self.code.shift);
        let borrowed = self.mmu.window_place(shift, Gva::new(gva.into())) != Place::Free;
        let loaded = self.code_segment_before_move();
        self.code.shift = shift;
        let plan = if borrowed {
            // The next search begins elsewhere, so that all places get their turn.
            self.code.turn = self.code.turn.wrapping_add(1);
            self.mmu.borrow_window(shift)
        } else {
            self.mmu.set_window(shift)
        };
        self.flush(plan);
        self.move_code_segments(loaded);
        Ok(())
    }

    /// The best shift for the code at `gva`, and for all that has run if possible. What the guest could read of shadow code at a place that
    /// has memory is never worth it.
    fn shift_for(&self, gva: u32) -> Option<u32> {
        let regions: Vec<u32> = self.mmu.code_regions().map(|gva| gva.raw() as u32).collect();
        // Each place is looked at once: that may take the reading of half a page table, which the guest can have filled to make it long.
        let known = alloc::vec![Cell::new(None); 1 << (u32::BITS - REGION_SHIFT)];
        let place = |shift: u32, gva: u32| {
            let look = || self.mmu.window_place(shift, Gva::new(gva.into()));
            let Some(known) = known.get((gva.wrapping_add(shift) >> REGION_SHIFT) as usize) else { return look() };
            let place = known.get().unwrap_or_else(look);
            known.set(Some(place));
            place
        };
        // Odd multiples reach every step; far apart, so that the first tries differ much.
        let steps = 0..u32::MAX / STEP;
        let shift =
            |n: u32| FIRST_SHIFT.wrapping_add(n.wrapping_add(self.code.turn).wrapping_mul(STEP.wrapping_mul(93)));
        let shifts = || steps.clone().map(shift).filter(|&shift| shift != 0);
        let without_memory = [(Place::Free, true), (Place::Empty, true), (Place::Free, false), (Place::Empty, false)];
        let with_memory = [(Place::Idle, true), (Place::Used, true), (Place::Idle, false), (Place::Used, false)];
        let hidden = gnomon_hw::features::hides_code();
        without_memory.into_iter().chain(with_memory.into_iter().filter(|_| hidden)).find_map(|(worst, all)| {
            let fits = |shift: u32, gva: u32| place(shift, gva) <= worst;
            shifts().find(|&shift| fits(shift, gva) && (!all || regions.iter().all(|&region| fits(shift, region))))
        })
    }

    /// Puts the window where it is at first.
    pub(crate) fn start_window(&mut self) {
        let plan = self.mmu.set_window(self.code.shift);
        self.flush(plan);
    }

    /// Linear address of the instruction at EIP, where the guest believes it.
    pub(super) fn linear_eip(&self) -> u32 {
        let base = if self.is_known_flat_kernel() { 0 } else { self.segment_base(gnomon_hw::SegReg::Cs) };
        base.wrapping_add(self.eip())
    }
}

/// The bytes of instructions that were found one behind the other.
fn runs(found: &[Found]) -> impl Iterator<Item = Span> {
    let end = |one: &Found| one.offset.saturating_add(usize::from(one.length));
    found.chunk_by(move |one, next| end(one) == next.offset).filter_map(move |run| {
        let (first, last) = (run.first()?, run.last()?);
        Some(Span::new(first.offset, end(last)))
    })
}

/// Where patches begin that have an instruction of these inside one of their own.
fn overlapped(view: &View, found: &[Found]) -> Vec<usize> {
    let hit = |patch: &&Patch| {
        found.iter().any(|one| {
            let inside = one.offset > patch.span.first && one.offset < patch.span.end;
            inside && patch.entry(one.offset).is_none()
        })
    };
    view.patches.iter().filter(hit).map(|patch| patch.span.first).collect()
}
