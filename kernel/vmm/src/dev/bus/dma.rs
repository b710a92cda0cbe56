//! Transfers between disks and the guest's memory. The devices know no memory, so the monitor carries the bytes: it asks for one step
//! after the other.

use super::Bus;
use super::{BusEffect, Side};
use crate::dev::bus_master::{BusMaster, Move};

/// One step of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaStep {
    /// Hand the 8 bytes at this guest-physical address to [`Bus::dma_entry`].
    Entry(u64),
    /// Write so many bytes, which [`Bus::dma_take`] gives, to this address.
    ToMemory(u64, usize),
    /// Hand so many bytes at this address to [`Bus::dma_give`].
    FromMemory(u64, usize),
    /// The transfer is over.
    Done,
}

impl Bus {
    pub(super) fn master(&mut self, side: Side) -> &mut BusMaster {
        let [primary, secondary] = &mut self.masters;
        match side {
            Side::Primary => primary,
            Side::Secondary => secondary,
        }
    }

    /// Reads a byte of the bus master's registers, 8 for each channel.
    pub(super) fn read_master(&mut self, port: u16) -> u8 {
        if !self.pci.has_bus_master() {
            return u8::MAX;
        }
        self.master(side(port)).read(port & 7)
    }

    pub(super) fn write_master(&mut self, port: u16, value: u8) -> BusEffect {
        if !self.pci.has_bus_master() {
            return BusEffect::None;
        }
        self.master(side(port)).write(port & 7, value);
        self.begin_transfer(side(port))
    }

    /// Begins the transfer that the disk and the bus master were told of, whichever came last.
    pub(super) fn begin_transfer(&mut self, side: Side) -> BusEffect {
        let ready = self.pci.masters_bus() && self.master(side).is_active() && self.channel(side).begin_dma();
        if ready { BusEffect::Transfer(side) } else { BusEffect::None }
    }

    /// What is to be done next for the transfer that [`BusEffect::Transfer`] has announced.
    pub fn dma_step(&mut self, side: Side) -> DmaStep {
        let room = self.channel(side).block_left();
        let next = self.master(side).next_move();
        match (next, self.channel(side).goes_to_memory()) {
            (Move::Entry(at), Some(_)) => DmaStep::Entry(at.into()),
            (Move::Bytes(at, bytes), Some(true)) => DmaStep::ToMemory(at.into(), room.min(bytes as usize)),
            (Move::Bytes(at, bytes), Some(false)) => DmaStep::FromMemory(at.into(), room.min(bytes as usize)),
            (Move::Nothing, _) | (_, None) => {
                self.channel(side).end_dma();
                self.master(side).end();
                self.drive_channel(side);
                DmaStep::Done
            }
        }
    }

    /// Takes an entry of the bus master's table.
    pub fn dma_entry(&mut self, side: Side, entry: [u8; 8]) {
        self.master(side).take_entry(entry);
    }

    /// The next bytes for the memory.
    pub fn dma_take(&mut self, side: Side, bytes: &mut [u8]) {
        self.channel(side).read_data(bytes);
        self.master(side).moved(bytes.len() as u32);
    }

    /// The next bytes from the memory.
    pub fn dma_give(&mut self, side: Side, bytes: &[u8]) {
        self.channel(side).write_data(bytes);
        self.master(side).moved(bytes.len() as u32);
    }

    /// Gives up a transfer that takes too long.
    pub fn dma_fail(&mut self, side: Side) {
        self.channel(side).abort();
        self.master(side).fail();
        self.drive_channel(side);
    }
}

const fn side(port: u16) -> Side {
    if port & 8 == 0 { Side::Primary } else { Side::Secondary }
}

#[cfg(test)]
#[path = "dma_tests.rs"]
mod tests;
