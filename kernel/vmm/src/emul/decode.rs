//! Fetching and decoding the instruction at EIP.

use gnomon_hw::SegReg;
use gnomon_trace::{Kind, Record};
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};
use shadow_mmu::{Access, AccessKind};

use crate::trap::{Emulated, Exception, StopReason};
use crate::vcpu::{Descriptor, flags};
use crate::vm::Vm;

/// Longest instruction (SDM 2A 2.3.11).
const MAX_LENGTH: usize = 15;

impl Vm {
    /// Base of the code segment, and whether it is a 32-bit one.
    fn code_segment(&self) -> (u32, bool) {
        let code = self.loaded_descriptor(SegReg::Cs);
        (code.map_or(0, Descriptor::base), code.is_none_or(Descriptor::is_big))
    }

    /// Decodes the instruction at EIP.
    ///
    /// # Errors
    /// The page fault of its first byte; #UD if it is no instruction.
    pub(crate) fn decode(&mut self) -> Emulated<Instruction> {
        let (base, big) = if self.world.is_hardware() {
            if self.world.context().rflags as u32 & flags::VM != 0 {
                return Err(StopReason::Virtual8086.into());
            }
            self.world.hardware_code()
        } else if self.runs_flat_code() {
            (0, true)
        } else {
            self.code_segment()
        };
        let eip = self.eip();
        let (key, fetched) = self.fetch(base.wrapping_add(eip))?;
        let insn = match self.decoded.find(eip, key, big) {
            Some(insn) => insn,
            None => {
                let bytes = key.to_le_bytes();
                let bytes = bytes.get(..fetched.min(MAX_LENGTH)).unwrap_or(&[]);
                let bits = if big { 32 } else { 16 };
                let mut decoder = Decoder::with_ip(bits, bytes, eip.into(), DecoderOptions::NONE);
                let insn = decoder.decode();
                if insn.is_invalid() && decoder.last_error() == DecoderError::NoMoreBytes && fetched < MAX_LENGTH {
                    // It goes on in a page that cannot be fetched from.
                    let access = Access { kind: AccessKind::Fetch, privilege: self.privilege() };
                    self.translate(base.wrapping_add(eip).wrapping_add(fetched as u32), access)?;
                }
                if !insn.is_invalid() {
                    self.decoded.insert(eip, key, big, insn);
                }
                insn
            }
        };
        self.tracer.record(|| {
            let length = insn.len().min(8);
            let first = key as u64 & u64::MAX >> (64 - 8 * length.max(1));
            Record {
                code: insn.len() as u8,
                flags: length as u8,
                a: eip.into(),
                b: first,
                ..Record::new(Kind::Emulate)
            }
        });
        if insn.is_invalid() {
            return Err(Exception::ud().into());
        }
        Ok(insn)
    }
}
