//! Into patches and out of them: what happens at each entry and exit of a guest that has some, see `patches.rs`.

use gnomon_hw::Exit;
use gnomon_trace::Reason;
use shadow_mmu::Gva;

use super::patch::{Patch, Restores, Step};
use super::patches::{Entered, FETCH, Left, MOST_ENTRIES, offset_of};
use super::{OFFSET, Undo, sensitive};
use crate::trap::{Emulated, Exception, vector};
use crate::vcpu::flags;
use crate::vm::Vm;

const EAX: usize = 0;
/// From NT to IF.
const NT_TO_IF: u32 = flags::NT.trailing_zeros() - flags::IF.trailing_zeros();

impl Vm {
    /// Must the guest not run patches now?
    fn patches_blocked(&mut self) -> bool {
        let ac = self.world.context().rflags as u32 & flags::AC;
        ac | self.vcpu.system_flags & !flags::IF != 0 || !(self.has_flat_stack() || self.stack_is_big())
    }

    /// Before each entry of a deprivileged guest that has patches. `waits`: so does an interrupt. True: the guest is not to be entered, for
    /// a patch hides the instruction at EIP.
    #[inline(never)] // out of the way of guests without patches
    pub(crate) fn prepare_patches(&mut self, waits: bool) -> bool {
        if self.code.patching.is_lent() && !self.code.patching.look && !self.mmu.are_patches_lost() {
            // The exit had nothing to do with flags.
            return false;
        }
        if self.cpl() != 0 {
            return false;
        }
        self.prepare_anew(waits)
    }

    #[inline]
    fn prepare_anew(&mut self, waits: bool) -> bool {
        self.reclaim_flags();
        let context = self.world.context();
        let unusual = self.vcpu.system_flags & !flags::IF | context.rflags as u32 & (flags::AC | flags::TF);
        if !self.is_plain_flat() || unusual != 0 || self.code.patching.look || self.mmu.are_patches_lost() {
            return self.prepare_unusual(waits);
        }
        self.lend_flags(waits);
        false
    }

    /// The virtual IF goes to NT, and AC says whether an interrupt waits for it.
    #[inline]
    fn lend_flags(&mut self, waits: bool) {
        self.code.patching.entered = Entered::Lent;
        // User code may have set NT.
        let mut real = self.world.context().rflags & !u64::from(flags::NT);
        if !self.vcpu.interrupts_on() {
            real |= u64::from(if waits { flags::NT | flags::AC } else { flags::NT });
        }
        self.world.context_mut().rflags = real;
    }

    #[inline(never)] // out of the way of all others
    fn prepare_unusual(&mut self, waits: bool) -> bool {
        // So that the next entry has a short way.
        let _ = self.runs_flat_kernel();
        if self.mmu.take_patches_lost() {
            self.undo_all_patches();
            return false;
        }
        let stepping = self.world.context().rflags as u32 & flags::TF != 0;
        let blocked = self.patches_blocked();
        if blocked {
            self.code.patching.blocked = self.code.patching.blocked.saturating_add(1);
            let plan = self.mmu.unlink_patches();
            self.flush(plan);
        }
        let look = core::mem::replace(&mut self.code.patching.look, false);
        if (look || stepping || blocked) && self.enter_patch(blocked, stepping) {
            self.code.patching.entered = Entered::Emulate;
            return true;
        }
        if !blocked && self.code.patching.count != 0 {
            self.lend_flags(waits);
        }
        false
    }

    /// Goes on in the patch if EIP is inside a jump. True: it cannot, and the instruction at EIP is one that can be emulated.
    fn enter_patch(&mut self, blocked: bool, stepping: bool) -> bool {
        let gva = self.linear_eip();
        let offset = offset_of(gva);
        if !self.code.patching.is_touched(offset) {
            return false;
        }
        let Some(at) = self.view_seen(gva) else { return false };
        let Some(view) = self.code.views.get(at) else { return false };
        let at_offset = |patch: &&Patch| patch.is_inside(offset) || patch.span.first == offset;
        let Some(patch) = view.patches.iter().find(at_offset) else { return false };
        let inside = patch.is_inside(offset);
        // Where none of its instructions begins, the trap tells.
        let Some(step) = patch.entry(offset) else { return false };
        if !step.whole && (stepping || blocked && inside) {
            return true;
        }
        if blocked && inside {
            self.undo_patches(at, Undo::Entered, |patch| patch.is_inside(offset));
        } else if inside {
            let page = (gva & !OFFSET).wrapping_add(self.code.patching.place.distance);
            let to = page.wrapping_add(step.at as u32);
            let from = self.eip();
            self.set_eip(to.wrapping_sub(gva.wrapping_sub(from)));
            self.code.patching.entry = Some((self.eip(), from));
        }
        false
    }

    /// The virtual IF becomes what the guest has made of it, if it is lent.
    #[inline(always)]
    pub(crate) fn reclaim_flags(&mut self) {
        if self.code.patching.is_lent() {
            self.take_flags();
        }
    }

    /// The same where the guest loads all flags anew.
    #[inline]
    pub(crate) fn forget_lent_flags(&mut self) {
        if self.code.patching.is_lent() {
            self.code.patching.entered = Entered::Plain;
            self.world.context_mut().rflags &= !u64::from(flags::NT);
        }
    }

    #[inline]
    fn take_flags(&mut self) {
        self.code.patching.entered = Entered::Plain;
        let context = self.world.context_mut();
        let real = context.rflags as u32;
        context.rflags &= !u64::from(flags::NT | flags::AC);
        // No other was set, or the flags would not have been lent.
        self.vcpu.system_flags = !real >> NT_TO_IF & flags::IF;
    }

    /// After each exit of a guest that was entered with patches, but for those that the short ways do without: EIP and the virtual IF
    /// become what the guest knows.
    #[inline(never)] // out of the way of guests without patches
    pub(crate) fn leave_patches(&mut self, exit: Exit) -> Left {
        if !self.code.patching.is_lent() {
            self.code.patching.entered = Entered::Plain;
            return Left::Emulate;
        }
        self.take_flags();
        let elsewhere = self.is_known_flat_kernel() && !self.code.patching.are_at(self.eip());
        if elsewhere && !matches!(exit, Exit::Interrupt(_)) { Left::Whole } else { self.leave_patch(exit) }
    }

    /// After a page fault of a guest that was entered with patches: did the guest's own code fault, by an access? Then nothing is to be
    /// put back but the virtual IF, by who needs it.
    #[inline]
    pub(crate) fn is_outside_patches(&self) -> bool {
        self.code.patching.is_lent()
            && self.world.context().error & FETCH == 0
            && self.is_known_flat_kernel()
            && !self.code.patching.are_at(self.eip())
    }

    #[inline(never)] // out of the way of all others
    fn leave_patch(&mut self, exit: Exit) -> Left {
        if matches!(exit, Exit::Vector(vector::PF)) && self.world.context().error & FETCH != 0 {
            return Left::Whole; // `on_patch_fetch`
        }
        let trapped = matches!(exit, Exit::Vector(vector::BP));
        let here = self.linear_eip().wrapping_sub(u32::from(trapped));
        if !self.code.patching.are_at(here) {
            self.note_sti(exit, here);
            return Left::Whole;
        }
        let origin = here.wrapping_sub(self.code.patching.place.distance);
        let found = self.view_seen(origin).and_then(|at| self.step_of(at, origin));
        let Some(step) = found else {
            if trapped {
                // The guest has jumped to where it has code of its own.
                self.set_eip(self.eip().wrapping_sub(1));
                self.undo_all_patches();
                return Left::Again;
            }
            return Left::Whole;
        };
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
            && let Some(at) = self.view_seen(here)
            && let Some(view) = self.code.views.get(at)
            && view.patches.iter().any(|patch| patch.ends_with_sti && patch.span.end == offset)
        {
            self.vcpu.interrupt_shadow = Some(self.eip());
        }
    }

    /// The step that begins at this address of the patches of a view.
    fn step_of(&self, at: usize, origin: u32) -> Option<Step> {
        let at_step = offset_of(origin);
        let patch = self.code.views.get(at)?.patches.iter().find(|patch| patch.holds(at_step))?;
        patch.steps.iter().rfind(|step| step.at == at_step).copied()
    }

    /// Puts back what a patch left undone before this step, and EIP to the guest's instruction.
    fn leave_step(&mut self, step: Step, origin: u32) {
        if step.restores != Restores::Nothing
            && let Ok(word) = self.peek(0, 4)
        {
            match step.restores {
                Restores::Eax => self.set_gpr(EAX, word),
                _ => self.load_flags(word, flags::REAL & !(flags::TF | flags::AC)),
            }
        }
        let esp = self.esp().wrapping_add(u32::from(step.pops).wrapping_mul(4));
        self.set_esp(esp);
        let guest = (origin & !OFFSET).wrapping_add(step.guest as u32);
        let base = self.linear_eip().wrapping_sub(self.eip());
        self.set_eip(guest.wrapping_sub(base));
        if step.after_sti {
            self.vcpu.interrupt_shadow = Some(self.eip());
        }
        self.code.patching.look = true;
    }

    /// The instruction at EIP, which a patch could not do.
    pub(crate) fn emulate_patched(&mut self) -> Emulated<()> {
        let insn = self.decode()?;
        if sensitive(&insn).is_some() {
            self.emulate_sensitive(&insn)?;
        } else if insn.is_call_near() {
            let next = self.execute_memory(&insn)?;
            self.count(Reason::HiddenFault);
            self.finish(&insn, next);
        } else {
            let (reason, next) = self.dispatch(&insn, Exception::gp(0))?;
            self.count(reason);
            self.finish(&insn, next);
        }
        self.code.patching.look = true;
        Ok(())
    }

    /// A fetch from `gva` faulted. Is it one of a patch? Then it is mapped, or what it would do is emulated.
    pub(super) fn on_patch_fetch(&mut self, gva: u32) -> Option<Emulated<()>> {
        if self.code.patching.count == 0 {
            return None;
        }
        let origin = gva.wrapping_sub(self.code.patching.place.distance);
        let found = self.view_at(origin).and_then(|(at, code)| Some((at, code, self.step_of(at, origin)?)));
        let Some((at, code, step)) = found else {
            // Control was sent there, but the code has changed since it last ran: it is to be looked at anew.
            let (_, from) = self.code.patching.entry.take().filter(|&(to, _)| to == self.eip())?;
            self.set_eip(from);
            return Some(self.check_progress(Gva::new(gva.into())));
        };
        self.leave_step(step, origin);
        if self.patches_blocked() {
            // The patch's first step is no instruction of its own.
            return Some(self.emulate_patched());
        }
        self.count(Reason::HiddenFault);
        let pfn = self.code.views.get(at)?.patch_page.as_ref()?.pfn;
        let (mapped, plan) = self.mmu.map_patches(Gva::new(origin.into()), code.gfn, pfn);
        self.flush(plan);
        if mapped {
            self.code.patching.note_region(gva);
        } else if self.mmu.patches_fit(self.code.patching.place, Gva::new(origin.into())) {
            self.undo_patches(at, Undo::Lost, |_| true);
        } else {
            self.undo_all_patches();
        }
        Some(self.check_progress(Gva::new(gva.into())))
    }

    /// A trap at EIP of the guest kernel: is it a byte of a jump, and so the guest jumped among the instructions that it covers?
    #[inline]
    pub(crate) fn on_patch_inside(&mut self) -> bool {
        let touched = |gva| self.code.patching.is_touched(offset_of(gva));
        self.code.patching.count != 0 && self.on_shadow_code() && touched(self.linear_eip()) && self.jumped_inside()
    }

    #[inline(never)]
    fn jumped_inside(&mut self) -> bool {
        let gva = self.linear_eip();
        let offset = offset_of(gva);
        let Some((at, _)) = self.view_at(gva) else { return false };
        let Some(view) = self.code.views.get_mut(at) else { return false };
        let Some(patch) = view.patches.iter_mut().find(|patch| patch.is_inside(offset)) else { return false };
        patch.entries = patch.entries.saturating_add(1);
        if patch.entry(offset).is_some() && patch.entries < MOST_ENTRIES {
            self.code.patching.look = true;
        } else {
            let behind = offset.saturating_sub(patch.span.first) as u32;
            let site = self.eip().wrapping_sub(behind);
            self.code.patching.cool(site);
            self.undo_patches(at, Undo::Entered, |patch| patch.is_inside(offset));
        }
        self.count(Reason::CodeDiscovery);
        true
    }
}
