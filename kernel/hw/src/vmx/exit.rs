//! What the CPU's exit reasons mean.

use super::Vmx;
use super::events::interrupted;
use super::vmcs::{field, read};
use crate::fault::{DEBUG, PAGE_FAULT};
use crate::idt::IRQ_BASE;
use crate::irq;
use crate::virt::{EventKind, HardwareExit, Instruction, Intercepted, TaskCause, TaskSwitch, Violation};
use crate::world::{State, status};
use shadow_mmu::AccessKind;

/// Basic exit reasons (SDM 3D, appendix C).
mod reason {
    pub(super) const EXCEPTION: u64 = 0;
    pub(super) const INTERRUPT: u64 = 1;
    pub(super) const TRIPLE_FAULT: u64 = 2;
    pub(super) const WINDOW: u64 = 7;
    pub(super) const NMI_WINDOW: u64 = 8;
    pub(super) const TASK_SWITCH: u64 = 9;
    pub(super) const CPUID: u64 = 10;
    pub(super) const INVLPG: u64 = 14;
    pub(super) const RDTSC: u64 = 16;
    pub(super) const VMCALL: u64 = 18;
    pub(super) const CONTROL: u64 = 28;
    pub(super) const PORT: u64 = 30;
    pub(super) const WRMSR: u64 = 32;
    pub(super) const MWAIT: u64 = 36;
    pub(super) const MONITOR: u64 = 39;
    pub(super) const PAUSE: u64 = 40;
    pub(super) const EPT_VIOLATION: u64 = 48;
    pub(super) const INVEPT: u64 = 50;
    pub(super) const XSETBV: u64 = 55;
    pub(super) const INVPCID: u64 = 58;
}

const NMI: u8 = 2;
/// Bits of an EPT violation's qualification.
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 2;
const LINEAR: u64 = 1 << 7;
const FINAL: u64 = 1 << 8;
/// Of a control register access's qualification: the register's number, and whether it is MOV to it, MOV from it or something else.
const CONTROL_AND_KIND: u64 = 0x3f;
const TO_CR3: u64 = 3;
const FROM_CR3: u64 = 1 << 4 | 3;
/// Bits of a port access's qualification.
const INPUT: u64 = 1 << 3;
const STRING: u64 = 1 << 4;

impl Vmx {
    #[inline]
    pub(super) fn ended(&mut self, state: *mut State) -> HardwareExit {
        match read(field::EXIT_REASON) {
            reason::CPUID => self.intercepted(Instruction::Cpuid),
            reason::PORT => self.port(),
            reason::CONTROL => self.control(),
            reason::INVLPG => self.intercepted(Instruction::Invalidate(read(field::QUALIFICATION) as u32)),
            reason::EPT_VIOLATION => violation(),
            reason::EXCEPTION => exception(state),
            reason::INTERRUPT => {
                // The CPU has acknowledged it at the interrupt controller and tells the vector.
                let vector = read(field::EXIT_EVENT) as u8;
                HardwareExit::Interrupt(irq::acknowledge(vector.wrapping_sub(IRQ_BASE)))
            }
            reason::WINDOW | reason::NMI_WINDOW => {
                self.window_open();
                HardwareExit::Window
            }
            reason::TASK_SWITCH => self.task_switch(),
            reason::TRIPLE_FAULT => HardwareExit::Shutdown,
            reason::CPUID..=reason::RDTSC
            | reason::VMCALL..=reason::WRMSR
            | reason::MWAIT
            | reason::MONITOR..=reason::PAUSE
            | reason::INVEPT..=reason::XSETBV
            | reason::INVPCID => self.intercepted(Instruction::Other),
            number => HardwareExit::Refused(number),
        }
    }

    #[inline]
    fn intercepted(&self, what: Instruction) -> HardwareExit {
        let [rip, ..] = self.known;
        let next = rip.wrapping_add(read(field::LENGTH)) as u32;
        HardwareExit::Intercepted(Intercepted { what, next: Some(next) })
    }

    /// Which register moves where (SDM 3C 27.2.1, exit qualification of control register accesses).
    fn control(&self) -> HardwareExit {
        let info = read(field::QUALIFICATION);
        let register = (info >> 8 & 0xf) as u8;
        self.intercepted(match info & CONTROL_AND_KIND {
            TO_CR3 => Instruction::LoadCr3(register),
            FROM_CR3 => Instruction::ReadCr3(register),
            _ => Instruction::Other,
        })
    }

    /// Selector in bits 0 to 15 of the qualification, the cause in 30 and 31 (SDM 3C 27.2.1, exit qualification of task switches).
    fn task_switch(&self) -> HardwareExit {
        let info = read(field::QUALIFICATION);
        let cause = match info >> 30 & 3 {
            0 => TaskCause::Call,
            1 => TaskCause::Return,
            2 => TaskCause::Jump,
            _ => TaskCause::Event,
        };
        let instruction =
            cause != TaskCause::Event || interrupted().is_some_and(|event| event.kind == EventKind::Software);
        let [rip, ..] = self.known;
        let next = instruction.then(|| rip.wrapping_add(read(field::LENGTH)) as u32);
        HardwareExit::TaskSwitch(TaskSwitch { cause, selector: info as u16, next })
    }

    fn port(&self) -> HardwareExit {
        let info = read(field::QUALIFICATION);
        if info & STRING != 0 {
            return self.intercepted(Instruction::Other);
        }
        let size = (info & 7) as u8 + 1;
        self.intercepted(Instruction::Port { port: (info >> 16) as u16, size, output: info & INPUT == 0 })
    }
}

fn exception(state: *mut State) -> HardwareExit {
    let event = read(field::EXIT_EVENT);
    let vector = event as u8;
    if vector == NMI {
        // Of the host's machine; nothing here makes one.
        return HardwareExit::Window;
    }
    // SAFETY: the caller owns the world, so nothing else refers to its state.
    let state = unsafe { &mut *state };
    state.context.vector = vector.into();
    state.context.error = if event & 1 << 11 != 0 { read(field::EXIT_ERROR) } else { 0 };
    if vector == DEBUG {
        state.dr6 = status(read(field::QUALIFICATION));
    }
    if vector == PAGE_FAULT {
        state.cr2 = read(field::QUALIFICATION);
    }
    HardwareExit::Vector(vector)
}

fn violation() -> HardwareExit {
    let info = read(field::QUALIFICATION);
    let kind = match info {
        _ if info & WRITE != 0 => AccessKind::Write,
        _ if info & FETCH != 0 => AccessKind::Fetch,
        _ => AccessKind::Read,
    };
    HardwareExit::Nested(Violation { gpa: read(field::GUEST_PHYSICAL), kind, table: info & (LINEAR | FINAL) == LINEAR })
}
