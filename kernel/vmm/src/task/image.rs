//! The task-state segment as bytes (SDM 3A 7.2.1 and 7.6).
//!
//! ```text
//! 32-bit:  00 link  1c CR3  20 EIP  24 EFLAGS  28 EAX ECX EDX EBX ESP EBP ESI EDI  48 ES CS SS DS FS GS  60 LDT  64 T
//! 16-bit:  00 link  0e IP   10 FLAGS           12 AX  CX  DX  BX  SP  BP  SI  DI   22 ES CS SS DS        2a LDT
//! ```

use gnomon_hw::SegReg;

use crate::vcpu::Selector;

/// Segment registers in the order of the TSS.
pub(super) const SEGMENTS: [SegReg; 6] = [SegReg::Es, SegReg::Cs, SegReg::Ss, SegReg::Ds, SegReg::Fs, SegReg::Gs];

const SIZE: usize = 0x68;

/// Where the fields are.
struct Layout {
    size: usize,
    /// Bytes from one field to the next.
    step: usize,
    eip: usize,
    eflags: usize,
    gprs: usize,
    segments: usize,
    /// Segment registers that there are.
    count: usize,
    ldt: usize,
}

const WIDE: Layout =
    Layout { size: SIZE, step: 4, eip: 0x20, eflags: 0x24, gprs: 0x28, segments: 0x48, count: 6, ldt: 0x60 };
const NARROW: Layout =
    Layout { size: 0x2c, step: 2, eip: 0x0e, eflags: 0x10, gprs: 0x12, segments: 0x22, count: 4, ldt: 0x2a };
const CR3: usize = 0x1c;
const TRAP: usize = 0x64;

const fn layout(wide: bool) -> &'static Layout {
    if wide { &WIDE } else { &NARROW }
}

/// The bytes of a TSS.
pub(super) struct Data([u8; SIZE]);

impl Default for Data {
    fn default() -> Self {
        Self([0; SIZE])
    }
}

impl Data {
    /// The last byte that a limit must cover.
    pub(super) const fn last_byte(wide: bool) -> u32 {
        layout(wide).size as u32 - 1
    }

    /// Offset of the first byte that a switch writes into the old task's TSS, but for the link.
    pub(super) const fn first_saved(wide: bool) -> u32 {
        layout(wide).eip as u32
    }

    /// All of it.
    pub(super) fn bytes(&mut self, wide: bool) -> &mut [u8] {
        self.0.get_mut(..layout(wide).size).unwrap_or(&mut [])
    }

    /// What a switch writes.
    pub(super) fn saved(&self, wide: bool) -> &[u8] {
        let layout = layout(wide);
        self.0.get(layout.eip..layout.ldt).unwrap_or(&[])
    }

    fn get(&self, at: usize, size: usize) -> u32 {
        let bytes = self.0.get(at..at.saturating_add(size)).unwrap_or(&[]);
        bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
    }

    fn set(&mut self, at: usize, size: usize, value: u32) {
        let bytes = value.to_le_bytes();
        if let (Some(place), Some(bytes)) = (self.0.get_mut(at..at.saturating_add(size)), bytes.get(..size)) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The fields that a switch loads or saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) cr3: u32,
    pub(super) eip: u32,
    pub(super) eflags: u32,
    pub(super) gprs: [u32; 8],
    pub(super) segments: [Selector; 6],
    pub(super) ldt: Selector,
    /// T: a debug trap when the task is entered.
    pub(super) trap: bool,
}

impl Image {
    /// Reads a 32-bit or 16-bit TSS. What a 16-bit one lacks is 0.
    pub(super) fn read(data: &Data, wide: bool) -> Self {
        let layout = layout(wide);
        let field = |start: usize, n: usize| data.get(start.saturating_add(n.saturating_mul(layout.step)), layout.step);
        let mut image = Self {
            cr3: if wide { data.get(CR3, 4) } else { 0 },
            eip: field(layout.eip, 0),
            eflags: field(layout.eflags, 0),
            gprs: [0; 8],
            segments: [Selector(0); 6],
            ldt: Selector(data.get(layout.ldt, 2) as u16),
            trap: wide && data.get(TRAP, 2) & 1 != 0,
        };
        for (n, place) in image.gprs.iter_mut().enumerate() {
            *place = field(layout.gprs, n);
        }
        for (n, place) in image.segments.iter_mut().take(layout.count).enumerate() {
            *place = Selector(field(layout.segments, n) as u16);
        }
        image
    }

    /// Writes the fields that a switch saves; the upper halves of selectors stay as they are.
    pub(super) fn write(&self, data: &mut Data, wide: bool) {
        let layout = layout(wide);
        let at = |start: usize, n: usize| start.saturating_add(n.saturating_mul(layout.step));
        data.set(layout.eip, layout.step, self.eip);
        data.set(layout.eflags, layout.step, self.eflags);
        for (n, &value) in self.gprs.iter().enumerate() {
            data.set(at(layout.gprs, n), layout.step, value);
        }
        for (n, selector) in self.segments.iter().take(layout.count).enumerate() {
            data.set(at(layout.segments, n), 2, selector.0.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(count: u16) -> Image {
        let mut segments = [Selector(0); 6];
        segments.iter_mut().take(count.into()).zip(1..).for_each(|(place, n)| *place = Selector(n * 8));
        let gprs = [0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17];
        Image { cr3: 0, eip: 0x1234, eflags: 0x202, gprs, segments, ldt: Selector(0), trap: false }
    }

    #[test]
    fn what_is_written_is_read() {
        for (wide, count) in [(true, 6), (false, 4)] {
            let mut data = Data::default();
            image(count).write(&mut data, wide);
            assert_eq!(Image::read(&data, wide), image(count));
        }
    }

    #[test]
    fn fields_are_where_the_manual_says() {
        let mut data = Data::default();
        image(6).write(&mut data, true);
        assert_eq!((data.get(0x20, 4), data.get(0x38, 4), data.get(0x5c, 2)), (0x1234, 0x14, 0x30));
        assert_eq!((data.saved(true).len(), data.saved(false).len()), (0x40, 0x1c));
        data.set(0x1c, 4, 0x5000);
        data.set(0x64, 2, 1);
        let read = Image::read(&data, true);
        assert_eq!((read.cr3, read.trap), (0x5000, true));
    }
}
