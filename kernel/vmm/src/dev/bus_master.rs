//! One channel's half of the PIIX3's bus master, which moves sectors between a disk and the guest's memory along a table of regions that
//! lies in that memory (Intel 82371SB data sheet, 2.3; Programming Interface for Bus Master IDE Controller, revision 1.0).
//!
//! ```text
//!   +0  command  bit 0: start, bit 3: to memory
//!   +2  status   bit 0: active, bit 1: error, bit 2: interrupt; a written 1 clears the latter two. Bits 5 and 6 are the driver's
//!   +4  address of the table (32 bits); an entry: address (32 bits), bytes (16 bits, 0 means 64 KiB), bit 63: the last one
//! ```

const START: u8 = 1 << 0;
const TO_MEMORY: u8 = 1 << 3;
const ACTIVE: u8 = 1 << 0;
const ERROR: u8 = 1 << 1;
const INTERRUPT: u8 = 1 << 2;
const DRIVERS: u8 = 0x60;

const PAGE: u32 = 4096;
const ENTRY_BYTES: u32 = 8;
const LAST: u64 = 1 << 63;

/// What the bus master does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// It reads the table's entry at this address.
    Entry(u32),
    /// It moves so many bytes at most, which lie in one page, from or to this address.
    Bytes(u32, u32),
    /// It cannot go on: the table is at its end.
    Nothing,
}

/// The registers, and where the transfer is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BusMaster {
    command: u8,
    status: u8,
    table: u32,
    /// The next entry, and what is left of the region before it.
    next: u32,
    at: u32,
    left: u32,
    last: bool,
    /// The disk's interrupt line, whose rises are kept in the status.
    line: bool,
}

impl BusMaster {
    pub(super) fn read(&self, register: u16) -> u8 {
        match register {
            0 => self.command,
            2 => self.status,
            4..=7 => self.table.to_le_bytes().get(usize::from(register & 3)).copied().unwrap_or(u8::MAX),
            _ => u8::MAX,
        }
    }

    pub(super) fn write(&mut self, register: u16, value: u8) {
        match register {
            0 => self.write_command(value),
            2 => {
                let kept = self.status & ACTIVE | self.status & !value & (ERROR | INTERRUPT);
                self.status = value & DRIVERS | kept;
            }
            4..=7 => {
                let mut bytes = self.table.to_le_bytes();
                if let Some(byte) = bytes.get_mut(usize::from(register & 3)) {
                    *byte = value;
                }
                self.table = u32::from_le_bytes(bytes) & !3;
            }
            _ => {}
        }
    }

    fn write_command(&mut self, value: u8) {
        match (self.command & START != 0, value & START != 0) {
            (false, true) => {
                (self.next, self.left, self.last) = (self.table, 0, false);
                self.status |= ACTIVE;
            }
            (true, false) => self.status &= !ACTIVE,
            _ => {}
        }
        self.command = value & (START | TO_MEMORY);
    }

    pub(super) fn is_active(&self) -> bool {
        self.status & ACTIVE != 0
    }

    /// Follows the disk's interrupt line.
    pub(super) fn follow(&mut self, line: bool) {
        if line && !self.line {
            self.status |= INTERRUPT;
        }
        self.line = line;
    }

    pub(super) fn next_move(&self) -> Move {
        match (self.left, self.last) {
            (0, false) => Move::Entry(self.next),
            (0, true) => Move::Nothing,
            (left, _) => Move::Bytes(self.at, left.min(PAGE - self.at % PAGE)),
        }
    }

    /// Takes an entry of the table.
    pub(super) fn take_entry(&mut self, entry: [u8; ENTRY_BYTES as usize]) {
        let entry = u64::from_le_bytes(entry);
        self.next = self.next.wrapping_add(ENTRY_BYTES);
        self.at = entry as u32 & !1;
        self.left = match (entry >> 32) as u32 & 0xFFFE {
            0 => 0x1_0000,
            bytes => bytes,
        };
        self.last = entry & LAST != 0;
    }

    pub(super) fn moved(&mut self, bytes: u32) {
        self.at = self.at.wrapping_add(bytes);
        self.left = self.left.saturating_sub(bytes);
    }

    /// The transfer is over.
    pub(super) fn end(&mut self) {
        self.status &= !ACTIVE;
    }

    /// The transfer is given up.
    pub(super) fn fail(&mut self) {
        self.status = self.status & !ACTIVE | ERROR;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u32, bytes: u16, last: bool) -> [u8; 8] {
        (u64::from(at) | u64::from(bytes) << 32 | if last { LAST } else { 0 }).to_le_bytes()
    }

    #[test]
    fn regions_follow_the_table_and_end_at_pages() {
        let mut master = BusMaster::default();
        for (register, byte) in [(4, 0x07), (5, 0x10), (0, TO_MEMORY | START)] {
            master.write(register, byte);
        }
        assert_eq!((master.read(4), master.read(5), master.read(2)), (0x04, 0x10, ACTIVE));
        assert_eq!(master.next_move(), Move::Entry(0x1004));
        master.take_entry(entry(0x2F01, 0x201, false));
        assert_eq!(master.next_move(), Move::Bytes(0x2F00, 0x100));
        master.moved(0x100);
        assert_eq!(master.next_move(), Move::Bytes(0x3000, 0x100));
        master.moved(0x100);
        assert_eq!(master.next_move(), Move::Entry(0x100C));
        master.take_entry(entry(0x8000, 0, true));
        assert_eq!(master.next_move(), Move::Bytes(0x8000, 0x1000));
        (0..16).for_each(|_| master.moved(0x1000));
        assert_eq!(master.next_move(), Move::Nothing);
        master.end();
        assert_eq!((master.read(0), master.read(2)), (TO_MEMORY | START, 0));
        master.write(0, 0);
        master.write(0, START);
        assert_eq!(master.next_move(), Move::Entry(0x1004), "from the start");
    }

    #[test]
    fn interrupts_stay_until_they_are_cleared() {
        let mut master = BusMaster::default();
        master.follow(true);
        master.follow(false);
        assert_eq!(master.read(2), INTERRUPT);
        master.write(2, DRIVERS);
        assert_eq!(master.read(2), DRIVERS | INTERRUPT);
        master.write(2, INTERRUPT);
        assert_eq!(master.read(2), 0);
        master.follow(true);
        master.write(2, INTERRUPT);
        master.follow(true);
        assert_eq!(master.read(2), 0, "only a rise counts");
        master.fail();
        assert_eq!(master.read(2), ERROR);
    }
}
