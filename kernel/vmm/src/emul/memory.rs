//! Instructions that write a tracked frame or reach a hole: the memory forms that kernels use on page tables and device memory.
//!
//! Everything reads, computes and writes through the guest's own walk, so that a page fault in the middle leaves the registers as
//! they were. What is not here is [`StopReason::Unemulated`](crate::trap::StopReason::Unemulated); the caller then steps over it (`step.rs`).

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::Next;
use super::alu::{self, Binary};
use super::operand::segment_register;
use super::string::StringOp;
use crate::task::Cause;
use crate::trap::{Emulated, Exception};
use crate::vcpu::{Selector, flags};
use crate::vm::Vm;

impl Vm {
    /// Executes an instruction with a memory operand.
    pub(crate) fn execute_memory(&mut self, insn: &Instruction) -> Emulated<Next> {
        if let Some(op) = StringOp::of(insn) {
            return self.string_op(insn, op);
        }
        if self.world.is_hardware() && (super::loads_segment(insn) || super::is_far_memory(insn)) {
            self.read_descriptor_tables();
        }
        match insn.mnemonic() {
            Mnemonic::Mov => self.move_value(insn),
            Mnemonic::Movzx | Mnemonic::Movsx => self.move_extended(insn),
            Mnemonic::Add => self.binary_op(insn, Binary::Add, true),
            Mnemonic::Adc => self.binary_op(insn, Binary::Adc, true),
            Mnemonic::Sub => self.binary_op(insn, Binary::Sub, true),
            Mnemonic::Sbb => self.binary_op(insn, Binary::Sbb, true),
            Mnemonic::And => self.binary_op(insn, Binary::And, true),
            Mnemonic::Or => self.binary_op(insn, Binary::Or, true),
            Mnemonic::Xor => self.binary_op(insn, Binary::Xor, true),
            Mnemonic::Cmp => self.binary_op(insn, Binary::Sub, false),
            Mnemonic::Test => self.binary_op(insn, Binary::And, false),
            Mnemonic::Inc | Mnemonic::Dec => self.step_op(insn),
            Mnemonic::Not | Mnemonic::Neg => self.complement(insn),
            Mnemonic::Xchg => self.exchange(insn),
            Mnemonic::Xadd => self.exchange_add(insn),
            Mnemonic::Cmpxchg => self.compare_exchange(insn),
            Mnemonic::Cmpxchg8b => self.compare_exchange_8(insn),
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => self.bit_op(insn),
            Mnemonic::Push => self.push_op(insn),
            Mnemonic::Pop if super::loads_segment(insn) => self.load_segment_instruction(insn, Exception::gp(0)),
            Mnemonic::Pop => self.pop_op(insn),
            Mnemonic::Pushad | Mnemonic::Popad | Mnemonic::Leave | Mnemonic::Enter | Mnemonic::Ret => {
                self.stack_op(insn)
            }
            Mnemonic::Jmp | Mnemonic::Call if super::is_far_memory(insn) => {
                let cause = if insn.mnemonic() == Mnemonic::Jmp { Cause::Jump } else { Cause::Call };
                self.far_branch(insn, cause, if super::narrow_operands(insn) { 2 } else { 4 })
            }
            Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lss => {
                self.load_segment_instruction(insn, Exception::gp(0))
            }
            Mnemonic::Call => self.call_near(insn),
            Mnemonic::Jmp if insn.op0_kind() == OpKind::Memory => self.jump_near(insn),
            _ => self.execute_integer(insn),
        }?;
        let jumped = matches!(insn.mnemonic(), Mnemonic::Call | Mnemonic::Jmp | Mnemonic::Ret);
        Ok(if jumped { Next::Stay } else { Next::Advance })
    }

    /// Size of the destination operand.
    pub(super) fn operand_size(&self, insn: &Instruction) -> usize {
        if insn.op0_kind() == OpKind::Register {
            super::register_size(insn.op0_register())
        } else {
            insn.memory_size().size()
        }
    }

    pub(super) fn set_status(&mut self, set: u32, mask: u32) {
        self.load_flags(set, mask & flags::STATUS);
    }

    pub(super) fn carry(&self) -> bool {
        self.world.context().rflags as u32 & flags::CF != 0
    }

    fn move_value(&mut self, insn: &Instruction) -> Emulated<()> {
        if let OpKind::Register = insn.op0_kind()
            && let Some(segment) = segment_register(insn.op0_register())
        {
            let selector = self.read_operand(insn, 1, 2)? as u16;
            return self.load_segment(segment, Selector(selector));
        }
        let size = self.operand_size(insn);
        let value = self.read_operand(insn, 1, size)?;
        self.write_operand(insn, 0, size, value)
    }

    fn move_extended(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = insn.memory_size().size();
        let value = self.read_operand(insn, 1, size)?;
        let value = match (insn.mnemonic(), size) {
            (Mnemonic::Movsx, 1) => value as u8 as i8 as u32,
            (Mnemonic::Movsx, 2) => value as u16 as i16 as u32,
            _ => value,
        };
        self.set_register(insn.op0_register(), value)
    }

    fn binary_op(&mut self, insn: &Instruction, op: Binary, store: bool) -> Emulated<()> {
        let size = self.operand_size(insn);
        let a = self.read_operand(insn, 0, size)?;
        let b = self.read_operand(insn, 1, size)?;
        let result = alu::binary(op, a, b, self.carry(), size);
        if store {
            self.write_operand(insn, 0, size, result.value)?;
        }
        self.set_status(result.flags, flags::STATUS);
        Ok(())
    }

    fn step_op(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = self.operand_size(insn);
        let a = self.read_operand(insn, 0, size)?;
        let op = if insn.mnemonic() == Mnemonic::Inc { Binary::Add } else { Binary::Sub };
        let result = alu::binary(op, a, 1, false, size);
        self.write_operand(insn, 0, size, result.value)?;
        self.set_status(result.flags, flags::STATUS & !flags::CF);
        Ok(())
    }

    fn complement(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = self.operand_size(insn);
        let a = self.read_operand(insn, 0, size)?;
        if insn.mnemonic() == Mnemonic::Not {
            return self.write_operand(insn, 0, size, !a);
        }
        let result = alu::binary(Binary::Sub, 0, a, false, size);
        self.write_operand(insn, 0, size, result.value)?;
        self.set_status(result.flags, flags::STATUS);
        Ok(())
    }

    fn exchange(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = self.operand_size(insn);
        let a = self.read_operand(insn, 0, size)?;
        let b = self.read_operand(insn, 1, size)?;
        // The memory side first: it may fault.
        let (memory, register) = if insn.op0_kind() == OpKind::Memory { (0, 1) } else { (1, 0) };
        let (to_memory, to_register) = if memory == 0 { (b, a) } else { (a, b) };
        self.write_operand(insn, memory, size, to_memory)?;
        self.write_operand(insn, register, size, to_register)
    }

    fn exchange_add(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = self.operand_size(insn);
        let a = self.read_operand(insn, 0, size)?;
        let b = self.read_operand(insn, 1, size)?;
        let result = alu::binary(Binary::Add, a, b, false, size);
        self.write_operand(insn, 0, size, result.value)?;
        self.set_status(result.flags, flags::STATUS);
        self.set_register(insn.op1_register(), a)
    }

    fn compare_exchange(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = self.operand_size(insn);
        let accumulator = match size {
            1 => Register::AL,
            2 => Register::AX,
            _ => Register::EAX,
        };
        let old = self.read_operand(insn, 0, size)?;
        let expected = self.register(accumulator)?;
        let result = alu::binary(Binary::Sub, expected, old, false, size);
        if expected == old {
            let new = self.read_operand(insn, 1, size)?;
            self.write_operand(insn, 0, size, new)?;
        } else {
            // The CPU writes the destination in every case (SDM 2A, CMPXCHG).
            self.write_operand(insn, 0, size, old)?;
            self.set_register(accumulator, old)?;
        }
        self.set_status(result.flags, flags::STATUS);
        Ok(())
    }

    fn compare_exchange_8(&mut self, insn: &Instruction) -> Emulated<()> {
        let address = self.memory_address(insn)?;
        let privilege = self.privilege();
        let old = self.read_u64(address, privilege)?;
        let expected = u64::from(self.gpr(0)) | u64::from(self.gpr(2)) << 32;
        let equal = old == expected;
        let new = if equal { u64::from(self.gpr(3)) | u64::from(self.gpr(1)) << 32 } else { old };
        self.write_linear(address, &new.to_le_bytes(), privilege)?;
        if !equal {
            self.set_gpr(0, old as u32);
            self.set_gpr(2, (old >> 32) as u32);
        }
        self.set_status(if equal { flags::ZF } else { 0 }, flags::ZF);
        Ok(())
    }

    /// BT family: with a register as bit number, the operand is a bit string that reaches beyond the operand's size.
    fn bit_op(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = self.operand_size(insn);
        let width = (size as u32) * 8;
        let mut address = self.memory_address(insn)?;
        let raw = self.read_operand(insn, 1, size)?;
        let bit = if insn.op1_kind() == OpKind::Register {
            let number = if size == 2 { raw as u16 as i16 as i32 } else { raw as i32 };
            address = address.wrapping_add((number.div_euclid(width as i32) as u32).wrapping_mul(size as u32));
            number.rem_euclid(width as i32) as u32
        } else {
            raw % width
        };
        let old = self.read_sized(address, size)?;
        let one = 1_u32 << bit;
        let new = match insn.mnemonic() {
            Mnemonic::Bts => old | one,
            Mnemonic::Btr => old & !one,
            Mnemonic::Btc => old ^ one,
            _ => old,
        };
        if insn.mnemonic() != Mnemonic::Bt {
            self.write_sized(address, size, new)?;
        }
        self.set_status(if old & one != 0 { flags::CF } else { 0 }, flags::CF);
        Ok(())
    }

    fn push_op(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = insn.stack_pointer_increment().unsigned_abs() as usize;
        let value = self.read_operand(insn, 0, if insn.op0_kind() == OpKind::Memory { size } else { 4 })?;
        self.push(value, size)
    }

    fn pop_op(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = insn.stack_pointer_increment().unsigned_abs() as usize;
        let value = self.peek(0, size)?;
        let esp = self.esp();
        // The destination address uses ESP after the pop (SDM 2B, POP).
        self.drop_stack(size as u32);
        self.write_operand(insn, 0, size, value).inspect_err(|_| self.set_esp(esp))
    }

    fn jump_near(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = insn.memory_size().size();
        let target = self.read_operand(insn, 0, size)?;
        self.set_eip(target);
        Ok(())
    }

    fn call_near(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = insn.stack_pointer_increment().unsigned_abs() as usize;
        let target = match insn.op0_kind() {
            OpKind::NearBranch16 | OpKind::NearBranch32 => insn.near_branch_target() as u32,
            _ => self.read_operand(insn, 0, size)?,
        };
        self.push(insn.next_ip32(), size)?;
        self.set_eip(target);
        Ok(())
    }
}
