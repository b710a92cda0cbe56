//! The port bus of one virtual PC: routes ports to devices, wires their interrupt lines to the 8259 pair, and knows when
//! the next timer is due.
//!
//! Every port access of a guest comes through here, so nothing is looked for on the way. Each device's deadline and the
//! 8259s' output are kept, and found again only after an access that can change them (`bus/lines.rs`).

mod apic;
mod console;
mod counts;
mod ide;
mod lines;

use alloc::string::String;

pub use self::console::ConsoleKind;
use self::counts::Counts;
pub use self::ide::DISKS;
pub(super) use self::ide::Side;
use self::lines::{Deadlines, IRQ_COM1, IRQ_KEYBOARD, IRQ_MOUSE, NEVER};
use super::cmos::Cmos;
use super::console::Console;
use super::crtc::Crtc;
use super::debug_exit::{EXIT_PORT, ShutdownWord};
use super::fw_cfg::FwCfg;
use super::i8042::{I8042, Pulse};
use super::ide::Channel;
use super::ioapic::IoApic;
use super::lapic::LocalApic;
use super::pci::{self, Pci};
use super::pic_pair::PicPair;
use super::pit::Pit;
use super::ports::{self, Device};
use super::power::Power;
use super::system::System;
use super::test_device::{LINES, TestDevice};
use super::time::Nanos;
use super::uart::Uart;
use super::unclaimed::Unclaimed;

/// The firmware configuration device's selector, which takes a word.
const FW_CFG_SELECTOR: u16 = 0x510;
/// The I/O APIC's ID; the CPU's is 0.
pub(crate) const IO_APIC_ID: u8 = 1;
/// What the debug console reads as.
const DEBUG_CONSOLE_READS: u8 = 0xE9;

/// What a port write asks of the virtual machine, beyond the devices.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusEffect {
    /// Nothing: the guest goes on.
    None,
    /// The guest ended itself with this status (debug exit port, or "Shutdown").
    Exit(u32),
    /// The guest powered the machine off.
    PowerOff,
    /// The guest asked for a reset of the machine (i8042 pulse, port 0x92, port 0xCF9).
    Reset,
}

/// All devices of one virtual PC behind their ports.
///
/// Time never goes back: a `now` earlier than one seen before counts as that one.
#[derive(Debug)]
pub struct Bus {
    name: String,
    pic: PicPair,
    pub(super) lapic: LocalApic,
    pub(super) io_apic: IoApic,
    pub(super) has_apic: bool,
    pit: Pit,
    com1: Uart,
    cmos: Cmos,
    keyboard: I8042,
    crtc: Crtc,
    ide: [Channel; 2],
    fw_cfg: FwCfg,
    pci: Pci,
    power: Power,
    system: System,
    shutdown: ShutdownWord,
    pub(super) test: TestDevice,
    console: Console,
    console_kind: ConsoleKind,
    counts: Counts,
    unclaimed: Unclaimed,
    pub(super) now: Nanos,
    deadlines: Deadlines,
    /// The first of all deadlines: before it `advance` has nothing to do.
    due: Nanos,
    /// The first deadline whose interrupt the 8259s wait for.
    wake: Nanos,
}

impl Bus {
    /// The PC of the guest called `name`, as a BIOS leaves it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut bus = Self {
            name: String::from(name),
            pic: PicPair::new(),
            lapic: LocalApic::new(),
            io_apic: IoApic::new(IO_APIC_ID),
            has_apic: true,
            pit: Pit::new(),
            com1: Uart::new(),
            cmos: Cmos::new(),
            keyboard: I8042::new(),
            crtc: Crtc::new(),
            ide: [Channel::new(), Channel::new()],
            fw_cfg: FwCfg::default(),
            pci: Pci::default(),
            power: Power::default(),
            system: System::new(),
            shutdown: ShutdownWord::default(),
            test: TestDevice::default(),
            console: Console::default(),
            console_kind: ConsoleKind::Auto,
            counts: Counts::default(),
            unclaimed: Unclaimed::new(),
            now: Nanos::ZERO,
            deadlines: Deadlines::NONE,
            due: NEVER,
            wake: NEVER,
        };
        bus.drive_lines();
        bus
    }

    /// Tells the CMOS and the firmware configuration device how much guest memory there is, in bytes.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.cmos.set_memory(bytes);
        self.fw_cfg.set_memory(bytes);
        self
    }

    /// Takes the local APIC and the I/O APIC away.
    #[must_use]
    pub fn without_apic(mut self) -> Self {
        (self.lapic, self.has_apic) = (LocalApic::absent(), false);
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
        if bytes == 1 { self.read_byte(port).into() } else { self.read_wide(port, bytes) }
    }

    /// Writes the low `bytes` (1, 2 or 4) bytes of `value` to `port` and the ports that follow it.
    pub fn write(&mut self, port: u16, bytes: u8, value: u32, now: Nanos) -> BusEffect {
        self.advance(now);
        if port == EXIT_PORT {
            return BusEffect::Exit(value & low_bytes(bytes));
        }
        if bytes == 1 { self.write_byte(port, value as u8) } else { self.write_wide(port, bytes, value) }
    }

    /// Lets the timers run up to `now` and raise their interrupts.
    #[inline]
    pub fn advance(&mut self, now: Nanos) {
        self.now = self.now.max(now);
        if self.due <= self.now {
            self.run_timers();
        }
    }

    /// When `advance` must be called next for an interrupt to come in time. `None` while no timer can interrupt: its
    /// input is masked, or its last interrupt still waits.
    #[must_use]
    #[inline]
    pub fn next_deadline(&self) -> Option<Nanos> {
        (self.wake != NEVER).then_some(self.wake)
    }

    /// An interrupt waits for the CPU: one of the local APIC, or the 8259s' if it lets theirs through.
    #[must_use]
    #[inline]
    pub fn interrupt_pending(&self) -> bool {
        (self.pic.interrupt() && self.lapic.passes_pic()) || self.lapic.is_ready()
    }

    /// The CPU's interrupt acknowledge cycle: the vector to deliver. Without a pending interrupt this is a spurious one. The
    /// local APIC's come first.
    pub fn acknowledge(&mut self) -> u8 {
        if self.lapic.is_ready() {
            self.lapic.advance(self.now); // ticks up to now belong to the request that waits
            if let Some(vector) = self.lapic.acknowledge() {
                self.take_over_apic();
                return vector;
            }
        }
        let vector = self.pic.acknowledge();
        self.find_due();
        vector
    }

    #[inline]
    fn read_byte(&mut self, port: u16) -> u8 {
        let device = ports::device(port);
        self.count_access(device);
        match device {
            Device::Com1 => self.read_com1(port & 7),
            Device::Pic => self.read_pic(port),
            Device::Nobody => {
                self.nobody_at(port, 1, "read");
                u8::MAX
            }
            Device::Delay | Device::Shutdown => u8::MAX,
            device => self.read_device(device, port),
        }
    }

    #[inline]
    fn write_byte(&mut self, port: u16, value: u8) -> BusEffect {
        let device = ports::device(port);
        self.count_access(device);
        match device {
            Device::Com1 => self.write_com1(port & 7, value),
            Device::Pic => self.write_pic(port, value),
            Device::Nobody => self.nobody_at(port, 1, "write"),
            Device::Delay => {}
            device => return self.write_device(device, port, value),
        }
        BusEffect::None
    }

    /// The devices that are not read all the time.
    #[inline(never)]
    fn read_device(&mut self, device: Device, port: u16) -> u8 {
        let now = self.now;
        match device {
            Device::Pit => self.pit.read(port, now),
            Device::System => self.system.read(port, &mut self.pit, now),
            Device::Keyboard => self.read_keyboard(port),
            Device::Cmos => {
                let value = self.cmos.read(port, now);
                self.drive_clock();
                value
            }
            Device::Crtc => self.crtc.read(port, now),
            Device::Disk(side) | Device::DiskData(side) => self.read_disk(side, port),
            Device::FwCfg => self.fw_cfg.read(port),
            Device::Pci if port == pci::ADDRESS => u8::MAX, // doublewords only
            Device::Pci => self.pci.read(port),
            Device::Power => self.power.read(port, now),
            Device::DebugConsole => DEBUG_CONSOLE_READS,
            Device::Test => self.test.read(port),
            Device::Com1 | Device::Pic | Device::Nobody | Device::Delay | Device::Shutdown | Device::TestLine => {
                u8::MAX
            }
        }
    }

    /// The devices that are not written all the time.
    #[inline(never)]
    fn write_device(&mut self, device: Device, port: u16, value: u8) -> BusEffect {
        let now = self.now;
        let mut pulse = Pulse::None;
        match device {
            Device::Pit => {
                self.pit.write(port, value, now);
                self.drive_timer();
            }
            Device::System => pulse = self.system.write(port, value, &mut self.pit, now),
            Device::Keyboard => {
                pulse = self.keyboard.write(port, value);
                self.drive_keyboard();
            }
            Device::Cmos => {
                self.cmos.write(port, value, now);
                self.drive_clock();
            }
            Device::Crtc => self.crtc.write(port, value),
            Device::Disk(side) | Device::DiskData(side) => self.write_disk(side, port, value),
            Device::FwCfg => {} // the selector takes words, the data is read only
            Device::Pci if port == pci::ADDRESS => {} // doublewords only
            Device::Pci => self.pci.write(port, value),
            Device::Power if self.power.write(port, value) => return BusEffect::PowerOff,
            Device::Power => {}
            Device::DebugConsole => self.console.print(value),
            Device::Test => self.test.write(port, value),
            Device::TestLine => self.set_test_line((port - LINES) as u8, value != 0),
            Device::Shutdown if self.shutdown.write(value) => return BusEffect::Exit(0),
            Device::Com1 | Device::Pic | Device::Nobody | Device::Delay | Device::Shutdown => {}
        }
        if pulse == Pulse::Reset { BusEffect::Reset } else { BusEffect::None }
    }

    #[inline(never)]
    fn read_wide(&mut self, port: u16, bytes: u8) -> u32 {
        if ports::are_unclaimed(port, bytes) {
            self.nobody_at(port, bytes, "read");
            return low_bytes(bytes);
        }
        let mut value = [0; 4];
        if (port, bytes) == (pci::ADDRESS, 4) {
            return self.pci.address();
        }
        if let Device::DiskData(_) = ports::device(port) {
            if let Some(part) = value.get_mut(..usize::from(bytes)) {
                self.read_string(port, bytes, part, self.now);
            }
            return u32::from_le_bytes(value);
        }
        for (slot, offset) in value.iter_mut().zip(0..u16::from(bytes)) {
            *slot = port.checked_add(offset).map_or(u8::MAX, |port| self.read_byte(port));
        }
        u32::from_le_bytes(value)
    }

    #[inline(never)]
    fn write_wide(&mut self, port: u16, bytes: u8, value: u32) -> BusEffect {
        match (port, bytes) {
            // The reset register among these ports takes bytes only.
            (pci::ADDRESS, 4) => return self.write_whole(|bus| bus.pci.set_address(value)),
            (FW_CFG_SELECTOR, 2) => return self.write_whole(|bus| bus.fw_cfg.select(value as u16)),
            _ => {}
        }
        if ports::are_unclaimed(port, bytes) {
            self.nobody_at(port, bytes, "write");
            return BusEffect::None;
        }
        if let Device::DiskData(_) = ports::device(port) {
            let value = value.to_le_bytes();
            return self.write_string(port, bytes, value.get(..usize::from(bytes)).unwrap_or(&[]), self.now).0;
        }
        for (byte, offset) in value.to_le_bytes().into_iter().zip(0..u16::from(bytes)) {
            let Some(port) = port.checked_add(offset) else { break };
            let effect = self.write_byte(port, byte);
            if effect != BusEffect::None {
                return effect;
            }
        }
        BusEffect::None
    }

    /// A register that is wider than a byte.
    fn write_whole(&mut self, write: impl FnOnce(&mut Self)) -> BusEffect {
        write(self);
        BusEffect::None
    }

    #[inline(never)]
    fn read_pic(&mut self, port: u16) -> u8 {
        let polled = self.pic.is_polled();
        let value = self.pic.read(port);
        if polled {
            self.find_due();
        }
        value
    }

    #[inline(never)]
    fn write_pic(&mut self, port: u16, value: u8) {
        if self.pic.write(port, value) {
            self.find_due();
        }
    }

    #[inline]
    fn read_com1(&mut self, register: u16) -> u8 {
        let value = self.com1.read(register, self.now);
        if self.com1.take_changed() {
            self.drive_com1();
        }
        value
    }

    #[inline]
    fn write_com1(&mut self, register: u16, value: u8) {
        if self.com1.sends_quietly(register) {
            self.console.print(value);
            self.com1.transmitted();
        } else {
            self.write_com1_register(register, value);
        }
    }

    #[inline(never)]
    fn write_com1_register(&mut self, register: u16, value: u8) {
        if let Some(byte) = self.com1.write(register, value, self.now) {
            self.console.print(byte);
            // The line falls while the byte leaves, so that the next interrupt is a new edge.
            self.set_line(IRQ_COM1, self.com1.interrupt());
            self.com1.transmitted();
        }
        self.drive_com1();
    }

    fn read_keyboard(&mut self, port: u16) -> u8 {
        let value = self.keyboard.read(port);
        if port == 0x60 {
            // An edge for each byte that follows.
            self.set_line(IRQ_KEYBOARD, false);
            self.set_line(IRQ_MOUSE, false);
        }
        self.drive_keyboard();
        value
    }

    /// An access of `bytes` bytes where no device is: the log names it, once.
    #[inline]
    fn nobody_at(&mut self, port: u16, bytes: u8, access: &str) {
        if self.unclaimed.is_new(port) {
            self.name_unclaimed(port, bytes, access);
        }
    }

    #[cold]
    fn name_unclaimed(&mut self, port: u16, bytes: u8, access: &str) {
        self.unclaimed.remember(port);
        log::debug!("guest {}: {bytes}-byte {access} of port {port:#x}, where no device is", self.name);
    }
}

/// The mask of the low `bytes` bytes of a port access.
fn low_bytes(bytes: u8) -> u32 {
    match bytes {
        1 => 0xFF,
        2 => 0xFFFF,
        _ => u32::MAX,
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
