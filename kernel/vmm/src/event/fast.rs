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
/// Flags of the real CPU that IRET loads, or clears: RF was for the instruction that the handler was for.
const RETURNED: u64 = (LOADED | flags::RF) as u64;
/// Those of it that come from the frame.
const LOADED: u32 = flags::REAL | flags::NT;
/// Virtual flags that IRET loads in ring 0.
const SYSTEM: u32 = flags::NT | flags::IF | flags::IOPL;
/// Bytes of a word of a frame.
const WORD: usize = 4;

/// The bytes of a frame's words, from the lowest address on.
#[inline]
fn frame_bytes<const WORDS: usize, const BYTES: usize>(words: [u32; WORDS]) -> [u8; BYTES] {
    const { assert!(BYTES == WORDS * WORD) };
    let mut bytes = [0; BYTES];
    for (place, word) in bytes.as_chunks_mut::<WORD>().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    bytes
}

/// Two words that were read as one.
#[inline]
const fn words(pair: u64) -> (u32, u32) {
    (pair as u32, (pair >> 32) as u32)
}

impl Vm {
    /// Delivers an event to a handler in ring 0; `None`: nothing was done.
    #[inline]
    pub(crate) fn deliver_fast(&mut self, event: &Event) -> Option<()> {
        if self.cpl() == 0 { self.deliver_inside(event) } else { self.deliver_inward(event) }
    }

    /// From ring 0: the stack stays.
    fn deliver_inside(&mut self, event: &Event) -> Option<()> {
        let (gate, cs) = self.fast_gate(event, 0)?;
        if !self.has_flat_stack() {
            return None;
        }
        let (eip, visible, eflags) = (self.eip(), self.visible_selector(SegReg::Cs), self.eflags());
        let frame: [u8; 4 * WORD] = frame_bytes([event.error.unwrap_or(0), eip, visible.0.into(), eflags]);
        let esp = self.push_fast(self.esp(), &frame, event.error)?;
        self.enter_fast(event, 0, (gate, cs), esp);
        Some(())
    }

    /// From user code, to the stack that the TSS names.
    fn deliver_inward(&mut self, event: &Event) -> Option<()> {
        let (gate, cs) = self.fast_gate(event, 3)?;
        let (top, ss) = self.fast_inner_stack()?;
        let (eip, visible, eflags) = (self.eip(), self.visible_selector(SegReg::Cs), self.eflags());
        let (esp, stack) = (self.esp(), self.visible_selector(SegReg::Ss));
        let frame: [u8; 6 * WORD] =
            frame_bytes([event.error.unwrap_or(0), eip, visible.0.into(), eflags, esp, stack.0.into()]);
        let esp = self.push_fast(top, &frame, event.error)?;
        self.enter_ring(0);
        self.world.context_mut().ss = ss.in_ring_1().into();
        self.enter_fast(event, 3, (gate, cs), esp);
        Some(())
    }

    /// The gate of an event, and the code segment that it leads to.
    #[inline(always)] // Once for each privilege level.
    fn fast_gate(&mut self, event: &Event, from: u8) -> Option<(u64, Selector)> {
        let offset = u32::from(event.vector) << 3;
        if offset | 7 > self.vcpu.idtr.limit.into() || self.in_v86() {
            return None;
        }
        let (gate, _) = self.read_live(self.vcpu.idtr.base.wrapping_add(offset))?;
        let kind = (gate >> 40) as u8;
        let allowed = event.source != Source::Software || from == 0 || kind & DPL == DPL;
        let cs = Selector((gate >> 16) as u16).with_rpl(0);
        let good = kind & !(DPL | TRAP) == GATE_32 && allowed && self.is_code_target(cs);
        good.then_some((gate, cs))
    }

    /// Writes a frame below `top`, without the first word if there is no error code; gives the new ESP.
    #[inline(always)] // Once for each privilege level.
    fn push_fast(&mut self, top: u32, frame: &[u8], error: Option<u32>) -> Option<u32> {
        let frame = if error.is_some() { frame } else { frame.get(WORD..)? };
        let esp = top.wrapping_sub(frame.len() as u32);
        if self.world.write_linear(esp, frame).is_err() {
            self.fill_for(esp, AccessKind::Write)?;
            self.world.write_linear(esp, frame).ok()?;
        }
        Some(esp)
    }

    #[inline]
    fn enter_fast(&mut self, event: &Event, from: u8, (gate, cs): (u64, Selector), esp: u32) {
        let context = self.world.context_mut();
        context.cs = cs.in_ring_1().into();
        context.rsp = esp.into();
        context.rip = gate >> 32 & 0xffff_0000 | gate & 0xffff;
        self.enter_handler(event, from, (gate >> 40) as u8 & TRAP == 0);
    }

    /// Reads through the live mapping. What is not mapped there is filled, as if the CPU had read it: the next event finds it.
    /// It is 16 bytes always, which costs less than to count them; the long way serves those few that end in front of a page that is
    /// not there.
    #[inline]
    fn read_live(&mut self, gva: u32) -> Option<(u64, u64)> {
        let mut halves = self.world.fetch_halves(gva);
        if halves.is_none() {
            self.fill_for(gva, AccessKind::Read)?;
            halves = self.world.fetch_halves(gva);
        }
        halves
    }

    /// Fills the shadow for an access of the CPU's own, with its effects on A and D.
    #[cold]
    #[inline(never)]
    pub(crate) fn fill_for(&mut self, gva: u32, kind: AccessKind) -> Option<()> {
        if self.mmu.is_open() {
            return None;
        }
        let access = Access { kind, privilege: Privilege::Supervisor };
        let outcome = self.complete(Fault { gva: Gva::new(gva.into()), access });
        (outcome == Outcome::Resume).then_some(())
    }

    /// ESP0 and SS0.
    #[inline]
    fn fast_inner_stack(&mut self) -> Option<(u32, Selector)> {
        let tr = &self.vcpu.tr;
        if !tr.usable || !self.tss_is_wide() || tr.limit < INNER_STACK + 5 {
            return None;
        }
        let (pair, _) = self.read_live(tr.base.wrapping_add(INNER_STACK))?;
        let (esp, ss) = words(pair);
        let ss = Selector(ss as u16);
        let flat = ss.rpl() == 0 && self.is_stack_target(ss);
        flat.then_some((esp, ss))
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
        let (pair, rest) = self.read_live(esp)?;
        let (eip, cs) = words(pair);
        let (image, outer) = words(rest);
        let cs = Selector(cs as u16);
        if image & flags::VM != 0 || (self.armed && image & flags::RF != 0) || !self.is_code_target(cs) {
            return None;
        }
        if cs.rpl() == 0 {
            self.code.patching.note_return(eip);
            let context = self.world.context_mut();
            context.cs = cs.in_ring_1().into();
            context.rsp = esp.wrapping_add(3 * WORD as u32).into();
        } else {
            // The last four words of the frame, and none behind it.
            let (_, stack) = self.read_live(esp.wrapping_add(WORD as u32))?;
            let ss = Selector(words(stack).1 as u16);
            if ss.rpl() != 3 || !self.is_stack_target(ss) {
                return None;
            }
            self.enter_ring(3);
            let context = self.world.context_mut();
            context.cs = cs.0.into();
            context.ss = ss.0.into();
            context.rsp = outer.into();
        }
        // They are all loaded here.
        self.forget_lent_flags();
        let context = self.world.context_mut();
        context.rip = eip.into();
        context.rflags = context.rflags & !RETURNED | u64::from(image & LOADED);
        self.vcpu.nmi_blocked = false;
        self.vcpu.system_flags = self.vcpu.system_flags & !SYSTEM | image & SYSTEM;
        self.retired = true;
        self.count(Reason::Iret);
        if self.faulted.eip == eip.into() {
            self.fill_ahead();
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lie_as_the_cpu_pushes_them() {
        let bytes: [u8; 6 * WORD] = frame_bytes([0xe, 0x1000, 0x8, 0x202, 0x2000, 0x10]);
        assert_eq!(bytes[..8], [0xe, 0, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(words(u64::from_le_bytes(*bytes.first_chunk().unwrap())), (0xe, 0x1000));
    }
}
