//! ACPI tables (ACPI 1.0b, chapter 5): the least with which a kernel finds the interrupt controllers and powers the machine
//! off. RSDP, RSDT, FADT, MADT and DSDT are in the ROM, the FACS in the extended BIOS data area, which can be written.

use alloc::vec;
use alloc::vec::Vec;

use super::{dsdt, seal};
use crate::dev::power::{CONTROL, EVENTS, SCI, TIMER};
use crate::dev::{IO_APIC, IO_APIC_ID};
use crate::memory_map::{EBDA, ROM};

const POINTER: u64 = ROM + 0x5000;
const TABLES: u64 = POINTER + 0x100;
const FACS: u64 = EBDA + 0x200;
const FACS_BYTES: u32 = 64;
const HEADER: usize = 36;
const FADT_BYTES: usize = 116;
const LOCAL_APIC: u32 = 0xFEE0_0000;
/// There is a pair of 8259s as well.
const PC_COMPATIBLE: u32 = 1;
/// Power and sleep buttons are no fixed features, the C1 state works, WBINVD does.
const FLAGS: u32 = 0x35;
/// "Not supported" as a latency of deeper sleep states, in microseconds.
const NO_STATE: u16 = 0xFFF;
const CMOS_CENTURY: u8 = 0x32;
const LEVEL_ACTIVE_HIGH: u8 = 0b1101;

/// All tables with their addresses.
pub(super) fn tables(apic: bool) -> Vec<(u64, Vec<u8>)> {
    let mut next = TABLES;
    let mut placed = Vec::new();
    let mut place = |table: Vec<u8>| {
        let at = next;
        next = (at + table.len() as u64).next_multiple_of(16);
        placed.push((at, table));
        at as u32
    };
    let dsdt = place(table(*b"DSDT", 1, &dsdt::code()));
    let mut listed = vec![place(fadt(dsdt))];
    if apic {
        listed.push(place(madt()));
    }
    let rsdt = place(table(*b"RSDT", 1, &listed.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>()));
    placed.push((POINTER, pointer(rsdt)));
    placed.push((FACS, facs()));
    placed
}

fn pointer(rsdt: u32) -> Vec<u8> {
    let mut bytes = Vec::from(*b"RSD PTR \0GNOMON\0");
    bytes.extend(rsdt.to_le_bytes());
    seal(&mut bytes, 8);
    bytes
}

/// A table with its header.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(signature);
    bytes.extend(((HEADER + body.len()) as u32).to_le_bytes());
    bytes.extend([revision, 0]);
    bytes.extend(*b"GNOMONVIRTUAL ");
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(*b"GNMN");
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(body);
    seal(&mut bytes, 9);
    bytes
}

fn facs() -> Vec<u8> {
    let mut bytes = Vec::from(*b"FACS");
    bytes.extend(FACS_BYTES.to_le_bytes());
    bytes.resize(FACS_BYTES as usize, 0);
    bytes
}

fn fadt(dsdt: u32) -> Vec<u8> {
    let mut body = vec![0; FADT_BYTES - HEADER];
    let mut set = |offset: usize, value: &[u8]| {
        let start = offset - HEADER;
        if let Some(place) = body.get_mut(start..start + value.len()) {
            place.copy_from_slice(value);
        }
    };
    set(36, &(FACS as u32).to_le_bytes());
    set(40, &dsdt.to_le_bytes());
    set(44, &[1]); // interrupt model: I/O APIC and 8259s
    set(46, &u16::from(SCI).to_le_bytes());
    set(56, &u32::from(EVENTS).to_le_bytes());
    set(64, &u32::from(CONTROL).to_le_bytes());
    set(76, &u32::from(TIMER).to_le_bytes());
    set(88, &[4, 2, 0, 4]); // lengths: events, control, no second control, timer
    set(96, &NO_STATE.to_le_bytes());
    set(98, &NO_STATE.to_le_bytes());
    set(108, &[CMOS_CENTURY]);
    set(112, &FLAGS.to_le_bytes());
    table(*b"FACP", 1, &body)
}

fn madt() -> Vec<u8> {
    let mut body = Vec::from(LOCAL_APIC.to_le_bytes());
    body.extend(PC_COMPATIBLE.to_le_bytes());
    body.extend([0, 8, 0, 0, 1, 0, 0, 0]); // CPU 0: APIC ID 0, enabled
    body.extend([1, 12, IO_APIC_ID, 0]);
    body.extend((IO_APIC as u32).to_le_bytes());
    body.extend([0; 4]); // its pins begin at interrupt 0
    body.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]); // the timer is at pin 2
    body.extend([2, 10, 0, SCI, SCI, 0, 0, 0, LEVEL_ACTIVE_HIGH, 0]);
    body.extend([4, 6, 0xFF, 0, 0, 1]); // LINT1 of all CPUs is the NMI
    table(*b"APIC", 1, &body)
}

#[cfg(test)]
mod tests {
    use super::super::checksum;
    use super::*;

    #[test]
    fn lengths_and_sums_hold_and_nothing_overlaps() {
        let mut tables = tables(true);
        tables.sort();
        for (at, bytes) in &tables {
            assert_eq!(at % 16, 0);
            if *at == POINTER {
                assert_eq!((checksum(bytes), bytes.len()), (0, 20));
                continue;
            }
            assert_eq!(bytes[4..8], (bytes.len() as u32).to_le_bytes());
            assert!(*at == FACS || checksum(bytes) == 0);
        }
        assert!(tables.windows(2).all(|pair| pair[0].0 + pair[0].1.len() as u64 <= pair[1].0));
        assert_eq!(tables.len(), 6);
        assert_eq!(super::tables(false).len(), 5);
        assert_eq!(FACS % 64, 0);
    }
}
