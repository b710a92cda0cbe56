//! The Multiboot (version 1) information structure, as `qemu -kernel` and GRUB's `multiboot` command leave it.
//!
//! The structure is a handful of 32-bit fields with physical pointers, so it is read through [`PhysicalMemory`], which lets
//! tests hand in an array. Source: Multiboot Specification 0.6.96, section 3.3 "Boot information format".

use crate::{Arena, BootError, BootInfo, MemoryKind};

/// EAX at entry when the loader speaks Multiboot version 1.
pub const MAGIC: u32 = 0x2bad_b002;

/// Physical memory as the parser reads it.
pub trait PhysicalMemory {
    /// The `len` bytes at physical address `address`, or `None` where there is no memory to read.
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]>;
}

// The fields of the information structure used here: byte offsets.
const FLAGS: u64 = 0;
const COMMAND_LINE: u64 = 16;
const MODULE_COUNT: u64 = 20;
const MODULE_ADDRESS: u64 = 24;
const MAP_LENGTH: u64 = 44;
const MAP_ADDRESS: u64 = 48;
const LOADER_NAME: u64 = 64;

// The bits of FLAGS that say which fields are valid.
const HAS_COMMAND_LINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MAP: u32 = 1 << 6;
const HAS_LOADER_NAME: u32 = 1 << 9;

/// Bytes of one module entry.
const MODULE_SIZE: u64 = 16;
/// The smallest value of a memory map entry's size field, which does not count itself.
const MAP_ENTRY_MIN: u32 = 20;
/// The longest command line read.
const MAX_TEXT: usize = 1024;

/// Reads the information structure at physical `address`. A memory map must be there; everything else may be absent.
pub fn parse<M: PhysicalMemory>(memory: &M, address: u32, arena: &mut Arena) -> Result<BootInfo, BootError> {
    let base = u64::from(address);
    let mut info = BootInfo::empty();
    let flags = field(memory, base + FLAGS)?;
    if flags & HAS_LOADER_NAME != 0 {
        info.loader_name = text(memory, field(memory, base + LOADER_NAME)?, "boot loader name", arena)?;
    }
    if flags & HAS_COMMAND_LINE != 0 {
        let line = text(memory, field(memory, base + COMMAND_LINE)?, "command line", arena)?;
        info.command_line = without_path(line);
    }
    if flags & HAS_MAP == 0 {
        return Err(BootError::Missing("memory map"));
    }
    read_map(memory, field(memory, base + MAP_ADDRESS)?, field(memory, base + MAP_LENGTH)?, &mut info)?;
    if flags & HAS_MODULES != 0 {
        let first = u64::from(field(memory, base + MODULE_ADDRESS)?);
        for i in 0..u64::from(field(memory, base + MODULE_COUNT)?) {
            read_module(memory, first + i * MODULE_SIZE, &mut info, arena)?;
        }
    }
    Ok(info)
}

fn read_map<M: PhysicalMemory>(memory: &M, start: u32, length: u32, info: &mut BootInfo) -> Result<(), BootError> {
    const TAG: &str = "memory map";
    let (mut at, end) = (u64::from(start), u64::from(start) + u64::from(length));
    while at < end {
        let size = field(memory, at)?;
        if size < MAP_ENTRY_MIN || at + 4 + u64::from(size) > end {
            return Err(BootError::Malformed(TAG, "an entry is too short or runs past the end"));
        }
        let base = quad(memory, at + 4)?;
        let kind = if field(memory, at + 20)? == 1 { MemoryKind::Usable } else { MemoryKind::Reserved };
        info.add_region(base, quad(memory, at + 12)?, kind)?;
        at += 4 + u64::from(size);
    }
    if info.memory.is_empty() { Err(BootError::Malformed(TAG, "it is empty")) } else { Ok(()) }
}

fn read_module<M: PhysicalMemory>(
    memory: &M,
    entry: u64,
    info: &mut BootInfo,
    arena: &mut Arena,
) -> Result<(), BootError> {
    let (start, end) = (field(memory, entry)?, field(memory, entry + 4)?);
    let words = field(memory, entry + 8)?;
    let line = if words == 0 { &[][..] } else { c_string(memory, words, "module")? };
    info.add_module(start, end, line, arena)
}

/// A loader puts the image's path before the kernel's words (QEMU always, GRUB on request). Words are `key=value` or plain
/// words without a slash or dot, so a first word that looks like a path is one.
fn without_path(line: &'static str) -> &'static str {
    let first = line.split(' ').next().unwrap_or("");
    if first.contains('/') || (!first.contains('=') && first.contains(['.', '-'])) {
        line.get(first.len()..).unwrap_or("").trim_start()
    } else {
        line
    }
}

fn text<M: PhysicalMemory>(
    memory: &M,
    address: u32,
    tag: &'static str,
    arena: &mut Arena,
) -> Result<&'static str, BootError> {
    arena.copy(c_string(memory, address, tag)?)
}

fn c_string<'m, M: PhysicalMemory>(memory: &'m M, address: u32, tag: &'static str) -> Result<&'m [u8], BootError> {
    let mut len = 0;
    while len <= MAX_TEXT {
        match memory.bytes(u64::from(address), len + 1).and_then(<[u8]>::last) {
            Some(0) => return memory.bytes(address.into(), len).ok_or(OUTSIDE),
            Some(_) => len += 1,
            None => return Err(BootError::Malformed(tag, "its text lies outside memory")),
        }
    }
    Err(BootError::Malformed(tag, "its text has no end within 1024 bytes"))
}

const OUTSIDE: BootError = BootError::Information("a field of the multiboot1 structure lies outside memory");

fn field<M: PhysicalMemory>(memory: &M, address: u64) -> Result<u32, BootError> {
    memory.bytes(address, 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).ok_or(OUTSIDE)
}

fn quad<M: PhysicalMemory>(memory: &M, address: u64) -> Result<u64, BootError> {
    memory.bytes(address, 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes).ok_or(OUTSIDE)
}

#[cfg(test)]
mod tests;
