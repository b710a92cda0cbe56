//! Loading a guest's image into its memory, by the protocol that the image asks for: Linux (bzImage, 32-bit entry),
//! multiboot1, multiboot2, PVH, or none (flat images).
//!
//! All that an image says is checked, and everything has its place, before the first byte is written. The image,
//! its modules and what the protocol tells the guest never overlap and lie in RAM.

mod addresses;
mod elf;
mod error;
mod image;
mod layout;
mod linux;
mod multiboot1;
mod multiboot2;
mod pvh;

use alloc::borrow::Cow;
use alloc::vec::Vec;

use shadow_mmu::Gpa;

use crate::config::{GuestConfig, ImageFormat};

pub use error::{LinuxError, LoadError};
use layout::{Layout, Range};
pub use multiboot1::MAGIC as MULTIBOOT_MAGIC;
pub use multiboot2::MAGIC as MULTIBOOT2_MAGIC;

/// An access outside the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideMemory;

/// The guest's memory, for the loader. Addresses are guest-physical; it starts out zeroed.
pub trait GuestWriter {
    /// Copies `bytes` to `gpa`.
    ///
    /// # Errors
    /// [`OutsideMemory`] if any byte would fall where the guest has no RAM.
    fn write(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), OutsideMemory>;
}

/// The registers a guest starts with, in protected mode without paging and with flat segments (code 0x08, data 0x10; with a table of its own
/// 0x10 and 0x18). All
/// others are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Guest-physical address of the first instruction.
    pub eip: u32,
    /// EAX: the magic number of a multiboot protocol, else 0.
    pub eax: u32,
    /// EBX: guest-physical address of the information of multiboot and PVH, else 0.
    pub ebx: u32,
    /// ESI: guest-physical address of Linux' boot parameters, else 0.
    pub esi: u32,
    /// A descriptor table with the entry's segments, if the protocol promises one.
    pub gdt: Option<TableAt>,
}

/// A descriptor table in the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableAt {
    /// Guest-physical address.
    pub base: u32,
    /// Last valid byte offset.
    pub limit: u16,
}

/// A boot module of the guest: its bytes and its command line.
pub type Module<'a> = (&'a [u8], &'a str);

/// What will be written where, and the registers after it.
#[derive(Debug)]
struct Plan<'a> {
    writes: Vec<(u64, Cow<'a, [u8]>)>,
    entry: Entry,
}

/// Loads `image` and `modules` into the guest's memory.
///
/// # Errors
/// A [`LoadError`] that says in one line why the image cannot be loaded. Nothing was written then, unless the guest's
/// memory itself refused bytes ([`LoadError::Refused`]).
pub fn load(
    image: &[u8],
    modules: &[Module<'_>],
    guest: &GuestConfig,
    mem: &mut impl GuestWriter,
) -> Result<Entry, LoadError> {
    if image.is_empty() {
        return Err(LoadError::Empty);
    }
    let plan = match guest.format {
        ImageFormat::Auto => detect(image)?(image, modules, guest),
        ImageFormat::Linux => linux::plan(image, modules, guest),
        ImageFormat::Multiboot => multiboot1::plan(image, modules, guest),
        ImageFormat::Multiboot2 => multiboot2::plan(image, modules, guest),
        ImageFormat::Pvh => pvh::plan(image, modules, guest),
        ImageFormat::Flat { address } if modules.is_empty() => plan_flat(image, address, guest),
        ImageFormat::Flat { .. } => Err(LoadError::FlatModules),
    }?;
    for (start, bytes) in &plan.writes {
        let refused = LoadError::Refused { start: *start, bytes: bytes.len() as u64 };
        mem.write(Gpa::new(*start), bytes).map_err(|OutsideMemory| refused)?;
    }
    Ok(plan.entry)
}

/// Where a boot sector ends, with 0x55 0xAA.
const BOOT_SECTOR_MARK: core::ops::Range<usize> = 510..512;

type Loader = for<'a> fn(&'a [u8], &[Module<'a>], &GuestConfig) -> Result<Plan<'a>, LoadError>;

/// The protocol an image asks for. Where it offers several: Linux, multiboot1, multiboot2, PVH, as QEMU has it. An image
/// that shows none of them goes to multiboot1, which says why not.
fn detect(image: &[u8]) -> Result<Loader, LoadError> {
    let is_elf = image.starts_with(b"\x7fELF");
    Ok(if linux::is_image(image) {
        linux::plan
    } else if multiboot1::is_image(image) {
        multiboot1::plan
    } else if multiboot2::is_image(image) {
        multiboot2::plan
    } else if pvh::is_image(image) {
        pvh::plan
    } else if image.get(BOOT_SECTOR_MARK) == Some(&[0x55, 0xAA]) && !is_elf {
        return Err(LoadError::BootSector);
    } else {
        multiboot1::plan
    })
}

fn plan_flat<'a>(image: &'a [u8], address: u32, guest: &GuestConfig) -> Result<Plan<'a>, LoadError> {
    let range = Range::sized(address.into(), image.len() as u64);
    Layout::new(guest.memory).take(range)?;
    let entry = Entry { eip: address, ..Entry::default() };
    Ok(Plan { writes: alloc::vec![(range.start, image.into())], entry })
}

/// The little-endian 32-bit word at `offset`.
fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests;
