//! The local APIC's page of registers (SDM 3A 10.4.1).

use super::super::time::Nanos;
use super::{LVT_MASKED, LocalApic, SVR_ENABLE};

/// Version 0x14 with six LVT entries, as QEMU's.
pub(super) const VERSION: u32 = 0x0005_0014;
const SVR_WRITABLE: u32 = 0x1FF;
/// What of each can be written.
const LVT_WRITABLE: [u32; 6] = [0x3_00FF, 0x1_07FF, 0x1_07FF, 0x1_A7FF, 0x1_A7FF, 0x1_00FF];
const ERROR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// What a register write asks of the other devices.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dev) enum Written {
    Nothing,
    /// The end of a level-triggered interrupt goes out to the I/O APIC.
    EndOfLevel(u8),
}

impl LocalApic {
    /// Reads the register at `offset` in the page.
    pub(in crate::dev) fn read(&mut self, offset: u16, now: Nanos) -> u32 {
        let index = usize::from(offset >> 4);
        match offset & 0xFF0 {
            0x020 => u32::from(self.id) << 24,
            0x030 => VERSION,
            0x080 => self.tpr.into(),
            0x090 | 0x0A0 => self.ppr().into(),
            0x0B0 | 0x0C0 => 0,
            0x0D0 => u32::from(self.ldr) << 24,
            0x0E0 => self.dfr << 28 | 0x0FFF_FFFF,
            0x0F0 => self.svr,
            0x100..=0x170 => self.isr.register(index & 7),
            0x180..=0x1F0 => self.tmr.register(index & 7),
            0x200..=0x270 => self.irr.register(index & 7),
            0x280 => self.esr,
            0x300 => self.icr[0],
            0x310 => self.icr[1],
            0x320..=0x370 => self.entry(index - 0x32),
            0x380 => self.timer.initial(),
            0x390 => {
                self.advance(now);
                self.timer.current(now)
            }
            0x3E0 => self.timer.divide(),
            _ => {
                self.report(ERROR_ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Writes the register at `offset` in the page.
    pub(in crate::dev) fn write(&mut self, offset: u16, value: u32, now: Nanos) -> Written {
        match offset & 0xFF0 {
            0x0B0 => return self.end_of_interrupt(),
            0x380 => {
                self.timer.start(value, now);
                return Written::Nothing;
            }
            0x020 => self.id = (value >> 24) as u8,
            0x080 => self.tpr = value as u8,
            0x0D0 => self.ldr = (value >> 24) as u8,
            0x0E0 => self.dfr = value >> 28,
            0x0F0 => self.write_svr(value),
            0x280 => self.esr = core::mem::take(&mut self.errors),
            0x300 => self.send(value),
            0x310 => self.icr[1] = value & 0xFF00_0000,
            0x320..=0x370 => self.write_entry(usize::from(offset >> 4) - 0x32, value, now),
            0x3E0 => {
                self.advance(now);
                self.timer.set_divide(value, now);
            }
            0x030 | 0x090..=0x0C0 | 0x100..=0x270 | 0x390 => {} // to be read only
            _ => self.report(ERROR_ILLEGAL_REGISTER),
        }
        self.settle();
        Written::Nothing
    }

    fn write_svr(&mut self, value: u32) {
        self.svr = value & SVR_WRITABLE;
        if self.svr & SVR_ENABLE == 0 {
            self.lvt.iter_mut().for_each(|entry| *entry |= LVT_MASKED); // SDM 3A 10.4.7.2
        }
    }

    fn write_entry(&mut self, index: usize, value: u32, now: Nanos) {
        self.advance(now); // an expiry before the write counts by the entry before
        let forced = if self.svr & SVR_ENABLE == 0 { LVT_MASKED } else { 0 };
        if let (Some(entry), Some(writable)) = (self.lvt.get_mut(index), LVT_WRITABLE.get(index)) {
            *entry = value & writable | forced;
        }
    }

    pub(super) fn entry(&self, index: usize) -> u32 {
        self.lvt.get(index).copied().unwrap_or(LVT_MASKED)
    }

    /// Ends the interrupt of highest priority in service.
    fn end_of_interrupt(&mut self) -> Written {
        let Some(vector) = self.isr.highest() else { return Written::Nothing };
        self.isr.set(vector, false);
        self.settle();
        if self.tmr.contains(vector) { Written::EndOfLevel(vector) } else { Written::Nothing }
    }
}
