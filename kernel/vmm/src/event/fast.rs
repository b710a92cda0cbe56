//! The short way of events and of returns from them: 32-bit gates and frames, flat stacks, and segments whose descriptors are live.
//! That is what kernels use nearly always. Each function either does all of it or has changed nothing that the guest sees; then the
//! long way does it, and finds the faults.
//!
//! Gate and stack pointer are read each time: neither the IDT nor the TSS is tracked.

use gnomon_hw::SegReg;
use gnomon_trace::Reason;
use shadow_mmu::{Access, AccessKind, Fault, Gva, Outcome, Privilege};

use super::{Event, Source};
use crate::vcpu::{Descriptor, Selector, flags};
use crate::vm::Vm;

/// IRET without prefixes.
const IRET: u8 = 0xcf;
/// Present, type and S of a 32-bit interrupt or trap gate; bit 0 tells them apart.
const GATE_32: u8 = 0x8e;
const TRAP: u8 = 1;
const DPL: u8 = 0x60;
/// ESP0 and SS0 in a 32-bit TSS (SDM 3A 7.2.1).
const INNER_STACK: u32 = 4;

/// Words of a frame, from the lowest address on.
struct Words {
    bytes: [u8; 24],
    used: usize,
}

impl Words {
    const EMPTY: Self = Self { bytes: [0; 24], used: 0 };

    #[inline]
    fn add(&mut self, word: u32) {
        let end = self.used.saturating_add(4);
        if let Some(place) = self.bytes.get_mut(self.used..end) {
            place.copy_from_slice(&word.to_le_bytes());
            self.used = end;
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or(&[])
    }
}

#[inline]
fn word(bytes: &[u8], index: usize) -> Option<u32> {
    bytes.as_chunks::<4>().0.get(index).map(|bytes| u32::from_le_bytes(*bytes))
}

/// A stack that needs no arithmetic.
#[inline]
fn is_flat_stack(stack: Descriptor, cpl: u8) -> bool {
    stack.is_writable() && stack.is_big() && stack.dpl() == cpl && stack.base() == 0
}

#[inline]
fn is_plain_code(code: Descriptor, cpl: u8) -> bool {
    code.is_code() && !code.is_conforming() && code.dpl() == cpl
}

impl Vm {
    /// Delivers an event to a handler in ring 0; `None`: nothing was done.
    pub(super) fn deliver_fast(&mut self, event: &Event) -> Option<()> {
        let from = self.cpl();
        let offset = u32::from(event.vector) << 3;
        if offset | 7 > self.vcpu.idtr.limit.into() {
            return None;
        }
        let mut gate = [0; 8];
        self.read_live(self.vcpu.idtr.base.wrapping_add(offset), &mut gate)?;
        let [low0, low1, cs0, cs1, _, kind, high0, high1] = gate;
        let allowed = event.source != Source::Software || (kind & DPL) >> 5 >= from;
        let cs = Selector(u16::from_le_bytes([cs0, cs1]));
        if kind & !(DPL | TRAP) != GATE_32 || !allowed || !is_plain_code(self.known_descriptor(cs)?, 0) {
            return None;
        }
        let inner = if from == 0 { None } else { Some(self.fast_inner_stack()?) };
        let top = match inner {
            Some((esp, _)) => esp,
            None if is_flat_stack(self.known_loaded(SegReg::Ss)?, 0) => self.esp(),
            None => return None,
        };
        let mut frame = Words::EMPTY;
        event.error.into_iter().for_each(|error| frame.add(error));
        frame.add(self.eip());
        frame.add(self.visible_selector(SegReg::Cs).0.into());
        frame.add(self.eflags());
        if inner.is_some() {
            frame.add(self.esp());
            frame.add(self.visible_selector(SegReg::Ss).0.into());
        }
        let esp = top.wrapping_sub(frame.used as u32);
        if self.world.write_linear(esp, frame.bytes()).is_err() {
            self.fill_for(esp, AccessKind::Write)?;
            self.world.write_linear(esp, frame.bytes()).ok()?;
        }
        if let Some((_, ss)) = inner {
            self.enter_ring(0);
            self.load_known(SegReg::Ss, ss, 0);
        }
        self.load_known(SegReg::Cs, cs, 0);
        self.set_esp(esp);
        self.set_eip(u32::from_le_bytes([low0, low1, high0, high1]));
        self.enter_handler(event, from, kind & TRAP == 0);
        Some(())
    }

    /// Reads through the live mapping. What is not mapped there is filled, as if the CPU had read it: the next event finds it.
    #[inline]
    fn read_live(&mut self, gva: u32, bytes: &mut [u8]) -> Option<()> {
        if self.world.read_linear(gva, bytes).is_err() {
            self.fill_for(gva, AccessKind::Read)?;
            self.world.read_linear(gva, bytes).ok()?;
        }
        Some(())
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
        let mut bytes = [0; 6];
        self.read_live(tr.base.wrapping_add(INNER_STACK), &mut bytes)?;
        let [esp0, esp1, esp2, esp3, ss0, ss1] = bytes;
        let ss = Selector(u16::from_le_bytes([ss0, ss1]));
        let flat = ss.rpl() == 0 && is_flat_stack(self.known_descriptor(ss)?, 0);
        flat.then_some((u32::from_le_bytes([esp0, esp1, esp2, esp3]), ss))
    }

    /// After a fault with a selector as error code: does the IRET that raised it, if it was one. False: nothing was done.
    pub(crate) fn return_fast(&mut self) -> bool {
        self.cpl() == 0 && self.try_return_fast().is_some()
    }

    fn try_return_fast(&mut self) -> Option<()> {
        let code = self.known_loaded(SegReg::Cs)?;
        let stack = self.known_loaded(SegReg::Ss)?;
        if !code.is_big() || code.base() != 0 || !is_flat_stack(stack, 0) || self.vcpu.system_flags & flags::NT != 0 {
            return None;
        }
        let mut byte = [0];
        self.world.read_linear(self.eip(), &mut byte).ok()?;
        let mut frame = [0; 20];
        let (inner, outer) = frame.split_at_mut(12);
        self.read_live(self.esp(), inner)?;
        let (eip, cs, image) = (word(inner, 0)?, Selector(word(inner, 1)? as u16), word(inner, 2)?);
        if byte != [IRET] || image & flags::VM != 0 || !is_plain_code(self.known_descriptor(cs)?, cs.rpl()) {
            return None;
        }
        let esp = if cs.rpl() == 0 {
            self.esp().wrapping_add(12)
        } else {
            self.read_live(self.esp().wrapping_add(12), outer)?;
            let (esp, ss) = (word(outer, 0)?, Selector(word(outer, 1)? as u16));
            if ss.rpl() != 3 || !is_flat_stack(self.known_descriptor(ss)?, 3) {
                return None;
            }
            self.enter_ring(3);
            self.load_known(SegReg::Ss, ss, 3);
            esp
        };
        self.load_known(SegReg::Cs, cs, cs.rpl());
        self.set_esp(esp);
        self.set_eip(eip);
        self.vcpu.nmi_blocked = false;
        self.load_flags(image, flags::REAL | flags::NT | flags::IF | flags::IOPL);
        self.clear_flags(flags::RF);
        self.retired = true;
        self.count(Reason::Iret);
        Some(())
    }
}
