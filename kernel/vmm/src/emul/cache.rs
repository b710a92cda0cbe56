//! Decoded instructions, kept by address.
//!
//! Kernels trap at few places many times, and decoding is the largest part of a short exit. An entry counts only if the bytes at EIP
//! are still the ones it was decoded from, so the cache needs no invalidation.

use alloc::vec;
use alloc::vec::Vec;
use iced_x86::{Decoder, DecoderOptions, Instruction};

use super::Recipe;

const NOP: u8 = 0x90;
/// Entries; as many as a byte can name.
const ENTRIES: usize = 256;

/// The bytes at EIP, as one number: the first is the lowest.
pub(crate) type Bytes = u128;

#[derive(Clone, Copy)]
struct Entry {
    /// The instruction's own bytes, and which of the bytes at EIP those are.
    bytes: Bytes,
    mask: Bytes,
    eip: u32,
    big: bool,
    recipe: Recipe,
    insn: Instruction,
}

/// A direct-mapped cache.
pub(crate) struct DecodeCache {
    entries: Vec<Entry>,
}

impl DecodeCache {
    /// An empty cache. The decoder builds its tables at the first use, which costs millions of instructions: here, and not at the
    /// guest's first exit.
    pub(crate) fn new() -> Self {
        let insn = Decoder::new(32, &[NOP], DecoderOptions::NONE).decode();
        // No bytes at all are like these.
        let none = Entry { bytes: 1, mask: 0, eip: 0, big: false, recipe: Recipe::Long, insn };
        Self { entries: vec![none; ENTRIES] }
    }

    #[inline]
    const fn slot(eip: u32) -> usize {
        (eip ^ eip >> 8) as u8 as usize
    }

    #[inline]
    fn entry(&self, eip: u32, bytes: Bytes, big: bool) -> Option<&Entry> {
        self.entries
            .get(Self::slot(eip))
            .filter(|entry| entry.eip == eip && entry.bytes == bytes & entry.mask && entry.big == big)
    }

    /// The instruction at `eip`, if it was decoded from the same bytes in the same mode.
    #[inline]
    pub(crate) fn find(&self, eip: u32, bytes: Bytes, big: bool) -> Option<Instruction> {
        self.entry(eip, bytes, big).map(|entry| entry.insn)
    }

    /// The recipe for the instruction at `eip` in 32-bit code, and the address behind it, if it was decoded from the same bytes.
    #[inline]
    pub(crate) fn recipe(&self, eip: u32, bytes: Bytes) -> Option<(Recipe, u32)> {
        self.entry(eip, bytes, true).map(|entry| (entry.recipe, entry.insn.next_ip32()))
    }

    /// Keeps an instruction.
    pub(crate) fn insert(&mut self, eip: u32, bytes: Bytes, big: bool, insn: Instruction) {
        if let Some(place) = self.entries.get_mut(Self::slot(eip)) {
            let mask = mask(insn.len());
            *place = Entry { bytes: bytes & mask, mask, eip, big, recipe: Recipe::of(&insn), insn };
        }
    }
}

/// The low `length` bytes.
const fn mask(length: usize) -> Bytes {
    if length >= 16 { Bytes::MAX } else { (1 << (length * 8)) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLI: Bytes = 0xfa;

    fn with_cli() -> DecodeCache {
        let mut cache = DecodeCache::new();
        let insn = Decoder::with_ip(32, &[0xfa], 0x1000, DecoderOptions::NONE).decode();
        cache.insert(0x1000, CLI | 0x77 << 8, true, insn);
        cache
    }

    #[test]
    fn an_entry_is_of_one_address_mode_and_instruction() {
        let cache = with_cli();
        assert!(cache.find(0x1000, CLI | 0x1234 << 8, true).is_some(), "what follows does not count");
        assert!(cache.find(0x1000, 0xfb, true).is_none(), "other bytes");
        assert!(cache.find(0x1000, CLI, false).is_none(), "another mode");
        assert!(cache.find(0x0110, CLI, true).is_none(), "another address of the same slot");
    }

    #[test]
    fn recipes_are_of_32_bit_code() {
        let mut cache = with_cli();
        assert_eq!(cache.recipe(0x1000, CLI), Some((Recipe::Cli, 0x1001)));
        let insn = Decoder::with_ip(16, &[0xfa], 0x1000, DecoderOptions::NONE).decode();
        cache.insert(0x1000, CLI, false, insn);
        assert_eq!(cache.recipe(0x1000, CLI), None);
    }

    #[test]
    fn an_empty_cache_finds_nothing() {
        assert!((0..=u8::MAX).all(|byte| DecodeCache::new().find(0, byte.into(), false).is_none()));
    }
}
