//! Port accesses on their way to the devices, byte by byte or whole.

use super::lines::{IRQ_COM1, IRQ_KEYBOARD, IRQ_MOUSE};
use super::{Bus, BusEffect};
use crate::dev::i8042::Pulse;
use crate::dev::pci;
use crate::dev::ports::{self, Device};
use crate::dev::test_device::LINES;

/// The firmware configuration device's selector, which takes a word.
const FW_CFG_SELECTOR: u16 = 0x510;
/// The interrupt masks of the first 8259.
const PIC_MASK: u16 = 0x21;
/// What the debug console reads as.
const DEBUG_CONSOLE_READS: u8 = 0xE9;

impl Bus {
    #[inline]
    pub(super) fn read_byte(&mut self, port: u16) -> u8 {
        let device = ports::device(port);
        self.count_access(device);
        match device {
            Device::Com1 => self.read_com1(port & 7),
            Device::Pic => self.read_pic(port),
            Device::Nobody => {
                self.nobody_at(port, 1, "read");
                u8::MAX
            }
            Device::Delay | Device::Shutdown => u8::MAX,
            device => self.read_device(device, port),
        }
    }

    #[inline]
    pub(super) fn write_byte(&mut self, port: u16, value: u8) -> BusEffect {
        let device = ports::device(port);
        self.count_access(device);
        match device {
            Device::Com1 => self.write_com1(port & 7, value),
            Device::Pic => self.write_pic(port, value),
            Device::Nobody => self.nobody_at(port, 1, "write"),
            Device::Delay => {}
            device => return self.write_device(device, port, value),
        }
        BusEffect::None
    }

    /// The devices that are not read all the time.
    #[inline(never)]
    fn read_device(&mut self, device: Device, port: u16) -> u8 {
        let now = self.now;
        match device {
            Device::Pit => self.pit.read(port, now),
            Device::System => self.system.read(port, &mut self.pit, now),
            Device::Keyboard => self.read_keyboard(port),
            Device::Cmos => {
                let value = self.cmos.read(port, now);
                self.drive_clock();
                value
            }
            Device::Crtc => self.crtc.read(port, now),
            Device::Disk(side) | Device::DiskData(side) => self.read_disk(side, port),
            Device::BusMaster => self.read_master(port),
            Device::FwCfg => self.fw_cfg.read(port),
            Device::Pci if port == pci::ADDRESS => u8::MAX, // doublewords only
            Device::Pci => self.pci.read(port),
            Device::Power => self.power.read(port, now),
            Device::DebugConsole => DEBUG_CONSOLE_READS,
            Device::Test => self.test.read(port),
            Device::Com1 | Device::Pic | Device::Nobody | Device::Delay | Device::Shutdown | Device::TestLine => {
                u8::MAX
            }
        }
    }

    /// The devices that are not written all the time.
    #[inline(never)]
    fn write_device(&mut self, device: Device, port: u16, value: u8) -> BusEffect {
        let now = self.now;
        let mut pulse = Pulse::None;
        match device {
            Device::Pit => {
                self.pit.write(port, value, now);
                self.drive_timer();
            }
            Device::System => pulse = self.system.write(port, value, &mut self.pit, now),
            Device::Keyboard => {
                pulse = self.keyboard.write(port, value);
                self.drive_keyboard();
            }
            Device::Cmos => {
                self.cmos.write(port, value, now);
                self.drive_clock();
            }
            Device::Crtc => self.crtc.write(port, value),
            Device::Disk(side) | Device::DiskData(side) => return self.write_disk(side, port, value),
            Device::BusMaster => return self.write_master(port, value),
            Device::FwCfg => {} // the selector takes words, the data is read only
            Device::Pci if port == pci::ADDRESS => {} // doublewords only
            Device::Pci => self.pci.write(port, value),
            Device::Power if self.power.write(port, value) => return BusEffect::PowerOff,
            Device::Power => {}
            Device::DebugConsole => self.console.print(value),
            Device::Test => self.test.write(port, value),
            Device::TestLine => self.set_test_line((port - LINES) as u8, value != 0),
            Device::Shutdown if self.shutdown.write(value) => return BusEffect::Exit(0),
            Device::Com1 | Device::Pic | Device::Nobody | Device::Delay | Device::Shutdown => {}
        }
        if pulse == Pulse::Reset { BusEffect::Reset } else { BusEffect::None }
    }

    #[inline(never)]
    pub(super) fn read_wide(&mut self, port: u16, bytes: u8) -> u32 {
        if ports::are_unclaimed(port, bytes) {
            self.nobody_at(port, bytes, "read");
            return low_bytes(bytes);
        }
        let mut value = [0; 4];
        if (port, bytes) == (pci::ADDRESS, 4) {
            return self.pci.address();
        }
        if let Device::DiskData(_) = ports::device(port) {
            if let Some(part) = value.get_mut(..usize::from(bytes)) {
                self.read_string(port, bytes, part, self.now);
            }
            return u32::from_le_bytes(value);
        }
        for (slot, offset) in value.iter_mut().zip(0..u16::from(bytes)) {
            *slot = port.checked_add(offset).map_or(u8::MAX, |port| self.read_byte(port));
        }
        u32::from_le_bytes(value)
    }

    #[inline(never)]
    pub(super) fn write_wide(&mut self, port: u16, bytes: u8, value: u32) -> BusEffect {
        match (port, bytes) {
            // The reset register among these ports takes bytes only.
            (pci::ADDRESS, 4) => return self.write_whole(|bus| bus.pci.set_address(value)),
            (FW_CFG_SELECTOR, 2) => return self.write_whole(|bus| bus.fw_cfg.select(value as u16)),
            _ => {}
        }
        if ports::are_unclaimed(port, bytes) {
            self.nobody_at(port, bytes, "write");
            return BusEffect::None;
        }
        if let Device::DiskData(_) = ports::device(port) {
            let value = value.to_le_bytes();
            return self.write_string(port, bytes, value.get(..usize::from(bytes)).unwrap_or(&[]), self.now).0;
        }
        for (byte, offset) in value.to_le_bytes().into_iter().zip(0..u16::from(bytes)) {
            let Some(port) = port.checked_add(offset) else { break };
            let effect = self.write_byte(port, byte);
            if effect != BusEffect::None {
                return effect;
            }
        }
        BusEffect::None
    }

    /// A register that is wider than a byte.
    fn write_whole(&mut self, write: impl FnOnce(&mut Self)) -> BusEffect {
        write(self);
        BusEffect::None
    }

    #[inline(never)]
    fn read_pic(&mut self, port: u16) -> u8 {
        let polled = self.pic.is_polled();
        let value = self.pic.read(port);
        if polled {
            self.find_due();
        }
        value
    }

    #[inline(never)]
    fn write_pic(&mut self, port: u16, value: u8) {
        if port == PIC_MASK {
            self.pit.forget_owed();
        }
        if self.pic.write(port, value) {
            self.find_due();
        }
    }

    #[inline]
    fn read_com1(&mut self, register: u16) -> u8 {
        let value = self.com1.read(register, self.now);
        if self.com1.take_changed() {
            self.drive_com1();
        }
        value
    }

    #[inline]
    fn write_com1(&mut self, register: u16, value: u8) {
        if self.com1.sends_quietly(register) {
            self.console.print(value);
            self.com1.transmitted();
        } else {
            self.write_com1_register(register, value);
        }
    }

    #[inline(never)]
    fn write_com1_register(&mut self, register: u16, value: u8) {
        if let Some(byte) = self.com1.write(register, value, self.now) {
            self.console.print(byte);
            // The line falls while the byte leaves, so that the next interrupt is a new edge.
            self.set_line(IRQ_COM1, self.com1.interrupt());
            self.com1.transmitted();
        }
        self.drive_com1();
    }

    fn read_keyboard(&mut self, port: u16) -> u8 {
        let value = self.keyboard.read(port);
        if port == 0x60 {
            // An edge for each byte that follows.
            self.set_line(IRQ_KEYBOARD, false);
            self.set_line(IRQ_MOUSE, false);
        }
        self.drive_keyboard();
        value
    }

    /// An access of `bytes` bytes where no device is: the log names it, once.
    #[inline]
    fn nobody_at(&mut self, port: u16, bytes: u8, access: &str) {
        if self.unclaimed.is_new(port) {
            self.name_unclaimed(port, bytes, access);
        }
    }

    #[cold]
    fn name_unclaimed(&mut self, port: u16, bytes: u8, access: &str) {
        self.unclaimed.remember(port);
        log::debug!("guest {}: {bytes}-byte {access} of port {port:#x}, where no device is", self.name);
    }
}

/// The mask of the low `bytes` bytes of a port access.
pub(super) fn low_bytes(bytes: u8) -> u32 {
    match bytes {
        1 => 0xFF,
        2 => 0xFFFF,
        _ => u32::MAX,
    }
}
