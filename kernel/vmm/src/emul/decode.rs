//! Fetching and decoding the instruction at EIP.

use gnomon_hw::SegReg;
use gnomon_trace::{Kind, Record};
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};
use shadow_mmu::{Access, AccessKind};

use crate::trap::{Emulated, Exception};
use crate::vcpu::Descriptor;
use crate::vm::Vm;

/// Bytes read at EIP: two quadwords, which is cheaper than the 15 that an instruction can have.
const FETCHED: usize = 16;
/// Longest instruction (SDM 2A 2.3.11).
const MAX_LENGTH: usize = 15;

impl Vm {
    /// Decodes the instruction at EIP.
    ///
    /// # Errors
    /// The page fault of its first byte; #UD if it is no instruction.
    pub(crate) fn decode(&mut self) -> Emulated<Instruction> {
        let code = self.loaded_descriptor(SegReg::Cs);
        let big = code.is_none_or(Descriptor::is_big);
        let base = code.map_or(0, Descriptor::base);
        let eip = self.eip();
        let mut bytes = [0; FETCHED];
        let fetched = self.fetch(base.wrapping_add(eip), &mut bytes)?;
        let key = u128::from_le_bytes(bytes);
        let insn = match self.decoded.find(eip, key, big) {
            Some(insn) => insn,
            None => {
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
            let mut first = [0; 8];
            let length = insn.len().min(8);
            for (place, byte) in first.iter_mut().zip(bytes.iter().take(length)) {
                *place = *byte;
            }
            Record {
                code: insn.len() as u8,
                flags: length as u8,
                a: eip.into(),
                b: u64::from_le_bytes(first),
                ..Record::new(Kind::Emulate)
            }
        });
        if insn.is_invalid() {
            return Err(Exception::ud().into());
        }
        Ok(insn)
    }
}
