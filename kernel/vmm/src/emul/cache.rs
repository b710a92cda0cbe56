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

/// Longest instruction with a recipe, so that it is known by one word.
const RECIPE_BYTES: usize = 8;

/// The bytes at EIP, as one number: the first is the lowest.
pub(crate) type Bytes = u128;

#[derive(Clone, Copy)]
struct Entry {
    /// The instruction's own bytes, and which of the bytes at EIP those are.
    bytes: Bytes,
    mask: Bytes,
    eip: u32,
    big: bool,
    /// [`Recipe::Long`] for 16-bit code and long instructions.
    recipe: Recipe,
    next: u32,
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
        let none = Entry { bytes: 1, mask: 0, eip: 0, big: false, recipe: Recipe::Long, next: 0, insn };
        Self { entries: vec![none; ENTRIES] }
    }

    #[inline]
    const fn slot(eip: u32) -> usize {
        (eip ^ eip >> 8) as u8 as usize
    }

    /// The entry for the instruction at `eip`, if it was made of the same bytes in one of the modes.
    #[inline]
    fn entry(&self, eip: u32, bytes: Bytes) -> Option<&Entry> {
        let entry = self.entries.get(Self::slot(eip))?;
        (entry.eip == eip && entry.bytes == bytes & entry.mask).then_some(entry)
    }

    /// The instruction at `eip`, if it was decoded from the same bytes in the same mode.
    #[inline]
    pub(crate) fn find(&self, eip: u32, bytes: Bytes, big: bool) -> Option<Instruction> {
        self.entry(eip, bytes).filter(|entry| entry.big == big).map(|entry| entry.insn)
    }

    /// The recipe for the instruction at `eip` in 32-bit code, and the address behind it, if it was decoded from the same bytes, of which
    /// the first eight decide. Where it was decoded as 16-bit code there is no short way.
    #[inline]
    pub(crate) fn recipe(&self, eip: u32, bytes: u64) -> Option<(Recipe, u32)> {
        let entry = self.entries.get(Self::slot(eip))?;
        let same = entry.eip == eip && entry.bytes as u64 == bytes & entry.mask as u64;
        same.then_some((entry.recipe, entry.next))
    }

    /// Keeps an instruction.
    pub(crate) fn insert(&mut self, eip: u32, bytes: Bytes, big: bool, insn: Instruction) {
        if let Some(place) = self.entries.get_mut(Self::slot(eip)) {
            let mask = mask(insn.len());
            let short = big && insn.len() <= RECIPE_BYTES;
            let recipe = if short { Recipe::of(&insn) } else { Recipe::Long };
            *place = Entry { bytes: bytes & mask, mask, eip, big, recipe, next: insn.next_ip32(), insn };
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
        assert_eq!(cache.recipe(0x1000, CLI as u64), Some((Recipe::Cli, 0x1001)));
        assert_eq!(cache.recipe(0x1000, 0xfb), None, "other bytes");
        let insn = Decoder::with_ip(16, &[0xfa], 0x1000, DecoderOptions::NONE).decode();
        cache.insert(0x1000, CLI, false, insn);
        assert_eq!(cache.recipe(0x1000, CLI as u64), Some((Recipe::Long, 0x1001)));
    }

    #[test]
    fn what_a_word_does_not_hold_has_no_recipe() {
        let mut cache = with_cli();
        let bytes = [0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x0f, 0xa2, 0, 0, 0, 0, 0, 0, 0];
        let insn = Decoder::with_ip(32, &bytes, 0x1000, DecoderOptions::NONE).decode();
        assert_eq!(insn.len(), 9);
        let bytes = Bytes::from_le_bytes(bytes);
        cache.insert(0x1000, bytes, true, insn);
        assert_eq!(cache.recipe(0x1000, bytes as u64), Some((Recipe::Long, 0x1009)));
    }

    #[test]
    fn an_empty_cache_finds_nothing() {
        assert!((0..=u8::MAX).all(|byte| DecodeCache::new().find(0, byte.into(), false).is_none()));
    }
}
