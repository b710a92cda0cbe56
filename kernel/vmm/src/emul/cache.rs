//! Decoded instructions, kept by address.
//!
//! Kernels trap at few places many times, and decoding is the largest part of a short exit. An entry counts only if the bytes at EIP
//! are still the ones it was decoded from, so the cache needs no invalidation.

use alloc::vec;
use alloc::vec::Vec;
use iced_x86::{Decoder, DecoderOptions, Instruction};

const NOP: u8 = 0x90;
/// Entries; a power of two.
const ENTRIES: usize = 256;

/// The bytes at EIP, as one number: the first is the lowest.
pub(crate) type Bytes = u128;

#[derive(Clone, Copy)]
struct Entry {
    bytes: Bytes,
    eip: u32,
    big: bool,
    insn: Instruction,
}

/// A direct-mapped cache.
pub(crate) struct DecodeCache {
    entries: Vec<Option<Entry>>,
}

impl DecodeCache {
    /// An empty cache. The decoder builds its tables at the first use, which costs millions of instructions: here, and not at the
    /// guest's first exit.
    pub(crate) fn new() -> Self {
        let _ = Decoder::new(32, &[NOP], DecoderOptions::NONE).decode();
        Self { entries: vec![None; ENTRIES] }
    }

    fn slot(eip: u32) -> usize {
        (eip ^ eip >> 8) as usize % ENTRIES
    }

    /// The instruction at `eip`, if it was decoded from the same bytes in the same mode.
    #[inline]
    pub(crate) fn find(&self, eip: u32, bytes: Bytes, big: bool) -> Option<Instruction> {
        match self.entries.get(Self::slot(eip)) {
            Some(Some(entry))
                if entry.eip == eip
                    && entry.bytes & mask(entry.insn.len()) == bytes & mask(entry.insn.len())
                    && entry.big == big =>
            {
                Some(entry.insn)
            }
            _ => None,
        }
    }

    /// Keeps an instruction.
    pub(crate) fn insert(&mut self, eip: u32, bytes: Bytes, big: bool, insn: Instruction) {
        if let Some(place) = self.entries.get_mut(Self::slot(eip)) {
            *place = Some(Entry { bytes, eip, big, insn });
        }
    }
}

/// The low `length` bytes.
#[inline]
const fn mask(length: usize) -> Bytes {
    if length >= 16 { Bytes::MAX } else { (1 << (length * 8)) - 1 }
}
