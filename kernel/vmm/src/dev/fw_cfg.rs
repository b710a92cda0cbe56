//! QEMU's firmware configuration device (docs/specs/fw_cfg.rst of QEMU): a 16-bit selector at 0x510 and a byte of the selected
//! item at each read of 0x511. Only what kernels and test suites ask for; there are no files and no DMA.

const SELECTOR: u16 = 0x510;

const SIGNATURE: u16 = 0x00;
const INTERFACE: u16 = 0x01;
const RAM_SIZE: u16 = 0x03;
const NO_GRAPHICS: u16 = 0x04;
const CPU_COUNT: u16 = 0x05;
const MOST_CPUS: u16 = 0x0F;
const FILE_DIRECTORY: u16 = 0x19;
/// Tells that the timer is at pin 2 of the I/O APIC.
const IRQ0_OVERRIDE: u16 = 0x8002;

/// The device.
#[derive(Clone, Debug, Default)]
pub(super) struct FwCfg {
    selected: u16,
    offset: usize,
    memory: u64,
}

impl FwCfg {
    pub(super) fn set_memory(&mut self, bytes: u64) {
        self.memory = bytes;
    }

    /// Selects an item; reads begin at its start.
    pub(super) fn select(&mut self, item: u16) {
        (self.selected, self.offset) = (item, 0);
    }

    /// The next byte of the item; 0 behind its end.
    pub(super) fn read(&mut self, port: u16) -> u8 {
        if port == SELECTOR {
            return u8::MAX;
        }
        let byte = self.item().to_le_bytes().get(self.offset).copied().unwrap_or(0);
        self.offset = self.offset.saturating_add(1);
        byte
    }

    /// An item as a little-endian number; what does not exist is empty.
    fn item(&self) -> u64 {
        match self.selected {
            SIGNATURE => u32::from_le_bytes(*b"QEMU").into(),
            INTERFACE | CPU_COUNT | MOST_CPUS | NO_GRAPHICS | IRQ0_OVERRIDE => 1,
            RAM_SIZE => self.memory,
            FILE_DIRECTORY => 0, // no entries
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(device: &mut FwCfg, item: u16, bytes: usize) -> u64 {
        device.select(item);
        (0..bytes).fold(0, |value, at| value | u64::from(device.read(0x511)) << (8 * at))
    }

    #[test]
    fn items() {
        let mut device = FwCfg::default();
        device.set_memory(0x1_2345_6000);
        assert_eq!(item(&mut device, SIGNATURE, 4), 0x554D_4551);
        assert_eq!(item(&mut device, CPU_COUNT, 2), 1);
        assert_eq!(item(&mut device, MOST_CPUS, 2), 1);
        assert_eq!(item(&mut device, RAM_SIZE, 8), 0x1_2345_6000);
        assert_eq!(item(&mut device, FILE_DIRECTORY, 4), 0);
        assert_eq!(item(&mut device, 0x77, 8), 0);
        assert_eq!(item(&mut device, SIGNATURE, 8), 0x554D_4551); // nothing behind the end
    }
}
