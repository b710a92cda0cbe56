//! Integer instructions with a memory operand that kernels seldom use on page tables or devices, and compilers sometimes.

use iced_x86::{ConditionCode, Instruction, Mnemonic, OpKind, Register};

use super::multiply::{self, Product};
use super::shift::{Shift, shift};
use crate::trap::{Emulated, Exception, StopReason, vector};
use crate::vcpu::flags;
use crate::vm::Vm;

/// Accumulator and its extension: AL and AH, AX and DX, EAX and EDX.
const fn accumulators(size: usize) -> (Register, Register) {
    match size {
        1 => (Register::AL, Register::AH),
        2 => (Register::AX, Register::DX),
        _ => (Register::EAX, Register::EDX),
    }
}

/// Whether a condition holds (SDM 1, appendix B).
const fn holds(condition: ConditionCode, status: u32) -> bool {
    let (carry, zero) = (set_in(status, flags::CF), set_in(status, flags::ZF));
    let (sign, overflow) = (set_in(status, flags::SF), set_in(status, flags::OF));
    let parity = set_in(status, flags::PF);
    match condition {
        ConditionCode::o => overflow,
        ConditionCode::no => !overflow,
        ConditionCode::b => carry,
        ConditionCode::ae => !carry,
        ConditionCode::e => zero,
        ConditionCode::ne => !zero,
        ConditionCode::be => carry || zero,
        ConditionCode::a => !(carry || zero),
        ConditionCode::s => sign,
        ConditionCode::ns => !sign,
        ConditionCode::p => parity,
        ConditionCode::np => !parity,
        ConditionCode::l => sign != overflow,
        ConditionCode::ge => sign == overflow,
        ConditionCode::le => zero || sign != overflow,
        ConditionCode::g => !zero && sign == overflow,
        ConditionCode::None => true,
    }
}

const fn set_in(status: u32, flag: u32) -> bool {
    status & flag != 0
}

impl Vm {
    /// Executes one of the instructions of this file.
    ///
    /// # Errors
    /// [`StopReason::Unemulated`] for any other.
    pub(super) fn execute_integer(&mut self, insn: &Instruction) -> Emulated<()> {
        match insn.mnemonic() {
            Mnemonic::Rol
            | Mnemonic::Ror
            | Mnemonic::Rcl
            | Mnemonic::Rcr
            | Mnemonic::Shl
            | Mnemonic::Sal
            | Mnemonic::Shr
            | Mnemonic::Sar
            | Mnemonic::Shld
            | Mnemonic::Shrd => self.shift_op(insn),
            Mnemonic::Imul if insn.op_count() > 1 => self.multiply_into_register(insn),
            Mnemonic::Mul | Mnemonic::Imul => self.multiply_accumulator(insn),
            Mnemonic::Div | Mnemonic::Idiv => self.divide_accumulator(insn),
            Mnemonic::Bsf | Mnemonic::Bsr => self.bit_scan(insn),
            Mnemonic::Popcnt => self.count_bits(insn),
            Mnemonic::Movnti => {
                let value = self.read_operand(insn, 1, 4)?;
                self.write_operand(insn, 0, 4, value)
            }
            Mnemonic::Movbe => self.move_swapped(insn),
            Mnemonic::Xlatb => {
                let value = self.read_operand(insn, 0, 1)?;
                self.set_register(Register::AL, value)
            }
            _ if insn.condition_code() != ConditionCode::None => self.conditional(insn),
            _ => self.move_vector(insn),
        }
    }

    fn shift_op(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = self.operand_size(insn);
        let double = insn.op_count() == 3;
        let from = if double { self.read_operand(insn, 1, size)? } else { 0 };
        let count = self.read_operand(insn, if double { 2 } else { 1 }, 1)?;
        let op = Shift::of(insn.mnemonic(), from).ok_or(StopReason::Unemulated)?;
        let value = self.read_operand(insn, 0, size)?;
        let Some(result) = shift(op, value, count, self.carry(), size) else {
            // The CPU writes the operand all the same, so that it faults where the rights for it lack.
            return self.write_operand(insn, 0, size, value);
        };
        self.write_operand(insn, 0, size, result.value)?;
        self.set_status(result.flags, op.flags());
        Ok(())
    }

    fn set_product_flags(&mut self, product: Product) {
        let both = flags::CF | flags::OF;
        self.set_status(if product.wide { both } else { 0 }, both);
    }

    fn multiply_into_register(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = super::register_size(insn.op0_register());
        let (a, b) = if insn.op_count() == 3 { (1, 2) } else { (0, 1) };
        let (a, b) = (self.read_operand(insn, a, size)?, self.read_operand(insn, b, size)?);
        let product = multiply::multiply_signed(a, b, size);
        self.set_register(insn.op0_register(), product.low)?;
        self.set_product_flags(product);
        Ok(())
    }

    fn multiply_accumulator(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = self.operand_size(insn);
        let (low, high) = accumulators(size);
        let (a, b) = (self.register(low)?, self.read_operand(insn, 0, size)?);
        let multiply = if insn.mnemonic() == Mnemonic::Mul { multiply::multiply } else { multiply::multiply_signed };
        let product = multiply(a, b, size);
        self.set_register(low, product.low)?;
        self.set_register(high, product.high)?;
        self.set_product_flags(product);
        Ok(())
    }

    fn divide_accumulator(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = self.operand_size(insn);
        let (low, high) = accumulators(size);
        let by = self.read_operand(insn, 0, size)?;
        let divide = if insn.mnemonic() == Mnemonic::Div { multiply::divide } else { multiply::divide_signed };
        let done = divide(self.register(high)?, self.register(low)?, by, size);
        let (quotient, remainder) = done.ok_or(Exception::plain(vector::DE))?;
        self.set_register(low, quotient)?;
        self.set_register(high, remainder)
    }

    /// BSF and BSR leave the register as it was when there is no bit (SDM 2A calls it undefined; all CPUs do).
    fn bit_scan(&mut self, insn: &Instruction) -> Emulated<()> {
        let value = self.read_operand(insn, 1, super::register_size(insn.op0_register()))?;
        let found = if insn.mnemonic() == Mnemonic::Bsf { Some(value.trailing_zeros()) } else { value.checked_ilog2() };
        if let Some(bit) = found.filter(|_| value != 0) {
            self.set_register(insn.op0_register(), bit)?;
        }
        self.set_status(if value == 0 { flags::ZF } else { 0 }, flags::ZF);
        Ok(())
    }

    fn count_bits(&mut self, insn: &Instruction) -> Emulated<()> {
        let value = self.read_operand(insn, 1, super::register_size(insn.op0_register()))?;
        self.set_register(insn.op0_register(), value.count_ones())?;
        self.set_status(if value == 0 { flags::ZF } else { 0 }, flags::STATUS);
        Ok(())
    }

    fn move_swapped(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = self.operand_size(insn);
        let value = self.read_operand(insn, 1, size)?;
        let swapped = if size == 2 { u32::from((value as u16).swap_bytes()) } else { value.swap_bytes() };
        self.write_operand(insn, 0, size, swapped)
    }

    /// SETcc and CMOVcc.
    fn conditional(&mut self, insn: &Instruction) -> Emulated<()> {
        let condition = holds(insn.condition_code(), self.world.context().rflags as u32);
        if insn.op_count() == 1 && insn.op0_kind() == OpKind::Memory {
            return self.write_operand(insn, 0, 1, condition.into());
        }
        if insn.op_count() != 2 || !insn.op0_register().is_gpr() {
            return Err(StopReason::Unemulated.into());
        }
        // The memory is read whatever the condition says.
        let value = self.read_operand(insn, 1, super::register_size(insn.op0_register()))?;
        if condition { self.set_register(insn.op0_register(), value) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_their_opposites() {
        use ConditionCode as C;
        for status in 0..=0xfff {
            let pairs = [
                (C::o, C::no),
                (C::b, C::ae),
                (C::e, C::ne),
                (C::be, C::a),
                (C::s, C::ns),
                (C::p, C::np),
                (C::l, C::ge),
                (C::le, C::g),
            ];
            for (one, other) in pairs {
                assert_ne!(holds(one, status), holds(other, status));
            }
        }
        assert!(holds(C::l, flags::SF) && holds(C::ge, flags::SF | flags::OF));
        assert!(holds(C::a, 0) && holds(C::be, flags::CF) && holds(C::le, flags::ZF));
    }
}
