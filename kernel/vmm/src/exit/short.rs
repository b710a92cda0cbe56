//! The short ways of exits: what kernels do most often, in flat code, while nothing unusual goes on. Each either does all of it, or has
//! changed nothing that the guest sees; then the long way, which is the reference, does it and finds the faults.
//!
//! Under a trace everything goes the long way, so a traced run and a plain one can be compared (`tests/e2e`).

use gnomon_hw::virt::{HardwareExit, Instruction, Intercepted};
use gnomon_hw::{Exit, SegReg};
use gnomon_trace::Reason;

use super::SYSTEM_CALL;
use crate::emul::{Control, Port, Recipe};

use crate::event::{Event, Source};
use crate::trap::{Exception, Trap, vector};
use crate::vcpu::flags;
use crate::vm::Vm;

/// Bytes that PUSH and POP move.
const WORD: u32 = 4;
/// Bytes of the four instructions of [`Vm::serialize`].
const RETURN_BEHIND: u32 = 8;

/// PUSHF, PUSH CS, PUSH of the address behind the next instruction, IRET.
const fn returns_behind(eip: u32, bytes: u64) -> bool {
    let [a, b, c, ref address @ .., d] = bytes.to_le_bytes();
    matches!([a, b, c, d], [0x9c, 0x0e, 0x68, 0xcf]) && u32::from_le_bytes(*address) == eip.wrapping_add(RETURN_BEHIND)
}

/// Which exits have short ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShortWays {
    /// None: an instruction is stepped over, shown for one step or opened, or the guest is traced or has breakpoints.
    Closed,
    /// Those of a guest in rings 1 and 3.
    Deprivileged,
    /// Those of a guest that an extension of the CPU runs.
    Hardware,
}

impl Vm {
    /// Works out anew which short ways are open. What begins any of this closes them itself (`begin_step`, `step_over`, `follow_breakpoints`).
    #[inline]
    pub(super) fn note_short_ways(&mut self) {
        let amid = self.step.is_some() || self.is_unveiled() || self.mmu.is_open() || self.watched;
        self.short_ways = match self.world.is_hardware() {
            _ if amid => ShortWays::Closed,
            true => ShortWays::Hardware,
            false => ShortWays::Deprivileged,
        };
    }

    /// Handles an exit in a short way, while they are open and the guest does not step either. False: nothing was done. Most of these
    /// need nothing of what patches have changed (`code/patch_run.rs`): the virtual IF may still be lent to them, and EIP be in one.
    #[inline]
    pub(crate) fn on_exit_shortly(&mut self, exit: Exit) -> bool {
        match exit {
            Exit::Vector(number) if self.is_open_to(ShortWays::Deprivileged) => self.on_vector_shortly(number),
            Exit::Hardware if self.is_open_to(ShortWays::Hardware) => {
                self.on_hardware_exit_shortly();
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn is_open_to(&self, ways: ShortWays) -> bool {
        self.short_ways == ways && self.world.context().rflags as u32 & flags::TF == 0
    }

    /// The same for a page fault of a guest that has left its patches.
    #[inline]
    pub(super) fn faulted_shortly(&mut self, exit: Exit) -> bool {
        let short = exit == Exit::Vector(vector::PF) && self.is_open_to(ShortWays::Deprivileged);
        if short {
            self.page_fault_shortly();
        }
        short
    }

    #[inline(never)] // Out of the way of the deprivileged guests' loop.
    fn on_hardware_exit_shortly(&mut self) {
        self.retired = false;
        if let HardwareExit::Intercepted(Intercepted { what: Instruction::Cpuid, next: Some(next) }) =
            self.world.hardware_exit()
        {
            self.on_cpuid(next);
        } else if let Err(trap) = self.on_hardware_exit() {
            self.end_shortly(trap);
        }
    }

    #[inline]
    fn on_vector_shortly(&mut self, number: u8) -> bool {
        match number {
            vector::PF if self.code.patching.was_entered() && !self.is_outside_patches() => false,
            vector::PF => {
                self.page_fault_shortly();
                true
            }
            vector::GP if self.world.context().error == 0 => self.refused_shortly(),
            vector::BP if self.code.is_on() && !self.code.patching.is_hidden() => self.trapped_shortly(),
            SYSTEM_CALL => {
                self.reclaim_flags();
                self.called_shortly()
            }
            _ => false,
        }
    }

    /// Page faults have one way, but much of what goes on around it is not needed while nothing unusual does.
    #[inline]
    fn page_fault_shortly(&mut self) {
        if let Err(trap) = self.on_page_fault() {
            self.end_shortly(trap);
        }
    }

    /// What a short way leaves to be delivered, or ends the machine: the run loop looks for that.
    #[inline(never)] // out of the way of all others
    fn end_shortly(&mut self, trap: Trap) {
        self.reclaim_flags();
        if let Err(reason) = self.on_trap(trap) {
            self.end = Some(reason);
            self.devices_touched = true;
        }
    }

    /// The recipe for the instruction at `eip` in flat code, the address behind it, and the eight bytes at `eip`.
    #[inline]
    fn recipe_at(&self, eip: u32) -> Option<(Recipe, u32, u64)> {
        let (bytes, _) = self.world.fetch_halves(eip)?;
        self.decoded.recipe(eip, bytes).map(|(recipe, next)| (recipe, next, bytes))
    }

    /// After #GP(0): does the instruction at EIP if it has a recipe. False: nothing was done. An EIP in a patch has no recipe.
    #[inline]
    fn refused_shortly(&mut self) -> bool {
        if !self.runs_flat_kernel() {
            return false;
        }
        match self.recipe_at(self.eip()) {
            Some((recipe, next, _)) => self.follow(recipe, next),
            None => false,
        }
    }

    /// After the exit of a hardware guest for an instruction that is to be decoded: does it if it has a recipe. False: nothing was done.
    pub(super) fn intercepted_shortly(&mut self) -> bool {
        let (base, big) = self.world.hardware_code();
        if self.watched || base != 0 || !big || self.cpl() != 0 {
            return false;
        }
        let Ok((bytes, _)) = self.fetch(self.eip()) else { return false };
        match self.decoded.recipe(self.eip(), bytes as u64) {
            Some((Recipe::Identify, next)) => {
                self.identify();
                self.go_on(next, Reason::Cpuid);
                true
            }
            Some((recipe, next)) => self.follow(recipe, next),
            None => false,
        }
    }

    #[inline(always)] // Once for each kind of guest; a call would be a tenth of a short exit.
    fn follow(&mut self, recipe: Recipe, next: u32) -> bool {
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
                self.transfer_shortly(self.port(port), size, false);
                Reason::Io
            }
            Recipe::Output(port, size) => {
                self.transfer_shortly(self.port(port), size, true);
                Reason::Io
            }
            _ => return false,
        };
        self.go_on(next, reason);
        true
    }

    #[inline]
    fn transfer_shortly(&mut self, port: u16, size: u8, output: bool) {
        if let Err(end) = self.transfer(port, size, output) {
            self.end_shortly(end.into());
        }
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
            Some((Recipe::Return, ..)) => self.return_flat().is_some(),
            Some((Recipe::Identify, next, _)) => {
                self.identify();
                self.go_on(next, Reason::Cpuid);
                true
            }
            Some((Recipe::ReadStackSelector(to), next, _)) => {
                let selector = self.visible_selector(SegReg::Ss).0;
                self.set_gpr(to.index(), selector.into());
                self.go_on(next, Reason::Sensitive);
                true
            }
            Some((Recipe::PushFlags, _, bytes)) if returns_behind(eip, bytes) => self.serialize(eip),
            Some((recipe @ (Recipe::PushFlags | Recipe::PopFlags | Recipe::PushCode), next, _)) => {
                self.follow_stack(recipe, eip, next)
            }
            _ => false,
        }
    }

    /// PUSHF, PUSH CS, PUSH and an IRET with these to the address behind it, as Linux serializes: what is left of it is the frame below
    /// the stack. False: nothing was done.
    #[inline(never)] // out of the way of more frequent ones
    fn serialize(&mut self, eip: u32) -> bool {
        let next = eip.wrapping_add(RETURN_BEHIND);
        let cs = self.visible_selector(SegReg::Cs);
        if !self.has_flat_stack() || self.armed || !self.is_code_target(cs) {
            return false;
        }
        self.reclaim_flags();
        let image = self.pushed_flags();
        let mut frame = [0; 3 * WORD as usize];
        for (place, word) in frame.chunks_exact_mut(WORD as usize).zip([next, cs.0.into(), image]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let below = self.esp().wrapping_sub(3 * WORD);
        if image & flags::NT != 0 || self.world.write_linear(below, &frame).is_err() {
            return false;
        }
        self.vcpu.nmi_blocked = false;
        self.code.patching.note_return(next);
        self.go_on(next, Reason::Iret);
        true
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
