use super::{AREA_SIZE, ENTRIES_AT, ENTRY, MAGIC, SECTION, word};
use crate::WINDOW_BASE;
use alloc::vec::Vec;
use core::fmt;

/// Why a symbol table could not be put into a kernel file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbedError {
    /// The file is not a little-endian ELF64 file with section headers.
    NotElf64,
    /// The file lacks this section.
    NoSection(&'static str),
    /// The symbols need more room than the section reserves.
    TooLarge {
        /// Bytes the table needs.
        need: usize,
        /// Bytes there are.
        have: usize,
    },
}

impl fmt::Display for EmbedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf64 => write!(f, "not an ELF64 file with section headers"),
            Self::NoSection(name) => write!(f, "no section {name}: not a Gnomon kernel, or a stripped one"),
            Self::TooLarge { need, have } => {
                write!(f, "the symbol table needs {need} bytes, the kernel reserves {have}")
            }
        }
    }
}

impl core::error::Error for EmbedError {}

/// A section header's fields used here.
struct Section {
    name: u32,
    offset: usize,
    size: usize,
    link: usize,
}

const SYMBOL_SIZE: usize = 24;
const TYPE_FUNCTION: u8 = 2;
const TYPE_NONE: u8 = 0;

/// Puts the code symbols of the linked kernel `file` into its own symbol section. Returns how many. Doing it twice changes
/// nothing.
pub fn embed(file: &mut [u8]) -> Result<usize, EmbedError> {
    let sections = sections(file).ok_or(EmbedError::NotElf64)?;
    let area = find(file, &sections, SECTION)?;
    let symbols = find(file, &sections, ".symtab")?;
    let names = sections.get(symbols.link).ok_or(EmbedError::NoSection(".strtab"))?;
    let list = read_symbols(file, symbols, names);
    let mut bytes = alloc::vec![0; area.size.min(AREA_SIZE)];
    let count = write_area(&mut bytes, list)?;
    let place = file.get_mut(area.offset..area.offset + bytes.len()).ok_or(EmbedError::NotElf64)?;
    place.copy_from_slice(&bytes);
    Ok(count)
}

/// The function symbols of `file`, and the untyped ones assembly makes, as (offset in the window, name).
fn read_symbols<'f>(file: &'f [u8], symbols: &Section, names: &Section) -> Vec<(u32, &'f [u8])> {
    let table = file.get(symbols.offset..symbols.offset + symbols.size).unwrap_or(&[]);
    let names = file.get(names.offset..names.offset + names.size).unwrap_or(&[]);
    let mut list = Vec::new();
    for symbol in table.chunks_exact(SYMBOL_SIZE) {
        let (Some(name), Some(value)) = (word(symbol, 0), quad(symbol, 8)) else { continue };
        let kind = symbol.get(4).map_or(0xf, |info| info & 0xf);
        let Some(offset) = value.checked_sub(WINDOW_BASE).and_then(|o| u32::try_from(o).ok()) else { continue };
        let name = names.get(name as usize..).unwrap_or(&[]);
        let end = name.iter().position(|&b| b == 0).unwrap_or(0);
        let name = name.get(..end).unwrap_or(&[]);
        if (kind == TYPE_FUNCTION || kind == TYPE_NONE) && !name.is_empty() && !name.starts_with(b".L") {
            list.push((offset, name));
        }
    }
    list
}

/// Writes the table for `symbols` into `area`: the first name of each address, by ascending address.
pub(super) fn write_area(area: &mut [u8], mut symbols: Vec<(u32, &[u8])>) -> Result<usize, EmbedError> {
    symbols.sort_by_key(|s| s.0);
    symbols.dedup_by_key(|s| s.0);
    let names_at = ENTRIES_AT + symbols.len() * ENTRY;
    let need = names_at + symbols.iter().map(|s| s.1.len() + 1).sum::<usize>();
    if need > area.len() {
        return Err(EmbedError::TooLarge { need, have: area.len() });
    }
    let mut header = Vec::with_capacity(names_at);
    let mut names = Vec::new();
    header.extend(MAGIC);
    header.extend((area.len() as u32).to_le_bytes());
    header.extend((symbols.len() as u32).to_le_bytes());
    for (offset, name) in &symbols {
        header.extend(offset.to_le_bytes());
        header.extend((names.len() as u32).to_le_bytes());
        names.extend_from_slice(name);
        names.push(0);
    }
    header.append(&mut names);
    for (to, from) in area.iter_mut().zip(header.into_iter().chain(core::iter::repeat(0))) {
        *to = from;
    }
    Ok(symbols.len())
}

fn sections(file: &[u8]) -> Option<Vec<Section>> {
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(quad(file, 40)?).ok()?;
    let (size, count) = (half(file, 58)?, half(file, 60)?);
    let mut sections = Vec::new();
    for i in 0..count {
        let header = file.get(table.checked_add(i * size)?..)?.get(..64)?;
        sections.push(Section {
            name: word(header, 0)?,
            offset: usize::try_from(quad(header, 24)?).ok()?,
            size: usize::try_from(quad(header, 32)?).ok()?,
            link: word(header, 40)? as usize,
        });
    }
    Some(sections)
}

fn find<'s>(file: &[u8], sections: &'s [Section], name: &'static str) -> Result<&'s Section, EmbedError> {
    let missing = EmbedError::NoSection(name);
    let names = half(file, 62).and_then(|i| sections.get(i)).ok_or(missing)?;
    sections
        .iter()
        .find(|s| {
            let at = names.offset + s.name as usize;
            file.get(at..at + name.len()) == Some(name.as_bytes()) && file.get(at + name.len()) == Some(&0)
        })
        .ok_or(missing)
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.get(..2)?.try_into().ok().map(|b| usize::from(u16::from_le_bytes(b)))
}

fn quad(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.get(..8)?.try_into().ok().map(u64::from_le_bytes)
}
