//! What the short ways do for an instruction, worked out once when it is decoded: only frequent ones of flat kernel code have a recipe.

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use super::register_size;

/// A general register of 32 bits, other than ESP, by its number in x86 order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gpr(u8);

impl Gpr {
    fn of(register: Register) -> Option<Self> {
        let number = (register as usize).wrapping_sub(Register::EAX as usize);
        (register.is_gpr32() && number < 8 && register != Register::ESP).then_some(Self(number as u8))
    }

    /// Its place among the registers of a context.
    #[inline]
    pub(crate) const fn index(self) -> usize {
        (self.0 & 7) as usize
    }
}

/// A control register that can be read without more ado.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// CR0.
    Cr0,
    /// CR2.
    Cr2,
    /// CR3.
    Cr3,
    /// CR4.
    Cr4,
}

/// What names a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// The instruction.
    Fixed(u8),
    /// DX.
    Dx,
}

/// The short way of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// There is none.
    Long,
    /// CLI.
    Cli,
    /// STI.
    Sti,
    /// MOV from a control register.
    ReadControl(Control, Gpr),
    /// MOV to CR3.
    LoadCr3(Gpr),
    /// INVLPG of [register + displacement] in DS.
    Invalidate(Gpr, u32),
    /// IN into the accumulator, of so many bytes.
    Input(Port, u8),
    /// OUT from the accumulator, of so many bytes.
    Output(Port, u8),
    /// IRET with 32-bit operands.
    Return,
    /// CPUID.
    Identify,
    /// PUSHF of 32 bits.
    PushFlags,
    /// POPF of 32 bits.
    PopFlags,
    /// PUSH CS of 32 bits.
    PushCode,
    /// MOV from SS, of 32 bits.
    ReadStackSelector(Gpr),
}

impl Recipe {
    /// The recipe of a decoded instruction.
    pub(crate) fn of(insn: &Instruction) -> Self {
        match insn.mnemonic() {
            Mnemonic::Cli => Self::Cli,
            Mnemonic::Sti => Self::Sti,
            Mnemonic::Mov => Self::of_move(insn).unwrap_or(Self::Long),
            Mnemonic::In => Self::Input(port(insn, 1), register_size(insn.op0_register()) as u8),
            Mnemonic::Out => Self::Output(port(insn, 0), register_size(insn.op1_register()) as u8),
            Mnemonic::Iretd => Self::Return,
            Mnemonic::Cpuid => Self::Identify,
            Mnemonic::Pushfd => Self::PushFlags,
            Mnemonic::Popfd => Self::PopFlags,
            Mnemonic::Push if insn.code() == Code::Pushd_CS => Self::PushCode,
            Mnemonic::Invlpg => Self::of_invalidate(insn).unwrap_or(Self::Long),
            _ => Self::Long,
        }
    }

    fn of_move(insn: &Instruction) -> Option<Self> {
        if insn.op0_kind() != OpKind::Register || insn.op1_kind() != OpKind::Register {
            return None;
        }
        let control = match insn.op1_register() {
            Register::CR0 => Control::Cr0,
            Register::CR2 => Control::Cr2,
            Register::CR3 => Control::Cr3,
            Register::CR4 => Control::Cr4,
            Register::SS => return Some(Self::ReadStackSelector(Gpr::of(insn.op0_register())?)),
            from if insn.op0_register() == Register::CR3 => return Some(Self::LoadCr3(Gpr::of(from)?)),
            _ => return None,
        };
        Some(Self::ReadControl(control, Gpr::of(insn.op0_register())?))
    }

    fn of_invalidate(insn: &Instruction) -> Option<Self> {
        let plain = insn.memory_segment() == Register::DS && insn.memory_index() == Register::None;
        plain.then_some(Self::Invalidate(Gpr::of(insn.memory_base())?, insn.memory_displacement32()))
    }
}

fn port(insn: &Instruction, operand: u32) -> Port {
    if insn.op_kind(operand) == OpKind::Register { Port::Dx } else { Port::Fixed(insn.immediate8()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn recipe(bytes: &[u8]) -> Recipe {
        Recipe::of(&Decoder::new(32, bytes, DecoderOptions::NONE).decode())
    }

    #[test]
    fn frequent_instructions_have_one() {
        assert_eq!(recipe(&[0xfa]), Recipe::Cli);
        assert_eq!(recipe(&[0xfb]), Recipe::Sti);
        assert_eq!(recipe(&[0xcf]), Recipe::Return);
        assert_eq!(recipe(&[0x0f, 0xa2]), Recipe::Identify);
        assert_eq!(recipe(&[0x9c]), Recipe::PushFlags);
        assert_eq!(recipe(&[0x9d]), Recipe::PopFlags);
        assert_eq!(recipe(&[0x0e]), Recipe::PushCode);
        assert_eq!(recipe(&[0x8c, 0xd3]), Recipe::ReadStackSelector(Gpr(3)));
        assert_eq!(recipe(&[0xec]), Recipe::Input(Port::Dx, 1));
        assert_eq!(recipe(&[0x66, 0xed]), Recipe::Input(Port::Dx, 2));
        assert_eq!(recipe(&[0xe7, 0x80]), Recipe::Output(Port::Fixed(0x80), 4));
        assert_eq!(recipe(&[0xee]), Recipe::Output(Port::Dx, 1));
        assert_eq!(recipe(&[0x0f, 0x20, 0xd1]), Recipe::ReadControl(Control::Cr2, Gpr(1)));
        assert_eq!(recipe(&[0x0f, 0x22, 0xdf]), Recipe::LoadCr3(Gpr(7)));
        assert_eq!(recipe(&[0x0f, 0x01, 0x3b]), Recipe::Invalidate(Gpr(3), 0));
        assert_eq!(recipe(&[0x0f, 0x01, 0x7f, 0xfc]), Recipe::Invalidate(Gpr(7), 0xffff_fffc));
    }

    #[test]
    fn what_is_not_plain_has_none() {
        assert_eq!(recipe(&[0x0f, 0x20, 0xc4]), Recipe::Long, "into ESP");
        assert_eq!(recipe(&[0x0f, 0x22, 0xc0]), Recipe::Long, "a write of CR0");
        assert_eq!(recipe(&[0x0f, 0x21, 0xc0]), Recipe::Long, "a debug register");
        assert_eq!(recipe(&[0x0f, 0x01, 0x7d, 0xfc]), Recipe::Long, "the stack segment");
        assert_eq!(recipe(&[0x64, 0x0f, 0x01, 0x3b]), Recipe::Long, "another segment");
        assert_eq!(recipe(&[0x0f, 0x01, 0x3c, 0x0b]), Recipe::Long, "an index");
        assert_eq!(recipe(&[0x67, 0x0f, 0x01, 0x3f]), Recipe::Long, "a 16-bit address");
        assert_eq!(recipe(&[0x0f, 0x01, 0x3d, 0, 0, 0, 0]), Recipe::Long, "an address alone");
        assert_eq!(recipe(&[0x66, 0xcf]), Recipe::Long, "16-bit operands");
        assert_eq!(recipe(&[0x89, 0xc8]), Recipe::Long, "a plain MOV");
        for one in [0x9c, 0x9d, 0x0e] {
            assert_eq!(recipe(&[0x66, one]), Recipe::Long, "16 bits");
        }
        assert_eq!(recipe(&[0x66, 0x8c, 0xd3]), Recipe::Long, "16 bits");
        assert_eq!(recipe(&[0x8c, 0x13]), Recipe::Long, "into memory");
        assert_eq!(recipe(&[0x8c, 0xcb]), Recipe::Long, "MOV from CS");
        assert_eq!(recipe(&[0x16]), Recipe::Long, "PUSH SS");
    }
}
