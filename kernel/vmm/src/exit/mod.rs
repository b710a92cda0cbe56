//! What happens at each exit: one match, one line an arm.

mod fault;
mod hardware;
mod short;
mod step;

pub(crate) use fault::{Faulted, NOT_RESIDENT, control_fault, mmu_stop};
pub(crate) use short::ShortWays;

use gnomon_hw::Exit;
use gnomon_trace::{Kind, Reason, Record};

use crate::code::Left;
use crate::event::{Event, Source};
use crate::trap::{Emulated, Exception, StopReason, Trap, vector};
use crate::vcpu::flags;
use crate::vm::Vm;

/// The system call gate that is open to INT n without decoding.
const SYSTEM_CALL: u8 = 0x80;

impl Vm {
    /// Handles one exit for which there is no short way.
    ///
    /// # Errors
    /// The reason for which the VM stops.
    #[inline(never)] // out of the way of the short ones
    pub(crate) fn on_exit(&mut self, exit: Exit) -> Result<(), StopReason> {
        let left = if self.code.patching.was_entered() { self.leave_patches(exit) } else { Left::Whole };
        match left {
            Left::Whole if self.faulted_shortly(exit) => return Ok(()),
            Left::Again => {
                self.count(Reason::CodeDiscovery);
                return Ok(());
            }
            Left::Whole | Left::Emulate => {}
        }
        let done = self.handle(exit, left);
        self.trace_resume();
        self.note_short_ways();
        done
    }

    fn handle(&mut self, exit: Exit, left: Left) -> Result<(), StopReason> {
        let stepped = self.end_step();
        if self.is_unveiled() {
            self.veil();
        }
        let tracing = self.world.context().rflags as u32 & flags::TF != 0;
        self.retired = false;
        (self.hits, self.vcpu.holds_step) = (0, false);
        // A page fault may belong to the instruction that is being stepped over; anything else ends that.
        let stepping = self.mmu.is_open() && matches!(exit, Exit::Vector(vector::PF));
        if !stepping {
            self.close_frames();
        }
        let outcome = match exit {
            Exit::Vector(_) if left == Left::Emulate => self.emulate_patched(),
            Exit::Vector(number) if self.world.is_hardware() => self.on_hardware_vector(number, stepped),
            Exit::Vector(number) => self.on_vector(number, stepped),
            Exit::Interrupt(_) => {
                self.count(Reason::HostInterrupt);
                self.devices_touched = true;
                Ok(())
            }
            Exit::V86 => Err(StopReason::Virtual8086.into()),
            Exit::EntryFailed(_) => Err(StopReason::EntryFailed.into()),
            Exit::Hardware => self.on_hardware_exit(),
        };
        if stepping {
            match outcome {
                Ok(()) if !self.retired => self.begin_step(),
                _ => self.close_frames(),
            }
        }
        match outcome {
            // The CPU cannot single-step over what was emulated, nor watch it: the trap is due now.
            Ok(()) if self.retired => match self.trap_behind(tracing) {
                Some(exception) => self.deliver(exception.into()),
                None => Ok(()),
            },
            Ok(()) => Ok(()),
            Err(trap) => self.on_trap(trap),
        }
    }

    #[inline(never)] // out of the way of the short ones
    pub(super) fn on_trap(&mut self, trap: Trap) -> Result<(), StopReason> {
        match trap {
            Trap::Exception(exception) => self.deliver(exception.into()),
            Trap::Stop(reason) => Err(reason),
        }
    }

    fn on_vector(&mut self, number: u8, stepped: bool) -> Emulated<()> {
        self.trace_exit(number);
        let error = self.world.context().error as u32;
        match number {
            vector::PF => self.on_page_fault(),
            vector::GP | vector::UD if error == 0 && self.on_patch_inside() => Ok(()),
            vector::GP | vector::NP if error > 3 && self.return_fast() => Ok(()),
            vector::GP | vector::NP | vector::SS | vector::UD => {
                self.on_refused(number, error).inspect_err(|_| self.count(Reason::Exception))
            }
            vector::BP if self.on_shadow_code() => match self.code_breakpoint() {
                Some(exception) => self.reflect(exception),
                None => self.on_code_trap(),
            },
            vector::BP | vector::OF => self.on_open_gate(number, 1),
            SYSTEM_CALL => self.on_open_gate(number, 2),
            vector::DB => self.on_debug(stepped),
            vector::DE | vector::BR | vector::NM | vector::MF | vector::XM => self.reflect(Exception::plain(number)),
            vector::AC => self.reflect(Exception::coded(number, 0)),
            _ => Err(StopReason::Internal("an exit with a vector that no guest can raise").into()),
        }
    }

    pub(super) fn trace_exit(&self, number: u8) {
        self.tracer.record(|| {
            let context = self.world.context();
            Record {
                code: number,
                flags: self.cpl(),
                arg: context.error as u32,
                a: context.rip,
                b: if number == vector::PF { self.world.cr2() } else { 0 },
                c: context.rsp,
                ..Record::new(Kind::Exit)
            }
        });
    }

    /// Passes an exception on.
    pub(super) fn reflect(&mut self, exception: Exception) -> Emulated<()> {
        self.count(Reason::Exception);
        Err(exception.into())
    }

    /// A software interrupt through a gate that is open in the host's IDT: EIP is behind the instruction already.
    fn on_open_gate(&mut self, number: u8, length: u32) -> Emulated<()> {
        self.count(Reason::SoftInterrupt);
        let instruction = self.eip().wrapping_sub(length);
        let event = Event { vector: number, error: None, cr2: None, source: Source::Software };
        self.deliver_software(event, instruction)
    }
}
