//! Moves between memory and the XMM and MMX registers, which compilers make of copies: on device memory and on page tables.
//!
//! The registers are in the CPU; one is reached by an FXSAVE image of all (SDM 1 10.5.1), so the kernel needs no SSE instruction.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use crate::trap::{Emulated, Exception, StopReason};
use crate::vm::Vm;

/// Bytes of the widest register.
const WIDEST: usize = 16;
/// Places in the image: FSW, the tags, ST0 (or MMX registers), XMM0.
const STATUS: usize = 2;
const TAGS: usize = 4;
const STACK: usize = 32;
const XMM: usize = 160;
/// Exponent and sign of an x87 register that MMX wrote.
const MMX_TOP: [u8; 2] = [0xff; 2];

/// Which part of a register moves, and what a load does to the rest of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// Bytes that move.
    bytes: usize,
    /// The first of them in the register.
    at: usize,
    /// A load clears all else of an XMM register.
    clears: bool,
    /// Memory must be aligned to 16 bytes.
    aligned: bool,
}

impl Part {
    /// What a MOV between memory and such a register moves; `None` for any other instruction.
    const fn of(mnemonic: Mnemonic) -> Option<Self> {
        let (bytes, at, clears, aligned) = match mnemonic {
            Mnemonic::Movaps | Mnemonic::Movapd | Mnemonic::Movdqa => (16, 0, false, true),
            Mnemonic::Movntps | Mnemonic::Movntpd | Mnemonic::Movntdq | Mnemonic::Movntdqa => (16, 0, false, true),
            Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movdqu | Mnemonic::Lddqu => (16, 0, false, false),
            Mnemonic::Movq | Mnemonic::Movsd => (8, 0, true, false),
            Mnemonic::Movd | Mnemonic::Movss => (4, 0, true, false),
            Mnemonic::Movlps | Mnemonic::Movlpd | Mnemonic::Movntq => (8, 0, false, false),
            Mnemonic::Movhps | Mnemonic::Movhpd => (8, 8, false, false),
            _ => return None,
        };
        Some(Self { bytes, at, clears, aligned })
    }

    /// What a load makes of an XMM register.
    fn load(self, register: &mut [u8], value: &[u8]) {
        if self.clears {
            register.fill(0);
        }
        if let Some(place) = register.get_mut(self.at..self.at.saturating_add(value.len())) {
            place.copy_from_slice(value);
        }
    }
}

/// The place of an XMM register in the image.
fn xmm_place(image: &mut [u8], register: Register) -> Option<&mut [u8]> {
    let number = (register as usize).wrapping_sub(Register::XMM0 as usize);
    (number < 8)
        .then(|| image.get_mut(XMM..)?.as_chunks_mut::<WIDEST>().0.get_mut(number).map(<[u8; 16]>::as_mut_slice))?
}

/// The place of an MMX register in the image, which has the x87 stack from its top on.
fn mmx_place(image: &mut [u8], register: Register) -> Option<&mut [u8]> {
    let number = (register as usize).wrapping_sub(Register::MM0 as usize);
    let top = usize::from(image.get(STATUS..)?.first_chunk::<2>().map(|word| u16::from_le_bytes(*word))? >> 11 & 7);
    let place = number.wrapping_sub(top) & 7;
    (number < 8)
        .then(|| image.get_mut(STACK..)?.as_chunks_mut::<WIDEST>().0.get_mut(place).map(<[u8; 16]>::as_mut_slice))?
}

/// What every MMX instruction does to the x87 state: TOP becomes 0, all tags valid (SDM 1 9.5.1).
fn begin_mmx(image: &mut [u8]) {
    let Some(top) = image.get(STATUS.saturating_add(1)).map(|byte| usize::from(byte >> 3 & 7)) else { return };
    if let Some(stack) = image.get_mut(STACK..XMM) {
        // ST(i) is register TOP + i.
        stack.rotate_right(top.saturating_mul(WIDEST));
    }
    if let Some(byte) = image.get_mut(STATUS.saturating_add(1)) {
        *byte &= !0x38;
    }
    if let Some(tags) = image.get_mut(TAGS) {
        *tags = u8::MAX;
    }
}

impl Vm {
    /// Does a move between memory and an XMM or MMX register.
    ///
    /// # Errors
    /// #GP(0) for memory that should be aligned; [`StopReason::Unemulated`] for any other instruction.
    pub(super) fn move_vector(&mut self, insn: &Instruction) -> Emulated<()> {
        let part = Part::of(insn.mnemonic()).ok_or(StopReason::Unemulated)?;
        let store = insn.op0_kind() == OpKind::Memory;
        let register = if store { insn.op1_register() } else { insn.op0_register() };
        let moves = insn.op_count() == 2 && (register.is_xmm() || register.is_mm());
        if !moves || !(store || insn.op1_kind() == OpKind::Memory) {
            return Err(StopReason::Unemulated.into());
        }
        let address = self.memory_address(insn)?;
        if part.aligned && address % WIDEST as u32 != 0 {
            return Err(Exception::gp(0).into());
        }
        let mut buffer = [0; WIDEST];
        let bytes = buffer.get_mut(..part.bytes).ok_or(StopReason::Unemulated)?;
        let privilege = self.privilege();
        self.note_data(address, part.bytes, store);
        if store {
            self.world.edit_fpu(|image| {
                let place = if register.is_mm() { mmx_place(image, register) } else { xmm_place(image, register) };
                if let Some(value) = place.and_then(|place| place.get(part.at..part.at.saturating_add(part.bytes))) {
                    bytes.copy_from_slice(value);
                }
                if register.is_mm() {
                    begin_mmx(image);
                }
                register.is_mm()
            });
            return self.write_linear(address, bytes, privilege);
        }
        self.read_linear(address, bytes, privilege)?;
        self.world.edit_fpu(|image| {
            if register.is_xmm() {
                if let Some(place) = xmm_place(image, register) {
                    part.load(place, bytes);
                }
                return true;
            }
            begin_mmx(image);
            if let Some(place) = mmx_place(image, register) {
                place.fill(0);
                place.iter_mut().zip(bytes.iter().copied()).for_each(|(place, byte)| *place = byte);
                place.iter_mut().skip(8).zip(MMX_TOP).for_each(|(place, byte)| *place = byte);
            }
            true
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_keeps_or_clears_the_rest() {
        let load = |mnemonic, value: &[u8]| {
            let mut register = [0xee; WIDEST];
            Part::of(mnemonic).unwrap().load(&mut register, value);
            u128::from_be_bytes(register)
        };
        assert_eq!(load(Mnemonic::Movss, &[1, 2, 3, 4]), 0x0102_0304 << 96);
        assert_eq!(load(Mnemonic::Movhps, &[1; 8]), 0xeeee_eeee_eeee_eeee_0101_0101_0101_0101);
        assert_eq!(load(Mnemonic::Movlpd, &[1; 8]), 0x0101_0101_0101_0101_eeee_eeee_eeee_eeee);
        assert_eq!(load(Mnemonic::Movaps, &[1; 16]), u128::from_ne_bytes([1; 16]));
        assert_eq!(Part::of(Mnemonic::Addps), None);
    }

    #[test]
    fn mmx_registers_are_found_from_any_top_of_the_stack() {
        for top in 0..8_u8 {
            let mut image = [0_u8; 512];
            image[STATUS + 1] = top << 3 | 0x41;
            for number in 0..8 {
                image[STACK + WIDEST * (number + 8 - usize::from(top)) % 128] = number as u8;
            }
            for number in 0..8_u8 {
                let register = Register::MM0 + u32::from(number);
                assert_eq!(mmx_place(&mut image, register).unwrap()[0], number);
            }
            begin_mmx(&mut image);
            assert_eq!((image[STATUS + 1], image[TAGS]), (0x41, 0xff));
            for number in 0..8_u8 {
                let register = Register::MM0 + u32::from(number);
                assert_eq!(mmx_place(&mut image, register).unwrap()[0], number);
                assert_eq!(image[STACK + WIDEST * usize::from(number)], number);
            }
        }
    }
}
