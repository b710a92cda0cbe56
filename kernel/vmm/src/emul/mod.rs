//! Emulation of the instructions that trapped.
//!
//! `decode.rs` fetches and decodes, this file looks at the mnemonic and picks who does it: `control.rs` (CRs, DRs, MSRs, TLB),
//! `tables.rs` (descriptor tables, segment loads), `far.rs` (everything that changes CS), `io.rs` (ports), `memory.rs`, `string.rs`,
//! `integer.rs`, `stack.rs` and `simd.rs` (memory forms that write tracked frames or reach devices; `alu.rs`, `shift.rs` and
//! `multiply.rs` compute).

mod alu;
mod cache;
mod control;
mod decode;
mod far;
mod integer;
mod io;
mod memory;
mod multiply;
mod native;
mod operand;
mod recipe;
mod sensitive;
mod shift;
mod simd;
mod stack;
mod string;
mod tables;

pub(crate) use cache::DecodeCache;
pub(crate) use far::flat;
use gnomon_hw::SegReg;
use gnomon_trace::Reason;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
pub(crate) use recipe::{Control, Port, Recipe};

use crate::event::{Event, Source};
use crate::segments::Sync;
use crate::task::Cause;
use crate::trap::{Emulated, Exception, StopReason, vector};
use crate::vcpu::{Selector, cr0, cr4, efer, flags};
use crate::vm::Vm;

/// Where the guest goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Behind the instruction.
    Advance,
    /// Where EIP points now: a transfer was made, or the instruction is to run again.
    Stay,
}

/// Bytes of a general, control or segment register.
fn register_size(register: Register) -> usize {
    register.size()
}

impl Vm {
    /// Handles a fault of an instruction (#GP, #NP, #SS, #UD): emulates it if the guest believes it could run it, else passes the
    /// fault on.
    pub(crate) fn on_refused(&mut self, number: u8, error: u32) -> Emulated<()> {
        let selector = Selector(error as u16);
        // A load of a descriptor that the live table does not have yet: install it and let the CPU try again.
        let selected = number != vector::UD && error & 2 == 0 && !selector.is_null();
        if selected && !self.is_live(selector) && self.sync_selector(selector)? == Sync::Changed {
            self.count(Reason::SegmentLoad);
            return Ok(());
        }
        let insn = self.decode()?;
        let native = match number {
            vector::UD => Exception::ud(),
            _ => Exception::coded(number, error),
        };
        let (reason, next) = self.dispatch(&insn, native)?;
        self.count(reason);
        let eip = self.eip();
        self.finish(&insn, next);
        if matches!(reason, Reason::Cli | Reason::Sti) && self.on_shadow_code() {
            self.note_hot(eip);
        }
        Ok(())
    }

    /// Moves EIP on.
    pub(crate) fn finish(&mut self, insn: &Instruction, next: Next) {
        if next == Next::Advance {
            self.set_eip(insn.next_ip32());
        } else if matches!(insn.mnemonic(), Mnemonic::Int | Mnemonic::Int3 | Mnemonic::Into) {
            // It was done before its handler got the frame; no step is due in front of that (SDM 3B 17.3.1.4).
            return;
        }
        // IRET has loaded RF for the instruction that it returns to.
        if !matches!(insn.mnemonic(), Mnemonic::Iret | Mnemonic::Iretd) {
            self.world.context_mut().rflags &= !u64::from(flags::RF);
        }
        self.retired = true;
    }

    /// Picks the emulation of a privileged or refused instruction; `native` is the exception if there is none.
    pub(crate) fn dispatch(&mut self, insn: &Instruction, native: Exception) -> Emulated<(Reason, Next)> {
        let advance = |done: Emulated<()>, reason| done.map(|()| (reason, Next::Advance));
        let stay = |done: Emulated<()>, reason| done.map(|()| (reason, Next::Stay));
        let size = if narrow_operands(insn) { 2 } else { 4 };
        match insn.mnemonic() {
            Mnemonic::Cli => advance(self.set_interrupt_flag(insn, false), Reason::Cli),
            Mnemonic::Sti => advance(self.set_interrupt_flag(insn, true), Reason::Sti),
            Mnemonic::Hlt => advance(self.halt(), Reason::Hlt),
            Mnemonic::In => advance(self.port_access(insn, false), Reason::Io),
            Mnemonic::Out => advance(self.port_access(insn, true), Reason::Io),
            Mnemonic::Insb => self.string_port_access(insn, false, 1).map(|next| (Reason::StringIo, next)),
            Mnemonic::Insw => self.string_port_access(insn, false, 2).map(|next| (Reason::StringIo, next)),
            Mnemonic::Insd => self.string_port_access(insn, false, 4).map(|next| (Reason::StringIo, next)),
            Mnemonic::Outsb => self.string_port_access(insn, true, 1).map(|next| (Reason::StringIo, next)),
            Mnemonic::Outsw => self.string_port_access(insn, true, 2).map(|next| (Reason::StringIo, next)),
            Mnemonic::Outsd => self.string_port_access(insn, true, 4).map(|next| (Reason::StringIo, next)),

            Mnemonic::Iret | Mnemonic::Iretd => stay(self.interrupt_return(size, insn.next_ip32()), Reason::Iret),
            Mnemonic::Retf => stay(self.far_return(far_return_bytes(insn), size), Reason::FarReturn),
            Mnemonic::Jmp => stay(self.far_branch(insn, Cause::Jump, size), Reason::FarTransfer),
            Mnemonic::Call => stay(self.far_branch(insn, Cause::Call, size), Reason::FarTransfer),
            Mnemonic::Int => stay(self.software_interrupt(insn.immediate8(), insn), Reason::SoftInterrupt),
            Mnemonic::Int3 => stay(self.software_interrupt(vector::BP, insn), Reason::SoftInterrupt),
            Mnemonic::Into => stay(self.software_interrupt(vector::OF, insn), Reason::SoftInterrupt),
            Mnemonic::Int1 => stay(self.trap_after(vector::DB, insn), Reason::Exception),

            Mnemonic::Sysenter => stay(self.sysenter(), Reason::FastSyscall),
            Mnemonic::Sysexit => stay(self.sysexit(), Reason::FastSyscall),
            Mnemonic::Syscall if self.vcpu.msrs.efer & efer::SCE != 0 => {
                stay(self.syscall(insn.next_ip32()), Reason::FastSyscall)
            }
            Mnemonic::Sysret if self.vcpu.msrs.efer & efer::SCE != 0 => stay(self.sysret(), Reason::FastSyscall),

            Mnemonic::Sgdt | Mnemonic::Sidt | Mnemonic::Sldt | Mnemonic::Str | Mnemonic::Smsw
                if self.are_tables_hidden() =>
            {
                Err(Exception::gp(0).into())
            }
            Mnemonic::Sgdt => advance(self.store_table(insn, self.vcpu.gdtr), Reason::DescriptorTable),
            Mnemonic::Sidt => advance(self.store_table(insn, self.vcpu.idtr), Reason::DescriptorTable),
            Mnemonic::Sldt => advance(self.store_selector(insn, self.vcpu.ldtr.selector), Reason::DescriptorTable),
            Mnemonic::Str => advance(self.store_selector(insn, self.vcpu.tr.selector), Reason::DescriptorTable),
            Mnemonic::Smsw => advance(self.store_machine_status(insn), Reason::ReadCr),

            Mnemonic::Mov
            | Mnemonic::Pop
            | Mnemonic::Lds
            | Mnemonic::Les
            | Mnemonic::Lfs
            | Mnemonic::Lgs
            | Mnemonic::Lss
                if loads_segment(insn) =>
            {
                advance(self.load_segment_instruction(insn, native), Reason::SegmentLoad)
            }
            // Where it is intercepted, it is so on every privilege level.
            Mnemonic::Cpuid => {
                self.identify();
                Ok((Reason::Cpuid, Next::Advance))
            }
            Mnemonic::Rdtsc => advance(self.read_tsc(), Reason::Cpuid),
            _ if self.cpl() != 0 => Err(native.into()),
            _ => self.dispatch_privileged(insn, native),
        }
    }

    /// The instructions that only privilege level 0 may use.
    fn dispatch_privileged(&mut self, insn: &Instruction, native: Exception) -> Emulated<(Reason, Next)> {
        let narrow = narrow_operands(insn);
        let (done, reason) = match insn.mnemonic() {
            Mnemonic::Mov if insn.op1_register().is_cr() => (self.read_control(insn), Reason::ReadCr),
            Mnemonic::Mov if insn.op0_register().is_cr() => {
                let reason = if insn.op0_register() == Register::CR3 { Reason::WriteCr3 } else { Reason::WriteCr };
                (self.write_control(insn), reason)
            }
            Mnemonic::Mov if insn.op0_register().is_dr() || insn.op1_register().is_dr() => {
                (self.move_debug(insn), Reason::DebugRegister)
            }
            Mnemonic::Clts => (self.write_cr0(self.vcpu.cr0 & !cr0::TS), Reason::WriteCr),
            Mnemonic::Lmsw => (self.load_machine_status(insn), Reason::WriteCr),
            Mnemonic::Invlpg => (self.invalidate_page(insn), Reason::Invlpg),
            Mnemonic::Lgdt => (self.load_gdt(insn, narrow), Reason::DescriptorTable),
            Mnemonic::Lidt => (self.load_idt(insn, narrow), Reason::DescriptorTable),
            Mnemonic::Lldt => (self.load_ldt(insn), Reason::DescriptorTable),
            Mnemonic::Ltr => (self.load_task_register(insn), Reason::DescriptorTable),
            Mnemonic::Rdmsr => (self.read_msr(), Reason::Msr),
            Mnemonic::Wrmsr => (self.write_msr(), Reason::Msr),
            Mnemonic::Invd | Mnemonic::Wbinvd => (Ok(()), Reason::CacheControl),
            Mnemonic::Stac | Mnemonic::Clac if self.offers_cr4(cr4::SMAP) => {
                self.set_access_flag(insn.mnemonic() == Mnemonic::Stac);
                (Ok(()), Reason::OtherPrivileged)
            }
            _ => return Err(native.into()),
        };
        done.map(|()| (reason, Next::Advance))
    }

    /// CLI and STI (SDM 2A, 2B).
    fn set_interrupt_flag(&mut self, insn: &Instruction, on: bool) -> Emulated<()> {
        if self.cpl() > self.vcpu.iopl() {
            return Err(Exception::gp(0).into());
        }
        if on {
            self.set_interrupts_after(insn.next_ip32());
        } else {
            self.vcpu.set_interrupts(false);
        }
        Ok(())
    }

    /// STI: interrupts are on, from one instruction behind `next` on if they were off.
    pub(crate) fn set_interrupts_after(&mut self, next: u32) {
        if !self.vcpu.interrupts_on() {
            self.vcpu.interrupt_shadow = Some(next);
        }
        self.vcpu.set_interrupts(true);
    }

    /// HLT.
    fn halt(&mut self) -> Emulated<()> {
        if self.cpl() != 0 {
            return Err(Exception::gp(0).into());
        }
        if !self.vcpu.interrupts_on() && (self.nmi_blocked() || !self.bus.nmi_may_come()) {
            return Err(StopReason::HaltedForever.into());
        }
        self.vcpu.halted = true;
        self.vcpu.interrupt_shadow = None;
        Ok(())
    }

    /// INT n and its relatives: the return address is behind the instruction.
    pub(crate) fn software_interrupt(&mut self, number: u8, insn: &Instruction) -> Emulated<()> {
        let eip = self.eip();
        self.finish(insn, Next::Advance);
        let event = Event { vector: number, error: None, cr2: None, source: Source::Software };
        self.deliver_software(event, eip)
    }

    /// An exception of the kind that is reported behind its instruction.
    fn trap_after(&mut self, number: u8, insn: &Instruction) -> Emulated<()> {
        self.finish(insn, Next::Advance);
        Err(Exception::plain(number).into())
    }

    fn store_selector(&mut self, insn: &Instruction, selector: Selector) -> Emulated<()> {
        let size = if insn.op_kind(0) == OpKind::Register { register_size(insn.op0_register()) } else { 2 };
        self.write_operand(insn, 0, size, selector.0.into())
    }

    /// MOV, POP or Lxx of a segment register that the live table refused.
    fn load_segment_instruction(&mut self, insn: &Instruction, native: Exception) -> Emulated<()> {
        match insn.mnemonic() {
            Mnemonic::Mov => {
                let segment = operand::segment_register(insn.op0_register()).ok_or(native)?;
                let selector = Selector(self.read_operand(insn, 1, 2)? as u16);
                self.load_segment(segment, selector)?;
                self.shadow_stack_load(segment, insn);
            }
            Mnemonic::Pop => {
                let segment = operand::segment_register(insn.op0_register()).ok_or(native)?;
                let size = insn.stack_pointer_increment().unsigned_abs() as usize;
                let selector = Selector(self.peek(0, 2)? as u16);
                // On the old stack: POP SS changes what a stack is.
                let esp = self.esp();
                self.drop_stack(size as u32);
                self.load_segment(segment, selector).inspect_err(|_| self.set_esp(esp))?;
                self.shadow_stack_load(segment, insn);
            }
            mnemonic => {
                let segment = match mnemonic {
                    Mnemonic::Lds => SegReg::Ds,
                    Mnemonic::Les => SegReg::Es,
                    Mnemonic::Lfs => SegReg::Fs,
                    Mnemonic::Lgs => SegReg::Gs,
                    _ => SegReg::Ss,
                };
                let size = register_size(insn.op0_register());
                let address = self.memory_address(insn)?;
                let offset = self.read_sized(address, size)?;
                let selector = Selector(self.read_sized(address.wrapping_add(size as u32), 2)? as u16);
                self.load_segment(segment, selector)?;
                self.set_register(insn.op0_register(), offset)?;
            }
        }
        Ok(())
    }

    /// MOV SS and POP SS hold interrupts off for one instruction (SDM 3A 6.8.3).
    fn shadow_stack_load(&mut self, segment: SegReg, insn: &Instruction) {
        if segment == SegReg::Ss {
            self.vcpu.interrupt_shadow = Some(insn.next_ip32());
            self.vcpu.holds_step = true;
        }
    }

    /// Far JMP or CALL: immediate or memory pointer.
    fn far_branch(&mut self, insn: &Instruction, cause: Cause, size: usize) -> Emulated<()> {
        // A near branch only faults by what its operands reach.
        let pointer = self.far_pointer(insn)?.ok_or(Exception::gp(0))?;
        self.far_transfer(pointer, cause, insn.next_ip32(), size)
    }

    /// Where a far JMP or CALL leads, as the instruction says it; `None` for a near one.
    pub(crate) fn far_pointer(&mut self, insn: &Instruction) -> Emulated<Option<(Selector, u32)>> {
        let (selector, offset) = match insn.op0_kind() {
            OpKind::FarBranch16 => (insn.far_branch_selector(), u32::from(insn.far_branch16())),
            OpKind::FarBranch32 => (insn.far_branch_selector(), insn.far_branch32()),
            OpKind::Memory if is_far_memory(insn) => {
                let size = if narrow_operands(insn) { 2 } else { 4 };
                let address = self.memory_address(insn)?;
                let offset = self.read_sized(address, size)?;
                (self.read_sized(address.wrapping_add(size as u32), 2)? as u16, offset)
            }
            _ => return Ok(None),
        };
        Ok(Some((Selector(selector), offset)))
    }
}

fn loads_segment(insn: &Instruction) -> bool {
    operand::segment_register(insn.op0_register()).is_some()
        || matches!(insn.mnemonic(), Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lss)
}

fn is_far_memory(insn: &Instruction) -> bool {
    matches!(insn.code(), Code::Jmp_m1616 | Code::Jmp_m1632 | Code::Call_m1616 | Code::Call_m1632)
}

fn far_return_bytes(insn: &Instruction) -> u32 {
    if insn.op_count() == 1 { insn.immediate16().into() } else { 0 }
}

/// Whether the operand size is 16 bits, for the instructions whose mnemonic does not say.
fn narrow_operands(insn: &Instruction) -> bool {
    matches!(
        insn.code(),
        Code::Iretw
            | Code::Retfw
            | Code::Retfw_imm16
            | Code::Jmp_m1616
            | Code::Call_m1616
            | Code::Jmp_ptr1616
            | Code::Call_ptr1616
            | Code::Lgdt_m1632_16
            | Code::Lidt_m1632_16
    )
}
