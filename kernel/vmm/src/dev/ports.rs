//! The port map of the virtual PC: which device answers where. One table look-up finds the device of a port.

use super::bus::Side;
use super::debug_exit::SHUTDOWN_PORT;
use super::test_device::{LINES, LINES_END, REGISTER, REGISTER_END};

/// Ports from here on are not in the table; nearly nothing is there.
const MAPPED: usize = 0x1000;

/// Who answers at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    Nobody,
    Pic,
    Pit,
    System,
    Keyboard,
    Cmos,
    Crtc,
    Com1,
    /// Task file and control register of an IDE channel.
    Disk(Side),
    /// Its data register, which is wide.
    DiskData(Side),
    FwCfg,
    Pci,
    Power,
    /// The bus master of the IDE function.
    BusMaster,
    /// Bochs' and QEMU's debug console; it reads as its own number where it exists.
    DebugConsole,
    /// A port that kernels write only to lose some time, or to show a progress code.
    Delay,
    /// Where "Shutdown" is spelled.
    Shutdown,
    /// QEMU's device for tests: its register.
    Test,
    /// Its interrupt lines.
    TestLine,
}

/// Where Bochs has the power management's control register.
const BOCHS_POWER: u16 = 0xB004;
const BOCHS_POWER_END: u16 = 0xB005;

/// Where PCI shows the bus master's registers: QEMU's BIOS puts them there.
pub(super) const BUS_MASTER: u16 = 0xC000;
const BUS_MASTER_END: u16 = 0xC00F;

/// The most ports that one access reaches.
const WIDEST: u8 = 4;

static MAP: [Device; MAPPED] = map();
/// How many ports from this one on have no device, up to [`WIDEST`].
static FREE: [u8; MAPPED] = free();

/// The device at `port`.
#[inline]
pub(super) fn device(port: u16) -> Device {
    match MAP.get(usize::from(port)) {
        Some(device) => *device,
        None => beyond_the_table(port),
    }
}

/// Whether no device answers at any of `bytes` (1 to 4) ports from `port` on.
#[inline]
pub(super) fn are_unclaimed(port: u16, bytes: u8) -> bool {
    match FREE.get(usize::from(port)) {
        Some(free) => bytes <= *free,
        None => {
            (port..=port.saturating_add(u16::from(bytes).saturating_sub(1))).all(|port| device(port) == Device::Nobody)
        }
    }
}

const fn beyond_the_table(port: u16) -> Device {
    match port {
        SHUTDOWN_PORT => Device::Shutdown,
        LINES..=LINES_END => Device::TestLine,
        BOCHS_POWER..=BOCHS_POWER_END => Device::Power,
        BUS_MASTER..=BUS_MASTER_END => Device::BusMaster,
        _ => Device::Nobody,
    }
}

/// The map itself. The tables are made of it when this file is compiled.
const fn assigned(port: u16) -> Device {
    match port {
        0x20 | 0x21 | 0xA0 | 0xA1 | 0x4D0 | 0x4D1 => Device::Pic,
        0x40..=0x43 => Device::Pit,
        0x60 | 0x64 => Device::Keyboard,
        0x61 | 0x92 | 0xCF9 => Device::System,
        0x70 | 0x71 => Device::Cmos,
        0x80 | 0xED => Device::Delay,
        0xE9 => Device::DebugConsole,
        REGISTER..=REGISTER_END => Device::Test,
        0x1F0 => Device::DiskData(Side::Primary),
        0x1F1..=0x1F7 | 0x3F6 => Device::Disk(Side::Primary),
        0x170 => Device::DiskData(Side::Secondary),
        0x171..=0x177 | 0x376 => Device::Disk(Side::Secondary),
        0x3D4 | 0x3D5 | 0x3DA => Device::Crtc,
        0x3F8..=0x3FF => Device::Com1,
        0x510 | 0x511 => Device::FwCfg,
        0x600..=0x60B => Device::Power,
        0xCF8 | 0xCFC..=0xCFF => Device::Pci,
        _ => beyond_the_table(port),
    }
}

const fn map() -> [Device; MAPPED] {
    let mut map = [Device::Nobody; MAPPED];
    let mut port = 0;
    let mut rest: &mut [Device] = &mut map;
    while let Some((slot, after)) = rest.split_first_mut() {
        *slot = assigned(port);
        port += 1;
        rest = after;
    }
    map
}

const fn free() -> [u8; MAPPED] {
    let mut free = [0; MAPPED];
    let mut port = 0;
    let mut rest: &mut [u8] = &mut free;
    while let Some((slot, after)) = rest.split_first_mut() {
        while *slot < WIDEST && matches!(assigned(port + *slot as u16), Device::Nobody) {
            *slot += 1;
        }
        port += 1;
        rest = after;
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_map() {
        for port in 0..=u16::MAX {
            assert_eq!(device(port), assigned(port), "port {port:#x}");
        }
        assert_eq!(device(SHUTDOWN_PORT), Device::Shutdown);
        assert_eq!(device(0x3FD), Device::Com1);
    }

    #[test]
    fn a_range_is_unclaimed_when_each_port_is() {
        for port in 0..=u16::MAX {
            for bytes in [1, 2, 4] {
                let each = (port..=port.saturating_add(bytes - 1)).all(|port| device(port) == Device::Nobody);
                assert_eq!(are_unclaimed(port, bytes as u8), each, "{bytes} bytes at port {port:#x}");
            }
        }
    }
}
