//! Loading a guest's image into its memory: multiboot1 (ELF32, or load addresses in the header) and flat images.
//!
//! All that an image says is checked before the first byte is written. The image, its modules and the multiboot
//! information never overlap and lie in RAM: modules page-aligned behind the image (its bss included), the information in
//! low memory.

mod elf;
mod error;
mod header;
mod info;
mod layout;

use alloc::vec::Vec;

use shadow_mmu::Gpa;

use crate::config::{GuestConfig, ImageFormat};

pub use error::LoadError;
use header::Header;
use info::Info;
use layout::{Layout, Range};

/// What a multiboot1 loader leaves in EAX.
pub const MULTIBOOT_MAGIC: u32 = 0x2BAD_B002;

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

/// The registers a guest starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Guest-physical address of the first instruction.
    pub eip: u32,
    /// EAX: [`MULTIBOOT_MAGIC`], or 0 for a flat image.
    pub eax: u32,
    /// EBX: guest-physical address of the multiboot information, or 0 for a flat image.
    pub ebx: u32,
}

/// A part of an image: `bytes` at the start of `range`, zeroes behind them.
#[derive(Clone, Copy, Debug)]
struct Segment<'a> {
    range: Range,
    bytes: &'a [u8],
}

/// An image as its format describes it.
#[derive(Clone, Debug)]
struct Image<'a> {
    segments: Vec<Segment<'a>>,
    entry: u32,
}

impl Image<'_> {
    /// The image, if its entry point is inside it.
    fn checked(self) -> Result<Self, LoadError> {
        let inside = self.segments.iter().any(|segment| segment.range.contains(u64::from(self.entry)));
        if inside { Ok(self) } else { Err(LoadError::Entry { address: self.entry }) }
    }
}

/// Loads `image` and `modules` (bytes and command line each) into the guest's memory.
///
/// # Errors
/// A [`LoadError`] that says in one line why the image cannot be loaded. Nothing was written then, unless the guest's
/// memory itself refused bytes ([`LoadError::Refused`]).
pub fn load(
    image: &[u8],
    modules: &[(&[u8], &str)],
    guest: &GuestConfig,
    mem: &mut impl GuestWriter,
) -> Result<Entry, LoadError> {
    if image.is_empty() {
        return Err(LoadError::Empty);
    }
    match guest.format {
        ImageFormat::Flat { address } if modules.is_empty() => load_flat(image, address, guest, mem),
        ImageFormat::Flat { .. } => Err(LoadError::FlatModules),
        ImageFormat::Multiboot => load_multiboot(image, modules, guest, mem),
    }
}

fn load_flat(image: &[u8], address: u32, guest: &GuestConfig, mem: &mut impl GuestWriter) -> Result<Entry, LoadError> {
    let range = Range::sized(address.into(), image.len() as u64);
    Layout::new(guest.memory).take(range)?;
    store(mem, range.start, image)?;
    Ok(Entry { eip: address, eax: 0, ebx: 0 })
}

fn load_multiboot(
    image: &[u8],
    modules: &[(&[u8], &str)],
    guest: &GuestConfig,
    mem: &mut impl GuestWriter,
) -> Result<Entry, LoadError> {
    let header = Header::find(image)?;
    let parsed = header.by_addresses().unwrap_or_else(|| elf::parse(image))?;
    let (mut layout, placed) = place_all(&parsed, modules, guest.memory)?;
    let info = Info {
        ram: layout.ram(),
        command_line: &guest.arguments,
        modules: &placed,
        text_mode: header.wants_text_mode(),
    };
    let Some(base) = layout.place_info(info.bytes()) else {
        let needed = layout.high_end().saturating_add(info.bytes());
        return Err(LoadError::TooLittleMemory { needed, memory: guest.memory });
    };
    for segment in &parsed.segments {
        store(mem, segment.range.start, segment.bytes)?;
    }
    for ((bytes, _), (range, _)) in modules.iter().zip(&placed) {
        store(mem, range.start, bytes)?;
    }
    store(mem, base, &info.build(base as u32))?;
    Ok(Entry { eip: parsed.entry, eax: MULTIBOOT_MAGIC, ebx: base as u32 })
}

/// Modules with the places they got.
type Placed<'a> = Vec<(Range, &'a str)>;

/// Gives the image and the modules their places. If memory is too small, the error counts all of them.
fn place_all<'a>(
    image: &Image<'_>,
    modules: &[(&[u8], &'a str)],
    memory: u64,
) -> Result<(Layout, Placed<'a>), LoadError> {
    let pages = |bytes: u64| bytes.max(1).next_multiple_of(4096);
    let for_modules: u64 = modules.iter().map(|(bytes, _)| pages(bytes.len() as u64)).sum();
    let image_end = image.segments.iter().map(|segment| segment.range.end).fold(layout::HIGH_START, u64::max);
    let too_little = LoadError::TooLittleMemory { needed: pages(image_end).saturating_add(for_modules), memory };

    let mut layout = Layout::new(memory);
    for segment in &image.segments {
        layout.take(segment.range).map_err(|error| match error {
            LoadError::TooLittleMemory { .. } => too_little,
            other => other,
        })?;
    }
    let mut placed = Placed::new();
    for (bytes, text) in modules {
        let start = layout.place_module(bytes.len() as u64);
        placed.push((Range::sized(start.ok_or(too_little)?, bytes.len() as u64), *text));
    }
    Ok((layout, placed))
}

fn store(mem: &mut impl GuestWriter, start: u64, bytes: &[u8]) -> Result<(), LoadError> {
    let refused = LoadError::Refused { start, bytes: bytes.len() as u64 };
    mem.write(Gpa::new(start), bytes).map_err(|OutsideMemory| refused)
}

#[cfg(test)]
mod tests;
