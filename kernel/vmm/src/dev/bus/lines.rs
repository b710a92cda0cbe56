//! The devices' interrupt lines and deadlines. Both are taken over from a device only after it may have changed them.

use super::Bus;
use crate::dev::time::Nanos;

pub(super) const IRQ_TIMER: u8 = 0;
pub(super) const IRQ_KEYBOARD: u8 = 1;
pub(super) const IRQ_COM1: u8 = 4;
pub(super) const IRQ_CLOCK: u8 = 8;

/// No deadline: the end of time.
pub(super) const NEVER: Nanos = Nanos::new(u64::MAX);

/// When each device has something to do next; [`NEVER`] if nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    timer: Nanos,
    com1: Nanos,
    clock: Nanos,
}

impl Deadlines {
    pub(super) const NONE: Self = Self { timer: NEVER, com1: NEVER, clock: NEVER };
}

impl Bus {
    /// A deadline has come.
    #[inline(never)]
    pub(super) fn run_timers(&mut self) {
        self.pit.advance(self.now);
        self.com1.advance(self.now);
        self.cmos.advance(self.now);
        self.drive_lines();
    }

    /// Puts all devices' lines on the 8259s' inputs and takes over their deadlines.
    pub(super) fn drive_lines(&mut self) {
        self.pic.set_line(IRQ_KEYBOARD, self.keyboard.interrupt());
        self.drive_timer();
        self.drive_com1();
        self.drive_clock();
    }

    pub(super) fn drive_timer(&mut self) {
        if self.pit.take_edge() {
            self.pic.pulse(IRQ_TIMER);
        }
        self.deadlines.timer = self.pit.next_deadline().unwrap_or(NEVER);
        self.find_due();
    }

    #[inline(never)]
    pub(super) fn drive_com1(&mut self) {
        self.pic.set_line(IRQ_COM1, self.com1.interrupt());
        self.deadlines.com1 = self.com1.next_deadline().unwrap_or(NEVER);
        self.find_due();
    }

    pub(super) fn drive_clock(&mut self) {
        self.pic.set_line(IRQ_CLOCK, self.cmos.interrupt());
        self.deadlines.clock = self.cmos.next_deadline().unwrap_or(NEVER);
        self.find_due();
    }

    /// To be called after every change of a deadline or of what the 8259s wait for.
    #[inline(never)]
    pub(super) fn find_due(&mut self) {
        let Deadlines { timer, com1, clock } = self.deadlines;
        self.due = timer.min(com1).min(clock);
        let awaited = |irq, deadline| if self.pic.awaits(irq) { deadline } else { NEVER };
        // Typed bytes arrive for a guest that polls, too; but nobody has to wake it up for them.
        self.wake = awaited(IRQ_TIMER, timer).min(awaited(IRQ_COM1, com1)).min(awaited(IRQ_CLOCK, clock));
    }
}
