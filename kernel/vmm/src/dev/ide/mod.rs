//! An IDE channel with up to two disks, driven by programmed I/O or by the bus master (ATA/ATAPI-6, T13/1410D: chapter 7 registers, chapter 8
//! commands, chapter 9 protocols). Commands are done at once: BSY is never seen.

mod command;
mod identify;

use alloc::vec;
use alloc::vec::Vec;

use super::disk::{Disk, SECTOR};

/// Sectors that READ and WRITE MULTIPLE move in one block at most.
const MOST_MULTIPLE: u8 = 16;

const STATUS_ERROR: u8 = 1 << 0;
const STATUS_REQUEST: u8 = 1 << 3;
const STATUS_SEEK_DONE: u8 = 1 << 4;
const STATUS_READY: u8 = 1 << 6;
const IDLE: u8 = STATUS_READY | STATUS_SEEK_DONE;

const ERROR_ABORTED: u8 = 1 << 2;
const ERROR_ADDRESS: u8 = 1 << 4;
/// The error register after diagnostics that found nothing.
const DIAGNOSTICS_PASSED: u8 = 0x01;

const DEVICE_SLAVE: u8 = 1 << 4;
const DEVICE_LBA: u8 = 1 << 6;
const CONTROL_NO_INTERRUPT: u8 = 1 << 1;
const CONTROL_RESET: u8 = 1 << 2;
/// Reads show the bytes that were written first (48-bit addresses).
const CONTROL_HIGH_ORDER: u8 = 1 << 7;

/// A task file register that keeps two writes for 48-bit commands.
#[derive(Clone, Copy, Debug, Default)]
struct Twice {
    now: u8,
    before: u8,
}

impl Twice {
    fn write(&mut self, value: u8) {
        self.before = self.now;
        self.now = value;
    }

    fn set(&mut self, value: u8) {
        *self = Self { now: value, before: 0 };
    }
}

/// What the data register does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing.
    Idle,
    /// The guest reads the buffer.
    In,
    /// The guest fills the buffer.
    Out,
    /// A read or a write waits for the bus master. It goes on as [`Phase::In`] or [`Phase::Out`] then.
    AwaitsRead,
    AwaitsWrite,
}

/// A disk and what was set for it.
#[derive(Debug)]
struct Drive {
    disk: Disk,
    /// Sectors in a block of READ and WRITE MULTIPLE; 0 while they are not allowed. Kernels rely on QEMU's disks, which allow
    /// them from the start.
    multiple: u8,
}

/// One channel: the task file, and the transfer that goes on.
#[derive(Debug)]
pub(super) struct Channel {
    drives: [Option<Drive>; 2],
    features: Twice,
    count: Twice,
    low: Twice,
    mid: Twice,
    high: Twice,
    device: u8,
    control: u8,
    status: u8,
    /// The status of a master that is not there, beside a slave.
    absent_status: u8,
    error: u8,
    interrupt: bool,
    phase: Phase,
    /// One block of sectors, how much of it counts and where the guest is in it.
    buffer: Vec<u8>,
    filled: usize,
    at: usize,
    /// The transfer: its next sector, the sectors left, and how many make a block.
    sector: u64,
    left: u32,
    block: u32,
}

impl Channel {
    /// A channel without drives.
    pub(super) fn new() -> Self {
        let mut channel = Self {
            drives: [None, None],
            features: Twice::default(),
            count: Twice::default(),
            low: Twice::default(),
            mid: Twice::default(),
            high: Twice::default(),
            device: 0,
            control: 0,
            status: IDLE,
            absent_status: IDLE,
            error: DIAGNOSTICS_PASSED,
            interrupt: false,
            phase: Phase::Idle,
            buffer: Vec::new(),
            filled: 0,
            at: 0,
            sector: 0,
            left: 0,
            block: 1,
        };
        channel.sign();
        channel
    }

    /// Connects a disk as master (0) or slave (1).
    pub(super) fn attach(&mut self, place: usize, disk: Disk) {
        if let Some(drive) = self.drives.get_mut(place) {
            *drive = Some(Drive { disk, multiple: MOST_MULTIPLE });
            self.buffer = vec![0; usize::from(MOST_MULTIPLE) * SECTOR];
        }
    }

    /// The disks, master first.
    pub(super) fn disks(&self) -> impl Iterator<Item = Option<&Disk>> {
        self.drives.iter().map(|drive| drive.as_ref().map(|drive| &drive.disk))
    }

    /// The interrupt line.
    #[inline]
    pub(super) fn interrupt(&self) -> bool {
        self.interrupt && self.control & CONTROL_NO_INTERRUPT == 0
    }

    /// Reads task file register 1..=7.
    pub(super) fn read(&mut self, register: u16) -> u8 {
        if self.drives.iter().all(Option::is_none) {
            return 0; // a channel with nothing on it, as QEMU shows it
        }
        let old = self.control & CONTROL_HIGH_ORDER != 0;
        let shown = |register: Twice| if old { register.before } else { register.now };
        match register {
            1 if old => self.features.before,
            1 => self.error,
            2 => shown(self.count),
            3 => shown(self.low),
            4 => shown(self.mid),
            5 => shown(self.high),
            6 => self.device,
            _ => {
                self.interrupt = false;
                self.alternate_status()
            }
        }
    }

    /// The status without taking the interrupt back. A slave that is not there shows 0; a master that is not there is ready all the
    /// same beside a slave, as in QEMU: kernels whose only disk is the slave wait for it.
    pub(super) fn alternate_status(&self) -> u8 {
        match self.selected() {
            Some(_) => self.status,
            None if self.answers_for_master() => self.absent_status,
            None => 0,
        }
    }

    /// Whether the master is selected, is not there, and the slave is: it answers instead.
    fn answers_for_master(&self) -> bool {
        self.device & DEVICE_SLAVE == 0 && matches!(self.drives, [None, Some(_)])
    }

    /// Writes task file register 1..=7.
    pub(super) fn write(&mut self, register: u16, value: u8) {
        self.control &= !CONTROL_HIGH_ORDER;
        match register {
            1 => self.features.write(value),
            2 => self.count.write(value),
            3 => self.low.write(value),
            4 => self.mid.write(value),
            5 => self.high.write(value),
            6 => self.device = value | 0xA0,
            _ if self.selected().is_some() => self.command(value),
            _ if self.answers_for_master() => self.refuse(value),
            _ => {}
        }
    }

    /// Writes the device control register.
    pub(super) fn write_control(&mut self, value: u8) {
        let ends = self.control & CONTROL_RESET != 0 && value & CONTROL_RESET == 0;
        self.control = value;
        if ends {
            self.interrupt = false;
            self.stop(IDLE, DIAGNOSTICS_PASSED);
            self.absent_status = IDLE;
            self.sign();
            self.drives.iter_mut().flatten().for_each(|drive| drive.multiple = MOST_MULTIPLE);
        }
    }

    /// Reads the data register, as many bytes as the guest wants.
    pub(super) fn read_data(&mut self, bytes: &mut [u8]) {
        let mut wanted = bytes;
        while !wanted.is_empty() {
            if self.phase != Phase::In {
                wanted.fill(0); // as from QEMU
                return;
            }
            let length = wanted.len().min(self.filled.saturating_sub(self.at)).max(1);
            let (part, rest) = wanted.split_at_mut(length);
            if let Some(found) = self.buffer.get(self.at..self.at.saturating_add(length)) {
                part.copy_from_slice(found);
            }
            wanted = rest;
            self.at = self.at.saturating_add(length);
            if self.at >= self.filled {
                self.next_in();
            }
        }
    }

    /// Writes the data register.
    pub(super) fn write_data(&mut self, bytes: &[u8]) {
        let mut given = bytes;
        while !given.is_empty() && self.phase == Phase::Out {
            let length = given.len().min(self.filled.saturating_sub(self.at)).max(1);
            let (part, rest) = given.split_at(length);
            if let Some(place) = self.buffer.get_mut(self.at..self.at.saturating_add(length)) {
                place.copy_from_slice(part);
            }
            given = rest;
            self.at = self.at.saturating_add(length);
            if self.at >= self.filled {
                self.next_out();
            }
        }
    }

    /// The bus master is active: whether there is a command that waited for it.
    pub(super) fn begin_dma(&mut self) -> bool {
        match self.phase {
            Phase::AwaitsRead => self.load_block(),
            Phase::AwaitsWrite => self.offer(Phase::Out, self.block_bytes()),
            _ => return false,
        }
        true
    }

    /// Which way the transfer goes; `None` if there is none.
    pub(super) fn goes_to_memory(&self) -> Option<bool> {
        match self.phase {
            Phase::In => Some(true),
            Phase::Out => Some(false),
            _ => None,
        }
    }

    /// How much of the block in the buffer is left.
    pub(super) fn block_left(&self) -> usize {
        self.filled.saturating_sub(self.at)
    }

    /// The bus master has no more room: a transfer that is not complete ends without an interrupt, as QEMU's does.
    pub(super) fn end_dma(&mut self) {
        if self.phase != Phase::Idle {
            self.interrupt = false;
            self.stop(IDLE, 0);
        }
    }

    fn selected(&self) -> Option<&Drive> {
        self.drives.get(usize::from(self.device & DEVICE_SLAVE != 0))?.as_ref()
    }

    fn selected_mut(&mut self) -> Option<&mut Drive> {
        self.drives.get_mut(usize::from(self.device & DEVICE_SLAVE != 0))?.as_mut()
    }

    /// The signature of a disk, which resets and diagnostics leave in the task file.
    fn sign(&mut self) {
        self.count.set(1);
        self.low.set(1);
        self.mid.set(0);
        self.high.set(0);
        self.device = 0xA0;
    }

    /// Ends whatever goes on, with this status and error.
    fn stop(&mut self, status: u8, error: u8) {
        self.phase = Phase::Idle;
        (self.status, self.error) = (status, error);
    }
}

#[cfg(test)]
mod tests;
