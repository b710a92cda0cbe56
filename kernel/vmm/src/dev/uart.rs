//! A 16550A UART. Register names are those of the data sheet: RBR, THR, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR, DLL, DLM.
//!
//! A byte leaves as soon as it is written; typed bytes come in at the line's speed and wait when there is no room, as with
//! a sender that heeds flow control. OUT2 does not gate the interrupt: real cards gate it, QEMU does not, and teaching
//! kernels that were written on QEMU leave it off.

mod registers;

use alloc::collections::VecDeque;

use self::registers::{Fcr, Ier, Lsr, Mcr, Msr};
use super::time::{NANOS_PER_SECOND, Nanos, earlier};

/// The UART's crystal in Hz; 16 clocks make a bit at divisor 1.
const CLOCK: u64 = 1_843_200;
const FIFO_DEPTH: usize = 16;
/// Typed bytes that may wait for the guest; more are dropped.
const LINE_DEPTH: usize = 4096;
/// Character times without a read after which a FIFO below its trigger level interrupts.
const TIMEOUT_CHARACTERS: u64 = 4;
const DLAB: u8 = 0x80;
/// IIR and FCR bits that say that the FIFOs are on.
const FIFOS_ENABLED: u8 = 0xC0;

/// The interrupt the IIR names, in falling priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    LineStatus,
    ReceivedData,
    Timeout,
    TransmitterEmpty,
    ModemStatus,
}

impl Cause {
    fn iir(self) -> u8 {
        match self {
            Self::LineStatus => 0x06,
            Self::ReceivedData => 0x04,
            Self::Timeout => 0x0C,
            Self::TransmitterEmpty => 0x02,
            Self::ModemStatus => 0x00,
        }
    }
}

/// One 16550A.
#[derive(Clone, Debug)]
pub(super) struct Uart {
    ier: Ier,
    lcr: u8,
    mcr: Mcr,
    /// The changes since the last read, and the lines.
    msr: Msr,
    scratch: u8,
    divisor: u16,
    fifos: bool,
    trigger: usize,
    received: VecDeque<u8>,
    /// What RBR shows, without FIFOs, when nothing new came: the byte read last.
    rbr: u8,
    overrun: bool,
    /// The transmitter-empty interrupt was not yet seen in the IIR.
    thr_interrupt: bool,
    timeout: bool,
    /// When the receiver was last read or written to.
    touched: Nanos,
    /// Typed bytes still on the line, and when the next can be here.
    line: VecDeque<u8>,
    next_arrival: Nanos,
    /// A read may have changed the interrupt output or the deadline.
    changed: bool,
}

impl Uart {
    /// A UART after reset, with a terminal connected.
    pub(super) fn new() -> Self {
        Self {
            ier: Ier::empty(),
            lcr: 0,
            mcr: Mcr::OUT2,
            msr: Msr::CTS | Msr::DSR | Msr::DCD,
            scratch: 0,
            divisor: 12,
            fifos: false,
            trigger: 1,
            received: VecDeque::new(),
            rbr: 0,
            overrun: false,
            thr_interrupt: false,
            timeout: false,
            touched: Nanos::ZERO,
            line: VecDeque::new(),
            next_arrival: Nanos::ZERO,
            changed: false,
        }
    }

    /// The interrupt output.
    pub(super) fn interrupt(&self) -> bool {
        self.cause().is_some()
    }

    /// Whether a read since the last call may have changed what [`Self::interrupt`] or [`Self::next_deadline`] say. The LSR,
    /// which a polling guest reads all the time, seldom does.
    #[inline]
    pub(super) fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// Reads register `offset` (0..7).
    #[inline]
    pub(super) fn read(&mut self, offset: u16, now: Nanos) -> u8 {
        if offset & 7 == 5 {
            return self.read_lsr();
        }
        self.read_other(offset, now)
    }

    #[inline(never)]
    fn read_other(&mut self, offset: u16, now: Nanos) -> u8 {
        match (offset & 7, self.lcr & DLAB != 0) {
            (0, true) => self.divisor.to_le_bytes()[0],
            (1, true) => self.divisor.to_le_bytes()[1],
            (0, false) => self.read_rbr(now),
            (1, false) => self.ier.bits(),
            (2, _) => self.read_iir(),
            (3, _) => self.lcr,
            (4, _) => self.mcr.bits(),
            (6, _) => self.read_msr(),
            _ => self.scratch,
        }
    }

    /// Whether a write of register `offset` is the common one: a byte leaves, and no interrupt comes of it.
    #[inline]
    pub(super) fn sends_quietly(&self, offset: u16) -> bool {
        let quiet = !self.ier.contains(Ier::TRANSMITTER_EMPTY) && !self.mcr.contains(Mcr::LOOPBACK);
        quiet && offset & 7 == 0 && self.lcr & DLAB == 0
    }

    /// Writes register `offset` (0..7). A byte that leaves the UART is returned; the caller then drives the interrupt line
    /// and calls [`Self::transmitted`].
    #[must_use]
    pub(super) fn write(&mut self, offset: u16, value: u8, now: Nanos) -> Option<u8> {
        match (offset & 7, self.lcr & DLAB != 0) {
            (0, true) => self.divisor = (self.divisor & 0xFF00) | u16::from(value),
            (1, true) => self.divisor = (self.divisor & 0x00FF) | u16::from(value) << 8,
            (0, false) => return self.write_thr(value, now),
            (1, false) => self.write_ier(Ier::from_bits_truncate(value)),
            (2, _) => self.write_fcr(value, now),
            (3, _) => self.lcr = value,
            (4, _) => self.write_mcr(Mcr::from_bits_truncate(value)),
            (7, _) => self.scratch = value,
            _ => {} // LSR and MSR are read only
        }
        None
    }

    /// The byte of the last THR write has left: the transmitter is empty again.
    pub(super) fn transmitted(&mut self) {
        self.thr_interrupt = true;
    }

    /// Whether another byte can be typed without loss.
    pub(super) fn has_room(&self) -> bool {
        self.line.len() < LINE_DEPTH
    }

    /// A byte was typed. It takes its turn on the line.
    pub(super) fn type_byte(&mut self, byte: u8, now: Nanos) {
        if self.has_room() {
            self.line.push_back(byte);
        }
        self.advance(now);
    }

    /// Takes the typed bytes back that the guest has not read.
    pub(super) fn take_unread(&mut self) -> impl Iterator<Item = u8> + '_ {
        self.received.drain(..).chain(self.line.drain(..))
    }

    /// Lets typed bytes arrive and the receiver time out.
    pub(super) fn advance(&mut self, now: Nanos) {
        while self.next_arrival <= now && self.can_receive() {
            let Some(byte) = self.line.pop_front() else { break };
            self.next_arrival = now.plus(self.character_time());
            self.receive(byte, now);
        }
        if self.timeout_deadline().is_some_and(|deadline| deadline <= now) {
            self.timeout = true;
        }
    }

    /// When `advance` has something to do.
    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        let arrival = (!self.line.is_empty() && self.can_receive()).then_some(self.next_arrival);
        earlier(arrival, self.timeout_deadline())
    }

    fn timeout_deadline(&self) -> Option<Nanos> {
        let waits = self.fifos && !self.timeout && !self.received.is_empty() && self.received.len() < self.trigger;
        waits.then(|| self.touched.plus(self.character_time().saturating_mul(TIMEOUT_CHARACTERS)))
    }

    /// Nanoseconds for one character at the programmed speed and format.
    fn character_time(&self) -> u64 {
        let data = 5 + u64::from(self.lcr & 3);
        let parity = u64::from(self.lcr >> 3 & 1);
        let stop = 1 + u64::from(self.lcr >> 2 & 1);
        (1 + data + parity + stop) * u64::from(self.divisor.max(1)) * 16 * NANOS_PER_SECOND / CLOCK
    }

    fn capacity(&self) -> usize {
        if self.fifos { FIFO_DEPTH } else { 1 }
    }

    fn can_receive(&self) -> bool {
        self.received.len() < self.capacity() && !self.mcr.contains(Mcr::LOOPBACK)
    }

    /// A whole character is in the receiver's shift register.
    fn receive(&mut self, byte: u8, now: Nanos) {
        if self.received.len() >= self.capacity() {
            self.overrun = true;
            if self.fifos {
                return; // the FIFO keeps what it has, the new character is lost
            }
            self.received.clear();
        }
        self.received.push_back(byte);
        self.touched = now;
        self.timeout = false;
    }

    fn cause(&self) -> Option<Cause> {
        let received = self.ier.contains(Ier::RECEIVED_DATA);
        let enough = if self.fifos { self.trigger } else { 1 };
        if self.ier.contains(Ier::LINE_STATUS) && self.overrun {
            Some(Cause::LineStatus)
        } else if received && self.received.len() >= enough {
            Some(Cause::ReceivedData)
        } else if received && self.timeout {
            Some(Cause::Timeout)
        } else if self.ier.contains(Ier::TRANSMITTER_EMPTY) && self.thr_interrupt {
            Some(Cause::TransmitterEmpty)
        } else if self.ier.contains(Ier::MODEM_STATUS) && self.msr.intersects(Msr::CHANGES) {
            Some(Cause::ModemStatus)
        } else {
            None
        }
    }

    fn read_rbr(&mut self, now: Nanos) -> u8 {
        self.changed = true;
        self.touched = now;
        self.timeout = false;
        // The next byte on the line needs its time even if it waited for room, so that the interrupt falls in between.
        if self.received.len() >= self.capacity() {
            self.next_arrival = self.next_arrival.max(now.plus(self.character_time()));
        }
        match self.received.pop_front() {
            Some(byte) => self.rbr = byte,
            None if self.fifos => return 0,
            None => {}
        }
        self.rbr
    }

    fn read_iir(&mut self) -> u8 {
        let cause = self.cause();
        if cause == Some(Cause::TransmitterEmpty) {
            self.thr_interrupt = false;
            self.changed = true;
        }
        let fifos = if self.fifos { FIFOS_ENABLED } else { 0 };
        cause.map_or(0x01, Cause::iir) | fifos
    }

    fn read_lsr(&mut self) -> u8 {
        let mut lsr = Lsr::THR_EMPTY | Lsr::TRANSMITTER_EMPTY;
        lsr.set(Lsr::DATA_READY, !self.received.is_empty());
        if core::mem::take(&mut self.overrun) {
            lsr |= Lsr::OVERRUN;
            self.changed = true;
        }
        lsr.bits()
    }

    fn read_msr(&mut self) -> u8 {
        let value = self.msr.bits();
        self.changed |= self.msr.intersects(Msr::CHANGES);
        self.msr.remove(Msr::CHANGES);
        value
    }

    fn write_thr(&mut self, value: u8, now: Nanos) -> Option<u8> {
        self.thr_interrupt = false;
        if !self.mcr.contains(Mcr::LOOPBACK) {
            return Some(value);
        }
        self.receive(value, now);
        self.thr_interrupt = true;
        None
    }

    fn write_ier(&mut self, ier: Ier) {
        // Enabling the interrupt while THR is empty raises it (it always is empty here).
        if ier.contains(Ier::TRANSMITTER_EMPTY) && !self.ier.contains(Ier::TRANSMITTER_EMPTY) {
            self.thr_interrupt = true;
        }
        self.ier = ier;
    }

    fn write_fcr(&mut self, value: u8, now: Nanos) {
        let fcr = Fcr::from_bits_truncate(value);
        let enable = fcr.contains(Fcr::ENABLE);
        // A change of the enable bit clears the FIFOs; with it off the other bits are not programmed (data sheet, FCR).
        if enable != self.fifos || (enable && fcr.contains(Fcr::CLEAR_RECEIVER)) {
            self.received.clear();
            self.timeout = false;
            self.touched = now;
        }
        self.fifos = enable;
        if enable {
            self.trigger = match value >> 6 {
                0 => 1,
                1 => 4,
                2 => 8,
                _ => 14,
            };
        }
    }

    fn write_mcr(&mut self, mcr: Mcr) {
        self.mcr = mcr;
        let mut lines = Msr::CTS | Msr::DSR | Msr::DCD;
        if mcr.contains(Mcr::LOOPBACK) {
            lines.set(Msr::CTS, mcr.contains(Mcr::RTS));
            lines.set(Msr::DSR, mcr.contains(Mcr::DTR));
            lines.set(Msr::RI, mcr.contains(Mcr::OUT1));
            lines.set(Msr::DCD, mcr.contains(Mcr::OUT2));
        }
        let before = self.msr;
        let changed = before ^ lines;
        let mut changes = before & Msr::CHANGES;
        changes.set(Msr::CTS_CHANGED, changes.contains(Msr::CTS_CHANGED) || changed.contains(Msr::CTS));
        changes.set(Msr::DSR_CHANGED, changes.contains(Msr::DSR_CHANGED) || changed.contains(Msr::DSR));
        changes.set(Msr::DCD_CHANGED, changes.contains(Msr::DCD_CHANGED) || changed.contains(Msr::DCD));
        let ring_ended = before.contains(Msr::RI) && !lines.contains(Msr::RI);
        changes.set(Msr::RI_ENDED, changes.contains(Msr::RI_ENDED) || ring_ended);
        self.msr = lines | changes;
    }
}

#[cfg(test)]
#[path = "uart_tests.rs"]
mod tests;
