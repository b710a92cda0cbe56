//! The kernel's own symbol table, for fault reports that name functions.
//!
//! An ELF symbol table is not loaded by every loader (`qemu -kernel` takes the multiboot1 address fields and loads one range of
//! the file), so the kernel reserves a read-only section, and after linking [`embed`] fills it in the ELF file. A kernel
//! that was not filled runs all the same and reports bare addresses.
//!
//! ```text
//! section .gnomon.symbols:  magic[16] | capacity u32 | count u32 | count x (offset u32, name u32) | names, each ending in 0
//! ```
//! `offset` is the symbol's address minus [`WINDOW_BASE`](crate::WINDOW_BASE), ascending; `name` is a byte offset into the
//! names. Everything is little-endian. Names stay mangled.

mod elf;

pub use elf::{EmbedError, embed};

/// Bytes of the reserved section.
pub const AREA_SIZE: usize = 256 << 10;
/// The section's name in the kernel's ELF file.
pub const SECTION: &str = ".gnomon.symbols";

const MAGIC: [u8; 16] = *b"gnomon symbols 1";
const COUNT_AT: usize = 20;
const ENTRIES_AT: usize = 24;
const ENTRY: usize = 8;

/// A symbol table in the format above.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    entries: &'a [u8],
    names: &'a [u8],
}

impl<'a> Table<'a> {
    /// The table in `area`, or `None` if the area was never filled or is damaged.
    #[must_use]
    pub fn read(area: &'a [u8]) -> Option<Self> {
        if area.get(..MAGIC.len())? != MAGIC {
            return None;
        }
        let count = word(area, COUNT_AT)? as usize;
        let (entries, names) = area.get(ENTRIES_AT..)?.split_at_checked(count.checked_mul(ENTRY)?)?;
        (count > 0).then_some(Self { entries, names })
    }

    /// The last symbol at or below `offset` (an address minus the window's base): its mangled name and the distance to it.
    #[must_use]
    pub fn find(&self, offset: u32) -> Option<(&'a str, u32)> {
        let (entries, _) = self.entries.as_chunks::<ENTRY>();
        let after = entries.partition_point(|entry| word(entry, 0).is_some_and(|start| start <= offset));
        let entry = entries.get(after.checked_sub(1)?)?;
        let name = self.names.get(word(entry, 4)? as usize..)?;
        let end = name.iter().position(|&b| b == 0)?;
        Some((core::str::from_utf8(name.get(..end)?).ok()?, offset - word(entry, 0)?))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.get(..4)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn symbols_are_found_by_the_address_below() {
        let mut area = vec![0; 128];
        elf::write_area(&mut area, vec![(0x1000, b"start"), (0x2000, b"middle"), (0x2000, b"alias")]).unwrap();
        let table = Table::read(&area).unwrap();
        assert_eq!(table.find(0xfff), None);
        assert_eq!(table.find(0x1000), Some(("start", 0)));
        assert_eq!(table.find(0x1fff), Some(("start", 0xfff)));
        assert_eq!(table.find(0x2010), Some(("middle", 0x10)));
    }

    #[test]
    fn unfilled_or_damaged_areas_are_none() {
        assert!(Table::read(&[0; 64]).is_none());
        assert!(Table::read(&MAGIC).is_none());
        let mut area = [0; 32];
        area[..16].copy_from_slice(&MAGIC);
        assert!(Table::read(&area).is_none(), "no symbols");
        area[COUNT_AT] = 200;
        assert!(Table::read(&area).is_none(), "runs past the end");
    }

    #[test]
    fn a_table_that_does_not_fit_is_refused() {
        let mut area = vec![0; 40];
        let error = elf::write_area(&mut area, vec![(0, b"a_long_symbol_name")]);
        assert!(matches!(error, Err(EmbedError::TooLarge { .. })));
    }

    #[test]
    fn files_that_are_not_kernels_are_refused() {
        assert!(matches!(embed(&mut [0; 64]), Err(EmbedError::NotElf64)));
    }
}
