//! PCI configuration by mechanism 1 (PCI Local Bus Specification 2.1, 3.2.2.3.2): the host bridge, without which kernels take the
//! bus for absent, and the PIIX3's bridge to ISA. With a disk there is the PIIX3's IDE function too, in compatibility mode:
//! its channels are at the ISA ports and at IRQ 14 and 15 (Intel 82371SB data sheet, chapter 2). The bus master's registers are where the
//! BIOS has put them; a guest that moves them elsewhere finds nothing there.

use super::ports::BUS_MASTER;

/// The address register: doublewords only.
pub(super) const ADDRESS: u16 = 0xCF8;
const ENABLE: u32 = 1 << 31;
/// Bits that can be written: enable, bus, device, function, register.
const WRITABLE: u32 = 0x80FF_FFFC;
const DATA: u16 = 0xCFC;

/// Registers by their place in a function.
const IDENTITY: u32 = 0x00;
const COMMAND: u32 = 0x04;
const CLASS: u32 = 0x08;
const HEADER: u32 = 0x0C;
/// Base address register 4: the bus master's ports.
const MASTER_BASE: u32 = 0x20;
const IDE_TIMING: u32 = 0x40;

/// Bits of the base address register that are not fixed, and the one that says that it is of ports.
const BASE_BITS: u32 = 0xFFFF_FFF0;
const BASE_OF_PORTS: u32 = 1;
/// Command bits of the IDE function: it answers at ports, and masters the bus. It has no memory.
const ANSWERS_PORTS: u32 = 1 << 0;
const MASTERS_BUS: u32 = 1 << 2;

/// Command bits of a function on ISA: it answers I/O and memory, and masters the bus, as the BIOS leaves it.
const ANSWERS: u32 = 0b111;
/// The header says that the device has several functions.
const SEVERAL: u32 = 1 << 23;
/// Both channels' ports are decoded (IDETIM bit 15 of each).
const DECODES: u32 = 0x8000_8000;

/// A function of bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    HostBridge,
    IsaBridge,
    Ide,
}

/// The two ports, and what can be written behind them.
#[derive(Clone, Debug)]
pub(super) struct Pci {
    address: u32,
    has_ide: bool,
    ide_command: u32,
    ide_timing: u32,
    master_base: u32,
}

impl Default for Pci {
    fn default() -> Self {
        let master_base = BUS_MASTER as u32;
        Self { address: 0, has_ide: false, ide_command: ANSWERS_PORTS, ide_timing: DECODES, master_base }
    }
}

impl Pci {
    /// The IDE function is there.
    pub(super) fn show_ide(&mut self) {
        self.has_ide = true;
    }

    /// Whether the bus master's registers are at [`BUS_MASTER`].
    pub(super) fn has_bus_master(&self) -> bool {
        self.has_ide && self.ide_command & ANSWERS_PORTS != 0 && self.master_base == u32::from(BUS_MASTER)
    }

    /// Whether the IDE function may access memory.
    pub(super) fn masters_bus(&self) -> bool {
        self.ide_command & MASTERS_BUS != 0
    }

    pub(super) fn address(&self) -> u32 {
        self.address
    }

    pub(super) fn set_address(&mut self, value: u32) {
        self.address = value & WRITABLE;
    }

    /// Reads a byte of the data register.
    pub(super) fn read(&self, port: u16) -> u8 {
        let value = self.selected().map_or(u32::MAX, |function| self.register(function));
        value.to_le_bytes().get(byte_of(port)).copied().unwrap_or(u8::MAX)
    }

    /// Writes a byte of the data register.
    pub(super) fn write(&mut self, port: u16, value: u8) {
        let (register, writable) = match (self.selected(), self.address & 0xFC) {
            (Some(Function::Ide), COMMAND) => (&mut self.ide_command, ANSWERS_PORTS | MASTERS_BUS),
            (Some(Function::Ide), MASTER_BASE) => (&mut self.master_base, BASE_BITS),
            (Some(Function::Ide), IDE_TIMING) => (&mut self.ide_timing, u32::MAX),
            _ => return,
        };
        let mut bytes = register.to_le_bytes();
        if let Some(byte) = bytes.get_mut(byte_of(port)) {
            *byte = value;
        }
        *register = u32::from_le_bytes(bytes) & writable;
    }

    fn selected(&self) -> Option<Function> {
        if self.address & ENABLE == 0 {
            return None;
        }
        match self.address >> 8 & 0xFFFF {
            0x00 => Some(Function::HostBridge),
            0x08 => Some(Function::IsaBridge),
            0x09 if self.has_ide => Some(Function::Ide),
            _ => None,
        }
    }

    fn register(&self, function: Function) -> u32 {
        match (function, self.address & 0xFC) {
            (Function::HostBridge, IDENTITY) => 0x1237_8086, // Intel 440FX
            (Function::HostBridge, CLASS) => 0x0600_0002,
            (Function::IsaBridge, IDENTITY) => 0x7000_8086, // PIIX3
            (Function::IsaBridge, COMMAND) => 0x0200_0000 | ANSWERS,
            (Function::IsaBridge, CLASS) => 0x0601_0000,
            (Function::IsaBridge, HEADER) => SEVERAL,
            (Function::Ide, IDENTITY) => 0x7010_8086,
            (Function::Ide, COMMAND) => 0x0280_0000 | self.ide_command,
            (Function::Ide, CLASS) => 0x0101_8000, // with a bus master
            (Function::Ide, MASTER_BASE) => self.master_base | BASE_OF_PORTS,
            (Function::Ide, IDE_TIMING) => self.ide_timing,
            _ => 0,
        }
    }
}

fn byte_of(port: u16) -> usize {
    usize::from(port.wrapping_sub(DATA) & 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pci: &mut Pci, function: u32, register: u32) -> u32 {
        pci.set_address(ENABLE | function << 8 | register);
        u32::from_le_bytes([0, 1, 2, 3].map(|byte| pci.read(DATA + byte)))
    }

    #[test]
    fn there_are_two_bridges_and_nothing_else() {
        let mut pci = Pci::default();
        assert_eq!((read(&mut pci, 0, IDENTITY), read(&mut pci, 8, IDENTITY)), (0x1237_8086, 0x7000_8086));
        assert_eq!(read(&mut pci, 8, HEADER), SEVERAL);
        assert!((1..0x1_0000).filter(|&place| place != 8).all(|place| read(&mut pci, place, IDENTITY) == u32::MAX));
        pci.set_address(0);
        assert_eq!(pci.read(DATA), 0xFF);
        pci.set_address(ENABLE | 0x0B);
        assert_eq!((pci.address(), pci.read(DATA + 3), pci.read(DATA + 2)), (ENABLE | 8, 6, 0));
    }

    #[test]
    fn disks_come_with_a_function() {
        let mut pci = Pci::default();
        pci.show_ide();
        assert_eq!((read(&mut pci, 9, IDENTITY), read(&mut pci, 9, CLASS) >> 8), (0x7010_8086, 0x01_0180));
        assert_eq!(read(&mut pci, 9, MASTER_BASE), 0xC001);
        assert!(pci.has_bus_master() && !pci.masters_bus());
        (0..4).for_each(|byte| pci.write(DATA + byte, 0xFF));
        assert_eq!((read(&mut pci, 9, MASTER_BASE), pci.has_bus_master()), (0xFFFF_FFF1, false), "16 ports");
        assert_eq!(read(&mut pci, 9, IDE_TIMING), DECODES);
        pci.write(DATA + 1, 0xA3);
        assert_eq!(read(&mut pci, 9, IDE_TIMING), 0x8000_A300);
        assert_eq!(read(&mut pci, 9, COMMAND), 0x0280_0001);
        pci.write(DATA, 0xFF);
        pci.write(DATA + 2, 0xFF);
        assert_eq!((read(&mut pci, 9, COMMAND), pci.masters_bus()), (0x0280_0005, true));
        pci.write(DATA, 0);
        assert_eq!(read(&mut pci, 9, COMMAND), 0x0280_0000);
    }
}
