//! The short ways of exits: what kernels do most often, in flat code, while nothing unusual goes on. Each either does all of it, or has
//! changed nothing that the guest sees; then the long way, which is the reference, does it and finds the faults.
//!
//! Under a trace everything goes the long way, so a traced run and a plain one can be compared (`tests/e2e`).

use gnomon_hw::SegReg;
use gnomon_trace::Reason;

use super::SYSTEM_CALL;
use crate::emul::{Control, Port, Recipe};

use crate::event::{Event, Source};
use crate::trap::{Emulated, Exception};
use crate::vcpu::flags;
use crate::vm::Vm;

/// Bytes that PUSH and POP move.
const WORD: u32 = 4;

impl Vm {
    /// Whether short ways are open: the guest is a deprivileged one, and nothing is stepped over, shown for one step, opened, traced or watched by breakpoints.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        !self.world.is_hardware()
            && self.step.is_none()
            && !self.is_unveiled()
            && !self.mmu.is_open()
            && !self.watched
            && self.world.context().rflags as u32 & flags::TF == 0
    }

    /// The recipe for the instruction at `eip` in flat code, and the address behind it.
    #[inline]
    fn recipe_at(&self, eip: u32) -> Option<(Recipe, u32)> {
        self.decoded.recipe(eip, self.world.fetch(eip)?)
    }

    /// After #GP(0): does the instruction at EIP if it has a recipe. False: nothing was done. The virtual IF may still be lent to patches
    /// (`code/patch_run.rs`). An EIP in a patch has no recipe.
    ///
    /// # Errors
    /// A stop that a port write asked for.
    #[inline]
    pub(super) fn refused_shortly(&mut self) -> Emulated<bool> {
        if !self.runs_flat_kernel() {
            return Ok(false);
        }
        match self.recipe_at(self.eip()) {
            Some((recipe, next)) => self.follow(recipe, next),
            None => Ok(false),
        }
    }

    /// After the exit of a hardware guest for an instruction that is to be decoded: does it if it has a recipe. False: nothing was done.
    ///
    /// # Errors
    /// A stop that a port write asked for.
    pub(super) fn intercepted_shortly(&mut self) -> Emulated<bool> {
        let (base, big) = self.world.hardware_code();
        if self.watched || base != 0 || !big || self.cpl() != 0 {
            return Ok(false);
        }
        let Ok((bytes, _)) = self.fetch(self.eip()) else { return Ok(false) };
        match self.decoded.recipe(self.eip(), bytes) {
            Some((Recipe::Identify, next)) => {
                self.identify();
                self.go_on(next, Reason::Cpuid);
                Ok(true)
            }
            Some((recipe, next)) => self.follow(recipe, next),
            None => Ok(false),
        }
    }

    #[inline(always)] // Once for each kind of guest; a call would be a tenth of a short exit.
    fn follow(&mut self, recipe: Recipe, next: u32) -> Emulated<bool> {
        let reason = match recipe {
            Recipe::Cli => {
                self.reclaim_flags();
                self.vcpu.set_interrupts(false);
                self.note_hot(self.eip());
                Reason::Cli
            }
            Recipe::Sti => {
                self.reclaim_flags();
                self.set_interrupts_after(next);
                self.note_hot(self.eip());
                Reason::Sti
            }
            Recipe::ReadControl(control, to) => {
                let value = match control {
                    Control::Cr0 => self.vcpu.cr0,
                    Control::Cr2 => self.vcpu.cr2,
                    Control::Cr3 => self.vcpu.cr3,
                    Control::Cr4 => self.vcpu.cr4,
                };
                if let Some(place) = self.world.context_mut().gpr.get_mut(to.index()) {
                    *place = value.into();
                }
                Reason::ReadCr
            }
            Recipe::LoadCr3(from) if self.write_cr3(self.gpr(from.index())).is_ok() => Reason::WriteCr3,
            Recipe::Invalidate(base, offset) if self.has_flat_data() => {
                self.invalidate(self.gpr(base.index()).wrapping_add(offset));
                Reason::Invlpg
            }
            Recipe::Input(port, size) => {
                self.transfer(self.port(port), size, false)?;
                Reason::Io
            }
            Recipe::Output(port, size) => {
                self.transfer(self.port(port), size, true)?;
                Reason::Io
            }
            _ => return Ok(false),
        };
        self.go_on(next, reason);
        Ok(true)
    }

    fn port(&self, port: Port) -> u16 {
        match port {
            Port::Fixed(number) => number.into(),
            Port::Dx => self.gpr(2) as u16,
        }
    }

    /// After INT3 in shadow code, when EIP is behind it: does the sensitive instruction there if it has a recipe and is known to be
    /// discovered. False: nothing was done. The virtual IF may still be lent, as in [`Self::refused_shortly`].
    #[inline]
    pub(super) fn trapped_shortly(&mut self) -> bool {
        if !self.runs_flat_kernel() {
            return false;
        }
        let eip = self.eip().wrapping_sub(1);
        if !self.code.knows_site(eip) {
            return false;
        }
        match self.recipe_at(eip) {
            Some((Recipe::Return, _)) => self.return_flat().is_some(),
            Some((Recipe::Identify, next)) => {
                self.identify();
                self.go_on(next, Reason::Cpuid);
                true
            }
            Some((recipe @ (Recipe::PushFlags | Recipe::PopFlags | Recipe::PushCode), next)) => {
                self.follow_stack(recipe, eip, next)
            }
            _ => false,
        }
    }

    /// PUSHF, POPF and PUSH CS on a flat stack. False: nothing was done.
    #[inline(never)] // out of the way of more frequent ones
    fn follow_stack(&mut self, recipe: Recipe, eip: u32, next: u32) -> bool {
        if !self.has_flat_stack() {
            return false;
        }
        self.reclaim_flags();
        let (top, below) = (self.esp(), self.esp().wrapping_sub(WORD));
        let mut word = [0; WORD as usize];
        match recipe {
            Recipe::PopFlags if self.world.read_linear(top, &mut word).is_ok() => {
                self.set_esp(top.wrapping_add(WORD));
                self.load_popped_flags(u32::from_le_bytes(word));
            }
            Recipe::PushFlags if self.world.write_linear(below, &self.pushed_flags().to_le_bytes()).is_ok() => {
                self.set_esp(below);
            }
            Recipe::PushCode => {
                let selector = u32::from(self.visible_selector(SegReg::Cs).0);
                if self.world.write_linear(below, &selector.to_le_bytes()).is_err() {
                    return false;
                }
                self.set_esp(below);
            }
            _ => return false,
        }
        self.go_on(next, Reason::Sensitive);
        if recipe != Recipe::PushCode {
            self.note_hot(eip);
        }
        true
    }

    /// After the gate of system calls: EIP is behind the INT already. False: nothing was done.
    #[inline]
    pub(super) fn called_shortly(&mut self) -> bool {
        let done = self.deliver_fast(&Event { vector: SYSTEM_CALL, error: None, cr2: None, source: Source::Software });
        if done.is_some() {
            self.count(Reason::SoftInterrupt);
        }
        done.is_some()
    }

    /// Delivers an exception. False: nothing was done but that CR2 has its address, if it has one.
    #[inline]
    pub(super) fn deliver_shortly(&mut self, exception: Exception) -> bool {
        if let Some(cr2) = exception.cr2 {
            self.vcpu.cr2 = cr2;
        }
        self.deliver_fast(&exception.into()).is_some()
    }

    /// An instruction is done.
    #[inline]
    fn go_on(&mut self, next: u32, reason: Reason) {
        let context = self.world.context_mut();
        context.rip = next.into();
        context.rflags &= !u64::from(flags::RF);
        self.retired = true;
        self.count(reason);
    }
}
