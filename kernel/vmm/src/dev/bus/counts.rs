//! How often each device was accessed: says where a guest's exits go.

use super::Bus;
use crate::dev::ports::Device;

/// The names, in the order of the counts.
const NAMES: [&str; 16] = [
    "nobody",
    "pic",
    "pit",
    "system",
    "keyboard",
    "cmos",
    "crtc",
    "com1",
    "disk",
    "debug",
    "delay",
    "local-apic",
    "io-apic",
    "fw-cfg",
    "pci",
    "power",
];

const KEYBOARD: usize = 4;

/// One count a device.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    counts: [u64; NAMES.len()],
}

impl Counts {
    pub(super) fn keyboard(&self) -> u64 {
        self.counts[KEYBOARD]
    }

    #[inline]
    fn add(&mut self, index: usize) {
        if let Some(count) = self.counts.get_mut(index) {
            *count = count.wrapping_add(1);
        }
    }
}

impl Bus {
    #[inline]
    pub(super) fn count_access(&mut self, device: Device) {
        self.counts.add(match device {
            Device::Nobody => 0,
            Device::Pic => 1,
            Device::Pit => 2,
            Device::System => 3,
            Device::Keyboard => KEYBOARD,
            Device::Cmos => 5,
            Device::Crtc => 6,
            Device::Com1 => 7,
            Device::Disk(_) | Device::DiskData(_) | Device::BusMaster => 8,
            Device::DebugConsole | Device::Shutdown | Device::Test | Device::TestLine => 9,
            Device::Delay => 10,
            Device::FwCfg => 13,
            Device::Pci => 14,
            Device::Power => 15,
        });
    }

    pub(in crate::dev) fn count_place(&mut self, local: bool) {
        self.counts.add(if local { 11 } else { 12 });
    }

    /// The devices that were accessed, with how often: bytes of ports, blocks of string transfers, accesses of memory.
    pub fn accesses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.counts.counts).filter(|&(_, count)| count != 0)
    }
}
