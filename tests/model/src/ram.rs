//! The guest's physical memory as the reference sees it: bytes, and what is behind each frame.

use std::cell::RefCell;

/// Frames of RAM; then one of ROM, one of a device, and nothing.
pub const RAM: u64 = 32;
/// The frame of ROM.
pub const ROM: u64 = RAM;
/// The frame of a device.
pub const MMIO: u64 = RAM + 1;
/// Frames that there can be.
pub const FRAMES: u64 = RAM + 3;
/// Bytes of a frame.
pub const FRAME: u64 = 4096;

/// RAM and ROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ram(RefCell<Vec<u8>>);

impl Default for Ram {
    fn default() -> Self {
        let mut bytes = vec![0; ((RAM + 1) * FRAME) as usize];
        // ROM reads as a table of pages with and without A and D, whoever uses it as one.
        for (n, entry) in bytes[(ROM * FRAME) as usize..].chunks_mut(8).enumerate() {
            let flags = [0x67, 0x27, 0x07, 0x65][n & 3];
            entry.copy_from_slice(&((n as u64 % RAM) << 12 | flags).to_le_bytes());
        }
        Self(RefCell::new(bytes))
    }
}

impl Ram {
    /// Can the byte at `at` be written?
    #[must_use]
    pub fn is_ram(&self, at: u64) -> bool {
        at / FRAME < RAM
    }

    /// Is there memory behind a frame?
    #[must_use]
    pub fn is_memory(frame: u64) -> bool {
        frame <= ROM
    }

    /// The `size` bytes at `at`, as a number; `None` if no memory is there.
    #[must_use]
    pub fn read(&self, at: u64, size: u64) -> Option<u64> {
        let bytes = self.0.borrow();
        let at = usize::try_from(at).ok()?;
        let found = bytes.get(at..at.checked_add(size as usize)?)?;
        Some(found.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Stores bytes; ROM and emptiness keep what they have.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        for (n, &byte) in bytes.iter().enumerate() {
            let at = at + n as u64;
            if self.is_ram(at) {
                self.0.borrow_mut()[at as usize] = byte;
            }
        }
    }

    /// Where two memories differ first.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<u64> {
        let (ours, theirs) = (self.0.borrow(), other.0.borrow());
        if *ours == *theirs {
            return None;
        }
        ours.iter().zip(theirs.iter()).position(|(a, b)| a != b).map(|at| at as u64)
    }
}
