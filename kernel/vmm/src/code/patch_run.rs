//! Into patches and out of them: what happens at each entry and exit of a guest that has some, see `patches.rs`.

use gnomon_hw::Exit;
use gnomon_trace::Reason;
use shadow_mmu::Gva;

use super::patch::Step;
use super::patches::{FETCH, Left, MOST_ENTRIES, REGION_SHIFT, Redirect, offset_of};
use super::{OFFSET, sensitive};
use crate::trap::{Emulated, Exception, vector};
use crate::vcpu::flags;
use crate::vm::Vm;

impl Vm {
    /// Must the guest not run patches now?
    fn patches_blocked(&mut self) -> bool {
        let ac = self.world.context().rflags as u32 & flags::AC;
        ac | self.vcpu.system_flags & !flags::IF != 0 || !(self.has_flat_stack() || self.stack_is_big())
    }

    /// Before each entry of a deprivileged guest that has patches.
    #[inline(never)] // out of the way of guests that have none
    pub(crate) fn prepare_patches(&mut self) {
        if self.cpl() != 0 {
            return;
        }
        // User code may have set it.
        self.world.context_mut().rflags &= !u64::from(flags::NT);
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
    #[inline(never)] // out of the way of guests that have none
    pub(crate) fn leave_patch(&mut self, exit: Exit) -> Left {
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
        let eip = if self.runs_flat_kernel() { self.eip() } else { self.linear_eip() };
        let here = eip.wrapping_sub(u32::from(trapped));
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
    pub(super) fn redirect(&mut self) {
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

    #[inline(never)]
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
