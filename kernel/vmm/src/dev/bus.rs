//! The port bus (signatures; the devices follow).

use alloc::string::String;

use super::time::Nanos;

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
#[derive(Debug)]
pub struct Bus {
    name: String,
}

impl Bus {
    /// The PC of the guest called `name`, as a BIOS leaves it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: String::from(name) }
    }
    /// Tells the CMOS how much guest memory there is, in bytes.
    #[must_use]
    pub fn with_memory(self, _bytes: u64) -> Self {
        self
    }
    /// Sets the real-time clock at [`Nanos::ZERO`], in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn with_epoch(self, _unix_seconds: u64) -> Self {
        self
    }
    /// Reads `bytes` (1, 2 or 4) bytes at `port`.
    pub fn read(&mut self, _port: u16, _bytes: u8, _now: Nanos) -> u32 {
        u32::MAX
    }
    /// Writes the low `bytes` (1, 2 or 4) bytes of `value` to `port`.
    pub fn write(&mut self, _port: u16, _bytes: u8, _value: u32, _now: Nanos) -> BusEffect {
        BusEffect::None
    }
    /// Lets the timers run up to `now` and raise their interrupts.
    pub fn advance(&mut self, _now: Nanos) {}
    /// When `advance` must be called next for an interrupt to come in time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        None
    }
    /// The INTR pin: an interrupt waits for the CPU.
    #[must_use]
    pub fn interrupt_pending(&self) -> bool {
        false
    }
    /// The CPU's interrupt acknowledge: the vector to deliver.
    pub fn acknowledge(&mut self) -> u8 {
        0
    }
    /// Takes the bytes the guest has printed.
    pub fn console_output(&mut self) -> impl Iterator<Item = u8> + '_ {
        self.name.drain(..0).map(|_| 0)
    }
    /// A byte typed at the console.
    pub fn console_input(&mut self, _byte: u8) {}
}
