//! The table that coreboot leaves for its payloads (coreboot, `coreboot_tables.h`): the memory map. With it payloads run as guests, such
//! as GRUB, which otherwise need a BIOS.
//!
//! ```text
//!   header   "LBIO", its bytes, its checksum, the records' bytes, their checksum, how many they are
//!   record   tag 1 (memory), its bytes, then ranges: start (64 bits), size (64 bits), type
//! ```

use alloc::vec::Vec;

use crate::memory_map::{ROM, regions};

/// In steps of 16 bytes from the ROM's start, where coreboot says, and of 24, where GRUB looks.
const PLACE: u64 = ROM + 0x7020;
const HEADER_BYTES: u32 = 24;
const TAG_MEMORY: u32 = 1;
const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// The table with its address.
pub(super) fn table(memory: u64) -> (u64, Vec<u8>) {
    let mut ranges = Vec::new();
    for region in regions(memory) {
        let kind = if region.usable { RAM } else { RESERVED };
        ranges.extend(region.start.to_le_bytes());
        ranges.extend((region.end - region.start).to_le_bytes());
        ranges.extend(kind.to_le_bytes());
    }
    let mut records = words([TAG_MEMORY, 8 + ranges.len() as u32]);
    records.append(&mut ranges);
    let header = |sum: u32| {
        let [signature, bytes] = [u32::from_le_bytes(*b"LBIO"), records.len() as u32];
        words([signature, HEADER_BYTES, sum, bytes, checksum(&records).into(), 1])
    };
    let mut table = header(checksum(&header(0)).into());
    table.append(&mut records);
    (PLACE, table)
}

fn words<const N: usize>(words: [u32; N]) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// The checksum of the Internet protocol (RFC 1071), which coreboot uses.
fn checksum(bytes: &[u8]) -> u16 {
    let halves = bytes.as_chunks::<2>().0.iter().map(|&half| u32::from(u16::from_le_bytes(half)));
    let sum = halves.fold(0_u32, |sum, half| {
        let sum = sum + half;
        (sum & 0xFFFF) + (sum >> 16)
    });
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_hold() {
        let (at, table) = table(64 << 20);
        assert_eq!(((at - ROM) % 16, (at - ROM) % 24), (0, 0));
        let (header, records) = table.split_at(24);
        assert_eq!(checksum(header), 0, "with its own sum in it");
        let word = |at: usize| u32::from_le_bytes(*table[at..].first_chunk().unwrap());
        assert_eq!(word(12) as usize, records.len());
        assert_eq!(word(16), u32::from(checksum(records)));
        assert_eq!((word(28) as usize, records.len()), (records.len(), 8 + 4 * 20));
    }
}
