//! Page-table entries in words.

/// A guest's 32-bit entry, or a 64-bit shadow entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Guest32,
    Shadow,
}

const PRESENT: u64 = 1;
/// Bits of an entry that have a name, in the order in which they are told.
const BITS: [(u64, &str); 5] =
    [(1 << 1, "writable"), (1 << 2, "user"), (1 << 5, "accessed"), (1 << 6, "dirty"), (1 << 8, "global")];
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const FRAME_32: u64 = 0xffff_f000;
const FRAME_64: u64 = 0x000f_ffff_ffff_f000;

/// The address in an entry, of a page or of the next table.
pub(super) fn frame(format: Format, entry: u64) -> u64 {
    entry & if format == Format::Guest32 { FRAME_32 } else { FRAME_64 }
}

/// The bits of an entry: `writable, user, accessed`; `present` if it is that alone; `not present`; `empty`.
pub(super) fn rights(format: Format, level: u8, entry: u64) -> String {
    if entry & PRESENT == 0 {
        return if entry == 0 { "empty".into() } else { "not present".into() };
    }
    let mut words = Vec::new();
    words.extend(BITS.iter().filter(|(bit, _)| entry & bit != 0).map(|(_, word)| *word));
    if level > 1 && entry & LARGE != 0 {
        words.push("large");
    }
    if format == Format::Shadow && entry & NO_EXECUTE != 0 {
        words.push("no-execute");
    }
    if words.is_empty() { "present".into() } else { words.join(", ") }
}

/// The entry as a number, as wide as it is.
pub(super) fn bits(format: Format, entry: u64) -> String {
    match format {
        Format::Guest32 => format!("{entry:#010x}"),
        Format::Shadow => format!("{entry:#012x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_in_words() {
        assert_eq!(rights(Format::Guest32, 1, 0x0020_5067), "writable, user, accessed, dirty");
        assert_eq!(rights(Format::Guest32, 2, 0x83), "writable, large");
        assert_eq!(rights(Format::Guest32, 1, 0), "empty");
        assert_eq!(rights(Format::Guest32, 1, 1), "present");
        assert_eq!(rights(Format::Shadow, 1, 0x8000_0000_0010_0001), "no-execute");
        assert_eq!(frame(Format::Shadow, 0x8000_0000_0010_0fff), 0x10_0000);
        assert_eq!(frame(Format::Guest32, 0x0020_5067), 0x20_5000);
        assert_eq!(bits(Format::Guest32, 0x67), "0x00000067");
    }
}
