//! The host's 16550 serial ports. Source: National Semiconductor PC16550D data sheet, register summary.

use x86::io::{inb, outb};

/// One serial port by its first I/O port.
#[derive(Clone, Copy)]
pub(crate) struct Uart(u16);

/// The console.
pub(crate) const COM1: Uart = Uart(0x3f8);
/// The trace port.
pub(crate) const COM2: Uart = Uart(0x2f8);

// Registers, by offset.
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;

// Bits of the line status.
const RECEIVED: u8 = 1 << 0;
const HOLDING_EMPTY: u8 = 1 << 5;
const ALL_SENT: u8 = 1 << 6;

/// Whether received bytes raise the port's interrupt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receive {
    Interrupt,
    Silent,
}

impl Uart {
    /// 115200 baud, 8 data bits, no parity, one stop bit. The FIFOs are cleared and off: emulators then fetch a byte only when
    /// the last one was read, so that none is lost however late that is (with its FIFO on Bochs overruns it).
    pub(crate) fn init(self, receive: Receive) {
        self.write(INTERRUPT_ENABLE, 0);
        self.write(LINE_CONTROL, 0x80);
        self.write(DATA, 1);
        self.write(INTERRUPT_ENABLE, 0);
        self.write(LINE_CONTROL, 0x03);
        self.write(FIFO_CONTROL, 0x07);
        self.write(FIFO_CONTROL, 0);
        self.write(MODEM_CONTROL, 0x0b);
        self.write(INTERRUPT_ENABLE, u8::from(receive == Receive::Interrupt));
    }

    /// Sends a byte, after waiting for room. A port that is not there reads as ones, which is "room".
    pub(crate) fn send(self, byte: u8) {
        while self.read(LINE_STATUS) & HOLDING_EMPTY == 0 {}
        self.write(DATA, byte);
    }

    /// A byte that arrived. A port that is not there gives none.
    pub(crate) fn receive(self) -> Option<u8> {
        let status = self.read(LINE_STATUS);
        (status & RECEIVED != 0 && status != 0xff).then(|| self.read(DATA))
    }

    /// Waits until everything is on the wire.
    pub(crate) fn flush(self) {
        while self.read(LINE_STATUS) & ALL_SENT == 0 {}
    }

    fn read(self, register: u16) -> u8 {
        // SAFETY: reading a UART register has no effect on memory; the port numbers are those of the PC's serial ports.
        unsafe { inb(self.0 + register) }
    }

    fn write(self, register: u16, value: u8) {
        // SAFETY: writing a UART register has no effect on memory.
        unsafe { outb(self.0 + register, value) };
    }
}
