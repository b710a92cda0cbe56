//! What a hardware guest executes natively, where an operand, the stack or a descriptor table lies in device memory: the CPU leaves the
//! guest for that access, and the whole instruction is done as for a deprivileged guest.

use iced_x86::{Instruction, Mnemonic};

use crate::trap::{Emulated, StopReason, Trap};
use crate::vm::Vm;

impl Vm {
    /// Executes an instruction that [`Vm::execute_memory`] does not know.
    #[cold] // Kernels do no such thing.
    fn execute_native(&mut self, insn: &Instruction) -> Emulated<()> {
        if !self.world.is_hardware() || self.cpl() != 0 {
            return Err(StopReason::Unemulated.into());
        }
        self.read_descriptor_tables();
        let (_, next) = self.dispatch_sensitive(insn)?;
        self.finish(insn, next);
        if matches!(insn.mnemonic(), Mnemonic::Lgdt | Mnemonic::Lidt) {
            let (gdtr, idtr) = (self.vcpu.gdtr, self.vcpu.idtr);
            self.world.set_descriptor_tables((gdtr.base, gdtr.limit), (idtr.base, idtr.limit));
        }
        Ok(())
    }

    /// Executes the instruction at EIP by emulation, where nothing else can.
    pub(crate) fn emulate_any(&mut self) -> Emulated<()> {
        let insn = self.decode()?;
        match self.execute_memory(&insn) {
            Ok(next) => self.finish(&insn, next),
            Err(Trap::Stop(StopReason::Unemulated)) => self.execute_native(&insn)?,
            Err(trap) => return Err(trap),
        }
        Ok(())
    }
}
