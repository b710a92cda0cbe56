//! The guest's breakpoints, and its debug exceptions (SDM 3B 17).
//!
//! Breakpoints on data, and on the instructions of user code, are the real CPU's: it has the guest's debug registers while the guest
//! runs ([`gnomon_hw::Breakpoints`]). What the CPU does not do itself is asked here: port accesses, data accesses of emulated
//! instructions, and instructions of a kernel on shadow code. These stay hidden in the window, so that each is reached by a trap.
//!
//! A guest with breakpoints takes no short ways.

use gnomon_hw::Breakpoints;
use gnomon_trace::Reason;
use iced_x86::{Instruction, Register};

use crate::exit::ShortWays;
use crate::trap::{Emulated, Exception, vector};
use crate::vcpu::{dr6, dr7, flags};
use crate::vm::Vm;

/// CR4.DE.
const DEBUG_EXTENSIONS: u32 = 1 << 3;

impl Vm {
    /// MOV to or from a debug register.
    ///
    /// # Errors
    /// #DB if DR7.GD is set, #UD for registers that do not exist.
    pub(crate) fn move_debug(&mut self, insn: &Instruction) -> Emulated<()> {
        let writes = insn.op0_register().is_dr();
        let register = if writes { insn.op0_register() } else { insn.op1_register() };
        let number = self.debug_register(register).ok_or(Exception::ud())?;
        if self.vcpu.debug.guards_itself() {
            return Err(self.debug_exception(dr6::BD).into());
        }
        if writes {
            let value = self.register(insn.op1_register())?;
            self.vcpu.debug.write(number, value);
            if number != 6 {
                self.follow_breakpoints();
            }
            Ok(())
        } else {
            self.set_register(insn.op0_register(), self.vcpu.debug.read(number))
        }
    }

    /// Number of a debug register. DR4 and DR5 are DR6 and DR7 while CR4.DE is clear (SDM 3B 17.2.2).
    fn debug_register(&self, register: Register) -> Option<usize> {
        let number = (register as usize).wrapping_sub(Register::DR0 as usize);
        match number {
            4 | 5 if self.vcpu.cr4 & DEBUG_EXTENSIONS != 0 => None,
            4 | 5 => Some(number + 2),
            0..=7 => Some(number),
            _ => None,
        }
    }

    /// The debug registers have changed.
    pub(crate) fn follow_breakpoints(&mut self) {
        let debug = self.vcpu.debug;
        let armed = debug.armed();
        if !(armed || self.armed) {
            return;
        }
        self.armed = armed;
        self.watched = armed || self.tracer.is_on();
        self.short_ways = ShortWays::Closed;
        let kernel_code = self.world.is_hardware() || !self.code.is_on();
        let (addresses, control) = (debug.addresses(), debug.control());
        self.world.set_breakpoints(Breakpoints { addresses, control, kernel_code });
        self.hide_breakpoints();
    }

    /// Clears enable bits of DR7 that are the leaving task's.
    pub(crate) fn forget_local_breakpoints(&mut self) {
        self.vcpu.debug.forget(dr7::LOCAL);
        self.follow_breakpoints();
    }

    /// An emulated instruction has accessed data.
    #[inline]
    pub(crate) fn note_data(&mut self, address: u32, size: usize, write: bool) {
        if self.armed {
            self.compare_data(address, size, write);
        }
    }

    #[cold]
    fn compare_data(&mut self, address: u32, size: usize, write: bool) {
        self.hits |= self.vcpu.debug.data_hits(address, size as u32, write);
    }

    /// An instruction is about to access ports.
    #[inline]
    pub(crate) fn note_port(&mut self, port: u16, size: usize) {
        if self.armed {
            self.compare_port(port, size);
        }
    }

    #[cold]
    fn compare_port(&mut self, port: u16, size: usize) {
        if self.vcpu.cr4 & DEBUG_EXTENSIONS != 0 {
            self.hits |= self.vcpu.debug.port_hits(port, size as u32);
        }
    }

    /// After INT3 in shadow code, EIP being behind it: the exception if the guest has a breakpoint there that counts.
    #[inline]
    pub(crate) fn code_breakpoint(&mut self) -> Option<Exception> {
        if self.armed { self.compare_code() } else { None }
    }

    #[cold]
    fn compare_code(&mut self) -> Option<Exception> {
        if self.world.context().rflags as u32 & flags::RF != 0 {
            return None;
        }
        let eip = self.eip().wrapping_sub(1);
        let linear = self.segment_base(gnomon_hw::SegReg::Cs).wrapping_add(eip);
        let hits = self.vcpu.debug.code_hits(linear);
        if hits == 0 {
            return None;
        }
        self.set_eip(eip);
        Some(self.debug_exception(hits))
    }

    /// #DB of the CPU: our own single step, the guest's, a breakpoint, or INT1.
    pub(crate) fn on_debug(&mut self, stepped: bool) -> Emulated<()> {
        let own = self.world.context().rflags as u32 & flags::TF != 0;
        let status = self.world.take_debug_status();
        let hits = status & dr6::HITS & self.enabled_hits();
        if stepped && !own && hits == 0 {
            self.count(Reason::SingleStep);
            return Ok(());
        }
        // A step of the guest's that its POPF has ended counts.
        let step = if stepped && !own { 0 } else { status & dr6::BS };
        self.count(Reason::Exception);
        Err(self.debug_exception(hits | step).into())
    }

    /// Breakpoints that the CPU may have found: it may also tell of some that are not enabled.
    const fn enabled_hits(&self) -> u32 {
        let control = self.vcpu.debug.control();
        let either = control | control >> 1;
        (either & 1) | (either >> 1 & 2) | (either >> 2 & 4) | (either >> 3 & 8)
    }

    /// What is due behind an instruction that was emulated, `tracing` if TF was set when it began.
    #[cold]
    pub(crate) fn trap_behind(&mut self, tracing: bool) -> Option<Exception> {
        let hits = core::mem::take(&mut self.hits);
        // MOV SS and POP SS hold a single step off as they do interrupts (SDM 3A 6.8.3).
        let tracing = tracing && !self.vcpu.holds_step;
        let step = if tracing { dr6::BS } else { 0 };
        (hits | step != 0).then(|| self.debug_exception(hits | step))
    }

    /// A debug exception for these reasons. Its delivery switches DR7.GD off.
    pub(crate) fn debug_exception(&mut self, reasons: u32) -> Exception {
        self.vcpu.debug.note(reasons);
        self.vcpu.debug.forget(dr7::GD);
        Exception::plain(vector::DB)
    }
}
