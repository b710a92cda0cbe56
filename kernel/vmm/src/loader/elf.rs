//! ELF32 images for the i386: the loadable segments go to their physical addresses, the section headers may be handed on.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use object::LittleEndian;
use object::elf::{self, FileHeader32, ProgramHeader32, SectionHeader32};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};

use super::error::LoadError;
use super::image::{Image, Segment};
use super::layout::{Layout, PAGE, Range};

const MAGIC: &[u8] = b"\x7fELF";
/// Place and value of the class of 64-bit files in the identification.
const CLASS: usize = 4;
const CLASS_64: u8 = 2;
/// More than any kernel has; it bounds the loader's work.
const MOST_SEGMENTS: usize = 256;
const MOST_SECTIONS: usize = 1024;
/// Place of `sh_addr` in a section header.
const SECTION_ADDRESS: usize = 12;

type Header = FileHeader32<LittleEndian>;

fn malformed(problem: &'static str) -> LoadError {
    LoadError::MalformedElf { problem }
}

/// The file header and the program headers, if this is an executable for the i386.
fn headers(image: &[u8]) -> Result<(&Header, &[ProgramHeader32<LittleEndian>]), LoadError> {
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
    // A shared one is what compilers make of a kernel that nobody told them about; it runs where it was linked to.
    if !matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) {
        return Err(malformed("expected an executable (type 2 or 3), not a relocatable file"));
    }
    let headers = header.program_headers(endian, image);
    let headers = headers.map_err(|_| malformed("expected the program headers inside the file"))?;
    Ok((header, headers))
}

/// Reads the segments and the entry point of `image`.
pub(super) fn parse(image: &[u8]) -> Result<Image<'_>, LoadError> {
    let parsed = parse_segments(image)?;
    let (header, headers) = headers(image)?;
    let entry = entry(header.e_entry(LittleEndian), headers.iter().filter(|header| is_loadable(header)));
    Image { entry, ..parsed }.checked()
}

/// Reads the segments of `image`; the entry point is `entry`, which is physical.
pub(super) fn parse_with_entry(image: &[u8], entry: u32) -> Result<Image<'_>, LoadError> {
    Image { entry, ..parse_segments(image)? }.checked()
}

fn parse_segments(image: &[u8]) -> Result<Image<'_>, LoadError> {
    let (_, headers) = headers(image)?;
    let loadable = headers.iter().filter(|header| is_loadable(header));
    let segments: Vec<_> = loadable
        .take(MOST_SEGMENTS + 1)
        .map(|header| segment(header, headers, image).ok_or(malformed("expected segments inside the file")))
        .collect::<Result<_, _>>()?;
    if segments.iter().any(|segment| segment.bytes.len() as u64 > segment.range.bytes()) {
        return Err(malformed("expected no segment to be larger in the file than in memory"));
    }
    match segments.len() {
        0 => Err(malformed("expected at least one loadable segment")),
        1..=MOST_SEGMENTS => Ok(Image { segments, entry: 0 }),
        _ => Err(malformed("expected at most 256 loadable segments")),
    }
}

fn is_loadable(header: &ProgramHeader32<LittleEndian>) -> bool {
    header.p_type(LittleEndian) == elf::PT_LOAD && header.p_memsz(LittleEndian) != 0
}

fn segment<'a>(
    header: &ProgramHeader32<LittleEndian>,
    all: &[ProgramHeader32<LittleEndian>],
    image: &'a [u8],
) -> Option<Segment<'a>> {
    let range = Range::sized(header.p_paddr(LittleEndian).into(), header.p_memsz(LittleEndian).into());
    let notes = is_of_notes(header, all);
    header.data(LittleEndian, image).ok().map(|bytes| Segment { range, bytes, notes })
}

/// Whether there is nothing in a segment but notes.
fn is_of_notes(header: &ProgramHeader32<LittleEndian>, all: &[ProgramHeader32<LittleEndian>]) -> bool {
    let in_file = |header: &ProgramHeader32<LittleEndian>| {
        Range::sized(header.p_offset(LittleEndian).into(), header.p_filesz(LittleEndian).into())
    };
    let segment = in_file(header);
    let inside = |notes: Range| segment.start <= notes.start && notes.end <= segment.end;
    let notes = all.iter().filter(|header| header.p_type(LittleEndian) == elf::PT_NOTE).map(in_file);
    let bytes: u64 = notes.filter(|notes| inside(*notes)).map(Range::bytes).sum();
    header.p_memsz(LittleEndian) == header.p_filesz(LittleEndian) && bytes >= segment.bytes()
}

/// The physical entry point: an entry that is a virtual address of a segment is turned into that segment's physical
/// address, as GRUB and QEMU do; any other counts as physical.
fn entry<'a>(entry: u32, mut headers: impl Iterator<Item = &'a ProgramHeader32<LittleEndian>>) -> u32 {
    let offset_in = |header: &ProgramHeader32<LittleEndian>| {
        entry.checked_sub(header.p_vaddr(LittleEndian)).filter(|offset| *offset < header.p_memsz(LittleEndian))
    };
    headers
        .find_map(|header| offset_in(header).map(|offset| header.p_paddr(LittleEndian).wrapping_add(offset)))
        .unwrap_or(entry)
}

/// What the first note of `owner` (with its final zero) and `kind` says, as a number.
pub(super) fn note(image: &[u8], owner: &[u8], kind: u32) -> Option<u32> {
    let (_, headers) = headers(image).ok()?;
    headers.iter().filter_map(|header| header.notes(LittleEndian, image).ok().flatten()).find_map(|notes| {
        let mut sound = notes.map_while(Result::ok);
        let found = sound.find(|note| note.name_bytes() == owner && note.n_type(LittleEndian).0 == kind)?;
        super::word(found.desc(), 0)
    })
}

/// The section headers of an image.
pub(super) struct Sections<'a> {
    image: &'a [u8],
    headers: &'a [SectionHeader32<LittleEndian>],
    table: &'a [u8],
    names: u32,
}

/// Section headers whose sections all have a place in the guest's memory.
pub(super) struct PlacedSections {
    pub(super) count: u32,
    pub(super) entry_bytes: u32,
    /// The index of the section with the names.
    pub(super) names: u32,
    /// The headers, with their addresses.
    pub(super) table: Vec<u8>,
}

/// The section headers of `image`, if it has usable ones.
pub(super) fn sections(image: &[u8]) -> Option<Sections<'_>> {
    let (header, _) = headers(image).ok()?;
    let headers = header.section_headers(LittleEndian, image).ok()?;
    if headers.is_empty() || headers.len() > MOST_SECTIONS {
        return None;
    }
    let start = header.e_shoff(LittleEndian) as usize;
    let table = image.get(start..start.checked_add(size_of_val(headers))?)?;
    Some(Sections { image, headers, table, names: header.shstrndx(LittleEndian, image).ok()? })
}

impl<'a> Sections<'a> {
    /// Gives a place to every section that the segments do not bring, such as the symbols, and sets its address in the
    /// headers. `None` if there is no room: a kernel can do without.
    pub(super) fn place(self, layout: &mut Layout, writes: &mut Vec<(u64, Cow<'a, [u8]>)>) -> Option<PlacedSections> {
        let mut table = self.table.to_vec();
        let mut more = Vec::new();
        let mut room = layout.clone();
        for (header, entry) in
            self.headers.iter().zip(table.chunks_exact_mut(size_of::<SectionHeader32<LittleEndian>>()))
        {
            let bytes = header.data(LittleEndian, self.image).ok()?;
            if header.sh_flags(LittleEndian) & elf::SHF_ALLOC != elf::SectionFlags(0) || bytes.is_empty() {
                continue;
            }
            let align = u64::from(header.sh_addralign(LittleEndian)).clamp(4, PAGE).next_power_of_two();
            let start = room.place_behind(bytes.len() as u64, align)?;
            entry.get_mut(SECTION_ADDRESS..)?.first_chunk_mut().map(|field| *field = (start as u32).to_le_bytes())?;
            more.push((start, bytes.into()));
        }
        *layout = room;
        writes.append(&mut more);
        Some(PlacedSections {
            count: self.headers.len() as u32,
            entry_bytes: size_of::<SectionHeader32<LittleEndian>>() as u32,
            names: self.names,
            table,
        })
    }
}
