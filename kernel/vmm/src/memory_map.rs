//! The guest-physical address space: what is RAM, ROM, and nothing. Loaders tell it to guests, `ram.rs` carries it out.
//!
//! ```text
//!   0x00000000  RAM; the BIOS data area at 0x400
//!   0x0009FC00  RAM, reserved: extended BIOS data area
//!   0x000A0000  nothing (graphics memory, which is not there)
//!   0x000B8000  text screen
//!   0x000C0000  nothing (option ROMs)
//!   0x000F0000  ROM: the tables of the firmware
//!   0x00100000  RAM, to the end of the guest's memory
//!   0xFEC00000  I/O APIC        0xFEE00000  local APIC
//! ```

/// The extended BIOS data area: the end of the low RAM that a guest may use.
pub(crate) const EBDA: u64 = 0x9_FC00;
/// The end of low RAM.
pub(crate) const LOW_END: u64 = 0xA_0000;
/// The text screen's memory, 32 KiB as on a VGA.
pub(crate) const TEXT: u64 = 0xB_8000;
/// The end of the text screen's memory.
pub(crate) const TEXT_END: u64 = 0xC_0000;
/// Read-only memory with the firmware's tables.
pub(crate) const ROM: u64 = 0xF_0000;
/// The end of the ROM; RAM goes on here.
pub(crate) const HIGH_START: u64 = 0x10_0000;

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Memory.
    Ram,
    /// Memory that the guest cannot write.
    Rom,
    /// A device, or nothing.
    None,
}

/// What stands behind a guest-physical address of a guest with `memory` bytes.
#[must_use]
pub(crate) const fn backing(address: u64, memory: u64) -> Backing {
    match address {
        _ if address >= memory => Backing::None,
        0..LOW_END | TEXT..TEXT_END => Backing::Ram,
        LOW_END..TEXT | TEXT_END..ROM => Backing::None,
        ROM..HIGH_START => Backing::Rom,
        _ => Backing::Ram,
    }
}

/// A part of the address space as a memory map of type E820 or multiboot tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// Whether it is RAM that the guest may use; if not, it is reserved.
    pub usable: bool,
}

/// The map of a guest with `memory` bytes (at least 1 MiB), by rising addresses.
#[must_use]
pub const fn regions(memory: u64) -> [Region; 4] {
    [
        Region { start: 0, end: EBDA, usable: true },
        Region { start: EBDA, end: LOW_END, usable: false },
        Region { start: ROM, end: HIGH_START, usable: false },
        Region { start: HIGH_START, end: if memory > HIGH_START { memory } else { HIGH_START }, usable: true },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_tells_what_is_there() {
        for memory in [1 << 20, 16 << 20, 3 << 30] {
            for region in regions(memory).into_iter().filter(|region| region.start < region.end) {
                assert_ne!(backing(region.start, memory), Backing::None);
                assert_ne!(backing(region.end - 1, memory), Backing::None);
                assert!(!region.usable || backing(region.start, memory) == Backing::Ram);
            }
            assert_eq!(backing(memory.max(HIGH_START), memory), Backing::None);
        }
    }
}
