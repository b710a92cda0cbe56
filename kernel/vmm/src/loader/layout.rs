//! Where things go in the guest's memory: RAM with the PC's hole below 1 MiB, and first-fit search between what is taken.

use alloc::vec::Vec;

use super::error::LoadError;
use crate::memory_map::{self, EBDA, Region};
pub(super) use crate::memory_map::{HIGH_START, LOW_END};

/// Beyond this no guest has RAM: a PC's devices are there.
const REACH: u64 = 3 << 30;
pub(super) const PAGE: u64 = 4096;

/// A range of guest-physical addresses; the end is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Range {
    /// `bytes` bytes from `start`. Both come from 32-bit fields or from lengths in memory, so the end cannot overflow.
    pub(super) fn sized(start: u64, bytes: u64) -> Self {
        Self { start, end: start.saturating_add(bytes) }
    }

    pub(super) fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    pub(super) fn contains(self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// What a range of a memory map is, by the number that the BIOS' and every protocol's map has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum MapKind {
    Usable = 1,
    Reserved = 2,
}

/// One range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapEntry {
    pub(super) range: Range,
    pub(super) kind: MapKind,
}

/// The guest's memory with the ranges already given away.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    memory: u64,
    taken: Vec<Range>,
}

impl Layout {
    /// An empty memory of `memory` bytes.
    pub(super) fn new(memory: u64) -> Self {
        Self { memory, taken: Vec::new() }
    }

    /// How many bytes of memory there are, the hole included.
    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    /// The RAM that the guest may use, below the hole and above.
    pub(super) fn ram(&self) -> [Range; 2] {
        let high_end = self.memory.max(HIGH_START);
        [Range { start: 0, end: self.memory.min(EBDA) }, Range { start: HIGH_START, end: high_end }]
    }

    /// The memory map as every protocol tells it, in rising order.
    pub(super) fn map(&self) -> Vec<MapEntry> {
        let entry = |Region { start, end, usable }| MapEntry {
            range: Range { start, end },
            kind: if usable { MapKind::Usable } else { MapKind::Reserved },
        };
        memory_map::regions(self.memory).into_iter().map(entry).filter(|entry| entry.range.bytes() != 0).collect()
    }

    /// Gives `range` to the image. Parts of an image may overlap one another, as in any boot loader.
    ///
    /// # Errors
    /// [`LoadError::InHole`], [`LoadError::OutOfReach`] or [`LoadError::TooLittleMemory`] if it is not all RAM.
    pub(super) fn take(&mut self, range: Range) -> Result<(), LoadError> {
        let Range { start, end } = range;
        if range.overlaps(Range { start: LOW_END, end: HIGH_START }) {
            return Err(LoadError::InHole { start, end });
        }
        if end > REACH {
            return Err(LoadError::OutOfReach { start, end });
        }
        if end > self.memory {
            return Err(LoadError::TooLittleMemory { needed: end, memory: self.memory });
        }
        self.taken.push(range);
        Ok(())
    }

    /// The end of the highest range that is taken, at least 1 MiB.
    pub(super) fn high_end(&self) -> u64 {
        self.taken.iter().map(|range| range.end).fold(HIGH_START, u64::max)
    }

    /// Finds and takes `bytes` bytes at a multiple of `align` within `window`, as low as possible.
    pub(super) fn place(&mut self, bytes: u64, align: u64, window: Range) -> Option<u64> {
        let mut at = window.start.next_multiple_of(align);
        loop {
            let wanted = Range::sized(at, bytes.max(1));
            if wanted.end > window.end {
                return None;
            }
            // Each turn passes one of the finitely many taken ranges.
            match self.taken.iter().find(|range| range.overlaps(wanted)) {
                Some(range) => at = range.end.next_multiple_of(align),
                None => {
                    self.taken.push(wanted);
                    return Some(at);
                }
            }
        }
    }

    /// As [`Self::place`], but as high as possible.
    pub(super) fn place_high(&mut self, bytes: u64, align: u64, window: Range) -> Option<u64> {
        let mut end = window.end;
        loop {
            let start = end.checked_sub(bytes.max(1))? / align * align;
            if start < window.start {
                return None;
            }
            let wanted = Range::sized(start, bytes.max(1));
            match self.taken.iter().find(|range| range.overlaps(wanted)) {
                Some(range) => end = range.start,
                None => {
                    self.taken.push(wanted);
                    return Some(start);
                }
            }
        }
    }

    /// Places a page-aligned module above 1 MiB: behind the image if there is room, else before it.
    pub(super) fn place_module(&mut self, bytes: u64) -> Option<u64> {
        let end = self.memory;
        self.place_behind(bytes, PAGE).or_else(|| self.place(bytes, PAGE, Range { start: HIGH_START, end }))
    }

    /// Places something above everything that has its place.
    pub(super) fn place_behind(&mut self, bytes: u64, align: u64) -> Option<u64> {
        self.place(bytes, align, Range { start: self.high_end(), end: self.memory })
    }

    /// Places what the protocol tells the guest: low, out of the way of kernels that use the memory behind them; where QEMU
    /// puts it, if that is free. The first page (BIOS data) and the last (extended BIOS data) of the low RAM are left alone.
    ///
    /// # Errors
    /// [`LoadError::TooLittleMemory`].
    pub(super) fn place_info(&mut self, bytes: u64, align: u64) -> Result<u32, LoadError> {
        let low = |start: u64, end: u64| Range { start, end: end.min(self.memory) };
        let windows = [low(0x9000, LOW_END - PAGE), low(PAGE, LOW_END - PAGE), low(HIGH_START, u64::MAX)];
        let place = windows.into_iter().find_map(|window| self.place(bytes, align, window));
        // RAM ends below 4 GiB.
        place.and_then(|place| u32::try_from(place).ok()).ok_or_else(|| LoadError::TooLittleMemory {
            needed: self.high_end().saturating_add(bytes),
            memory: self.memory,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn only_ram_can_be_taken() {
        let mut layout = Layout::new(8 * MIB);
        assert_eq!(layout.take(Range { start: 0x7000, end: LOW_END }), Ok(()));
        assert_eq!(layout.take(Range { start: MIB, end: 8 * MIB }), Ok(()));
        let hole = Range { start: 0x9_F000, end: 0xA_0001 };
        assert_eq!(layout.take(hole), Err(LoadError::InHole { start: 0x9_F000, end: 0xA_0001 }));
        let beyond = LoadError::TooLittleMemory { needed: 8 * MIB + 1, memory: 8 * MIB };
        assert_eq!(layout.take(Range { start: MIB, end: 8 * MIB + 1 }), Err(beyond));
        let far = Range { start: 0xC010_0000, end: 0xC010_1000 };
        assert_eq!(layout.take(far), Err(LoadError::OutOfReach { start: far.start, end: far.end }));
    }

    #[test]
    fn places_never_overlap() {
        let mut layout = Layout::new(4 * MIB);
        layout.take(Range { start: 0x9000, end: 0x9800 }).unwrap();
        layout.take(Range { start: MIB, end: 2 * MIB + 5 }).unwrap();
        assert_eq!(layout.place_info(100, 16), Ok(0x9800));
        assert_eq!(layout.place_module(10), Some(2 * MIB + PAGE));
        assert_eq!(layout.place_module(0), Some(2 * MIB + 2 * PAGE));
        assert_eq!(layout.place_module(MIB), Some(2 * MIB + 3 * PAGE));
        assert_eq!(layout.place_module(MIB), None);
        for (index, a) in layout.taken.iter().enumerate() {
            assert!(layout.taken.iter().skip(index + 1).all(|b| !a.overlaps(*b)));
        }
    }

    #[test]
    fn high_places_are_as_high_as_can_be() {
        let mut layout = Layout::new(4 * MIB);
        layout.take(Range { start: 3 * MIB, end: 4 * MIB - 5 }).unwrap();
        let window = Range { start: MIB, end: 4 * MIB };
        assert_eq!(layout.place_high(5, 1, window), Some(4 * MIB - 5));
        assert_eq!(layout.place_high(5000, PAGE, window), Some(3 * MIB - 2 * PAGE));
        assert_eq!(layout.place_high(2 * MIB - 3 * PAGE, PAGE, window), Some(MIB + PAGE));
        assert_eq!(layout.place_high(2 * PAGE, PAGE, window), None);
        assert_eq!(layout.place_high(0, PAGE, window), Some(MIB));
        assert_eq!(layout.place_high(u64::MAX, PAGE, window), None);
    }

    #[test]
    fn a_module_goes_before_an_image_at_the_top() {
        let mut layout = Layout::new(4 * MIB);
        layout.take(Range { start: 3 * MIB, end: 4 * MIB }).unwrap();
        assert_eq!(layout.place_module(MIB), Some(MIB));
    }

    #[test]
    fn information_moves_when_low_memory_is_taken() {
        let mut layout = Layout::new(4 * MIB);
        layout.take(Range { start: 0x8000, end: LOW_END }).unwrap();
        assert_eq!(layout.place_info(0x6000, 16), Ok(0x1000));
        assert_eq!(layout.place_info(0x6000, 16), Ok(0x10_0000));
        assert!(Layout::new(0x8000).place_info(0x7001, 16).is_err());
    }
}
