//! The code of the DSDT in AML (ACPI 1.0b, chapter 15; resource descriptors: 6.4): how the machine is powered off, and that there is a
//! PCI bus, which kernels that use ACPI look for nowhere else.

use alloc::vec;
use alloc::vec::Vec;

use crate::dev::power::SLEEP_OFF;

const NAME: u8 = 0x08;
const BYTE: u8 = 0x0A;
const DOUBLEWORD: u8 = 0x0C;
const SCOPE: u8 = 0x10;
const BUFFER: u8 = 0x11;
const PACKAGE: u8 = 0x12;
const DEVICE: [u8; 2] = [0x5B, 0x82];

/// "PNP0A03", a PCI bus, as an EISA ID.
const PCI_BUS: u32 = 0x030A_D041;

/// Resource types of address space descriptors.
const MEMORY: u8 = 0;
const PORTS: u8 = 1;
const BUSES: u8 = 2;
/// Both ends are fixed.
const FIXED: u8 = 0x0C;

/// ```text
/// Name (_S5_, Package () { SLEEP_OFF, SLEEP_OFF, Zero, Zero })
/// Scope (_SB_) { Device (PCI0) { Name (_HID, EisaId ("PNP0A03"))  Name (_CRS, ...) } }
/// ```
pub(super) fn code() -> Vec<u8> {
    let states = [4, BYTE, SLEEP_OFF, BYTE, SLEEP_OFF, 0, 0];
    let mut code = name(*b"_S5_", &sized(&[PACKAGE], &states));
    let mut id = vec![DOUBLEWORD];
    id.extend(PCI_BUS.to_le_bytes());
    let mut bus = Vec::from(*b"PCI0");
    bus.extend(name(*b"_HID", &id));
    bus.extend(name(*b"_CRS", &buffer(&resources())));
    let mut scope = Vec::from(*b"_SB_");
    scope.extend(sized(&DEVICE, &bus));
    code.extend(sized(&[SCOPE], &scope));
    code
}

/// What the bus passes on: everything that is not memory or the APICs'.
fn resources() -> Vec<u8> {
    let mut bytes = Vec::from([0x47, 0x01, 0xF8, 0x0C, 0xF8, 0x0C, 1, 8]); // its own ports, 0xCF8 to 0xCFF
    bytes.extend(words(BUSES, 0, 0, 0xFF));
    bytes.extend(words(PORTS, 3, 0, 0xCF7));
    bytes.extend(words(PORTS, 3, 0xD00, 0xFFFF));
    bytes.extend(memory(0xA_0000, 0xB_FFFF));
    bytes.extend(memory(0xF000_0000, 0xFEBF_FFFF));
    bytes.extend([0x79, 0]);
    bytes
}

/// A word address space descriptor.
fn words(kind: u8, flags: u8, first: u16, last: u16) -> Vec<u8> {
    let mut bytes = vec![0x88, 13, 0, kind, FIXED, flags];
    for word in [0, first, last, 0, last.wrapping_sub(first).wrapping_add(1)] {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

/// A doubleword address space descriptor for memory that is read, written and not cached.
fn memory(first: u32, last: u32) -> Vec<u8> {
    let mut bytes = vec![0x87, 23, 0, MEMORY, FIXED, 1];
    for word in [0, first, last, 0, last.wrapping_sub(first).wrapping_add(1)] {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

fn name(name: [u8; 4], object: &[u8]) -> Vec<u8> {
    [&[NAME][..], &name, object].concat()
}

fn buffer(bytes: &[u8]) -> Vec<u8> {
    sized(&[BUFFER], &[&[BYTE, bytes.len() as u8], bytes].concat())
}

/// An object with its length, which counts its own one or two bytes (15.2.4, PkgLength).
fn sized(opcode: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(opcode);
    if body.len() < 0x3F {
        bytes.push(body.len() as u8 + 1);
    } else {
        let length = body.len() + 2;
        bytes.extend([0x40 | (length & 0xF) as u8, (length >> 4) as u8]);
    }
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_themselves() {
        assert_eq!(sized(&[PACKAGE], &[0; 0x3E])[1], 0x3F);
        assert_eq!(sized(&[PACKAGE], &[0; 0x3F])[1..3], [0x41, 0x04]);
        assert_eq!(words(BUSES, 0, 0, 0xFF).len(), 3 + 13);
        assert_eq!(memory(0xA_0000, 0xB_FFFF).len(), 3 + 23);
        assert!(resources().len() < 0x100);
        assert_eq!(code()[..8], [NAME, b'_', b'S', b'5', b'_', PACKAGE, 8, 4]);
    }
}
