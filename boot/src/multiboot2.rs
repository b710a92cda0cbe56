//! The Multiboot2 information block, as GRUB leaves it. The `multiboot2` crate gives the tags their types; this module checks
//! before that the block can be walked and each tag is long enough, because the crate panics on tags that are too short.
//!
//! Source: Multiboot2 Specification 2.0, section 3.6 "Boot information format".

use crate::{Arena, BootError, BootInfo, MemoryKind};
use multiboot2::{BootInformation, BootInformationHeader, MemoryAreaType, TagType};

/// EAX at entry when the loader speaks Multiboot2.
pub const MAGIC: u32 = multiboot2::MAGIC;

/// The largest information block believed: GRUB's are a few KiB.
pub const MAX_SIZE: usize = 1 << 20;

/// Bytes of the block's own header and of each tag's header.
const HEADER: usize = 8;
/// Bytes of one memory map entry in the only version there is.
const MAP_ENTRY: usize = 24;

/// Reads the information block in `block`, which must begin at a multiple of 8 and may be longer than the block itself.
pub fn parse(block: &[u8], arena: &mut Arena) -> Result<BootInfo, BootError> {
    if !block.as_ptr().addr().is_multiple_of(8) {
        return Err(BootError::Information("the multiboot2 block is not aligned to 8 bytes"));
    }
    check_tags(block)?;
    #[expect(clippy::cast_ptr_alignment, reason = "the alignment was checked above")]
    let header = block.as_ptr().cast::<BootInformationHeader>();
    // SAFETY: the block is aligned to 8, readable for its whole length, and `check_tags` proved that its total size is not
    // above `block.len()` and that all tags lie within it. Nothing writes it while `block` is borrowed.
    let information = unsafe { BootInformation::load(header) }
        .map_err(|_| BootError::Information("the multiboot2 block cannot be walked"))?;
    read(&information, arena)
}

fn read(information: &BootInformation<'_>, arena: &mut Arena) -> Result<BootInfo, BootError> {
    let mut info = BootInfo::empty();
    if let Some(tag) = information.boot_loader_name_tag() {
        info.loader_name = arena.copy(text(tag.name(), "boot loader name")?)?;
    }
    if let Some(tag) = information.command_line_tag() {
        info.command_line = arena.copy(text(tag.cmdline(), "command line")?)?;
    }
    let map = information.memory_map_tag().ok_or(BootError::Missing("memory map"))?;
    for area in map.memory_areas() {
        let usable = area.typ() == MemoryAreaType::Available;
        let kind = if usable { MemoryKind::Usable } else { MemoryKind::Reserved };
        info.add_region(area.start_address(), area.size(), kind)?;
    }
    if info.memory.is_empty() {
        return Err(BootError::Malformed("memory map", "it is empty"));
    }
    for module in information.module_tags() {
        let line = text(module.cmdline(), "module")?;
        info.add_module(module.start_address(), module.end_address(), line, arena)?;
    }
    Ok(info)
}

fn text<'t, E>(text: Result<&'t str, E>, tag: &'static str) -> Result<&'t [u8], BootError> {
    text.map(str::as_bytes).map_err(|_| BootError::Malformed(tag, "its text is not UTF-8 that ends in a zero byte"))
}

/// Walks the tags by their sizes alone and checks the sizes of the tags that are read afterwards.
fn check_tags(block: &[u8]) -> Result<(), BootError> {
    let total =
        word(block, 0).ok_or(BootError::Information("the multiboot2 block is shorter than its header"))? as usize;
    let block = block
        .get(..total)
        .filter(|b| (HEADER..=MAX_SIZE).contains(&b.len()))
        .ok_or(BootError::Information("the multiboot2 block's total size is out of range"))?;
    let mut at = HEADER;
    loop {
        let (Some(kind), Some(size)) = (word(block, at), word(block, at + 4)) else {
            return Err(BootError::Missing("end"));
        };
        let size = size as usize;
        if size < HEADER || at + size > total {
            return Err(BootError::Malformed(name(kind), "its size is below 8 or runs past the block"));
        }
        if TagType::from(kind) == TagType::End {
            return Ok(());
        }
        check_tag(kind, block.get(at..at + size).unwrap_or(&[]))?;
        at = (at + size).next_multiple_of(8);
    }
}

fn check_tag(kind: u32, tag: &[u8]) -> Result<(), BootError> {
    let wrong = |what| Err(BootError::Malformed(name(kind), what));
    match TagType::from(kind) {
        TagType::Cmdline | TagType::BootLoaderName if tag.len() <= HEADER => wrong("it has no text"),
        TagType::Module if tag.len() <= HEADER + 8 => wrong("it is shorter than 17 bytes"),
        TagType::Mmap if word(tag, HEADER) != Some(MAP_ENTRY as u32) => wrong("its entries are not 24 bytes long"),
        TagType::Mmap if tag.len() < HEADER + 8 || !(tag.len() - HEADER - 8).is_multiple_of(MAP_ENTRY) => {
            wrong("its size is not that of whole entries")
        }
        _ => Ok(()),
    }
}

fn name(kind: u32) -> &'static str {
    match TagType::from(kind) {
        TagType::End => "end",
        TagType::Cmdline => "command line",
        TagType::BootLoaderName => "boot loader name",
        TagType::Module => "module",
        TagType::Mmap => "memory map",
        _ => "unused",
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.get(..4)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests;
