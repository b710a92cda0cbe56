//! The short way of events and of returns from them: 32-bit gates and frames, flat stacks, and segments whose descriptors are live.
//! That is what kernels use nearly always. Each function either does all of it or has changed nothing that the guest sees; then the
//! long way does it, and finds the faults.
//!
//! Gate and stack pointer are read each time: neither the IDT nor the TSS is tracked.

use gnomon_hw::SegReg;
use gnomon_trace::Reason;
use shadow_mmu::{Access, AccessKind, Fault, Gva, Outcome, Privilege};

use super::{Event, Source};
use crate::vcpu::{Selector, flags};
use crate::vm::Vm;

/// IRET without prefixes.
const IRET: u8 = 0xcf;
/// Present, type and S of a 32-bit interrupt or trap gate; bit 0 tells them apart.
const GATE_32: u8 = 0x8e;
const TRAP: u8 = 1;
const DPL: u8 = 0x60;
/// ESP0 and SS0 in a 32-bit TSS (SDM 3A 7.2.1).
const INNER_STACK: u32 = 4;
/// Bytes of a word of a frame.
const WORD: usize = 4;

/// The bytes of a frame's words, from the lowest address on.
#[inline]
fn frame_bytes(words: [u32; 6]) -> [u8; 6 * WORD] {
    let mut bytes = [0; 6 * WORD];
    for (place, word) in bytes.as_chunks_mut::<WORD>().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    bytes
}

/// One of four words.
#[inline]
const fn word(words: u128, index: u32) -> u32 {
    (words >> (32 * (index & 3))) as u32
}

impl Vm {
    /// Delivers an event to a handler in ring 0; `None`: nothing was done.
    #[inline]
    pub(crate) fn deliver_fast(&mut self, event: &Event) -> Option<()> {
        let from = self.cpl();
        let offset = u32::from(event.vector) << 3;
        if offset | 7 > self.vcpu.idtr.limit.into() || self.in_v86() {
            return None;
        }
        let gate = self.read_live(self.vcpu.idtr.base.wrapping_add(offset))? as u64;
        let kind = (gate >> 40) as u8;
        let allowed = event.source != Source::Software || (kind & DPL) >> 5 >= from;
        let cs = Selector((gate >> 16) as u16).with_rpl(0);
        if kind & !(DPL | TRAP) != GATE_32 || !allowed || !self.is_code_target(cs) {
            return None;
        }
        let inner = match from {
            0 if self.has_flat_stack() => None,
            0 => return None,
            _ => Some(self.fast_inner_stack()?),
        };
        let top = inner.map_or(self.esp(), |(esp, _)| esp);
        let frame = frame_bytes([
            event.error.unwrap_or(0),
            self.eip(),
            self.visible_selector(SegReg::Cs).0.into(),
            self.eflags(),
            self.esp(),
            self.visible_selector(SegReg::Ss).0.into(),
        ]);
        let first = if event.error.is_some() { 0 } else { WORD };
        let end = if inner.is_some() { 6 * WORD } else { 4 * WORD };
        let frame = frame.get(first..end)?;
        let esp = top.wrapping_sub(frame.len() as u32);
        if self.world.write_linear(esp, frame).is_err() {
            self.fill_for(esp, AccessKind::Write)?;
            self.world.write_linear(esp, frame).ok()?;
        }
        if let Some((_, ss)) = inner {
            self.enter_ring(0);
            self.load_known(SegReg::Ss, ss, 0);
        }
        self.load_known(SegReg::Cs, cs, 0);
        self.set_esp(esp);
        self.set_eip((gate >> 32) as u32 & 0xffff_0000 | gate as u32 & 0xffff);
        self.enter_handler(event, from, kind & TRAP == 0);
        Some(())
    }

    /// Reads through the live mapping. What is not mapped there is filled, as if the CPU had read it: the next event finds it.
    /// It is 16 bytes always, which costs less than to count them; the long way serves those few that end in front of a page that is
    /// not there.
    #[inline]
    fn read_live(&mut self, gva: u32) -> Option<u128> {
        match self.world.fetch(gva) {
            Some(bytes) => Some(bytes),
            None => self.read_filled(gva),
        }
    }

    #[cold]
    fn read_filled(&mut self, gva: u32) -> Option<u128> {
        self.fill_for(gva, AccessKind::Read)?;
        self.world.fetch(gva)
    }

    /// Fills the shadow for an access of the CPU's own, with its effects on A and D.
    #[cold]
    pub(crate) fn fill_for(&mut self, gva: u32, kind: AccessKind) -> Option<()> {
        if self.mmu.is_open() {
            return None;
        }
        let access = Access { kind, privilege: Privilege::Supervisor };
        let (outcome, plan) = self.mmu.on_fault(Fault { gva: Gva::new(gva.into()), access });
        self.flush(plan);
        (outcome == Outcome::Resume).then_some(())
    }

    /// ESP0 and SS0.
    #[inline]
    fn fast_inner_stack(&mut self) -> Option<(u32, Selector)> {
        let tr = self.vcpu.tr;
        if !tr.usable || !self.tss_is_wide() || tr.limit < INNER_STACK + 5 {
            return None;
        }
        let words = self.read_live(tr.base.wrapping_add(INNER_STACK))?;
        let ss = Selector(word(words, 1) as u16);
        let flat = ss.rpl() == 0 && self.is_stack_target(ss);
        flat.then_some((word(words, 0), ss))
    }

    /// After a fault with a selector as error code: does the IRET that raised it, if it was one. False: nothing was done.
    pub(crate) fn return_fast(&mut self) -> bool {
        self.try_return_fast().is_some()
    }

    fn try_return_fast(&mut self) -> Option<()> {
        let mut byte = [0];
        if !self.runs_flat_kernel() {
            return None;
        }
        self.world.read_linear(self.eip(), &mut byte).ok()?;
        if byte == [IRET] { self.return_flat() } else { None }
    }

    /// IRET of a kernel in flat code. `None`: nothing was done.
    pub(crate) fn return_flat(&mut self) -> Option<()> {
        if !self.has_flat_stack() || self.vcpu.system_flags & flags::NT != 0 {
            return None;
        }
        let esp = self.esp();
        let frame = self.read_live(esp)?;
        let (eip, cs, image) = (word(frame, 0), Selector(word(frame, 1) as u16), word(frame, 2));
        if image & flags::VM != 0 || (self.armed && image & flags::RF != 0) || !self.is_code_target(cs) {
            return None;
        }
        let esp = if cs.rpl() == 0 {
            self.code.patching.note_return(eip);
            esp.wrapping_add(3 * WORD as u32)
        } else {
            let mut ss = [0; 2];
            self.world.read_linear(esp.wrapping_add(4 * WORD as u32), &mut ss).ok()?;
            let ss = Selector(u16::from_le_bytes(ss));
            if ss.rpl() != 3 || !self.is_stack_target(ss) {
                return None;
            }
            self.enter_ring(3);
            self.load_known(SegReg::Ss, ss, 3);
            word(frame, 3)
        };
        self.load_known(SegReg::Cs, cs, cs.rpl());
        self.set_esp(esp);
        self.set_eip(eip);
        self.vcpu.nmi_blocked = false;
        // They are all loaded here.
        self.forget_lent_flags();
        self.load_flags(image, flags::REAL | flags::NT | flags::IF | flags::IOPL);
        self.clear_flags(flags::RF);
        self.retired = true;
        self.count(Reason::Iret);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lie_as_the_cpu_pushes_them() {
        let bytes = frame_bytes([0xe, 0x1000, 0x8, 0x202, 0x2000, 0x10]);
        assert_eq!(bytes[..8], [0xe, 0, 0, 0, 0, 0x10, 0, 0]);
        let words = u128::from_le_bytes(*bytes.first_chunk().unwrap());
        assert_eq!([0, 1, 2, 3].map(|index| word(words, index)), [0xe, 0x1000, 0x8, 0x202]);
    }
}
