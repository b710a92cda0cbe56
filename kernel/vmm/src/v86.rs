//! Virtual-8086 mode (SDM 3B chapter 20). Long mode has none, so its code does not run deprivileged; but it can be entered, by IRET and
//! by a task switch, and left by what its first instruction raises, which the guest gets as on the CPU. Any other instruction stops the VM.
//! A hardware guest's runs in the CPU, until an instruction there has to be emulated, which stops the VM.
//!
//! While EFLAGS.VM is set the segment registers hold plain numbers, which `Vcpu::v86` keeps; the CPU's own are flat ones of ring 3.

use gnomon_hw::SegReg;
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic, Register};
use shadow_mmu::{Access, AccessKind, Privilege};

use crate::trap::{Emulated, Exception, StopReason};
use crate::vcpu::{Selector, flags};
use crate::vm::Vm;

/// Longest instruction.
const MAX_LENGTH: usize = 15;
const FETCH: Access = Access { kind: AccessKind::Fetch, privilege: Privilege::User };

/// The segment registers, in the order of a TSS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments(pub [u16; 6]);

impl Segments {
    /// The number in a segment register.
    #[must_use]
    pub fn get(&self, reg: SegReg) -> u16 {
        let [es, cs, ss, ds, fs, gs] = self.0;
        match reg {
            SegReg::Es => es,
            SegReg::Cs => cs,
            SegReg::Ss => ss,
            SegReg::Ds => ds,
            SegReg::Fs => fs,
            SegReg::Gs => gs,
        }
    }
}

impl Vm {
    /// Whether the guest is in virtual-8086 mode.
    #[must_use]
    pub(crate) fn in_v86(&self) -> bool {
        self.vcpu.system_flags & flags::VM != 0
    }

    /// Enters virtual-8086 mode with these segments; EIP, ESP and the other flags are loaded already.
    ///
    /// # Errors
    /// What the first instruction there raises, unless the CPU runs it.
    pub(crate) fn enter_v86(&mut self, segments: Segments) -> Emulated<()> {
        if self.world.is_hardware() {
            self.load_v86(segments);
            return Ok(());
        }
        for reg in [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs] {
            self.load_segment(reg, Selector(0))?;
        }
        self.load_flat(0, 0, 3)?;
        self.vcpu.v86 = segments;
        self.vcpu.system_flags |= flags::VM;
        let ip = self.eip() as u16;
        let insn = self.decode_v86(segments.get(SegReg::Cs), ip)?;
        Err(raised(&insn, self.vcpu.iopl()).map_or_else(|| StopReason::Virtual8086.into(), Into::into))
    }

    /// IRET with VM in its image, at privilege level 0: the frame has all segments.
    pub(crate) fn return_to_v86(&mut self, [eip, cs, image]: [u32; 3]) -> Emulated<()> {
        let mut rest = [0; 6]; // ESP, SS, ES, DS, FS, GS
        for (distance, place) in (12..).step_by(4).zip(&mut rest) {
            *place = self.peek(distance, 4)?;
        }
        let [esp, ss, es, ds, fs, gs] = rest;
        self.set_eip(eip & 0xffff);
        self.set_esp(esp);
        self.load_flags(image, flags::REAL | flags::RF | flags::IF | flags::IOPL | flags::NT);
        self.enter_v86(Segments([es, cs, ss, ds, fs, gs].map(|segment| segment as u16)))
    }

    fn decode_v86(&mut self, cs: u16, ip: u16) -> Emulated<Instruction> {
        let first = (u32::from(cs) << 4).wrapping_add(ip.into());
        let mut bytes = [0; MAX_LENGTH];
        let in_page = (0x1000 - (first as usize & 0xfff)).min(MAX_LENGTH);
        let (here, beyond) = bytes.split_at_mut(in_page);
        self.read_walked(first, here, FETCH)?;
        let (insn, cut) = decode(here, ip);
        if !cut || beyond.is_empty() {
            return Ok(insn);
        }
        self.read_walked(first.wrapping_add(in_page as u32), beyond, FETCH)?;
        Ok(decode(&bytes, ip).0)
    }
}

/// The instruction, and whether the bytes end within it.
fn decode(bytes: &[u8], ip: u16) -> (Instruction, bool) {
    let mut decoder = Decoder::with_ip(16, bytes, ip.into(), DecoderOptions::NONE);
    let insn = decoder.decode();
    (insn, insn.is_invalid() && decoder.last_error() == DecoderError::NoMoreBytes)
}

/// The exception that an instruction raises in virtual-8086 mode, if it raises one whatever its operands are (SDM 3B 20.2).
fn raised(insn: &Instruction, iopl: u8) -> Option<Exception> {
    let control = |register: Register| register.is_cr() || register.is_dr() || register.is_tr();
    match insn.mnemonic() {
        _ if insn.is_invalid() => Some(Exception::ud()),
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => Some(Exception::ud()),
        Mnemonic::Sldt | Mnemonic::Str | Mnemonic::Lldt | Mnemonic::Ltr | Mnemonic::Verr | Mnemonic::Verw => {
            Some(Exception::ud())
        }
        Mnemonic::Lar | Mnemonic::Lsl | Mnemonic::Arpl | Mnemonic::Sysexit => Some(Exception::ud()),
        Mnemonic::Cli | Mnemonic::Sti | Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Popf | Mnemonic::Popfd
            if iopl < 3 =>
        {
            Some(Exception::gp(0))
        }
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Int if iopl < 3 => Some(Exception::gp(0)),
        Mnemonic::Hlt | Mnemonic::Lgdt | Mnemonic::Lidt | Mnemonic::Lmsw | Mnemonic::Clts | Mnemonic::Invlpg => {
            Some(Exception::gp(0))
        }
        Mnemonic::Rdmsr | Mnemonic::Wrmsr | Mnemonic::Invd | Mnemonic::Wbinvd => Some(Exception::gp(0)),
        Mnemonic::Mov if control(insn.op0_register()) || control(insn.op1_register()) => Some(Exception::gp(0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trap::vector;

    #[test]
    fn what_faults_by_itself_is_known() {
        let vector = |bytes: &[u8], iopl| raised(&decode(bytes, 0).0, iopl).map(|exception| exception.vector);
        assert_eq!(vector(&[0x0f, 0x0b], 0), Some(vector::UD));
        assert_eq!(vector(&[0x0f, 0x00, 0xc0], 3), Some(vector::UD)); // sldt
        assert_eq!([vector(&[0xfa], 0), vector(&[0xfa], 3)], [Some(vector::GP), None]);
        assert_eq!([vector(&[0xcd, 0x10], 2), vector(&[0xcd, 0x10], 3)], [Some(vector::GP), None]);
        assert_eq!(vector(&[0xf4], 3), Some(vector::GP));
        assert_eq!(vector(&[0x0f, 0x20, 0xc0], 3), Some(vector::GP));
        assert_eq!(vector(&[0x90], 0), None);
        assert!(decode(&[0x0f], 0).1);
    }
}
