//! The bytes a guest prints, until the caller fetches them.

use alloc::collections::VecDeque;

/// More than any exit prints; only a caller that never fetches can lose bytes.
const CAPACITY: usize = 64 << 10;

/// A bounded queue of printed bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Console {
    bytes: VecDeque<u8>,
    lost: u64,
}

impl Console {
    pub(super) fn print(&mut self, byte: u8) {
        if self.bytes.len() < CAPACITY {
            self.bytes.push_back(byte);
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

    pub(super) fn drain(&mut self) -> impl Iterator<Item = u8> + '_ {
        self.bytes.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
