//! Emulation of the instructions that shadow code made to trap; the list is `code/sensitive.rs`.

use gnomon_hw::features;
use gnomon_trace::Reason;
use iced_x86::{Instruction, Mnemonic, OpKind};

use super::{Next, loads_segment, operand, register_size};
use crate::build::MAXPHYADDR;
use crate::trap::{Emulated, Exception};
use crate::vcpu::{Descriptor, Selector, SystemType, cpuid, flags};
use crate::vm::Vm;

/// What LAR shows of the upper half of a descriptor: type, S, DPL, P, AVL, D/B, G (SDM 2A, LAR).
const ACCESS_RIGHTS: u32 = 0x00f0_ff00;
/// IA32_APIC_BASE: the APIC is enabled.
const APIC_ENABLED: u64 = 1 << 11;

/// What POPF loads at privilege level 0.
const POPPED: u32 = flags::REAL | flags::NT | flags::IF | flags::IOPL;

impl Vm {
    /// Emulates a sensitive instruction.
    pub(crate) fn emulate_sensitive(&mut self, insn: &Instruction) -> Emulated<()> {
        let (reason, next) = self.dispatch_sensitive(insn)?;
        self.count(reason);
        self.finish(insn, next);
        Ok(())
    }

    pub(super) fn dispatch_sensitive(&mut self, insn: &Instruction) -> Emulated<(Reason, Next)> {
        let done = match insn.mnemonic() {
            Mnemonic::Pushf => self.push(self.pushed_flags(), 2),
            Mnemonic::Pushfd => self.push(self.pushed_flags(), 4),
            Mnemonic::Popf => self.pop_flags(2),
            Mnemonic::Popfd => self.pop_flags(4),
            Mnemonic::Mov if insn.op_kind(1) == OpKind::Register && insn.op_register(1).is_segment_register() => {
                self.move_selector(insn)
            }
            Mnemonic::Push if insn.op_kind(0) == OpKind::Register && insn.op_register(0).is_segment_register() => {
                self.push_selector(insn)
            }
            Mnemonic::Lar => self.load_access_rights(insn),
            Mnemonic::Lsl => self.load_limit(insn),
            Mnemonic::Verr => self.verify(insn, Descriptor::is_readable),
            Mnemonic::Verw => self.verify(insn, Descriptor::is_writable),
            Mnemonic::Arpl => self.adjust_level(insn),
            Mnemonic::Cpuid => {
                self.identify();
                return Ok((Reason::Cpuid, Next::Advance));
            }
            Mnemonic::Iret
            | Mnemonic::Iretd
            | Mnemonic::Retf
            | Mnemonic::Sgdt
            | Mnemonic::Sidt
            | Mnemonic::Sldt
            | Mnemonic::Str
            | Mnemonic::Smsw
            | Mnemonic::Int
            | Mnemonic::Int3 => return self.dispatch(insn, Exception::ud()),
            Mnemonic::Call if insn.is_call_far() || insn.is_call_far_indirect() => {
                return self.dispatch(insn, Exception::ud());
            }
            // Reads through CS of what has an emulation of its own.
            Mnemonic::Lgdt
            | Mnemonic::Lidt
            | Mnemonic::Lldt
            | Mnemonic::Ltr
            | Mnemonic::Lmsw
            | Mnemonic::Invlpg
            | Mnemonic::Outsb
            | Mnemonic::Outsw
            | Mnemonic::Outsd => return self.dispatch(insn, Exception::gp(0)),
            Mnemonic::Jmp if insn.is_jmp_far_indirect() => return self.dispatch(insn, Exception::gp(0)),
            _ if loads_segment(insn) => return self.dispatch(insn, Exception::gp(0)),
            _ => return Ok((Reason::Sensitive, self.execute_memory(insn)?)),
        };
        done.map(|()| (Reason::Sensitive, Next::Advance))
    }

    /// EFLAGS as PUSHF stores it: RF and VM are 0 (SDM 2B, PUSHF).
    pub(crate) fn pushed_flags(&self) -> u32 {
        self.eflags() & !(flags::RF | flags::VM)
    }

    /// POPF at privilege level 0; the guest's user code executes its own natively.
    fn pop_flags(&mut self, size: usize) -> Emulated<()> {
        let image = self.peek(0, size)?;
        self.drop_stack(size as u32);
        self.load_flags(image, if size == 2 { POPPED & 0xffff } else { POPPED });
        Ok(())
    }

    /// What POPF of 32 bits does with the image at privilege level 0.
    pub(crate) fn load_popped_flags(&mut self, image: u32) {
        self.load_flags(image, POPPED);
    }

    fn move_selector(&mut self, insn: &Instruction) -> Emulated<()> {
        let segment = operand::segment_register(insn.op_register(1)).ok_or(Exception::ud())?;
        let size = if insn.op_kind(0) == OpKind::Register { register_size(insn.op0_register()) } else { 2 };
        self.write_operand(insn, 0, size, self.visible_selector_any(segment).into())
    }

    fn push_selector(&mut self, insn: &Instruction) -> Emulated<()> {
        let segment = operand::segment_register(insn.op_register(0)).ok_or(Exception::ud())?;
        let size = insn.stack_pointer_increment().unsigned_abs() as usize;
        self.push(self.visible_selector_any(segment).into(), size)
    }

    fn set_zero_flag(&mut self, on: bool) {
        self.load_flags(if on { flags::ZF } else { 0 }, flags::ZF);
    }

    /// The descriptor that LAR, LSL, VERR and VERW may look at; `None`: the instruction clears ZF.
    fn visible_descriptor(&mut self, insn: &Instruction, operand: u32) -> Emulated<Option<Descriptor>> {
        let selector = Selector(self.read_operand(insn, operand, 2)? as u16);
        let Some(descriptor) = self.read_descriptor(selector)? else { return Ok(None) };
        let outer = self.cpl().max(selector.rpl());
        let reachable = descriptor.is_conforming() || outer <= descriptor.dpl();
        Ok(reachable.then_some(descriptor))
    }

    /// LAR (SDM 2A): of system descriptors, all but interrupt and trap gates and the reserved types.
    fn load_access_rights(&mut self, insn: &Instruction) -> Emulated<()> {
        let descriptor = self.visible_descriptor(insn, 1)?.filter(|descriptor| {
            descriptor.is_segment()
                || !matches!(
                    descriptor.system_type(),
                    SystemType::Reserved
                        | SystemType::InterruptGate16
                        | SystemType::InterruptGate32
                        | SystemType::TrapGate16
                        | SystemType::TrapGate32
                )
        });
        if let Some(Descriptor(raw)) = descriptor {
            self.set_register(insn.op0_register(), (raw >> 32) as u32 & ACCESS_RIGHTS)?;
        }
        self.set_zero_flag(descriptor.is_some());
        Ok(())
    }

    /// LSL (SDM 2A): of system descriptors, TSS and LDT.
    fn load_limit(&mut self, insn: &Instruction) -> Emulated<()> {
        let descriptor = self.visible_descriptor(insn, 1)?.filter(|descriptor| {
            descriptor.is_segment()
                || matches!(
                    descriptor.system_type(),
                    SystemType::Tss16 | SystemType::Tss32 | SystemType::Tss32Busy | SystemType::Ldt
                )
        });
        if let Some(descriptor) = descriptor {
            self.set_register(insn.op0_register(), descriptor.limit())?;
        }
        self.set_zero_flag(descriptor.is_some());
        Ok(())
    }

    fn verify(&mut self, insn: &Instruction, allows: fn(Descriptor) -> bool) -> Emulated<()> {
        let descriptor = self.visible_descriptor(insn, 0)?;
        self.set_zero_flag(descriptor.is_some_and(allows));
        Ok(())
    }

    fn adjust_level(&mut self, insn: &Instruction) -> Emulated<()> {
        let first = Selector(self.read_operand(insn, 0, 2)? as u16);
        let level = Selector(self.read_operand(insn, 1, 2)? as u16).rpl();
        let raises = first.rpl() < level;
        if raises {
            self.write_operand(insn, 0, 2, first.with_rpl(level).0.into())?;
        }
        self.set_zero_flag(raises);
        Ok(())
    }

    /// CPUID.
    pub(crate) fn identify(&mut self) {
        let apic = self.bus.apic_base().is_some_and(|base| base & APIC_ENABLED != 0);
        let machine = cpuid::Machine { apic, cr4: self.vcpu.cr4_offered, physical_bits: MAXPHYADDR };
        let [eax, ebx, ecx, edx] = cpuid::identify(self.gpr(0), self.gpr(1), machine, features::cpuid);
        self.set_gpr(0, eax);
        self.set_gpr(1, ecx);
        self.set_gpr(2, edx);
        self.set_gpr(3, ebx);
    }
}
