//! From the 64-bit ELF file that the linker makes to the 32-bit one that multiboot loaders want.
//!
//! The guests are 32-bit code in 64-bit objects, because the toolchain has no 32-bit target. All their addresses are
//! below 4 GiB, so the conversion only writes the same segments, sections and symbols in the smaller format.

use anyhow::{Context, Result};
use object::read::elf::{ElfFile64, ProgramHeader as _, SectionHeader as _, Sym as _};
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SectionIndex};

type Elf64<'a> = ElfFile64<'a, Endianness>;

/// Sizes of the 32-bit format's records, in bytes.
const FILE_HEADER: usize = 52;
const PROGRAM_HEADER: usize = 32;
const SECTION_HEADER: usize = 40;
const SYMBOL: usize = 16;

/// Segments keep their offset within a page, so that a loader may map the file.
const PAGE: usize = 4096;

const PT_LOAD: u32 = 1;
const SHF_ALLOC: u64 = 2;
const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const SHT_NOBITS: u32 = 8;
const SHN_ABS: u16 = 0xfff1;

/// Converts a static 64-bit executable whose addresses all lie below 4 GiB. Loadable segments, allocated sections and
/// named symbols are kept; debug information is not.
///
/// # Errors
/// When the input is no 64-bit ELF file, or has an address above 4 GiB.
pub fn to_elf32(elf64: &[u8]) -> Result<Vec<u8>> {
    let file = Elf64::parse(elf64).context("not a 64-bit ELF file")?;
    let mut image = Image::default();
    image.add_segments(&file)?;
    image.add_sections(&file)?;
    image.add_symbols(&file)?;
    image.finish(narrow(file.entry())?)
}

fn narrow(value: u64) -> Result<u32> {
    u32::try_from(value).with_context(|| format!("{value:#x} does not fit into 32 bits"))
}

fn put_words(out: &mut Vec<u8>, words: &[u32]) {
    out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

fn put_halves(out: &mut Vec<u8>, halves: &[u16]) {
    out.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
}

/// Appends a zero-terminated name to a string table and tells its offset there.
fn put_name(table: &mut Vec<u8>, name: &[u8]) -> Result<u32> {
    if table.is_empty() {
        table.push(0);
    }
    let offset = narrow(table.len() as u64)?;
    table.extend_from_slice(name);
    table.push(0);
    Ok(offset)
}

/// The 32-bit file while it grows.
#[derive(Default)]
struct Image {
    /// File header (filled in last), program headers, segments.
    bytes: Vec<u8>,
    segments: usize,
    /// Section headers: name, type, flags, address, offset, size, link, info, alignment, entry size.
    sections: Vec<[u32; 10]>,
    section_names: Vec<u8>,
    /// The input's index of each section that is kept, in the order of `sections`.
    kept: Vec<SectionIndex>,
}

impl Image {
    fn add_segments(&mut self, file: &Elf64<'_>) -> Result<()> {
        let endian = file.endian();
        let loads: Vec<_> = file.elf_program_headers().iter().filter(|p| p.p_type.get(endian).0 == PT_LOAD).collect();
        self.segments = loads.len();
        let mut headers = Vec::new();
        self.bytes.resize(FILE_HEADER + loads.len() * PROGRAM_HEADER, 0);
        for load in loads {
            let data = load.data(endian, file.data()).ok().context("a segment reaches behind the end of the file")?;
            let address = load.p_vaddr(endian);
            let offset = self.bytes.len().next_multiple_of(PAGE) + usize::try_from(address)? % PAGE;
            self.bytes.resize(offset, 0);
            self.bytes.extend_from_slice(data);
            put_words(
                &mut headers,
                &[
                    PT_LOAD,
                    narrow(offset as u64)?,
                    narrow(address)?,
                    narrow(load.p_paddr(endian))?,
                    narrow(data.len() as u64)?,
                    narrow(load.p_memsz(endian))?,
                    load.p_flags(endian).0,
                    PAGE as u32,
                ],
            );
        }
        self.bytes[FILE_HEADER..FILE_HEADER + headers.len()].copy_from_slice(&headers);
        Ok(())
    }

    /// Where the byte at this address is in the file, if a segment holds it.
    fn offset_of(&self, address: u32) -> u32 {
        let headers = self.bytes[FILE_HEADER..].chunks_exact(PROGRAM_HEADER).take(self.segments);
        let field = |header: &[u8], n: usize| u32::from_le_bytes(std::array::from_fn(|i| header[4 * n + i]));
        headers
            .map(|header| (field(header, 1), field(header, 2), field(header, 5)))
            .find(|&(_, start, size)| address.checked_sub(start).is_some_and(|distance| distance <= size))
            .map_or(0, |(offset, start, _)| offset + (address - start))
    }

    fn add_sections(&mut self, file: &Elf64<'_>) -> Result<()> {
        let endian = file.endian();
        self.sections.push([0; 10]);
        self.kept.push(SectionIndex(0));
        for section in file.sections() {
            let header = section.elf_section_header();
            let flags = header.sh_flags(endian).0;
            if flags & SHF_ALLOC == 0 {
                continue;
            }
            // A section of any other type would be in the 64-bit format: it is but bytes here.
            let kind = if header.sh_type(endian).0 == SHT_NOBITS { SHT_NOBITS } else { SHT_PROGBITS };
            let address = narrow(section.address())?;
            self.sections.push([
                put_name(&mut self.section_names, section.name_bytes()?)?,
                kind,
                narrow(flags)?,
                address,
                self.offset_of(address),
                narrow(section.size())?,
                0,
                0,
                narrow(section.align())?,
                0,
            ]);
            self.kept.push(section.index());
        }
        Ok(())
    }

    /// The symbol table and its names. Symbols of dropped sections become absolute, which keeps their value.
    fn add_symbols(&mut self, file: &Elf64<'_>) -> Result<()> {
        let (mut locals, mut globals, mut names) = (vec![0; SYMBOL], Vec::new(), Vec::new());
        for symbol in file.symbols().filter(|symbol| !symbol.is_undefined()) {
            let name = symbol.name_bytes()?;
            if name.is_empty() {
                continue;
            }
            let section = symbol
                .section_index()
                .and_then(|index| self.kept.iter().position(|&kept| kept == index))
                .map_or(Ok(SHN_ABS), u16::try_from)?;
            let out = if symbol.is_local() { &mut locals } else { &mut globals };
            let name = put_name(&mut names, name)?;
            put_words(out, &[name, narrow(symbol.address())?, narrow(symbol.size())?]);
            let raw = symbol.elf_symbol();
            out.extend([raw.st_info().0, raw.st_other().0]);
            put_halves(out, &[section]);
        }
        let first_global = narrow((locals.len() / SYMBOL) as u64)?;
        locals.extend(globals);
        let strings = narrow(self.sections.len() as u64 + 1)?;
        self.add_table(".symtab", SHT_SYMTAB, &locals, [strings, first_global, 4, SYMBOL as u32])?;
        self.add_table(".strtab", SHT_STRTAB, &names, [0, 0, 1, 0])
    }

    /// Appends a section that is not loaded. `rest` is link, info, alignment and entry size.
    fn add_table(&mut self, name: &str, kind: u32, data: &[u8], rest: [u32; 4]) -> Result<()> {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let (offset, size) = (narrow(self.bytes.len() as u64)?, narrow(data.len() as u64)?);
        self.bytes.extend_from_slice(data);
        let name = put_name(&mut self.section_names, name.as_bytes())?;
        let [link, info, align, entry] = rest;
        self.sections.push([name, kind, 0, 0, offset, size, link, info, align, entry]);
        Ok(())
    }

    fn finish(mut self, entry: u32) -> Result<Vec<u8>> {
        let name = put_name(&mut self.section_names, b".shstrtab")?;
        let names = std::mem::take(&mut self.section_names);
        self.add_table("", SHT_STRTAB, &names, [0, 0, 1, 0])?;
        if let Some(header) = self.sections.last_mut() {
            header[0] = name;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let table = narrow(self.bytes.len() as u64)?;
        for header in &self.sections {
            put_words(&mut self.bytes, header);
        }
        let count = u16::try_from(self.sections.len())?;
        let mut header = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        put_halves(&mut header, &[2, 3]); // an executable, for the 80386
        put_words(&mut header, &[1, entry, FILE_HEADER as u32, table, 0]);
        let segments = u16::try_from(self.segments)?;
        put_halves(&mut header, &[FILE_HEADER as u16, PROGRAM_HEADER as u16, segments]);
        put_halves(&mut header, &[SECTION_HEADER as u16, count, count - 1]);
        self.bytes[..FILE_HEADER].copy_from_slice(&header);
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use object::read::elf::ElfFile32;
    use object::{Endianness, Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _};

    use super::{Elf64, to_elf32};

    type Elf32<'a> = ElfFile32<'a, Endianness>;

    /// The test's own program is a 64-bit ELF file linked near 0, hence a fit example.
    fn example() -> Vec<u8> {
        std::env::current_exe().and_then(std::fs::read).expect("a running program can read its own file")
    }

    #[test]
    fn segments_keep_addresses_and_bytes() {
        let elf64 = example();
        let elf32 = to_elf32(&elf64).expect("the example converts");
        let (old, new) = (Elf64::parse(&*elf64).expect("64-bit"), Elf32::parse(&*elf32).expect("32-bit"));
        assert_eq!(old.entry(), new.entry());
        let summary = |address, size, data: &[u8]| (address, size, data.to_vec());
        let before: Vec<_> =
            old.segments().map(|s| summary(s.address(), s.size(), s.data().expect("in the file"))).collect();
        let after: Vec<_> =
            new.segments().map(|s| summary(s.address(), s.size(), s.data().expect("in the file"))).collect();
        assert!(!before.is_empty());
        assert!(before == after, "segments differ");
    }

    #[test]
    fn symbols_keep_names_and_sections() {
        let elf64 = example();
        let elf32 = to_elf32(&elf64).expect("the example converts");
        let new = Elf32::parse(&*elf32).expect("32-bit");
        let main = new.symbols().find(|symbol| symbol.name() == Ok("main")).expect("main has a symbol");
        let section = main.section_index().and_then(|index| new.section_by_index(index).ok()).expect("in a section");
        assert_eq!(section.name(), Ok(".text"));
        assert!((section.address()..section.address() + section.size()).contains(&main.address()));
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let error = to_elf32(b"no ELF file at all").expect_err("refused");
        assert_eq!(error.to_string(), "not a 64-bit ELF file");
    }
}
