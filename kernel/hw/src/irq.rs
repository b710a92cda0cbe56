//! The host's interrupt controllers, a pair of 8259s. Source: Intel 8259A data sheet.

use crate::idt::IRQ_BASE;
use x86::io::{inb, outb};

/// An interrupt line of the host, 0 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Irq(pub u8);

impl Irq {
    /// The timer that [`time::arm_timer`](crate::time::arm_timer) sets.
    pub const TIMER: Self = Self(0);
    /// A byte arrived at the console.
    pub const CONSOLE: Self = Self(4);
}

const FIRST: u16 = 0x20;
const SECOND: u16 = 0xa0;

const END_OF_INTERRUPT: u8 = 0x20;
const READ_IN_SERVICE: u8 = 0x0b;

/// How many lines there are.
pub(crate) const LINES: u8 = 16;

/// The lines that are let through: timer, the second controller, COM1.
const OPEN: u16 = 1 << 0 | 1 << 2 | 1 << 4;

fn command(controller: u16, value: u8) {
    // SAFETY: commands to an interrupt controller have no effect on memory, and host code runs with interrupts off.
    unsafe { outb(controller, value) };
}

fn data(controller: u16, value: u8) {
    command(controller + 1, value);
}

/// Moves the lines to the host's vectors and opens those it uses.
pub(crate) fn init() {
    for (controller, base, wiring) in [(FIRST, IRQ_BASE, 1 << 2), (SECOND, IRQ_BASE + 8, 2)] {
        command(controller, 0x11);
        data(controller, base);
        data(controller, wiring);
        data(controller, 0x01);
    }
    data(FIRST, !(OPEN as u8));
    data(SECOND, !((OPEN >> 8) as u8));
}

/// Tells the controller that the interrupt on line `number` (0..16) was taken. A spurious one (lines 7 and 15 only) is not in
/// service, and an end of interrupt would hit another.
pub(crate) fn acknowledge(number: u8) -> Irq {
    if number >= 8 {
        if number != 15 || in_service(SECOND) & 0x80 != 0 {
            command(SECOND, END_OF_INTERRUPT);
        }
        command(FIRST, END_OF_INTERRUPT);
    } else if number != 7 || in_service(FIRST) & 0x80 != 0 {
        command(FIRST, END_OF_INTERRUPT);
    }
    Irq(number)
}

fn in_service(controller: u16) -> u8 {
    command(controller, READ_IN_SERVICE);
    // SAFETY: reading the register just selected has no effect on memory.
    unsafe { inb(controller) }
}
