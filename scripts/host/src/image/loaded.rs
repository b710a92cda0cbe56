//! What a boot loader needs of a kernel's ELF file.

use anyhow::Context as _;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{LittleEndian, U16, U64};

type Header = FileHeader64<LittleEndian>;

/// The file without sections: what lies behind the last segment is debug information, and GRUB would read all of it, which takes Bochs
/// longer than to boot the rest.
///
/// # Errors
/// If it is no 64-bit ELF file, or damaged.
pub(super) fn segments_only(elf: &[u8]) -> anyhow::Result<Vec<u8>> {
    let header = Header::parse(elf).context("no 64-bit ELF file")?;
    let order = header.endian()?;
    let ends = header.program_headers(order, elf)?.iter().map(|segment| {
        let (offset, size) = segment.file_range(order);
        offset.saturating_add(size)
    });
    let end = usize::try_from(ends.max().unwrap_or(0))?;
    let mut short = elf.get(..end).context("the ELF file is cut off")?.to_vec();
    let (place, _) = object::pod::from_bytes_mut::<Header>(&mut short).ok().context("no segment has the ELF header")?;
    place.e_shoff = U64::new(order, 0);
    place.e_shnum = U16::new(order, 0);
    place.e_shstrndx = U16::new(order, object::elf::SymbolSection(0));
    Ok(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_what_lies_behind_the_segments_go() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let short = segments_only(&own).unwrap();
        assert!(short.len() < own.len());
        let order = LittleEndian;
        let header = Header::parse(&*short).unwrap();
        assert!(header.sections(order, &*short).unwrap().is_empty());
        let segments = |elf: &[u8]| Header::parse(elf).unwrap().program_headers(order, elf).unwrap().len();
        assert_eq!(segments(&short), segments(&own));
        assert!(segments_only(&own[..4096]).is_err() && segments_only(b"x").is_err());
    }
}
