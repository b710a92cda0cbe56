//! Multiboot2 (Multiboot2 Specification 2.0): ELF32 images, or load addresses in a header tag.

mod header;
mod info;

use super::error::LoadError;
use super::{Entry, Module, Plan, elf};
use crate::config::GuestConfig;
use header::Header;
use info::Info;

/// What a multiboot2 loader leaves in EAX.
pub const MAGIC: u32 = 0x36D7_6289;

/// Whether there is a header, be it one that can be served or not.
pub(super) fn is_image(image: &[u8]) -> bool {
    !matches!(Header::find(image), Err(LoadError::NotMultiboot2))
}

pub(super) fn plan<'a>(image: &'a [u8], modules: &[Module<'a>], guest: &GuestConfig) -> Result<Plan<'a>, LoadError> {
    let header = Header::find(image)?;
    let by_addresses = header.by_addresses().transpose()?;
    let sections = if by_addresses.is_some() { None } else { elf::sections(image) };
    let mut parsed = match (by_addresses, header.entry()) {
        (Some(parsed), _) => parsed,
        (None, Some(entry)) => elf::parse_with_entry(image, entry)?,
        (None, None) => elf::parse(image)?,
    };
    let (mut layout, placed) = parsed.place(modules, guest.memory)?;
    let mut writes = parsed.writes(modules, &placed);
    let sections = sections.and_then(|sections| sections.place(&mut layout, &mut writes));
    let info = Info {
        ram: layout.ram(),
        map: &layout.map(),
        command_line: &guest.arguments,
        modules: &placed,
        load_base: parsed.segments.iter().map(|segment| segment.range.start).min().unwrap_or(0),
        sections: sections.as_ref(),
    };
    let block = info.build();
    let base = layout.place_info(block.len() as u64, 8)?;
    writes.push((base.into(), block.into()));
    Ok(Plan { writes, entry: Entry { eip: parsed.entry, eax: MAGIC, ebx: base, ..Entry::default() } })
}

#[cfg(test)]
pub(super) mod tests;
