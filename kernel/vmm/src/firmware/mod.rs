//! What a BIOS leaves in memory for a kernel to find: its data areas and tables. No code: guests enter in protected mode.

mod acpi;
mod bios_data;
mod coreboot;
mod dsdt;
mod mp_table;

use alloc::vec::Vec;
use shadow_mmu::Gpa;

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
