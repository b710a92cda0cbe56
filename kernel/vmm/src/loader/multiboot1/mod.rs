//! Multiboot1 (Multiboot Specification 0.6.96): ELF32 images, or load addresses in the header.

mod header;
mod info;

use alloc::format;
use alloc::string::String;

use super::error::LoadError;
use super::{Entry, Module, Plan, elf};
use crate::config::GuestConfig;
use header::Header;
use info::Info;

/// What a multiboot1 loader leaves in EAX.
pub const MAGIC: u32 = 0x2BAD_B002;

/// Whether there is a header, be it one that can be served or not.
pub(super) fn is_image(image: &[u8]) -> bool {
    !matches!(Header::find(image), Err(LoadError::NotMultiboot))
}

/// The kernel's name comes first, as QEMU and GRUB 1 have it: kernels that split the line into an `argv` skip it.
fn command_line(guest: &GuestConfig) -> String {
    format!("{} {}", guest.name, guest.arguments)
}

pub(super) fn plan<'a>(image: &'a [u8], modules: &[Module<'a>], guest: &GuestConfig) -> Result<Plan<'a>, LoadError> {
    let header = Header::find(image)?;
    let by_addresses = header.by_addresses().transpose()?;
    let sections = if by_addresses.is_some() { None } else { elf::sections(image) };
    let mut parsed = by_addresses.map_or_else(|| elf::parse(image), Ok)?;
    let (mut layout, placed) = parsed.place(modules, guest.memory)?;
    let mut writes = parsed.writes(modules, &placed);
    let sections = sections.and_then(|sections| sections.place(&mut layout, &mut writes));
    let info = Info {
        ram: layout.ram(),
        map: &layout.map(),
        command_line: &command_line(guest),
        modules: &placed,
        text_mode: header.wants_text_mode(),
        sections: sections.as_ref(),
    };
    let base = layout.place_info(info.bytes(), 16)?;
    writes.push((base.into(), info.build(base).into()));
    Ok(Plan { writes, entry: Entry { eip: parsed.entry, eax: MAGIC, ebx: base, ..Entry::default() } })
}
