//! The guest's breakpoints in the CPU's debug registers.
//!
//! They act while the guest runs and at no other time: DR7 is armed right before an entry and disarmed right behind the exit, so that
//! the host's own accesses to the guest's memory meet none. A guest without breakpoints pays nothing: one that has some is never
//! *active*, which is what a run looks at first.

use super::{Exit, World, resident};
use crate::entry::GuestContext;
use crate::fault;
use core::arch::asm;

/// DR7 without any breakpoint (SDM 3B 17.2.4).
const DISARMED: u64 = 1 << 10;
/// DR6 while nothing has happened (SDM 3B 17.2.3).
const DR6_NOTHING: u64 = 0xffff_0ff0;
/// DR7 bits that a guest may have in the CPU: enables, lengths and types. Not GD, which would catch the host's own accesses.
const DR7_GUEST: u32 = 0xffff_03ff;
/// Type "I/O" of a breakpoint, and type "instruction".
const PORT: u32 = 2;
const INSTRUCTION: u32 = 0;
const RF: u64 = 1 << 16;

/// Breakpoints as the guest has set them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breakpoints {
    /// DR0 to DR3.
    pub addresses: [u32; 4],
    /// DR7.
    pub control: u32,
    /// Instruction breakpoints of its kernel act at these very addresses: it does not run shadow code.
    pub kernel_code: bool,
}

impl Breakpoints {
    /// Whether there are any that the CPU can watch.
    const fn armed(&self) -> bool {
        self.real(true) & 0xff != 0
    }

    /// DR7 for the CPU. Port accesses are emulated, and so are their breakpoints. Without `code`, no instruction breakpoints.
    const fn real(&self, code: bool) -> u32 {
        let mut control = self.control & DR7_GUEST;
        let mut number = 0;
        while number < 4 {
            let kind = control >> (16 + 4 * number) & 3;
            if kind == PORT || (kind == INSTRUCTION && !code) {
                control &= !(3 << (2 * number));
            }
            number += 1;
        }
        control
    }

    /// DR7 for a run in this ring. Code that does not lie where it says (a base that is not 0) has no instruction breakpoints: QEMU 7.2
    /// stops its whole machine there, since it finds the place by the linear address and then asks for EIP.
    const fn control_in(&self, ring: u64, code_moved: bool) -> u32 {
        self.real((ring == 3 || self.kernel_code) && !code_moved)
    }
}

impl World {
    /// Sets the guest's breakpoints. What they hit is told by [`take_debug_status`](Self::take_debug_status).
    pub fn set_breakpoints(&mut self, breakpoints: Breakpoints) {
        self.state_mut().breakpoints = breakpoints;
        self.state_mut().armed = breakpoints.armed();
        self.deactivate();
    }

    /// After #DB: DR6 as the guest's CPU has set it, from nothing. It is asked once for each.
    pub fn take_debug_status(&mut self) -> u32 {
        if self.is_hardware() {
            return core::mem::replace(&mut self.state_mut().dr6, DR6_NOTHING) as u32;
        }
        let status: u64;
        // SAFETY: DR6 only tells what has happened; the host has no breakpoints of its own.
        unsafe {
            asm!("mov {}, dr6", out(reg) status, options(nomem, nostack, preserves_flags));
            asm!("mov dr6, {}", in(reg) DR6_NOTHING, options(nomem, nostack, preserves_flags));
        }
        status as u32
    }

    /// A run of a deprivileged guest that has breakpoints.
    #[cold]
    pub(super) fn run_armed(&mut self) -> Exit {
        resident::activate(self.state.as_ptr());
        let GuestContext { cs, rip, rflags, .. } = *self.context();
        let moved = self.state().moved_code;
        let control = self.state().breakpoints.control_in(cs & 3, moved);
        arm(&self.state().breakpoints, control);
        let exit = self.enter();
        disarm();
        self.keep_resume_flag(rip, rflags, exit);
        exit
    }

    /// RF stands until its instruction is done. One that has faulted, or that was an INT3 in its place, is not; and what the CPU says
    /// then differs: Intel's sets RF with most faults, QEMU's leaves it as it was.
    fn keep_resume_flag(&mut self, rip: u64, rflags: u64, exit: Exit) {
        let context = self.context_mut();
        let kernel = context.cs & 3 != 3;
        let again = match exit {
            Exit::Vector(fault::BREAKPOINT) if kernel => context.rip == rip.wrapping_add(1),
            _ => context.rip == rip,
        };
        context.rflags = context.rflags & !RF | if again { rflags & RF } else { 0 };
    }
}

/// Arms the CPU's debug registers for a run of a hardware guest whose code segment has this base; gives its DR7.
pub(crate) fn arm_hardware(breakpoints: &Breakpoints, base: u64) -> u64 {
    let control = breakpoints.real(base == 0);
    arm(breakpoints, control);
    u64::from(control) | DISARMED
}

/// What a hardware guest's DR6 says after #DB, from the reasons that the CPU gave.
pub(crate) const fn status(reasons: u64) -> u64 {
    DR6_NOTHING | reasons & (0xf | 3 << 13)
}

/// Arms the CPU's debug registers.
fn arm(breakpoints: &Breakpoints, control: u32) {
    let [first, second, third, fourth] = breakpoints.addresses.map(u64::from);
    // SAFETY: the addresses are below 4 GiB, where the host has neither code nor data; GD is not among the bits.
    unsafe {
        asm!(
            "mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", "mov dr6, {}", "mov dr7, {}",
            in(reg) first, in(reg) second, in(reg) third, in(reg) fourth,
            in(reg) DR6_NOTHING, in(reg) u64::from(control) | DISARMED,
            options(nostack, preserves_flags),
        );
    }
}

/// Disarms them.
pub(crate) fn disarm() {
    // SAFETY: without breakpoints the CPU does what it does.
    unsafe { asm!("mov dr7, {}", in(reg) DISARMED, options(nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breakpoints(control: u32) -> Breakpoints {
        Breakpoints { control, ..Breakpoints::default() }
    }

    #[test]
    fn what_is_emulated_is_not_armed() {
        // Number 0: instruction, 1: write, 2: port, 3: read or write.
        let all = breakpoints(0xffff_20ff);
        let kinds = breakpoints(0b0011_0010_0001_0000 << 16 | 0xff);
        assert_eq!(kinds.real(true) & 0xff, 0b1100_1111, "ports are not");
        assert_eq!(kinds.real(false) & 0xff, 0b1100_1100, "nor instructions");
        assert_eq!(kinds.control_in(1, false) & 0xff, 0b1100_1100, "a kernel on shadow code");
        assert_eq!(kinds.control_in(3, false) & 0xff, 0b1100_1111);
        assert_eq!(kinds.control_in(3, true) & 0xff, 0b1100_1100, "code that is moved");
        assert_eq!(all.real(true) & 1 << 13, 0, "GD");
        assert!(!breakpoints(0x0002_0003).armed() && breakpoints(1).armed() && !breakpoints(0x700).armed());
    }
}
