//! Delivery of exceptions and interrupts through the guest's own IDT and TSS (SDM 3A 6.12).
//!
//! The frame holds what the guest believes: selectors with virtual RPL 0, virtual IF and IOPL. Its return to a kernel selector of
//! RPL 0 therefore traps, which is how returns are emulated ([`crate::emul`]).

mod fast;

use gnomon_hw::SegReg;
use gnomon_trace::{Kind, Record};
use shadow_mmu::Privilege;

use crate::trap::{Emulated, Exception, StopReason, Trap, vector};
use crate::vcpu::{Descriptor, Gate, Selector, SystemType, flags};
use crate::vm::{Step, Vm};

/// Where an event comes from; decides the gate's privilege check and the EXT bit of error codes (SDM 3A 6.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// INT n, INT3, INTO: the gate's DPL counts.
    Software,
    /// An exception of the CPU.
    Exception,
    /// A device.
    External,
}

/// An event on its way into the guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// Vector.
    pub vector: u8,
    /// Error code to push.
    pub error: Option<u32>,
    /// New CR2.
    pub cr2: Option<u32>,
    /// Where it comes from.
    pub source: Source,
}

impl From<Exception> for Event {
    fn from(exception: Exception) -> Self {
        let Exception { vector, error, cr2 } = exception;
        Self { vector, error, cr2, source: Source::Exception }
    }
}

/// Classes of SDM 3A table 6-4.
#[derive(PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

fn class(event: &Event) -> Class {
    match (event.source, event.vector) {
        (Source::Exception, vector::DE | vector::TS | vector::NP | vector::SS | vector::GP) => Class::Contributory,
        (Source::Exception, vector::PF) => Class::PageFault,
        (Source::Exception, vector::DF) => Class::DoubleFault,
        _ => Class::Benign,
    }
}

/// What a fault during the delivery of `first` becomes (SDM 3A table 6-5), or `None` for a triple fault.
pub(crate) fn combine(first: &Event, second: Exception) -> Option<Event> {
    let second = Event::from(second);
    let double = Event::from(Exception::coded(vector::DF, 0));
    match (class(first), class(&second)) {
        (Class::DoubleFault, Class::Contributory | Class::PageFault) => None,
        (Class::Contributory, Class::Contributory) | (Class::PageFault, Class::Contributory | Class::PageFault) => {
            Some(double)
        }
        _ => Some(second),
    }
}

/// A stack to push on.
#[derive(Clone, Copy)]
struct Stack {
    selector: Selector,
    descriptor: Descriptor,
    esp: u32,
}

/// A frame under construction: words are pushed downwards.
struct Frame {
    bytes: [u8; 40],
    used: usize,
    wide: bool,
}

impl Frame {
    fn push(&mut self, value: u32) {
        let size = if self.wide { 4 } else { 2 };
        let start = self.bytes.len().saturating_sub(self.used.saturating_add(size));
        if let (Some(place), Some(value)) =
            (self.bytes.get_mut(start..start.saturating_add(size)), value.to_le_bytes().get(..size))
        {
            place.copy_from_slice(value);
            self.used = self.used.saturating_add(size);
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(self.bytes.len().saturating_sub(self.used)..).unwrap_or(&[])
    }
}

impl Vm {
    /// Delivers an event to the guest.
    ///
    /// # Errors
    /// The reason for which the VM stops: a triple fault, or something that is not run.
    pub(crate) fn deliver(&mut self, event: Event) -> Result<(), StopReason> {
        let mut event = event;
        self.end_step();
        if self.world.is_hardware() {
            return self.deliver_by_cpu(event);
        }
        loop {
            match self.try_deliver(&event) {
                Ok(()) => return Ok(()),
                Err(Trap::Stop(reason)) => return Err(reason),
                Err(Trap::Exception(next)) => event = combine(&event, next).ok_or(StopReason::TripleFault)?,
            }
        }
    }

    /// Delivers a software interrupt whose return address is in EIP already; a fault on the way points at the instruction itself.
    pub(crate) fn deliver_software(&mut self, event: Event, instruction: u32) -> Emulated<()> {
        self.end_step();
        self.try_deliver(&event).inspect_err(|_| self.set_eip(instruction))
    }

    fn try_deliver(&mut self, event: &Event) -> Emulated<()> {
        if let Some(cr2) = event.cr2 {
            self.vcpu.cr2 = cr2;
        }
        if !self.world.is_hardware() && self.deliver_fast(event).is_some() {
            return Ok(());
        }
        let ext = u32::from(event.source != Source::Software);
        let gate = self.read_gate(event, ext)?;
        if gate.system_type() == SystemType::TaskGate {
            return self.deliver_to_task(event, gate);
        }
        let wide = matches!(gate.system_type(), SystemType::InterruptGate32 | SystemType::TrapGate32);
        let masks = matches!(gate.system_type(), SystemType::InterruptGate32 | SystemType::InterruptGate16);
        let target = Gate::new(gate, wide);
        let code = self.gate_target(target.selector, ext)?;
        let from = self.cpl();
        let to = if code.is_conforming() { from } else { code.dpl() };

        let eflags = self.eflags();
        let v86 = self.in_v86();
        if v86 && to != 0 {
            return Err(Exception::gp(target.selector.error_code() | ext).into());
        }
        let mut frame = Frame { bytes: [0; 40], used: 0, wide };
        let stack = if to < from {
            let stack = self.inner_stack(to, ext)?;
            let all = [SegReg::Gs, SegReg::Fs, SegReg::Ds, SegReg::Es, SegReg::Ss];
            for &reg in all.get(if v86 { 0.. } else { 4.. }).unwrap_or(&[]) {
                frame.push(self.visible_selector_any(reg).into());
            }
            frame.push(self.esp());
            Some(stack)
        } else {
            None
        };
        frame.push(eflags);
        frame.push(self.visible_selector_any(SegReg::Cs).into());
        frame.push(self.eip());
        if let Some(error) = event.error {
            frame.push(error);
        }
        let esp = self.push_frame(&frame, stack, to)?;

        if let Some(stack) = stack {
            self.enter_ring(to);
            self.load_stack_or_code(SegReg::Ss, stack.selector, stack.descriptor, to)?;
        }
        self.load_stack_or_code(SegReg::Cs, target.selector, code, to)?;
        self.set_esp(esp);
        self.set_eip(target.offset);
        self.enter_handler(event, from, masks);
        Ok(())
    }

    /// What remains when CS:EIP and SS:ESP are the handler's. `masks`: it came through an interrupt gate.
    fn enter_handler(&mut self, event: &Event, from: u8, masks: bool) {
        self.clear_flags(flags::TF | flags::NT | flags::RF | flags::VM);
        if masks {
            self.vcpu.set_interrupts(false);
        }
        self.note_delivery(event, from);
    }

    /// What follows from every delivery; `from` is the privilege level before it.
    pub(crate) fn note_delivery(&mut self, event: &Event, from: u8) {
        self.vcpu.interrupt_shadow = None;
        self.vcpu.halted = false;
        self.retired = false;
        self.tracer.record(|| Record {
            code: event.vector,
            flags: from,
            arg: event.error.unwrap_or(0),
            a: self.eip().into(),
            b: event.cr2.unwrap_or(0).into(),
            c: self.esp().into(),
            ..Record::new(Kind::Inject)
        });
    }

    /// Reads and checks the IDT entry of an event.
    fn read_gate(&mut self, event: &Event, ext: u32) -> Emulated<Descriptor> {
        let offset = u32::from(event.vector) * 8;
        let error = offset | 2 | ext;
        if offset + 7 > self.vcpu.idtr.limit.into() {
            return Err(Exception::gp(error).into());
        }
        let gate = Descriptor(self.read_u64(self.vcpu.idtr.base.wrapping_add(offset), Privilege::Supervisor)?);
        match gate.system_type() {
            _ if gate.is_segment() => return Err(Exception::gp(error).into()),
            SystemType::InterruptGate32
            | SystemType::TrapGate32
            | SystemType::InterruptGate16
            | SystemType::TrapGate16
            | SystemType::TaskGate => {}
            _ => return Err(Exception::gp(error).into()),
        }
        if event.source == Source::Software && gate.dpl() < self.cpl() {
            return Err(Exception::gp(error).into());
        }
        if !gate.present() {
            return Err(Exception::coded(vector::NP, error).into());
        }
        Ok(gate)
    }

    /// Reads and checks the code segment that a gate leads to.
    pub(crate) fn gate_target(&mut self, selector: Selector, ext: u32) -> Emulated<Descriptor> {
        if selector.is_null() {
            return Err(Exception::gp(ext).into());
        }
        let error = selector.error_code() | ext;
        let code = self.read_descriptor(selector)?.ok_or(Exception::gp(error))?;
        if !code.is_code() || code.dpl() > self.cpl() {
            return Err(Exception::gp(error).into());
        }
        if !code.present() {
            return Err(Exception::coded(vector::NP, error).into());
        }
        Ok(code)
    }

    /// The stack that the TSS names for a privilege level, checked (SDM 3A 6.12.1).
    fn inner_stack(&mut self, cpl: u8, ext: u32) -> Emulated<Stack> {
        let tr = self.vcpu.tr;
        let level = u32::from(cpl);
        let wide = self.tss_is_wide();
        let (offset, size) = if wide { (4 + 8 * level, 6) } else { (2 + 4 * level, 4) };
        if !tr.usable || offset + size - 1 > tr.limit {
            return Err(Exception::coded(vector::TS, tr.selector.error_code() | ext).into());
        }
        let at = tr.base.wrapping_add(offset);
        let (esp, selector) = if wide {
            let raw = self.read_u64(at, Privilege::Supervisor)?;
            (raw as u32, Selector((raw >> 32) as u16))
        } else {
            let raw = self.read_u32(at, Privilege::Supervisor)?;
            (raw & 0xffff, Selector((raw >> 16) as u16))
        };
        let error = selector.error_code() | ext;
        if selector.is_null() {
            return Err(Exception::coded(vector::TS, ext).into());
        }
        let descriptor = self.read_descriptor(selector)?.ok_or(Exception::coded(vector::TS, error))?;
        if selector.rpl() != cpl || descriptor.dpl() != cpl || !descriptor.is_writable() {
            return Err(Exception::coded(vector::TS, error).into());
        }
        if !descriptor.present() {
            return Err(Exception::coded(vector::SS, error).into());
        }
        Ok(Stack { selector, descriptor, esp })
    }

    /// The stack for a call gate: the same, without EXT.
    pub(crate) fn call_gate_stack(&mut self, cpl: u8) -> Emulated<(Selector, Descriptor, u32)> {
        let stack = self.inner_stack(cpl, 0)?;
        Ok((stack.selector, stack.descriptor, stack.esp))
    }

    /// Writes the frame below the stack pointer and returns the new one.
    fn push_frame(&mut self, frame: &Frame, stack: Option<Stack>, cpl: u8) -> Emulated<u32> {
        let (base, big, esp) = match stack {
            Some(stack) => (stack.descriptor.base(), stack.descriptor.is_big(), stack.esp),
            None => (self.segment_base(SegReg::Ss), self.stack_is_big(), self.esp()),
        };
        let bytes = frame.bytes();
        let lower = esp.wrapping_sub(bytes.len() as u32);
        let (offset, esp) = if big { (lower, lower) } else { (lower & 0xffff, (esp & !0xffff) | (lower & 0xffff)) };
        let privilege = if cpl == 3 { Privilege::User } else { Privilege::Supervisor };
        self.write_linear(base.wrapping_add(offset), bytes, privilege)?;
        Ok(esp)
    }

    /// EFLAGS as the guest would push it.
    #[must_use]
    pub(crate) fn eflags(&self) -> u32 {
        let real = self.world.context().rflags as u32 & (flags::REAL | flags::RF);
        let hidden = if self.step == Some(Step { guest_tf: false }) { flags::TF } else { 0 };
        let real = real & !hidden;
        real | self.vcpu.system_flags & !flags::NT | self.nested_task() | flags::FIXED
    }

    /// NT, or 0. It is real as well, because user code changes it natively, and its IRET must trap while NT is set.
    #[inline]
    pub(crate) fn nested_task(&self) -> u32 {
        let all = if self.cpl() == 3 { self.world.context().rflags as u32 } else { self.vcpu.system_flags };
        all & flags::NT
    }

    /// Clears flags, real and virtual.
    pub(crate) fn clear_flags(&mut self, mask: u32) {
        self.world.context_mut().rflags &= !u64::from(mask);
        self.vcpu.system_flags &= !mask;
    }

    /// Loads the flags in `mask` from `value`, each where it lives.
    pub(crate) fn load_flags(&mut self, value: u32, mask: u32) {
        let context = self.world.context_mut();
        let real = mask & (flags::REAL | flags::RF | flags::NT);
        context.rflags = (context.rflags & !u64::from(real)) | u64::from(value & real);
        let system = mask & (flags::IF | flags::IOPL | flags::NT);
        self.vcpu.system_flags = (self.vcpu.system_flags & !system) | (value & system);
    }

    /// Changes the virtual privilege level: what the CPU may load from now on.
    #[inline(always)] // Nearly nothing, for guests on shadow code.
    pub(crate) fn enter_ring(&mut self, cpl: u8) {
        let from = self.cpl();
        self.open_user(cpl == 3);
        self.tracer.record(|| Record { code: from, flags: cpl, ..Record::new(Kind::Ring) });
    }

    /// Whether the stack segment is 32-bit.
    #[must_use]
    pub(crate) fn stack_is_big(&self) -> bool {
        self.loaded_descriptor(SegReg::Ss).is_none_or(Descriptor::is_big)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(vector: u8) -> Exception {
        Exception::coded(vector, 0)
    }

    #[test]
    fn double_and_triple_faults_follow_the_table() {
        let first = |v| Event::from(fault(v));
        let becomes = |a, b| combine(&first(a), fault(b)).map(|event| event.vector);
        assert_eq!(becomes(vector::GP, vector::NP), Some(vector::DF));
        assert_eq!(becomes(vector::PF, vector::PF), Some(vector::DF));
        assert_eq!(becomes(vector::PF, vector::GP), Some(vector::DF));
        assert_eq!(becomes(vector::GP, vector::PF), Some(vector::PF));
        assert_eq!(becomes(vector::UD, vector::GP), Some(vector::GP));
        assert_eq!(becomes(vector::DF, vector::PF), None);
        assert_eq!(becomes(vector::DF, vector::GP), None);
        let external = Event { vector: 0x20, error: None, cr2: None, source: Source::External };
        assert_eq!(combine(&external, fault(vector::GP)).map(|event| event.vector), Some(vector::GP));
    }

    #[test]
    fn frames_grow_downwards() {
        let mut frame = Frame { bytes: [0; 40], used: 0, wide: true };
        frame.push(0x202);
        frame.push(0x1b);
        assert_eq!(frame.bytes(), [0x1b, 0, 0, 0, 2, 2, 0, 0]);
        let mut narrow = Frame { bytes: [0; 40], used: 0, wide: false };
        narrow.push(0x1_1234);
        assert_eq!(narrow.bytes(), [0x34, 0x12]);
    }
}
