//! What the CPU's exit codes mean.

use super::Svm;
use super::vmcb::{code, first, interrupt};
use crate::fault::{DEBUG, PAGE_FAULT};
use crate::idle;
use crate::virt::{HardwareExit, Instruction, Intercepted, TaskCause, TaskSwitch, Violation};
use crate::world::{State, status};
use shadow_mmu::AccessKind;

/// Error code bits of a nested page fault (APM 2, 15.25.6).
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;
const IN_TABLES: u64 = 1 << 33;

/// Fields of `exit_info2` of a task switch (APM 2, 15.14.1).
const BY_IRET: u64 = 1 << 36;
const BY_JMP: u64 = 1 << 38;
/// An event is in `exit_interrupted`.
const VALID: u64 = 1 << 31;

/// Fields of `exit_info1` of a port access.
const INPUT: u64 = 1 << 0;
const STRING: u64 = 1 << 2;

impl Svm {
    #[inline]
    pub(super) fn ended(&mut self, state: *mut State) -> HardwareExit {
        match self.vmcb().exit_code {
            code::CPUID => intercepted(Instruction::Cpuid, None),
            code::PORT => self.port(),
            code::NESTED_FAULT => self.nested_fault(),
            number @ code::EXCEPTION..=code::EXCEPTION_LAST => self.exception((number - code::EXCEPTION) as u8, state),
            code::INTERRUPT => {
                self.follow_shadow();
                HardwareExit::Interrupt(idle::wait())
            }
            code::WINDOW => {
                self.vmcb_mut().virtual_interrupt = interrupt::MASKING;
                HardwareExit::Window
            }
            code::IRET => {
                self.vmcb_mut().intercept_first &= !first::IRET;
                HardwareExit::Window
            }
            // Whatever it was about reaches the host by its own IDT.
            code::NMI => HardwareExit::Window,
            code::TASK_SWITCH => self.task_switch(),
            code::SHUTDOWN => HardwareExit::Shutdown,
            0..=code::INSTRUCTION_LAST => intercepted(Instruction::Other, None),
            number => HardwareExit::Refused(number),
        }
    }

    fn exception(&mut self, vector: u8, state: *mut State) -> HardwareExit {
        let vmcb = self.vmcb_mut();
        // SAFETY: the caller owns the world, so nothing else refers to its state.
        let state = unsafe { &mut *state };
        if vector == DEBUG {
            state.dr6 = status(core::mem::replace(&mut vmcb.dr6, status(0)));
        }
        state.context.vector = vector.into();
        state.context.error = vmcb.exit_info1 & 0xffff_ffff;
        if vector == PAGE_FAULT {
            state.cr2 = vmcb.exit_info2;
        }
        HardwareExit::Vector(vector)
    }

    /// A host interrupt ends a run before the instruction behind STI has run, and another one the next run. QEMU has forgotten by then
    /// that interrupts are held back: at the same address they still are. One that jumps to itself is held for one more round.
    fn follow_shadow(&mut self) {
        let at = self.vmcb().rip;
        let held = self.vmcb().interrupt_shadow & 1 != 0 || self.held_at == Some(at);
        self.held_at = held.then_some(at);
        if held {
            let vmcb = self.vmcb_mut();
            // A window that was asked for before would come too early; whoever still wants one asks again.
            (vmcb.interrupt_shadow, vmcb.virtual_interrupt) = (1, interrupt::MASKING);
        }
    }

    /// QEMU never leaves a guest for this.
    fn task_switch(&self) -> HardwareExit {
        let vmcb = self.vmcb();
        let cause = match vmcb.exit_info2 {
            info if info & BY_IRET != 0 => TaskCause::Return,
            info if info & BY_JMP != 0 => TaskCause::Jump,
            _ if vmcb.exit_interrupted & VALID != 0 => TaskCause::Event,
            _ => TaskCause::Call,
        };
        HardwareExit::TaskSwitch(TaskSwitch { cause, selector: vmcb.exit_info1 as u16, next: None })
    }

    fn port(&self) -> HardwareExit {
        let vmcb = self.vmcb();
        let info = vmcb.exit_info1;
        if info & STRING != 0 {
            return intercepted(Instruction::Other, None);
        }
        // One bit for each of 1, 2 and 4 bytes.
        let size = (info >> 4 & 7) as u8;
        let port = Instruction::Port { port: (info >> 16) as u16, size, output: info & INPUT == 0 };
        intercepted(port, Some(vmcb.exit_info2 as u32))
    }

    fn nested_fault(&self) -> HardwareExit {
        let (error, gpa) = (self.vmcb().exit_info1, self.vmcb().exit_info2);
        let kind = match error {
            _ if error & WRITE != 0 => AccessKind::Write,
            _ if error & FETCH != 0 => AccessKind::Fetch,
            _ => AccessKind::Read,
        };
        HardwareExit::Nested(Violation { gpa, kind, table: error & IN_TABLES != 0 })
    }
}

#[inline]
const fn intercepted(what: Instruction, next: Option<u32>) -> HardwareExit {
    HardwareExit::Intercepted(Intercepted { what, next })
}
