//! The devices' interrupt lines and deadlines. Both are taken over from a device only after it may have changed them.
//!
//! Each line goes to the 8259 pair and to the I/O APIC, to the pin of the same number; the timer's goes to pin 2, as the MP
//! table says.

use super::Bus;
use crate::dev::time::Nanos;

pub(super) const IRQ_TIMER: u8 = 0;
pub(super) const IRQ_KEYBOARD: u8 = 1;
pub(super) const IRQ_COM1: u8 = 4;
pub(super) const IRQ_CLOCK: u8 = 8;
pub(super) const IRQ_MOUSE: u8 = 12;

/// Lines that go to the 8259s too.
const IRQS: u8 = 16;

/// No deadline: the end of time.
pub(super) const NEVER: Nanos = Nanos::new(u64::MAX);

/// When each device has something to do next; [`NEVER`] if nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    timer: Nanos,
    com1: Nanos,
    clock: Nanos,
    apic: Nanos,
}

impl Deadlines {
    pub(super) const NONE: Self = Self { timer: NEVER, com1: NEVER, clock: NEVER, apic: NEVER };
}

/// The I/O APIC's pin of an IRQ.
const fn pin(irq: u8) -> u8 {
    if irq == IRQ_TIMER { 2 } else { irq }
}

impl Bus {
    /// A deadline has come.
    #[inline(never)]
    pub(super) fn run_timers(&mut self) {
        self.pit.advance(self.now);
        self.com1.advance(self.now);
        self.cmos.advance(self.now);
        self.lapic.advance(self.now);
        self.deadlines.apic = self.lapic.next_deadline().unwrap_or(NEVER);
        self.drive_lines();
    }

    /// Both lines of the keyboard controller.
    pub(super) fn drive_keyboard(&mut self) {
        self.set_line(IRQ_KEYBOARD, self.keyboard.interrupt());
        self.set_line(IRQ_MOUSE, self.keyboard.mouse_interrupt());
    }

    /// Puts all devices' lines on the interrupt controllers' inputs and takes over their deadlines.
    pub(super) fn drive_lines(&mut self) {
        self.drive_keyboard();
        self.drive_timer();
        self.drive_com1();
        self.drive_clock();
        self.drive_disks();
    }

    /// Drives the line of an IRQ.
    #[inline]
    pub(super) fn set_line(&mut self, irq: u8, high: bool) {
        self.pic.set_line(irq, high);
        if let Some(message) = self.io_apic.set_line(pin(irq), high) {
            self.lapic.receive(message);
        }
    }

    /// Drives one of the I/O APIC's 24 inputs for the test device, the first 16 as the line of that IRQ.
    pub(super) fn set_test_line(&mut self, line: u8, high: bool) {
        if line < IRQS {
            self.set_line(line, high);
        } else if let Some(message) = self.io_apic.set_line(line, high) {
            self.lapic.receive(message);
        }
        self.take_over_apic();
    }

    pub(super) fn drive_timer(&mut self) {
        if self.pit.take_edge() {
            self.pic.pulse(IRQ_TIMER);
            if let Some(message) = self.io_apic.pulse(pin(IRQ_TIMER)) {
                self.lapic.receive(message);
            }
        }
        self.deadlines.timer = self.pit.next_deadline().unwrap_or(NEVER);
        self.find_due();
    }

    #[inline(never)]
    pub(super) fn drive_com1(&mut self) {
        self.set_line(IRQ_COM1, self.com1.interrupt());
        self.deadlines.com1 = self.com1.next_deadline().unwrap_or(NEVER);
        self.find_due();
    }

    pub(super) fn drive_clock(&mut self) {
        self.set_line(IRQ_CLOCK, self.cmos.interrupt());
        self.deadlines.clock = self.cmos.next_deadline().unwrap_or(NEVER);
        self.find_due();
    }

    /// To be called after every change of the local APIC.
    pub(in crate::dev) fn take_over_apic(&mut self) {
        self.deadlines.apic = self.lapic.next_deadline().unwrap_or(NEVER);
        self.find_due();
    }

    /// To be called after every change of a deadline or of what the interrupt controllers wait for.
    #[inline(never)]
    pub(super) fn find_due(&mut self) {
        self.lapic.set_lint0(self.pic.interrupt());
        let Deadlines { timer, com1, clock, apic } = self.deadlines;
        self.due = timer.min(com1).min(clock).min(apic);
        let awaited = |irq, deadline| {
            if self.pic.awaits(irq) || self.io_apic.is_open(pin(irq)) { deadline } else { NEVER }
        };
        // Typed bytes arrive for a guest that polls, too; but nobody has to wake it up for them.
        let isa = awaited(IRQ_TIMER, timer).min(awaited(IRQ_COM1, com1)).min(awaited(IRQ_CLOCK, clock));
        self.wake = isa.min(apic);
    }
}
