//! The virtual PC's devices. Each is a pure value: ports in, bytes and interrupt lines out, and time only as [`Nanos`]
//! that the caller passes in. [`Bus`] owns them all, routes ports to them and wires their lines to the 8259 pair.
//!
//! A guest can write anything to any port: nothing here panics, allocates without bound or loops with the guest's
//! numbers.

mod bus;
mod bus_master;
mod calendar;
mod cmos;
mod console;
mod crtc;
mod debug_exit;
mod disk;
mod fw_cfg;
mod i8042;
mod ide;
mod ioapic;
mod keyboard;
mod lapic;
mod mmio;
mod mouse;
mod pci;
mod pic;
mod pic_pair;
mod pit;
mod pit_channel;
mod ports;
pub(crate) mod power;
mod scancodes;
mod screen;
mod system;
mod test_device;
mod time;
mod uart;
mod unclaimed;
mod vectors;

pub(crate) use bus::IO_APIC_ID;
pub use bus::{Bus, BusEffect, ConsoleKind, DISKS, DmaStep, Side};
pub(crate) use calendar::DateTime;
pub use disk::{BLOCK, BlockId, BlockStore, Disk};
pub(crate) use mmio::IO_APIC;
pub use screen::{SCREEN_BYTES, Screen};
pub(crate) use time::earlier;
pub use time::{NANOS_PER_SECOND, Nanos};
