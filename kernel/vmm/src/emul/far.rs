//! Far transfers, returns and fast system calls: everything that changes CS (SDM 2A/2B: CALL, JMP, RET, IRET, SYSENTER, SYSEXIT;
//! APM 3: SYSCALL, SYSRET).

use gnomon_hw::SegReg;

use crate::task::Cause;
use crate::trap::{Emulated, Exception, vector};
use crate::vcpu::{Descriptor, Gate, Selector, SystemType, flags};
use crate::vm::Vm;

/// Flat 4 GiB code, privilege level 0, as the fast system calls load it.
const FLAT_CODE: u64 = 0x00cf_9b00_0000_ffff;
/// Flat 4 GiB data, privilege level 0.
const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;
/// DPL 3.
const USER: u64 = 3 << 45;

fn not_present(selector: Selector) -> Exception {
    Exception::coded(vector::NP, selector.error_code())
}

fn gp(selector: Selector) -> Exception {
    Exception::gp(selector.error_code())
}

/// Flat code and a flat stack of a privilege level.
pub(crate) const fn flat(cpl: u8) -> (Descriptor, Descriptor) {
    let level = if cpl == 3 { USER } else { 0 };
    (Descriptor(FLAT_CODE | level), Descriptor(FLAT_DATA | level))
}

impl Vm {
    /// Far JMP or CALL to `selector:offset`; `next` is the address behind it.
    pub(crate) fn far_transfer(
        &mut self,
        (selector, offset): (Selector, u32),
        cause: Cause,
        next: u32,
        size: usize,
    ) -> Emulated<()> {
        if selector.is_null() {
            return Err(Exception::gp(0).into());
        }
        let target = self.read_descriptor(selector)?.ok_or(gp(selector))?;
        if !target.is_segment() {
            return self.through_gate(selector, target, cause, next);
        }
        let cpl = self.cpl();
        let allowed =
            if target.is_conforming() { target.dpl() <= cpl } else { selector.rpl() <= cpl && target.dpl() == cpl };
        if !target.is_code() || !allowed {
            return Err(gp(selector).into());
        }
        if !target.present() {
            return Err(not_present(selector).into());
        }
        if cause == Cause::Call {
            self.push_return(next, size)?;
        }
        self.load_stack_or_code(SegReg::Cs, selector.with_rpl(cpl), target, cpl)?;
        self.set_eip(offset);
        Ok(())
    }

    /// Pushes CS and the return address; if the second push faults the first is undone.
    fn push_return(&mut self, next: u32, size: usize) -> Emulated<()> {
        let esp = self.esp();
        self.push(self.visible_selector(SegReg::Cs).0.into(), size)?;
        self.push(next, size).inspect_err(|_| self.set_esp(esp))
    }

    fn through_gate(&mut self, selector: Selector, gate: Descriptor, cause: Cause, next: u32) -> Emulated<()> {
        let wide = match gate.system_type() {
            SystemType::CallGate32 => true,
            SystemType::CallGate16 => false,
            SystemType::Tss16 | SystemType::Tss32 | SystemType::Tss32Busy | SystemType::TaskGate => {
                return self.branch_to_task(selector, gate, cause, next);
            }
            _ => return Err(gp(selector).into()),
        };
        if gate.dpl() < self.cpl().max(selector.rpl()) {
            return Err(gp(selector).into());
        }
        if !gate.present() {
            return Err(not_present(selector).into());
        }
        let gate = Gate::new(gate, wide);
        let size = if wide { 4 } else { 2 };
        let code = self.gate_target(gate.selector, 0)?;
        let cpl = self.cpl();
        let inward = !code.is_conforming() && code.dpl() < cpl;
        match cause {
            Cause::Call if inward => return self.call_inner(gate, code, next, size),
            Cause::Call => self.push_return(next, size)?,
            _ if inward => return Err(gp(gate.selector).into()),
            _ => {}
        }
        self.load_stack_or_code(SegReg::Cs, gate.selector.with_rpl(cpl), code, cpl)?;
        self.set_eip(gate.offset);
        Ok(())
    }

    /// CALL through a gate to an inner ring: new stack, old stack pointer, parameters, return address.
    fn call_inner(&mut self, gate: Gate, code: Descriptor, next: u32, size: usize) -> Emulated<()> {
        let to = code.dpl();
        let (ss, stack, top) = self.call_gate_stack(to)?;
        let mut words = [0_u32; 36];
        let count = usize::from(gate.parameters);
        let (old_ss, old_esp) = (self.visible_selector(SegReg::Ss).0.into(), self.esp());
        for (i, word) in words.iter_mut().skip(2).take(count).enumerate() {
            *word = self.peek((i * size) as u32, size)?;
        }
        let total = count + 4;
        for (i, value) in
            [(0, next), (1, self.visible_selector(SegReg::Cs).0.into()), (count + 2, old_esp), (count + 3, old_ss)]
        {
            if let Some(word) = words.get_mut(i) {
                *word = value;
            }
        }
        let mut bytes = [0; 36 * 4];
        for (word, place) in words.iter().take(total).zip(bytes.chunks_exact_mut(size)) {
            if let Some(low) = word.to_le_bytes().get(..size) {
                place.copy_from_slice(low);
            }
        }
        let frame = bytes.get(..total * size).unwrap_or(&[]);
        let esp = top.wrapping_sub(frame.len() as u32);
        let offset = if stack.is_big() { esp } else { esp & 0xffff };
        self.write_linear(stack.base().wrapping_add(offset), frame, shadow_mmu::Privilege::Supervisor)?;
        self.enter_ring(to);
        self.load_stack_or_code(SegReg::Ss, ss, stack, to)?;
        self.load_stack_or_code(SegReg::Cs, gate.selector.with_rpl(to), code, to)?;
        self.set_esp(esp);
        self.set_eip(gate.offset);
        Ok(())
    }

    /// Checks the code segment that a return leads to.
    fn return_target(&mut self, selector: Selector) -> Emulated<Descriptor> {
        if selector.is_null() {
            return Err(Exception::gp(0).into());
        }
        let code = self.read_descriptor(selector)?.ok_or(gp(selector))?;
        let allowed = if code.is_conforming() { code.dpl() <= selector.rpl() } else { code.dpl() == selector.rpl() };
        if !code.is_code() || selector.rpl() < self.cpl() || !allowed {
            return Err(gp(selector).into());
        }
        if !code.present() {
            return Err(not_present(selector).into());
        }
        Ok(code)
    }

    /// Checks the stack segment that a return to an outer ring loads.
    fn return_stack(&mut self, selector: Selector, cpl: u8) -> Emulated<Descriptor> {
        if selector.is_null() {
            return Err(Exception::gp(0).into());
        }
        let stack = self.read_descriptor(selector)?.ok_or(gp(selector))?;
        if selector.rpl() != cpl || stack.dpl() != cpl || !stack.is_writable() {
            return Err(gp(selector).into());
        }
        if !stack.present() {
            return Err(Exception::coded(vector::SS, selector.error_code()).into());
        }
        Ok(stack)
    }

    /// Goes to the outer ring that a return frame names. Data segments of the inner ring are nulled by the CPU's own IRETQ.
    fn go_out(&mut self, cs: Selector, code: Descriptor, eip: u32, ss: Selector, esp: u32) -> Emulated<()> {
        let to = cs.rpl();
        let stack = self.return_stack(ss, to)?;
        self.enter_ring(to);
        self.load_stack_or_code(SegReg::Ss, ss, stack, to)?;
        self.load_stack_or_code(SegReg::Cs, cs, code, to)?;
        if stack.is_big() {
            self.set_esp(esp);
        } else {
            self.set_esp((self.esp() & !0xffff) | (esp & 0xffff));
        }
        self.set_eip(eip);
        Ok(())
    }

    /// Far RET, dropping `extra` bytes of parameters.
    pub(crate) fn far_return(&mut self, extra: u32, size: usize) -> Emulated<()> {
        let word = size as u32;
        let eip = self.peek(0, size)?;
        let cs = Selector(self.peek(word, size)? as u16);
        let code = self.return_target(cs)?;
        if cs.rpl() == self.cpl() {
            self.load_stack_or_code(SegReg::Cs, cs, code, cs.rpl())?;
            self.set_eip(eip);
            self.drop_stack(2 * word + extra);
            return Ok(());
        }
        let esp = self.peek(2 * word + extra, size)?;
        let ss = Selector(self.peek(3 * word + extra, size)? as u16);
        self.go_out(cs, code, eip, ss, esp.wrapping_add(extra))
    }

    /// IRET; `next` is the address behind it.
    pub(crate) fn interrupt_return(&mut self, size: usize, next: u32) -> Emulated<()> {
        self.vcpu.nmi_blocked = false; // even if it faults (SDM 3A 6.7.1)
        if self.nested_task() != 0 {
            return self.return_to_task(next);
        }
        let word = size as u32;
        let eip = self.peek(0, size)?;
        let cs = Selector(self.peek(word, size)? as u16);
        let image = self.peek(2 * word, size)?;
        let cpl = self.cpl();
        if size == 4 && image & flags::VM != 0 && cpl == 0 {
            return self.return_to_v86([eip, cs.0.into(), image]);
        }
        let code = self.return_target(cs)?;
        if cs.rpl() == cpl {
            self.load_stack_or_code(SegReg::Cs, cs, code, cpl)?;
            self.set_eip(eip);
            self.code.patching.note_return(eip);
            self.drop_stack(3 * word);
        } else {
            let esp = self.peek(3 * word, size)?;
            let ss = Selector(self.peek(4 * word, size)? as u16);
            self.go_out(cs, code, eip, ss, esp)?;
        }
        let mut mask = flags::REAL | flags::NT | flags::RF;
        if cpl <= self.vcpu.iopl() {
            mask |= flags::IF;
        }
        if cpl == 0 {
            mask |= flags::IOPL;
        }
        if size == 2 {
            mask &= 0xffff;
        }
        self.load_flags(image, mask);
        Ok(())
    }

    /// Loads flat CS and SS: the common part of the fast system calls, and where a new task begins.
    pub(crate) fn load_flat(&mut self, code: u16, stack: u16, cpl: u8) -> Emulated<()> {
        self.enter_ring(cpl);
        let (code_segment, stack_segment) = flat(cpl);
        self.load_fixed(SegReg::Ss, Selector(stack).with_rpl(cpl), stack_segment, cpl)?;
        self.load_fixed(SegReg::Cs, Selector(code).with_rpl(cpl), code_segment, cpl)
    }

    /// SYSENTER.
    pub(crate) fn sysenter(&mut self) -> Emulated<()> {
        let [cs, esp, eip] = self.vcpu.msrs.sysenter;
        if cs & !3 == 0 {
            return Err(Exception::gp(0).into());
        }
        self.load_flags(self.nested_task(), flags::NT);
        self.load_flat(cs as u16, (cs as u16).wrapping_add(8), 0)?;
        self.clear_flags(flags::VM | flags::IF);
        self.set_esp(esp);
        self.set_eip(eip);
        Ok(())
    }

    /// SYSEXIT.
    pub(crate) fn sysexit(&mut self) -> Emulated<()> {
        let [cs, ..] = self.vcpu.msrs.sysenter;
        if cs & !3 == 0 || self.cpl() != 0 {
            return Err(Exception::gp(0).into());
        }
        let (esp, eip) = (self.gpr(1), self.gpr(2));
        self.load_flat((cs as u16).wrapping_add(16), (cs as u16).wrapping_add(24), 3)?;
        self.set_esp(esp);
        self.set_eip(eip);
        Ok(())
    }

    /// SYSCALL in legacy mode; `next` is the address behind it.
    pub(crate) fn syscall(&mut self, next: u32) -> Emulated<()> {
        let star = self.vcpu.msrs.star;
        let cs = (star >> 32) as u16;
        self.set_gpr(1, next);
        self.load_flags(self.nested_task(), flags::NT);
        self.load_flat(cs, (cs & !3).wrapping_add(8), 0)?;
        self.clear_flags(flags::VM | flags::IF | flags::RF);
        self.set_eip(star as u32);
        Ok(())
    }

    /// SYSRET in legacy mode.
    pub(crate) fn sysret(&mut self) -> Emulated<()> {
        if self.cpl() != 0 {
            return Err(Exception::gp(0).into());
        }
        let cs = (self.vcpu.msrs.star >> 48) as u16;
        let eip = self.gpr(1);
        self.load_flat(cs, (cs & !3).wrapping_add(8), 3)?;
        self.vcpu.set_interrupts(true);
        self.set_eip(eip);
        Ok(())
    }
}
