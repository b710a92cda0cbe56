//! The memory-mapped devices by guest-physical address: the counterpart of the port map.

use super::Bus;
use super::lapic::Written;
use super::test_device::TestDevice;
use super::time::Nanos;

/// Where the I/O APIC is.
pub(crate) const IO_APIC: u64 = 0xFEC0_0000;
const PAGE: u64 = 4096;

/// Who answers in a page of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nobody,
    LocalApic,
    IoApic,
    Test,
}

impl Bus {
    #[inline]
    fn place(&self, page: u64) -> Place {
        if self.lapic.page() == Some(page) {
            Place::LocalApic
        } else if page == IO_APIC && self.has_apic {
            Place::IoApic
        } else if TestDevice::has_page(page) {
            Place::Test
        } else {
            Place::Nobody
        }
    }

    /// Reads `bytes` at a guest-physical address without memory; what nobody answers reads as all ones. No access reaches
    /// over a page.
    pub fn read_memory(&mut self, address: u64, bytes: &mut [u8], now: Nanos) {
        self.advance(now);
        let (page, offset) = (address & !(PAGE - 1), (address % PAGE) as u16);
        let place = self.place(page);
        match place {
            Place::Nobody => return bytes.fill(u8::MAX),
            Place::Test => return self.test.read_memory(address, bytes),
            Place::LocalApic | Place::IoApic => {}
        }
        // The registers are doublewords, 16 bytes apart; the bytes between them read as 0. No access is wider than that.
        self.count_place(place == Place::LocalApic);
        let register = match place {
            Place::LocalApic => self.lapic.read(offset & !0xF, self.now),
            _ => self.io_apic.read(offset & !0xF),
        };
        let value = u128::from(register).checked_shr(u32::from(offset % 16) * 8).unwrap_or(0);
        for (byte, part) in bytes.iter_mut().zip(value.to_le_bytes()) {
            *byte = part;
        }
        if place == Place::LocalApic {
            self.take_over_apic();
        }
    }

    /// Writes `bytes` at a guest-physical address without memory. The APICs take aligned doublewords only (SDM 3A 10.4.1).
    pub fn write_memory(&mut self, address: u64, bytes: &[u8], now: Nanos) {
        self.advance(now);
        let (page, offset) = (address & !(PAGE - 1), (address % PAGE) as u16);
        let place = self.place(page);
        if place == Place::Test {
            return self.test.write_memory(address, bytes);
        }
        let Ok(value) = <[u8; 4]>::try_from(bytes).map(u32::from_le_bytes) else { return };
        if offset % 16 != 0 {
            return;
        }
        if place != Place::Nobody {
            self.count_place(place == Place::LocalApic);
        }
        match place {
            Place::LocalApic => self.write_local_apic(offset, value),
            Place::IoApic => {
                if let Some(message) = self.io_apic.write(offset, value) {
                    self.lapic.receive(message);
                }
                self.take_over_apic();
            }
            Place::Nobody | Place::Test => {}
        }
    }

    fn write_local_apic(&mut self, offset: u16, value: u32) {
        if let Written::EndOfLevel(vector) = self.lapic.write(offset, value, self.now) {
            let lapic = &mut self.lapic;
            self.io_apic.end_of_interrupt(vector, |message| lapic.receive(message));
        }
        self.take_over_apic();
    }
}
