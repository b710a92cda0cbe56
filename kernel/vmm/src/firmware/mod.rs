//! What a BIOS leaves in memory for a kernel to find: its data areas and tables. No code: guests enter in protected mode.

mod acpi;
mod bios_data;
mod coreboot;
mod dsdt;
mod mp_table;

use alloc::vec::Vec;
use shadow_mmu::Gpa;

use crate::memory_map::ROM;

/// Where the descriptor table is that a boot loader leaves: null, flat code, flat data. Kernels should load their own before they use it, but
/// some only fill an IDT, with gates to the code segment that they were entered by.
pub(crate) const BOOT_TABLE: u64 = ROM + 0x4000;
/// Last byte of the table.
pub(crate) const BOOT_TABLE_LIMIT: u16 = 23;
const DESCRIPTORS: [u64; 3] = [0, FLAT_CODE, FLAT_DATA];
/// Flat segments of level 0, marked as used: the CPU has nothing to write in the ROM.
pub(crate) const FLAT_CODE: u64 = 0x00cf_9b00_0000_ffff;
/// As [`FLAT_CODE`], for data.
pub(crate) const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;

/// What the tables tell of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// There are a local APIC and an I/O APIC.
    pub apic: bool,
    /// Memory in bytes.
    pub memory: u64,
}

/// The bytes of the data areas and tables, each with its place.
#[must_use]
pub(crate) fn tables(machine: Machine) -> Vec<(Gpa, Vec<u8>)> {
    let mut tables = bios_data::areas();
    tables.extend(acpi::tables(machine.apic));
    tables.push(coreboot::table(machine.memory));
    tables.push((BOOT_TABLE, DESCRIPTORS.into_iter().flat_map(u64::to_le_bytes).collect()));
    if machine.apic {
        tables.push(mp_table::table());
    }
    tables.into_iter().map(|(at, bytes)| (Gpa::new(at), bytes)).collect()
}

/// The byte that makes the sum of all bytes 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)).wrapping_neg()
}

/// Puts the checksum of a table at its place in it, which is still 0.
fn seal(table: &mut [u8], place: usize) {
    let sum = checksum(table);
    if let Some(byte) = table.get_mut(place) {
        *byte = sum;
    }
}
