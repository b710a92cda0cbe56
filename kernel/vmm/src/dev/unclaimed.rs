//! The ports where the guest looked for a device and found none: each is named once, and only so many of them.

use alloc::boxed::Box;
use alloc::vec;

/// Ports that are named; a guest that scans all of them fills no log.
const NAMED: usize = 32;
/// One bit a port.
const WORDS: usize = 0x1_0000 / 64;

/// Which unclaimed ports were named already.
#[derive(Clone, Debug)]
pub(super) struct Unclaimed {
    seen: Box<[u64]>,
    named: usize,
}

impl Unclaimed {
    pub(super) fn new() -> Self {
        Self { seen: vec![0; WORDS].into_boxed_slice(), named: 0 }
    }

    /// Whether `port` is still to be named.
    #[inline]
    pub(super) fn is_new(&self, port: u16) -> bool {
        let seen = self.seen.get(usize::from(port / 64)).is_some_and(|word| word >> (port % 64) & 1 != 0);
        !seen && self.named < NAMED
    }

    /// `port` is named now.
    pub(super) fn remember(&mut self, port: u16) {
        if let Some(word) = self.seen.get_mut(usize::from(port / 64)) {
            *word |= 1 << (port % 64);
            self.named = self.named.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_new_once_and_only_so_many_are() {
        let mut unclaimed = Unclaimed::new();
        let mut named = 0;
        for port in (0..=u16::MAX).rev().chain(0..=u16::MAX) {
            if unclaimed.is_new(port) {
                unclaimed.remember(port);
                assert!(!unclaimed.is_new(port));
                named += 1;
            }
        }
        assert_eq!(named, NAMED);
    }

    #[test]
    fn neighbours_are_told_apart() {
        let mut unclaimed = Unclaimed::new();
        unclaimed.remember(0xCFC);
        assert!(!unclaimed.is_new(0xCFC));
        assert!(unclaimed.is_new(0xCFB) && unclaimed.is_new(0xCFD) && unclaimed.is_new(0xCFC + 64));
    }
}
