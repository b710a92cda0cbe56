//! Exits that only the hardware back ends have.

use gnomon_hw::virt::{HardwareExit, Instruction, Intercepted, Violation};
use gnomon_trace::Reason;
use iced_x86::Mnemonic;
use shadow_mmu::second::SecondOutcome;
use shadow_mmu::{AccessKind, Gpa, Gva};

use crate::exit::{NOT_RESIDENT, mmu_stop};
use crate::trap::{Emulated, Exception, StopReason, vector};
use crate::vcpu::flags;
use crate::vm::Vm;

impl Vm {
    #[inline(never)] // Out of the way of the deprivileged guests' loop.
    pub(super) fn on_hardware_exit(&mut self) -> Emulated<()> {
        match self.world.hardware_exit() {
            HardwareExit::Intercepted(instruction) => self.on_intercepted(instruction),
            HardwareExit::Nested(violation) => self.on_violation(violation),
            HardwareExit::Window => {
                self.count(Reason::InterruptWindow);
                Ok(())
            }
            HardwareExit::TaskSwitch(switch) => self.on_task_switch(switch),
            HardwareExit::TaskSegmentOpen => Err(StopReason::Internal("its TSS stays writable").into()),
            HardwareExit::Unasked => Err(StopReason::UnaskedTaskSwitch.into()),
            HardwareExit::Shutdown => Err(StopReason::TripleFault.into()),
            HardwareExit::Refused(number) => {
                log::error!("guest {}: the CPU refused its state: exit code {number:#x}", self.name);
                Err(StopReason::EntryFailed.into())
            }
            // The run loop's exits were handled before.
            HardwareExit::Vector(_) | HardwareExit::Interrupt(_) => {
                Err(StopReason::Internal("an exit that was handled before").into())
            }
        }
    }

    /// An exception that was intercepted. Where the CPU walks the guest's own tables a page fault is never ours.
    #[inline(never)] // Out of the way of the deprivileged guests' loop.
    pub(super) fn on_hardware_vector(&mut self, number: u8, stepped: bool) -> Emulated<()> {
        self.trace_exit(number);
        let error = self.world.context().error as u32;
        match number {
            vector::PF if self.nested.is_none() => self.on_page_fault(),
            vector::DB => self.on_debug(stepped),
            vector::PF => self.reflect(Exception::page_fault(error, self.world.cr2() as u32)),
            vector::DF | vector::TS | vector::NP | vector::SS | vector::GP | vector::AC => {
                self.reflect(Exception::coded(number, error))
            }
            _ => self.reflect(Exception::plain(number)),
        }
    }

    /// An instruction that the CPU left to us.
    fn on_intercepted(&mut self, instruction: Intercepted) -> Emulated<()> {
        match (instruction.what, instruction.next) {
            (Instruction::Cpuid, Some(next)) => self.on_cpuid(next),
            (Instruction::Port { port, size, output }, Some(next)) => {
                self.count(Reason::Io);
                self.note_port(port, size.into());
                self.transfer(port, size, output)?;
                self.retire(next);
            }
            (Instruction::Invalidate(gva), Some(next)) => {
                self.count(Reason::Invlpg);
                self.invalidate(gva);
                self.retire(next);
            }
            (Instruction::LoadCr3(from), Some(next)) => {
                self.write_cr3(self.gpr(from.into()))?;
                self.count(Reason::WriteCr3);
                self.retire(next);
            }
            (Instruction::ReadCr3(to), Some(next)) => {
                self.count(Reason::ReadCr);
                self.set_gpr(to.into(), self.vcpu.cr3);
                self.retire(next);
            }
            _ => {
                self.refresh();
                if self.intercepted_shortly() {
                    return Ok(());
                }
                let insn = self.decode()?;
                // Bochs leaves the guest for a MOV of a debug register before it looks at the privilege level.
                let native = if insn.mnemonic() == Mnemonic::Mov { Exception::gp(0) } else { Exception::ud() };
                let (reason, next) = self.dispatch(&insn, native)?;
                self.count(reason);
                self.finish(&insn, next);
            }
        }
        Ok(())
    }

    /// CPUID, with `next` the address behind it.
    #[inline]
    pub(super) fn on_cpuid(&mut self, next: u32) {
        self.count(Reason::Cpuid);
        self.identify();
        self.retire(next);
    }

    /// IN or OUT between the accumulator and a port.
    #[inline]
    pub(super) fn transfer(&mut self, port: u16, size: u8, output: bool) -> Result<(), StopReason> {
        let mask = match size {
            1 => 0xff,
            2 => 0xffff,
            _ => u32::MAX,
        };
        if output {
            return self.port_out(port, size.into(), self.gpr(0) & mask);
        }
        let value = self.port_in(port, size.into());
        self.set_gpr(0, self.gpr(0) & !mask | value & mask);
        Ok(())
    }

    /// An instruction is done.
    fn retire(&mut self, next: u32) {
        self.set_eip(next);
        self.world.context_mut().rflags &= !u64::from(flags::RF);
        self.retired = true;
    }

    /// The second-level tables lacked something.
    fn on_violation(&mut self, violation: Violation) -> Emulated<()> {
        let Violation { gpa, kind, table } = violation;
        let Some(nested) = &mut self.nested else {
            return Err(StopReason::Internal("a nested fault without second-level tables").into());
        };
        let (outcome, plan) = nested.on_violation(self.mmu.mem(), Gpa::new(gpa), kind);
        self.flush(plan);
        match outcome {
            SecondOutcome::Resume => {
                self.count(Reason::NestedFault);
                self.check_progress(Gva::new(gpa))
            }
            SecondOutcome::Stop(stop) => Err(mmu_stop(stop).into()),
            SecondOutcome::NotResident(_) => Err(NOT_RESIDENT.into()),
            _ if table => Err(StopReason::TableOutsideMemory.into()),
            _ if kind == AccessKind::Fetch => Err(StopReason::FetchOutsideMemory.into()),
            SecondOutcome::Mmio(_)
            | SecondOutcome::Hole(_)
            | SecondOutcome::RomWrite(_)
            | SecondOutcome::WriteProtected(_) => {
                self.count(Reason::Mmio);
                self.refresh();
                self.emulate_any()
            }
        }
    }
}
