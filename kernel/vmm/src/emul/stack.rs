//! PUSHA, POPA, ENTER, LEAVE and RET, for stacks on page tables and device memory.

use iced_x86::{Code, Instruction};

use crate::trap::{Emulated, StopReason};
use crate::vm::Vm;

/// Bytes of a word of the stack.
const WORD: u32 = 4;
const ESP: usize = 4;
const EBP: usize = 5;

impl Vm {
    /// Executes one of these with 32-bit operands. Whatever faults leaves the registers as they were.
    ///
    /// # Errors
    /// [`StopReason::Unemulated`] for the other forms.
    pub(super) fn stack_op(&mut self, insn: &Instruction) -> Emulated<()> {
        if !self.stack_is_big() {
            return Err(StopReason::Unemulated.into());
        }
        let esp = self.esp();
        let done = match insn.code() {
            Code::Pushad => self.push_all(),
            Code::Popad => self.pop_all(),
            Code::Leaved => self.leave(),
            Code::Enterd_imm16_imm8 if insn.immediate8_2nd() & 31 == 0 => self.enter_frame(insn.immediate16()),
            Code::Retnd => self.return_near(0),
            Code::Retnd_imm16 => self.return_near(insn.immediate16()),
            _ => Err(StopReason::Unemulated.into()),
        };
        done.inspect_err(|_| self.set_esp(esp))
    }

    fn push_all(&mut self) -> Emulated<()> {
        let esp = self.esp();
        (0..8).try_for_each(|number| self.push(if number == ESP { esp } else { self.gpr(number) }, WORD as usize))
    }

    fn pop_all(&mut self) -> Emulated<()> {
        let mut values = [0; 8];
        for (distance, value) in (0..).step_by(WORD as usize).zip(values.iter_mut().rev()) {
            *value = self.peek(distance, WORD as usize)?;
        }
        for (number, value) in values.into_iter().enumerate().filter(|(number, _)| *number != ESP) {
            self.set_gpr(number, value);
        }
        self.drop_stack(8 * WORD);
        Ok(())
    }

    /// ESP becomes EBP, and EBP is popped.
    fn leave(&mut self) -> Emulated<()> {
        self.set_esp(self.gpr(EBP));
        let value = self.peek(0, WORD as usize)?;
        self.set_gpr(EBP, value);
        self.drop_stack(WORD);
        Ok(())
    }

    /// ENTER without nesting.
    fn enter_frame(&mut self, size: u16) -> Emulated<()> {
        self.push(self.gpr(EBP), WORD as usize)?;
        let frame = self.esp();
        self.set_gpr(EBP, frame);
        self.drop_stack(u32::from(size).wrapping_neg());
        Ok(())
    }

    fn return_near(&mut self, drops: u16) -> Emulated<()> {
        let target = self.peek(0, WORD as usize)?;
        self.drop_stack(WORD.wrapping_add(drops.into()));
        self.set_eip(target);
        Ok(())
    }
}
