//! The MP floating pointer and configuration table (MultiProcessor Specification 1.4, chapter 4): one CPU, the ISA bus, the
//! I/O APIC and how its inputs are wired.

use alloc::vec::Vec;

use super::seal;
use crate::dev::{IO_APIC, IO_APIC_ID};
use crate::memory_map::ROM;

/// Where the pointer is; the table is behind it.
const POINTER: u64 = ROM + 0x6000;
const POINTER_BYTES: usize = 16;
const REVISION: u8 = 4;
const LOCAL_APIC: u32 = 0xFEE0_0000;
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x11;
/// Enabled, and the bootstrap processor.
const CPU_FLAGS: u8 = 0b11;
/// Family 6, with FPU and APIC.
const CPU_SIGNATURE: u32 = 0x600;
const CPU_FEATURES: u32 = 0x201;
/// Interrupt types.
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
const ALL_LOCAL_APICS: u8 = 0xFF;

/// The pointer and the table as one block, with its address.
pub(super) fn table() -> (u64, Vec<u8>) {
    let mut block = pointer(POINTER as u32 + POINTER_BYTES as u32);
    block.append(&mut configuration());
    (POINTER, block)
}

fn pointer(table: u32) -> Vec<u8> {
    let mut bytes = Vec::from(*b"_MP_");
    bytes.extend(table.to_le_bytes());
    bytes.extend([1, REVISION, 0, 0, 0, 0, 0, 0]); // one paragraph; a table follows; virtual wire mode
    seal(&mut bytes, 10);
    bytes
}

fn configuration() -> Vec<u8> {
    let (entries, count) = entries();
    let mut bytes = Vec::from(*b"PCMP");
    bytes.extend((44 + entries.len() as u16).to_le_bytes());
    bytes.extend([REVISION, 0]);
    bytes.extend(*b"GNOMON  VIRTUAL PC  ");
    bytes.extend([0; 6]); // no table of the maker's own
    bytes.extend(u16::to_le_bytes(count));
    bytes.extend(LOCAL_APIC.to_le_bytes());
    bytes.extend([0; 4]); // no extended table
    bytes.extend(entries);
    seal(&mut bytes, 7);
    bytes
}

fn entries() -> (Vec<u8>, u16) {
    let mut bytes = Vec::new();
    bytes.extend([0, 0, LOCAL_APIC_VERSION, CPU_FLAGS]);
    bytes.extend(CPU_SIGNATURE.to_le_bytes());
    bytes.extend(CPU_FEATURES.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(*b"\x01\x00ISA   ");
    bytes.extend([2, IO_APIC_ID, IO_APIC_VERSION, 1]);
    bytes.extend((IO_APIC as u32).to_le_bytes());
    let mut count = 3;
    // The timer is at pin 2, where the cascade would be, which has no line of its own.
    for irq in (0..16).filter(|&irq| irq != 2) {
        let pin = if irq == 0 { 2 } else { irq };
        bytes.extend([3, INT, 0, 0, 0, irq, IO_APIC_ID, pin]);
        count += 1;
    }
    bytes.extend([4, EXT_INT, 0, 0, 0, 0, 0, 0]);
    bytes.extend([4, NMI, 0, 0, 0, 0, ALL_LOCAL_APICS, 1]);
    (bytes, count + 2)
}

#[cfg(test)]
mod tests {
    use super::super::checksum;
    use super::*;

    #[test]
    fn lengths_and_sums_hold() {
        let (at, block) = table();
        assert_eq!(at % 16, 0);
        let (pointer, table) = block.split_at(POINTER_BYTES);
        assert_eq!((checksum(pointer), checksum(table)), (0, 0));
        assert_eq!(pointer[4..8], (at as u32 + 16).to_le_bytes());
        assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
        // Walk the entries: 20 bytes for a CPU, 8 for the others.
        let (mut rest, mut count) = (&table[44..], 0_u16);
        while let Some(kind) = rest.first() {
            rest = &rest[if *kind == 0 { 20 } else { 8 }..];
            count += 1;
        }
        assert_eq!(u16::from_le_bytes([table[34], table[35]]), count);
    }
}
