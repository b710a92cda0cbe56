//! Operands: registers and memory as the decoder names them.

use gnomon_hw::SegReg;
use iced_x86::{Instruction, OpKind, Register};

use crate::trap::{Emulated, Exception, StopReason};
use crate::vm::Vm;

/// Number of a general register in x86 order and which part of it is meant.
struct Part {
    index: usize,
    shift: u32,
    mask: u32,
}

fn part(register: Register) -> Option<Part> {
    let number = |first: Register| (register as usize).wrapping_sub(first as usize);
    if register.is_gpr32() {
        Some(Part { index: number(Register::EAX), shift: 0, mask: u32::MAX })
    } else if register.is_gpr16() {
        Some(Part { index: number(Register::AX), shift: 0, mask: 0xffff })
    } else if register.is_gpr8() {
        let index = number(Register::AL);
        // AL CL DL BL AH CH DH BH, then the bytes that only 64-bit code can name.
        (index < 8).then_some(Part { index: index & 3, shift: if index < 4 { 0 } else { 8 }, mask: 0xff })
    } else {
        None
    }
}

/// The segment register behind a decoder's name.
pub(crate) fn segment_register(register: Register) -> Option<SegReg> {
    Some(match register {
        Register::ES => SegReg::Es,
        Register::CS => SegReg::Cs,
        Register::SS => SegReg::Ss,
        Register::DS => SegReg::Ds,
        Register::FS => SegReg::Fs,
        Register::GS => SegReg::Gs,
        _ => return None,
    })
}

const ESP: usize = 4;

impl Vm {
    /// A whole general register by its number in x86 order (0 EAX, 1 ECX, ...).
    #[must_use]
    pub(crate) fn gpr(&self, index: usize) -> u32 {
        let context = self.world.context();
        if index == ESP { context.rsp as u32 } else { context.gpr.get(index).copied().unwrap_or(0) as u32 }
    }

    /// Sets a whole general register.
    pub(crate) fn set_gpr(&mut self, index: usize, value: u32) {
        let context = self.world.context_mut();
        if index == ESP {
            context.rsp = value.into();
        } else if let Some(place) = context.gpr.get_mut(index) {
            *place = value.into();
        }
    }

    /// Reads a general register of any width.
    ///
    /// # Errors
    /// [`StopReason::Unemulated`] if it is not a general register of 32-bit code.
    pub(crate) fn register(&self, register: Register) -> Emulated<u32> {
        let part = part(register).ok_or(StopReason::Unemulated)?;
        Ok((self.gpr(part.index) >> part.shift) & part.mask)
    }

    /// Writes a general register of any width; the other bits stay.
    ///
    /// # Errors
    /// As [`Vm::register`].
    pub(crate) fn set_register(&mut self, register: Register, value: u32) -> Emulated<()> {
        let part = part(register).ok_or(StopReason::Unemulated)?;
        let kept = self.gpr(part.index) & !(part.mask << part.shift);
        self.set_gpr(part.index, kept | (value & part.mask) << part.shift);
        Ok(())
    }

    /// Offset of the memory operand inside its segment.
    pub(crate) fn effective_address(&self, insn: &Instruction) -> u32 {
        let read = |register: Register| self.register(register).unwrap_or(0);
        let sum = read(insn.memory_base())
            .wrapping_add(read(insn.memory_index()).wrapping_mul(insn.memory_index_scale()))
            .wrapping_add(insn.memory_displacement32());
        let narrow = insn.memory_base().is_gpr16()
            || insn.memory_index().is_gpr16()
            || (insn.memory_base() == Register::None
                && insn.memory_index() == Register::None
                && insn.memory_displ_size() == 2);
        if narrow { sum & 0xffff } else { sum }
    }

    /// Linear address of the memory operand.
    ///
    /// # Errors
    /// #GP(0), or #SS(0) for the stack segment, when the segment register is null or the segment forbids the access. Limits are not
    /// checked: the emulators do not check them either (see docs/architecture.md).
    pub(crate) fn memory_address(&self, insn: &Instruction) -> Emulated<u32> {
        let segment = segment_register(insn.memory_segment()).ok_or(StopReason::Unemulated)?;
        self.linear(segment, self.effective_address(insn))
    }

    /// Linear address of an offset in a segment.
    ///
    /// # Errors
    /// #GP(0) if the register holds a null selector.
    pub(crate) fn linear(&self, segment: SegReg, offset: u32) -> Emulated<u32> {
        match self.loaded_descriptor(segment) {
            Some(descriptor) => Ok(descriptor.base().wrapping_add(offset)),
            None => Err(Exception::gp(0).into()),
        }
    }

    /// Reads a memory or register operand of up to 4 bytes.
    pub(crate) fn read_operand(&mut self, insn: &Instruction, operand: u32, size: usize) -> Emulated<u32> {
        match insn.op_kind(operand) {
            OpKind::Register => self.register_any(insn.op_register(operand)),
            OpKind::Memory => {
                let address = self.memory_address(insn)?;
                self.read_sized(address, size)
            }
            OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8_2nd => Ok(insn.immediate(operand) as u32),
            _ => Err(StopReason::Unemulated.into()),
        }
    }

    /// Writes a memory or register operand of up to 4 bytes.
    pub(crate) fn write_operand(&mut self, insn: &Instruction, operand: u32, size: usize, value: u32) -> Emulated<()> {
        match insn.op_kind(operand) {
            OpKind::Register => self.set_register(insn.op_register(operand), value),
            OpKind::Memory => {
                let address = self.memory_address(insn)?;
                self.write_sized(address, size, value)
            }
            _ => Err(StopReason::Unemulated.into()),
        }
    }

    /// A general or a segment register.
    fn register_any(&self, register: Register) -> Emulated<u32> {
        match segment_register(register) {
            Some(segment) => Ok(self.visible_selector_any(segment).into()),
            None => self.register(register),
        }
    }

    /// The selector that MOV from a segment register gives.
    #[must_use]
    pub(crate) fn visible_selector_any(&self, segment: SegReg) -> u16 {
        match segment {
            _ if self.in_v86() => self.vcpu.v86.get(segment),
            SegReg::Cs | SegReg::Ss => self.visible_selector(segment).0,
            _ => self.world.segment(segment),
        }
    }

    /// Reads `size` (1, 2 or 4) bytes at a linear address with the rights of the running code.
    pub(crate) fn read_sized(&mut self, address: u32, size: usize) -> Emulated<u32> {
        let mut bytes = [0; 4];
        let privilege = self.privilege();
        self.note_data(address, size, false);
        self.read_linear(address, bytes.get_mut(..size).ok_or(StopReason::Unemulated)?, privilege)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Writes `size` (1, 2 or 4) bytes at a linear address with the rights of the running code.
    pub(crate) fn write_sized(&mut self, address: u32, size: usize, value: u32) -> Emulated<()> {
        let privilege = self.privilege();
        self.note_data(address, size, true);
        self.write_linear(address, value.to_le_bytes().get(..size).ok_or(StopReason::Unemulated)?, privilege)
    }

    /// Pushes a word or doubleword on the current stack.
    pub(crate) fn push(&mut self, value: u32, size: usize) -> Emulated<()> {
        let esp = self.stack_offset(self.esp().wrapping_sub(size as u32));
        let address = self.linear(SegReg::Ss, esp.0)?;
        self.write_sized(address, size, value)?;
        self.set_esp(esp.1);
        Ok(())
    }

    /// Reads the stack at a distance from its top, without popping.
    pub(crate) fn peek(&mut self, distance: u32, size: usize) -> Emulated<u32> {
        let esp = self.stack_offset(self.esp().wrapping_add(distance));
        let address = self.linear(SegReg::Ss, esp.0)?;
        self.read_sized(address, size)
    }

    /// Drops bytes from the stack.
    pub(crate) fn drop_stack(&mut self, bytes: u32) {
        let esp = self.stack_offset(self.esp().wrapping_add(bytes));
        self.set_esp(esp.1);
    }

    /// A stack pointer as (offset in the segment, new ESP): 16-bit stacks leave the high half of ESP alone.
    fn stack_offset(&self, esp: u32) -> (u32, u32) {
        if self.stack_is_big() { (esp, esp) } else { (esp & 0xffff, (self.esp() & !0xffff) | (esp & 0xffff)) }
    }
}
