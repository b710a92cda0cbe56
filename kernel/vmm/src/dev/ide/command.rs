//! The commands of an ATA disk, and the way of sectors between disk and buffer.

use super::identify::{geometry, identify};
use super::{
    Channel, DEVICE_LBA, DIAGNOSTICS_PASSED, Drive, ERROR_ABORTED, ERROR_ADDRESS, IDLE, MOST_MULTIPLE, Phase, SECTOR,
    STATUS_ERROR, STATUS_READY, STATUS_REQUEST,
};
use crate::dev::disk::DiskError;

/// EXECUTE DEVICE DIAGNOSTIC.
const DIAGNOSE: u8 = 0x90;

/// How a command addresses sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    /// 28 bits, or cylinder, head and sector.
    Short,
    /// 48 bits.
    Long,
}

impl Channel {
    /// A write of the command register, for the selected drive.
    pub(super) fn command(&mut self, command: u8) {
        self.interrupt = false;
        self.stop(IDLE, 0);
        match command {
            0x20 | 0x21 => self.begin_read(Address::Short, 1),
            0x24 => self.begin_read(Address::Long, 1),
            0x30 | 0x31 => self.begin_write(Address::Short, 1),
            0x34 => self.begin_write(Address::Long, 1),
            0xC4 => self.multiple(Self::begin_read, Address::Short),
            0x29 => self.multiple(Self::begin_read, Address::Long),
            0xC5 => self.multiple(Self::begin_write, Address::Short),
            0x39 => self.multiple(Self::begin_write, Address::Long),
            0xC8 | 0xC9 => self.await_dma(Phase::AwaitsRead, Address::Short),
            0x25 => self.await_dma(Phase::AwaitsRead, Address::Long),
            0xCA | 0xCB => self.await_dma(Phase::AwaitsWrite, Address::Short),
            0x35 => self.await_dma(Phase::AwaitsWrite, Address::Long),
            0x40 | 0x41 => self.verify(Address::Short),
            0x42 => self.verify(Address::Long),
            0xC6 => self.set_multiple(),
            0xEC => self.identify(),
            DIAGNOSE => {
                self.sign();
                self.stop(IDLE, DIAGNOSTICS_PASSED);
                self.interrupt = true;
            }
            0xE5 => {
                self.count.set(0xFF); // active or idle
                self.interrupt = true;
            }
            0xF8 => self.native_size(Address::Short),
            0x27 => self.native_size(Address::Long),
            0xEF if !self.accepts_feature() => self.abort(),
            // Recalibrate, seek, device parameters, flush, power, features: nothing to be done.
            0x10..=0x1F | 0x70 | 0x91 | 0xE0..=0xE3 | 0xE6 | 0xE7 | 0xEA | 0xEF => self.interrupt = true,
            _ => self.abort(),
        }
    }

    /// A command for a master that is not there: a probe that waits for an answer gets one, as from QEMU.
    pub(super) fn refuse(&mut self, command: u8) {
        if command == DIAGNOSE {
            return self.command(command); // every drive does this, whichever is selected
        }
        (self.absent_status, self.error) = (STATUS_READY | STATUS_ERROR, ERROR_ABORTED);
        self.interrupt = true;
    }

    /// SET FEATURES: the write cache, and the transfer mode.
    fn accepts_feature(&self) -> bool {
        match self.features.now {
            0x02 | 0x82 | 0x55 | 0xAA | 0x66 | 0xCC => true,
            0x03 => matches!(self.count.now, 0..=0x0F | 0x20..=0x22 | 0x40..=0x45), // PIO, multiword DMA, Ultra DMA
            _ => false,
        }
    }

    pub(in crate::dev) fn abort(&mut self) {
        self.fail(ERROR_ABORTED);
    }

    fn fail(&mut self, error: u8) {
        self.stop(IDLE | STATUS_ERROR, error);
        self.interrupt = true;
    }

    /// Takes sector number and count from the task file; false if they are beyond the disk, and then the command has failed.
    fn take_address(&mut self, address: Address, block: u8) -> bool {
        let sectors = self.selected().map_or(0, |drive| drive.disk.sectors());
        let byte = |value: u8, shift: u32| u64::from(value) << shift;
        let (sector, count) = match address {
            Address::Long => {
                let low = byte(self.low.now, 0) | byte(self.mid.now, 8) | byte(self.high.now, 16);
                let high = byte(self.low.before, 24) | byte(self.mid.before, 32) | byte(self.high.before, 40);
                let count = u32::from(self.count.now) | u32::from(self.count.before) << 8;
                (low | high, if count == 0 { 0x1_0000 } else { count })
            }
            Address::Short => {
                let count = u32::from(self.count.now);
                (self.short_sector(sectors), if count == 0 { 0x100 } else { count })
            }
        };
        (self.sector, self.left, self.block) = (sector, count, block.into());
        let inside = sector.saturating_add(count.into()) <= sectors;
        if !inside {
            self.fail(ERROR_ADDRESS);
        }
        inside
    }

    /// The sector that 28 bits, or a cylinder, head and sector, name.
    fn short_sector(&self, sectors: u64) -> u64 {
        let middle = u64::from(self.mid.now) | u64::from(self.high.now) << 8;
        let top = u64::from(self.device & 0xF);
        if self.device & DEVICE_LBA != 0 {
            return u64::from(self.low.now) | middle << 8 | top << 24;
        }
        let (_, heads, track) = geometry(sectors);
        match u64::from(self.low.now).checked_sub(1) {
            Some(in_track) => (middle * u64::from(heads) + top) * u64::from(track) + in_track,
            None => u64::MAX, // sectors count from 1
        }
    }

    fn multiple(&mut self, begin: fn(&mut Self, Address, u8), address: Address) {
        match self.selected().map_or(0, |drive| drive.multiple) {
            0 => self.abort(),
            block => begin(self, address, block),
        }
    }

    fn set_multiple(&mut self) {
        let wanted = self.count.now;
        let good = wanted <= MOST_MULTIPLE && (wanted == 0 || wanted.is_power_of_two());
        match self.selected_mut().filter(|_| good) {
            Some(drive) => {
                drive.multiple = wanted;
                self.interrupt = true;
            }
            None => self.abort(),
        }
    }

    fn identify(&mut self) {
        let Some(&Drive { ref disk, multiple }) = self.selected() else { return };
        let sector = identify(disk.sectors(), multiple);
        if let Some(place) = self.buffer.get_mut(..SECTOR) {
            place.copy_from_slice(&sector);
        }
        self.left = 0;
        self.offer(Phase::In, SECTOR);
        self.interrupt = true;
    }

    fn verify(&mut self, address: Address) {
        if self.take_address(address, 1) {
            self.interrupt = true;
        }
    }

    /// READ NATIVE MAX ADDRESS: the last sector.
    fn native_size(&mut self, address: Address) {
        let last = self.selected().map_or(0, |drive| drive.disk.sectors()).saturating_sub(1);
        let [low, mid, high, fourth, fifth, sixth, ..] = last.to_le_bytes();
        self.low = super::Twice { now: low, before: fourth };
        self.mid = super::Twice { now: mid, before: fifth };
        self.high = super::Twice { now: high, before: sixth };
        if address == Address::Short {
            self.device = (self.device & 0xF0) | (fourth & 0x0F);
        }
        self.interrupt = true;
    }

    fn begin_read(&mut self, address: Address, block: u8) {
        if self.take_address(address, block) {
            self.load_block();
        }
    }

    fn begin_write(&mut self, address: Address, block: u8) {
        if self.take_address(address, block) {
            self.offer(Phase::Out, self.block_bytes()); // the first block is asked for without an interrupt
        }
    }

    fn await_dma(&mut self, phase: Phase, address: Address) {
        if self.take_address(address, MOST_MULTIPLE) {
            self.phase = phase;
            self.status = IDLE | STATUS_REQUEST;
        }
    }

    pub(super) fn block_bytes(&self) -> usize {
        self.left.min(self.block) as usize * SECTOR
    }

    /// Hands the buffer to the guest.
    pub(super) fn offer(&mut self, phase: Phase, bytes: usize) {
        self.phase = phase;
        (self.at, self.filled) = (0, bytes);
        self.status = IDLE | STATUS_REQUEST;
    }

    /// Reads the next block of sectors into the buffer.
    pub(super) fn load_block(&mut self) {
        let bytes = self.block_bytes();
        let slave = usize::from(self.device & super::DEVICE_SLAVE != 0);
        let (Some(Some(drive)), Some(room)) = (self.drives.get(slave), self.buffer.get_mut(..bytes)) else { return };
        let mut done = Ok(());
        for (place, sector) in room.as_chunks_mut::<SECTOR>().0.iter_mut().zip(self.sector..) {
            done = done.and_then(|()| drive.disk.read(sector, place));
        }
        match done {
            Ok(()) => {
                self.offer(Phase::In, bytes);
                self.interrupt = true;
            }
            Err(error) => self.disk_error(error),
        }
    }

    /// Writes the block in the buffer to the disk.
    fn store_block(&mut self) -> Result<(), DiskError> {
        let slave = usize::from(self.device & super::DEVICE_SLAVE != 0);
        let (Some(Some(drive)), Some(bytes)) = (self.drives.get_mut(slave), self.buffer.get(..self.filled)) else {
            return Err(DiskError::Address);
        };
        for (place, sector) in bytes.as_chunks::<SECTOR>().0.iter().zip(self.sector..) {
            drive.disk.write(sector, place)?;
        }
        Ok(())
    }

    fn disk_error(&mut self, error: DiskError) {
        self.fail(match error {
            DiskError::Address => ERROR_ADDRESS,
            DiskError::Full => ERROR_ABORTED,
        });
    }

    /// Goes on behind the block that was moved; whether there is another.
    fn advance(&mut self) -> bool {
        let moved = self.left.min(self.block);
        self.left = self.left.saturating_sub(moved);
        self.sector = self.sector.saturating_add(moved.into());
        self.left > 0
    }

    /// The guest has read the block.
    pub(super) fn next_in(&mut self) {
        if self.advance() { self.load_block() } else { self.stop(IDLE, 0) }
    }

    /// The guest has filled the block.
    pub(super) fn next_out(&mut self) {
        if let Err(error) = self.store_block() {
            return self.disk_error(error);
        }
        if self.advance() {
            self.offer(Phase::Out, self.block_bytes())
        } else {
            self.stop(IDLE, 0)
        }
        self.interrupt = true;
    }
}
