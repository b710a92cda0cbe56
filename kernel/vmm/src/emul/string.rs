//! String instructions: LODS, STOS, MOVS, CMPS and SCAS, a repeated one in batches.

use gnomon_hw::SegReg;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::Next;
use super::alu::{self, Binary};
use super::operand::segment_register;
use crate::trap::Emulated;
use crate::vcpu::flags;
use crate::vm::Vm;

/// Elements of a repeated string instruction done in one exit.
const STRING_BATCH: u32 = 1024;

const ECX: usize = 1;
const ESI: usize = 6;
const EDI: usize = 7;

/// What is done with each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Load,
    Store,
    Move,
    Compare,
    Scan,
}

/// A string instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StringOp {
    kind: Kind,
    /// Bytes of an element.
    size: usize,
}

impl StringOp {
    /// The string instruction that this is; MOVSD and CMPSD are also names of SSE instructions.
    pub(crate) fn of(insn: &Instruction) -> Option<Self> {
        let string = (0..2).any(|n| {
            matches!(
                insn.op_kind(n),
                OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemoryESDI | OpKind::MemoryESEDI
            )
        });
        let kind = match insn.mnemonic() {
            Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd => Kind::Load,
            Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd => Kind::Store,
            Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd => Kind::Move,
            Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd => Kind::Compare,
            Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd => Kind::Scan,
            _ => return None,
        };
        string.then(|| Self { kind, size: insn.memory_size().size() })
    }

    const fn has_source(self) -> bool {
        matches!(self.kind, Kind::Load | Kind::Move | Kind::Compare)
    }

    const fn has_destination(self) -> bool {
        !matches!(self.kind, Kind::Load)
    }

    const fn accumulator(self) -> Register {
        match self.size {
            1 => Register::AL,
            2 => Register::AX,
            _ => Register::EAX,
        }
    }
}

/// Index and count registers of 16 or 32 bits.
fn address_mask(insn: &Instruction) -> u32 {
    let narrow = (0..2).any(|n| matches!(insn.op_kind(n), OpKind::MemorySegSI | OpKind::MemoryESDI));
    if narrow { 0xffff } else { u32::MAX }
}

impl Vm {
    /// Does a string instruction, with a repeat prefix up to [`STRING_BATCH`] elements of it.
    pub(super) fn string_op(&mut self, insn: &Instruction, op: StringOp) -> Emulated<Next> {
        let mask = address_mask(insn);
        let repeated = insn.has_rep_prefix() || insn.has_repne_prefix();
        let backwards = self.world.context().rflags as u32 & flags::DF != 0;
        let step = if backwards { (op.size as u32).wrapping_neg() } else { op.size as u32 };
        let tracked = self.is_tracked_write();
        for _ in 0..STRING_BATCH {
            if repeated && self.gpr(ECX) & mask == 0 {
                return Ok(Next::Advance);
            }
            let equal = self.string_element(insn, op, mask)?;
            if op.has_source() {
                self.add_masked(ESI, step, mask);
            }
            if op.has_destination() {
                self.add_masked(EDI, step, mask);
            }
            if !repeated {
                return Ok(Next::Advance);
            }
            self.add_masked(ECX, u32::MAX, mask);
            // REPE goes on while the elements are equal, REPNE while they differ.
            if equal.is_some_and(|equal| equal == insn.has_repne_prefix()) {
                return Ok(Next::Advance);
            }
            if tracked && !self.is_tracked_write() {
                // What the writes did has ended it: the CPU does the others faster.
                break;
            }
        }
        Ok(Next::Stay)
    }

    /// Is the frame still tracked that the instruction is emulated for?
    fn is_tracked_write(&self) -> bool {
        self.write_hint.is_some_and(|hint| !self.mmu.write_kind(hint.frame.gfn()).is_plain())
    }

    fn add_masked(&mut self, register: usize, step: u32, mask: u32) {
        let old = self.gpr(register);
        self.set_gpr(register, (old & !mask) | (old.wrapping_add(step) & mask));
    }

    /// One element; the answer of a comparison is whether the two were equal.
    fn string_element(&mut self, insn: &Instruction, op: StringOp, mask: u32) -> Emulated<Option<bool>> {
        let source = segment_register(insn.memory_segment()).unwrap_or(SegReg::Ds);
        let from = if op.has_source() {
            let address = self.linear(source, self.gpr(ESI) & mask)?;
            self.read_sized(address, op.size)?
        } else {
            self.register(op.accumulator())?
        };
        match op.kind {
            Kind::Load => self.set_register(op.accumulator(), from)?,
            Kind::Store | Kind::Move => {
                let address = self.linear(SegReg::Es, self.gpr(EDI) & mask)?;
                self.write_sized(address, op.size, from)?;
            }
            Kind::Compare | Kind::Scan => {
                let address = self.linear(SegReg::Es, self.gpr(EDI) & mask)?;
                let with = self.read_sized(address, op.size)?;
                let result = alu::binary(Binary::Sub, from, with, false, op.size);
                self.load_flags(result.flags, flags::STATUS);
                return Ok(Some(from == with));
            }
        }
        Ok(None)
    }
}
