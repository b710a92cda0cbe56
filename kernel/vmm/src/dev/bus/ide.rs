//! The two IDE channels behind their ports, and string transfers of whole blocks.

use super::{Bus, BusEffect};
use crate::dev::disk::Disk;
use crate::dev::ide::Channel;
use crate::dev::ports::{self, Device};
use crate::dev::time::Nanos;

const IRQ_PRIMARY: u8 = 14;
const IRQ_SECONDARY: u8 = 15;

/// Places for disks: two on each of two channels.
pub const DISKS: usize = 4;

/// Which channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// IRQ 14.
    Primary,
    /// IRQ 15.
    Secondary,
}

impl Side {
    const fn irq(self) -> u8 {
        match self {
            Self::Primary => IRQ_PRIMARY,
            Self::Secondary => IRQ_SECONDARY,
        }
    }
}

impl Bus {
    /// Connects a disk: 0 and 1 are master and slave of the primary channel, 2 and 3 of the secondary.
    #[must_use]
    pub fn with_disk(mut self, place: usize, disk: Disk) -> Self {
        let side = if place < 2 { Side::Primary } else { Side::Secondary };
        self.channel(side).attach(place % 2, disk);
        self.pci.show_ide();
        self
    }

    /// The disks with their places.
    pub fn disks(&self) -> impl Iterator<Item = (usize, &Disk)> {
        let all = self.ide[0].disks().chain(self.ide[1].disks()).enumerate();
        all.filter_map(|(place, disk)| disk.map(|disk| (place, disk)))
    }

    pub(super) fn channel(&mut self, side: Side) -> &mut Channel {
        let [primary, secondary] = &mut self.ide;
        match side {
            Side::Primary => primary,
            Side::Secondary => secondary,
        }
    }

    pub(super) fn drive_disks(&mut self) {
        for side in [Side::Primary, Side::Secondary] {
            self.drive_channel(side);
        }
    }

    pub(super) fn drive_channel(&mut self, side: Side) {
        let line = self.channel(side).interrupt();
        self.master(side).follow(line);
        self.set_line(side.irq(), line);
        self.find_due();
    }

    /// Reads the byte registers. The data register in bytes is slow but works.
    pub(super) fn read_disk(&mut self, side: Side, port: u16) -> u8 {
        let channel = self.channel(side);
        let value = match port & 0x207 {
            0x206 => return channel.alternate_status(),
            0 => {
                let mut byte = [0];
                channel.read_data(&mut byte);
                byte[0]
            }
            register => channel.read(register & 7),
        };
        self.drive_channel(side);
        value
    }

    pub(super) fn write_disk(&mut self, side: Side, port: u16, value: u8) -> BusEffect {
        let channel = self.channel(side);
        match port & 0x207 {
            0x206 => channel.write_control(value),
            0 => channel.write_data(&[value]),
            register => channel.write(register & 7, value),
        }
        self.drive_channel(side);
        self.begin_transfer(side)
    }

    /// Fills `bytes` by reads of `size` bytes each at `port`, as a repeated INS does.
    pub fn read_string(&mut self, port: u16, size: u8, bytes: &mut [u8], now: Nanos) {
        if let (Device::DiskData(side), true) = (ports::device(port), size > 1) {
            self.advance(now);
            self.count_access(ports::device(port));
            self.channel(side).read_data(bytes);
            return self.drive_channel(side);
        }
        for element in bytes.chunks_mut(size.into()) {
            let value = self.read(port, size, now).to_le_bytes();
            for (byte, part) in element.iter_mut().zip(value) {
                *byte = part;
            }
        }
    }

    /// Writes `bytes` by writes of `size` bytes each to `port`, as a repeated OUTS does, up to the first that has an effect
    /// beyond the devices. Gives that effect and how many bytes were written.
    pub fn write_string(&mut self, port: u16, size: u8, bytes: &[u8], now: Nanos) -> (BusEffect, usize) {
        if let (Device::DiskData(side), true) = (ports::device(port), size > 1) {
            self.advance(now);
            self.count_access(ports::device(port));
            self.channel(side).write_data(bytes);
            self.drive_channel(side);
            return (BusEffect::None, bytes.len());
        }
        let mut done = 0;
        for element in bytes.chunks(size.into()) {
            let mut value = [0; 4];
            for (place, byte) in value.iter_mut().zip(element) {
                *place = *byte;
            }
            done += element.len();
            let effect = self.write(port, size, u32::from_le_bytes(value), now);
            if effect != BusEffect::None {
                return (effect, done);
            }
        }
        (BusEffect::None, done)
    }
}
