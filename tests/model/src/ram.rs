//! The guest's physical memory as the reference sees it: bytes, and what is behind each frame.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

/// Frames of RAM; then one of ROM, one of a device, and nothing.
pub const RAM: u64 = 32;
/// The frame of ROM.
pub const ROM: u64 = RAM;
/// The frame of a device.
pub const MMIO: u64 = RAM + 1;
/// The frame behind the first that is nothing.
pub const LOW: u64 = RAM + 3;
/// Then RAM again, 2 MiB of it.
pub const BLOCK: Range<u64> = 0x200..0x400;
/// Frames that there can be.
pub const FRAMES: u64 = BLOCK.end;
/// Bytes of a frame.
pub const FRAME: u64 = 4096;

/// RAM and ROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ram {
    low: RefCell<Vec<u8>>,
    /// The bytes of the block that are not 0.
    block: RefCell<BTreeMap<u64, u8>>,
}

impl Default for Ram {
    fn default() -> Self {
        let mut bytes = vec![0; ((RAM + 1) * FRAME) as usize];
        // ROM reads as a table of pages with and without A and D, whoever uses it as one.
        for (n, entry) in bytes[(ROM * FRAME) as usize..].chunks_mut(8).enumerate() {
            let flags = [0x67, 0x27, 0x07, 0x65][n & 3];
            entry.copy_from_slice(&((n as u64 % RAM) << 12 | flags).to_le_bytes());
        }
        Self { low: RefCell::new(bytes), block: RefCell::default() }
    }
}

impl Ram {
    /// Can the byte at `at` be written?
    #[must_use]
    pub fn is_ram(&self, at: u64) -> bool {
        at / FRAME < RAM || BLOCK.contains(&(at / FRAME))
    }

    /// Is there memory behind a frame?
    #[must_use]
    pub fn is_memory(frame: u64) -> bool {
        frame <= ROM || BLOCK.contains(&frame)
    }

    /// The `size` bytes at `at`, as a number; `None` if no memory is there.
    #[must_use]
    pub fn read(&self, at: u64, size: u64) -> Option<u64> {
        let number = |bytes: &mut dyn Iterator<Item = u8>| bytes.fold(0, |number, byte| number << 8 | u64::from(byte));
        let last = at.checked_add(size - 1)?;
        if BLOCK.contains(&(at / FRAME)) && BLOCK.contains(&(last / FRAME)) {
            let block = self.block.borrow();
            return Some(number(&mut (at..=last).rev().map(|at| block.get(&at).copied().unwrap_or(0))));
        }
        let bytes = self.low.borrow();
        let found = bytes.get(usize::try_from(at).ok()?..=usize::try_from(last).ok()?)?;
        Some(number(&mut found.iter().rev().copied()))
    }

    /// Stores bytes; ROM and emptiness keep what they have.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        for (n, &byte) in bytes.iter().enumerate() {
            let at = at + n as u64;
            if at / FRAME < RAM {
                self.low.borrow_mut()[at as usize] = byte;
            } else if self.is_ram(at) && byte == 0 {
                self.block.borrow_mut().remove(&at);
            } else if self.is_ram(at) {
                self.block.borrow_mut().insert(at, byte);
            }
        }
    }

    /// Where two memories differ first.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<u64> {
        if self == other {
            return None;
        }
        let (ours, theirs) = (self.low.borrow(), other.low.borrow());
        let low = ours.iter().zip(theirs.iter()).position(|(a, b)| a != b).map(|at| at as u64);
        low.or_else(|| {
            let (ours, theirs) = (self.block.borrow(), other.block.borrow());
            ours.keys().chain(theirs.keys()).find(|at| ours.get(at) != theirs.get(at)).copied()
        })
    }
}
