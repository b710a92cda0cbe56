//! The port bus of one virtual PC: routes ports to devices, wires their interrupt lines to the 8259 pair, and knows when
//! the next timer is due.

use alloc::string::String;
use alloc::vec::Vec;

use super::cmos::Cmos;
use super::console::Console;
use super::crtc::Crtc;
use super::debug_exit::{EXIT_PORT, SHUTDOWN_PORT, ShutdownWord};
use super::i8042::{I8042, Pulse};
use super::pic_pair::PicPair;
use super::pit::Pit;
use super::system::System;
use super::time::{Nanos, earlier};
use super::uart::Uart;

const IRQ_TIMER: u8 = 0;
const IRQ_KEYBOARD: u8 = 1;
const IRQ_COM1: u8 = 4;
const IRQ_CLOCK: u8 = 8;

const COM1: u16 = 0x3F8;
const COM1_LAST: u16 = 0x3FF;
/// Bochs' and QEMU's debug console; it reads as its own number where it exists.
const DEBUG_CONSOLE: u16 = 0xE9;
/// Ports that kernels write only to lose some time, and the BIOS' progress codes.
const DELAY_PORTS: [u16; 2] = [0x80, 0xED];
/// Unclaimed ports that are named in the log, once each.
const NAMED_PORTS: usize = 32;

/// What a port write asks of the virtual machine, beyond the devices.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusEffect {
    /// Nothing: the guest goes on.
    None,
    /// The guest ended itself with this status (debug exit port, or "Shutdown").
    Exit(u32),
    /// The guest asked for a reset of the machine (i8042 pulse, port 0x92, port 0xCF9).
    Reset,
}

/// All devices of one virtual PC behind their ports.
///
/// Time never goes back: a `now` earlier than one seen before counts as that one.
#[derive(Clone, Debug)]
pub struct Bus {
    name: String,
    pic: PicPair,
    pit: Pit,
    com1: Uart,
    cmos: Cmos,
    keyboard: I8042,
    crtc: Crtc,
    system: System,
    shutdown: ShutdownWord,
    console: Console,
    unclaimed: Vec<u16>,
    now: Nanos,
    /// The first of all devices' deadlines: before it `advance` has nothing to do.
    due: Option<Nanos>,
}

impl Bus {
    /// The PC of the guest called `name`, as a BIOS leaves it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut bus = Self {
            name: String::from(name),
            pic: PicPair::new(),
            pit: Pit::new(),
            com1: Uart::new(),
            cmos: Cmos::new(),
            keyboard: I8042::new(),
            crtc: Crtc::new(),
            system: System::new(),
            shutdown: ShutdownWord::default(),
            console: Console::default(),
            unclaimed: Vec::new(),
            now: Nanos::ZERO,
            due: None,
        };
        bus.find_due();
        bus
    }

    /// Tells the CMOS how much guest memory there is, in bytes.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.cmos.set_memory(bytes);
        self
    }

    /// Sets the real-time clock at [`Nanos::ZERO`], in seconds since 1970-01-01 UTC. Otherwise it starts in 2000.
    #[must_use]
    pub fn with_epoch(mut self, unix_seconds: u64) -> Self {
        self.cmos.set_epoch(unix_seconds);
        self
    }

    /// Reads `bytes` (1, 2 or 4) bytes at `port`. A wide access reads the byte ports that follow one another, as on the
    /// ISA bus; where nothing answers, all bits are one.
    pub fn read(&mut self, port: u16, bytes: u8, now: Nanos) -> u32 {
        self.advance(now);
        let mut value = [0; 4];
        for (slot, offset) in value.iter_mut().zip(0..u16::from(bytes)) {
            *slot = port.checked_add(offset).map_or(u8::MAX, |port| self.read_byte(port));
        }
        u32::from_le_bytes(value)
    }

    /// Writes the low `bytes` (1, 2 or 4) bytes of `value` to `port` and the ports that follow it.
    pub fn write(&mut self, port: u16, bytes: u8, value: u32, now: Nanos) -> BusEffect {
        self.advance(now);
        let value = value.to_le_bytes();
        let value = value.get(..usize::from(bytes)).unwrap_or(&value);
        if port == EXIT_PORT {
            let status = value.iter().rev().fold(0, |status, byte| status << 8 | u32::from(*byte));
            return BusEffect::Exit(status);
        }
        for (byte, offset) in value.iter().zip(0..) {
            let Some(port) = port.checked_add(offset) else { break };
            let effect = self.write_byte(port, *byte);
            if effect != BusEffect::None {
                return effect;
            }
        }
        BusEffect::None
    }

    /// Lets the timers run up to `now` and raise their interrupts.
    pub fn advance(&mut self, now: Nanos) {
        self.now = self.now.max(now);
        if self.due.is_some_and(|due| due <= self.now) {
            self.pit.advance(self.now);
            self.com1.advance(self.now);
            self.cmos.advance(self.now);
            self.drive_lines();
        }
    }

    /// When `advance` must be called next for an interrupt to come in time. `None` while no timer can interrupt: its
    /// input is masked, or its last interrupt still waits.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        let timer = self.pit.next_deadline().filter(|_| self.pic.awaits(IRQ_TIMER));
        let clock = self.cmos.next_deadline().filter(|_| self.pic.awaits(IRQ_CLOCK));
        // Typed bytes arrive for a guest that polls, too; but nobody has to wake it up for them.
        let com1 = self.com1.next_deadline().filter(|_| self.pic.awaits(IRQ_COM1));
        earlier(timer, earlier(clock, com1))
    }

    /// The INTR pin: an interrupt waits for the CPU.
    #[must_use]
    pub fn interrupt_pending(&self) -> bool {
        self.pic.interrupt()
    }

    /// The CPU's interrupt acknowledge cycle: the vector to deliver. Without a pending interrupt this is a spurious one.
    pub fn acknowledge(&mut self) -> u8 {
        self.pic.acknowledge()
    }

    /// Takes the bytes the guest has printed (COM1 and port 0xE9, in their order).
    pub fn console_output(&mut self) -> impl Iterator<Item = u8> + '_ {
        self.console.drain()
    }

    /// Whether [`Self::console_output`] has bytes.
    #[must_use]
    pub fn has_console_output(&self) -> bool {
        !self.console.is_empty()
    }

    /// How many printed bytes were lost because nobody took them in time.
    #[must_use]
    pub fn console_lost(&self) -> u64 {
        self.console.lost()
    }

    /// A byte typed at the console: it comes in at COM1, at the line's speed, at the last time seen.
    pub fn console_input(&mut self, byte: u8) {
        self.com1.type_byte(byte, self.now);
        self.drive_lines();
    }

    fn read_byte(&mut self, port: u16) -> u8 {
        let now = self.now;
        match port {
            _ if PicPair::claims(port) => self.pic.read(port),
            COM1..=COM1_LAST => {
                let value = self.com1.read(port & 7, now);
                self.drive_lines();
                value
            }
            _ if Pit::claims(port) => self.pit.read(port, now),
            _ if System::claims(port) => self.system.read(port, &mut self.pit, now),
            _ if I8042::claims(port) => {
                let value = self.keyboard.read(port);
                if port == 0x60 {
                    self.pic.set_line(IRQ_KEYBOARD, false); // an edge for each byte that follows
                }
                self.drive_lines();
                value
            }
            _ if Cmos::claims(port) => {
                let value = self.cmos.read(port, now);
                self.drive_lines();
                value
            }
            _ if Crtc::claims(port) => self.crtc.read(port, now),
            DEBUG_CONSOLE => DEBUG_CONSOLE as u8,
            _ => {
                self.name_unclaimed(port, "read");
                u8::MAX
            }
        }
    }

    fn write_byte(&mut self, port: u16, value: u8) -> BusEffect {
        let now = self.now;
        match port {
            _ if PicPair::claims(port) => self.pic.write(port, value),
            COM1..=COM1_LAST => self.write_com1(port & 7, value),
            _ if Pit::claims(port) => self.pit.write(port, value, now),
            _ if System::claims(port) => {
                if self.system.write(port, value, &mut self.pit, now) == Pulse::Reset {
                    return BusEffect::Reset;
                }
            }
            _ if I8042::claims(port) => {
                if self.keyboard.write(port, value) == Pulse::Reset {
                    return BusEffect::Reset;
                }
            }
            _ if Cmos::claims(port) => self.cmos.write(port, value, now),
            _ if Crtc::claims(port) => self.crtc.write(port, value),
            DEBUG_CONSOLE => self.console.print(value),
            SHUTDOWN_PORT if self.shutdown.write(value) => return BusEffect::Exit(0),
            _ => self.name_unclaimed(port, "write"),
        }
        self.drive_lines();
        BusEffect::None
    }

    fn write_com1(&mut self, register: u16, value: u8) {
        if let Some(byte) = self.com1.write(register, value, self.now) {
            self.console.print(byte);
            // The line falls while the byte leaves, so that the next interrupt is a new edge.
            self.pic.set_line(IRQ_COM1, self.com1.interrupt());
            self.com1.transmitted();
        }
    }

    /// Puts all interrupt lines on the 8259s' inputs.
    fn drive_lines(&mut self) {
        if self.pit.take_edge() {
            self.pic.pulse(IRQ_TIMER);
        }
        self.pic.set_line(IRQ_KEYBOARD, self.keyboard.interrupt());
        self.pic.set_line(IRQ_COM1, self.com1.interrupt());
        self.pic.set_line(IRQ_CLOCK, self.cmos.interrupt());
        self.find_due();
    }

    fn find_due(&mut self) {
        let uart_or_clock = earlier(self.com1.next_deadline(), self.cmos.next_deadline());
        self.due = earlier(self.pit.next_deadline(), uart_or_clock);
    }

    /// Names a port where nothing answers in the log, once.
    fn name_unclaimed(&mut self, port: u16, access: &str) {
        let known = DELAY_PORTS.contains(&port) || port == SHUTDOWN_PORT || self.unclaimed.contains(&port);
        if !known && self.unclaimed.len() < NAMED_PORTS {
            self.unclaimed.push(port);
            log::debug!("guest {}: {access} of port {port:#x}, where no device is", self.name);
        }
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
