//! ELF32 images for the i386: the loadable segments go to their physical addresses.

use alloc::vec::Vec;

use object::LittleEndian;
use object::elf::{self, FileHeader32, ProgramHeader32};
use object::read::elf::{FileHeader, ProgramHeader};

use super::error::LoadError;
use super::layout::Range;
use super::{Image, Segment};

const MAGIC: &[u8] = b"\x7fELF";
/// Place and value of the class of 64-bit files in the identification.
const CLASS: usize = 4;
const CLASS_64: u8 = 2;

type Header = FileHeader32<LittleEndian>;

/// Reads the segments and the entry point of `image`.
pub(super) fn parse(image: &[u8]) -> Result<Image<'_>, LoadError> {
    let malformed = |problem| LoadError::MalformedElf { problem };
    if !image.starts_with(MAGIC) {
        return Err(LoadError::NoFormat);
    }
    if image.get(CLASS) == Some(&CLASS_64) {
        return Err(LoadError::Elf64);
    }
    let header = Header::parse(image).map_err(|_| malformed("expected a whole ELF32 header of version 1"))?;
    let endian = header.endian().map_err(|_| malformed("expected little-endian data"))?;
    if header.e_machine(endian) != elf::EM_386 {
        return Err(malformed("expected a file for the i386 (machine 3)"));
    }
    if header.e_type(endian) != elf::ET_EXEC {
        return Err(malformed("expected an executable (type 2), not a relocatable or shared one"));
    }
    let headers = header.program_headers(endian, image);
    let headers = headers.map_err(|_| malformed("expected the program headers inside the file"))?;
    let loadable =
        |header: &&ProgramHeader32<LittleEndian>| header.p_type(endian) == elf::PT_LOAD && header.p_memsz(endian) != 0;
    let segments: Vec<_> = headers
        .iter()
        .filter(loadable)
        .map(|header| segment(header, endian, image).ok_or(malformed("expected segments inside the file")))
        .collect::<Result<_, _>>()?;
    if segments.iter().any(|segment| segment.bytes.len() as u64 > segment.range.end - segment.range.start) {
        return Err(malformed("expected no segment to be larger in the file than in memory"));
    }
    if segments.is_empty() {
        return Err(malformed("expected at least one loadable segment"));
    }
    let entry = entry(header.e_entry(endian), headers.iter().filter(loadable), endian);
    Image { segments, entry }.checked()
}

fn segment<'a>(header: &ProgramHeader32<LittleEndian>, endian: LittleEndian, image: &'a [u8]) -> Option<Segment<'a>> {
    let range = Range::sized(header.p_paddr(endian).into(), header.p_memsz(endian).into());
    header.data(endian, image).ok().map(|bytes| Segment { range, bytes })
}

/// The physical entry point: an entry that is a virtual address of a segment is turned into that segment's physical
/// address, as GRUB and QEMU do; any other counts as physical.
fn entry<'a>(
    entry: u32,
    mut headers: impl Iterator<Item = &'a ProgramHeader32<LittleEndian>>,
    endian: LittleEndian,
) -> u32 {
    let offset_in = |header: &ProgramHeader32<LittleEndian>| {
        entry.checked_sub(header.p_vaddr(endian)).filter(|offset| *offset < header.p_memsz(endian))
    };
    headers
        .find_map(|header| offset_in(header).map(|offset| header.p_paddr(endian).wrapping_add(offset)))
        .unwrap_or(entry)
}
