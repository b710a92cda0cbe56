//! The bytes a guest prints, until the caller fetches them.

use alloc::vec::Vec;

/// More than any exit prints; only a caller that never fetches can lose bytes.
const CAPACITY: usize = 64 << 10;

/// A bounded buffer of printed bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Console {
    bytes: Vec<u8>,
    lost: u64,
    used: bool,
}

impl Console {
    #[inline]
    pub(super) fn print(&mut self, byte: u8) {
        if self.bytes.len() < self.bytes.capacity() {
            self.bytes.push(byte);
        } else {
            self.print_with_more_room(byte);
        }
    }

    /// Whether anything was ever printed.
    #[inline]
    pub(super) fn was_used(&self) -> bool {
        self.used
    }

    #[cold]
    fn print_with_more_room(&mut self, byte: u8) {
        self.used = true; // the buffer has no room at first
        if self.bytes.len() < CAPACITY {
            self.bytes.push(byte);
        } else {
            self.lost = self.lost.saturating_add(1);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    #[inline]
    pub(super) fn drain(&mut self) -> impl Iterator<Item = u8> + '_ {
        Drain { bytes: &mut self.bytes, next: 0 }
    }
}

/// Gives the bytes out; what is not taken by the end is gone. Cheaper than the collection's own for the usual no byte.
struct Drain<'a> {
    bytes: &'a mut Vec<u8>,
    next: usize,
}

impl Iterator for Drain<'_> {
    type Item = u8;

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.next)?;
        self.next = self.next.wrapping_add(1);
        Some(byte)
    }
}

impl Drop for Drain<'_> {
    #[inline]
    fn drop(&mut self) {
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_once_and_in_order() {
        let mut console = Console::default();
        b"ab".iter().for_each(|byte| console.print(*byte));
        assert!(console.drain().eq(*b"ab"));
        assert_eq!(console.drain().next(), None);
        b"cde".iter().for_each(|byte| console.print(*byte));
        assert_eq!(console.drain().next(), Some(b'c'));
        assert!(console.is_empty()); // as with any drain, the rest went with it
    }

    #[test]
    fn bytes_beyond_the_capacity_are_counted() {
        let mut console = Console::default();
        for _ in 0..CAPACITY + 3 {
            console.print(b'x');
        }
        assert_eq!(console.lost(), 3);
        assert_eq!(console.drain().count(), CAPACITY);
        assert!(console.is_empty());
    }
}
