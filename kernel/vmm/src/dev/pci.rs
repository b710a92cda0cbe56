//! PCI configuration by mechanism 1 (PCI Local Bus Specification 2.1, 3.2.2.3.2): a bus with its host bridge and nothing else.
//! The bridge is there because kernels take a bus without one for no bus.

/// The address register: doublewords only.
pub(super) const ADDRESS: u16 = 0xCF8;
const ENABLE: u32 = 1 << 31;
/// Bits that can be written: enable, bus, device, function, register.
const WRITABLE: u32 = 0x80FF_FFFC;
const DATA: u16 = 0xCFC;
/// Vendor and device: Intel 440FX. Class: host bridge.
const BRIDGE: u32 = 0x1237_8086;
const CLASS_REVISION: u32 = 0x0600_0002;

/// The two ports.
#[derive(Clone, Debug, Default)]
pub(super) struct Pci {
    address: u32,
}

impl Pci {
    pub(super) fn address(&self) -> u32 {
        self.address
    }

    pub(super) fn set_address(&mut self, value: u32) {
        self.address = value & WRITABLE;
    }

    /// Reads a byte of the data register.
    pub(super) fn read(&self, port: u16) -> u8 {
        let byte = usize::from(port.wrapping_sub(DATA) & 3);
        self.register().to_le_bytes().get(byte).copied().unwrap_or(u8::MAX)
    }

    fn register(&self) -> u32 {
        let bridge = self.address & ENABLE != 0 && self.address & 0x00FF_FF00 == 0;
        match (bridge, self.address & 0xFC) {
            (true, 0x00) => BRIDGE,
            (true, 0x08) => CLASS_REVISION,
            (true, _) => 0,
            (false, _) => u32::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_bridge_and_nothing_else() {
        let mut pci = Pci::default();
        let mut vendor = |address| {
            pci.set_address(address);
            u16::from_le_bytes([pci.read(DATA), pci.read(DATA + 1)])
        };
        assert_eq!(vendor(0x8000_0000), 0x8086);
        assert_eq!(vendor(0), 0xFFFF);
        assert!((1..0x1_0000).all(|function| vendor(ENABLE | function << 8) == 0xFFFF));
        pci.set_address(ENABLE | 0x0B);
        assert_eq!((pci.address(), pci.read(DATA + 3), pci.read(DATA + 2)), (ENABLE | 8, 6, 0));
    }
}
