//! The port bus of one virtual PC: routes ports to devices, wires their interrupt lines to the 8259 pair, and knows when
//! the next timer is due.
//!
//! Every port access of a guest comes through here, so nothing is looked for on the way. Each device's deadline and the
//! 8259s' output are kept, and found again only after an access that can change them (`bus/lines.rs`).

mod access;
mod apic;
mod console;
mod counts;
mod dma;
mod ide;
mod lines;

use alloc::string::String;

use self::access::low_bytes;
pub use self::console::ConsoleKind;
use self::counts::Counts;
pub use self::dma::DmaStep;
pub use self::ide::{DISKS, Side};
use self::lines::{Deadlines, NEVER};
use super::bus_master::BusMaster;
use super::cmos::Cmos;
use super::console::Console;
use super::crtc::Crtc;
use super::debug_exit::{EXIT_PORT, ShutdownWord};
use super::fw_cfg::FwCfg;
use super::i8042::I8042;
use super::ide::Channel;
use super::ioapic::IoApic;
use super::lapic::LocalApic;
use super::pci::Pci;
use super::pic_pair::PicPair;
use super::pit::Pit;
use super::power::Power;
use super::system::System;
use super::test_device::TestDevice;
use super::time::Nanos;
use super::uart::Uart;
use super::unclaimed::Unclaimed;

/// The I/O APIC's ID; the CPU's is 0.
pub(crate) const IO_APIC_ID: u8 = 1;

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
    /// A disk transfer has begun: [`Bus::dma_step`] says what it needs.
    Transfer(Side),
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
    masters: [BusMaster; 2],
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
            masters: [BusMaster::default(); 2],
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
                self.repeat_tick();
                return vector;
            }
        }
        let vector = self.pic.acknowledge();
        self.find_due();
        self.repeat_tick();
        vector
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
