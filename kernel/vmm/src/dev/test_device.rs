//! QEMU's `pc-testdev` (hw/misc/pc-testdev.c), which test suites for hypervisors use: four ports and 64 KiB of memory that keep what
//! is written, and a port for each interrupt line. Its port 0xE4, which takes a page away from the guest for a moment, does nothing:
//! what the hypervisor maps may be taken away at any time anyway.

use alloc::boxed::Box;

/// The register's first port.
pub(super) const REGISTER: u16 = 0xE0;
/// The end of its ports.
pub(super) const REGISTER_END: u16 = 0xEB;
/// The port of interrupt line 0.
pub(super) const LINES: u16 = 0x2000;
/// The port of the last.
pub(super) const LINES_END: u16 = LINES + 23;
/// Where the memory is.
const MEMORY: u64 = 0xFF00_0000;
const MEMORY_BYTES: usize = 0x1_0000;

/// The device.
#[derive(Debug, Default)]
pub(super) struct TestDevice {
    register: [u8; 4],
    /// Made when it is written first.
    memory: Option<Box<[u8; MEMORY_BYTES]>>,
}

impl TestDevice {
    /// Reads a byte of the register.
    pub(super) fn read(&self, port: u16) -> u8 {
        place(port).and_then(|place| self.register.get(place)).copied().unwrap_or(u8::MAX)
    }

    /// Writes a byte of the register.
    pub(super) fn write(&mut self, port: u16, value: u8) {
        if let Some(byte) = place(port).and_then(|place| self.register.get_mut(place)) {
            *byte = value;
        }
    }

    /// Whether its memory is at a page of guest-physical addresses.
    #[inline]
    pub(super) fn has_page(page: u64) -> bool {
        (MEMORY..MEMORY + MEMORY_BYTES as u64).contains(&page)
    }

    /// Reads its memory. No access reaches over a page.
    pub(super) fn read_memory(&self, address: u64, bytes: &mut [u8]) {
        let start = (address % MEMORY_BYTES as u64) as usize;
        match self.memory.as_ref().and_then(|memory| memory.get(start..start + bytes.len())) {
            Some(found) => bytes.copy_from_slice(found),
            None => bytes.fill(0),
        }
    }

    /// Writes its memory.
    pub(super) fn write_memory(&mut self, address: u64, bytes: &[u8]) {
        let start = (address % MEMORY_BYTES as u64) as usize;
        let memory = self.memory.get_or_insert_with(|| Box::new([0; MEMORY_BYTES]));
        if let Some(place) = memory.get_mut(start..start + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The register's byte at a port: it shows at 0xE0 and at 0xE8.
fn place(port: u16) -> Option<usize> {
    (port & 4 == 0).then_some(usize::from(port & 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_is_written() {
        let mut device = TestDevice::default();
        for (port, value) in (REGISTER..).zip([0x11, 0x22, 0x33, 0x44]) {
            device.write(port, value);
        }
        device.write(0xE5, 0x99);
        assert_eq!([0xE1, 0xE8, 0xEB, 0xE4].map(|port| device.read(port)), [0x22, 0x11, 0x44, 0xFF]);
        let mut bytes = [1; 4];
        device.read_memory(0xFF00_FFFC, &mut bytes);
        assert_eq!(bytes, [0; 4]);
        device.write_memory(0xFF00_FFFC, &[5, 6, 7, 8]);
        device.read_memory(0xFF00_FFFC, &mut bytes);
        assert_eq!(bytes, [5, 6, 7, 8]);
        assert!(TestDevice::has_page(0xFF00_F000) && !TestDevice::has_page(0xFF01_0000));
    }
}
