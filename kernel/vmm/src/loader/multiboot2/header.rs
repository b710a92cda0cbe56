//! The multiboot2 header in an image (Multiboot2 Specification 2.0, section 3.1).

use crate::loader::addresses::Addresses;
use crate::loader::error::LoadError;
use crate::loader::image::Image;
use crate::loader::word;

const MAGIC: u32 = 0xE852_50D6;
/// The header lies in this many first bytes of the image, at a multiple of 8.
const SEARCH: usize = 32768;
const ALIGN: usize = 8;
/// Protected mode of the i386.
const ARCHITECTURE: u32 = 0;
/// Magic, architecture, length, checksum.
const FIXED_BYTES: usize = 16;

// Tag types.
const END: u16 = 0;
const INFORMATION_REQUEST: u16 = 1;
const ADDRESS: u16 = 2;
const ENTRY: u16 = 3;
const CONSOLE_FLAGS: u16 = 4;
const FRAMEBUFFER: u16 = 5;
const MODULE_ALIGNMENT: u16 = 6;
const EFI_ENTRY_32: u16 = 8;
const EFI_ENTRY_64: u16 = 9;
const RELOCATABLE: u16 = 10;

/// Bit 0 of a tag's flags: the loader may ignore it.
const OPTIONAL: u16 = 1;
/// Console flags, bit 1: the image can do with EGA text.
/// `load_addr` of an image that is loaded from the file's beginning.
const FROM_THE_BEGINNING: u32 = u32::MAX;

/// Types of information that can be had: command line, loader, modules, memory, map, framebuffer, ELF sections, load base.
const SERVED: [u32; 8] = [1, 2, 3, 4, 6, 8, 9, 21];

/// A multiboot2 header that can be served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    image: &'a [u8],
    offset: usize,
    /// The content of the tags that decide how the image is loaded.
    address: Option<&'a [u8]>,
    entry: Option<u32>,
}

impl<'a> Header<'a> {
    /// Finds the header in `image` and checks what it requires.
    pub(super) fn find(image: &'a [u8]) -> Result<Self, LoadError> {
        let head = image.get(..SEARCH).unwrap_or(image);
        let mut reason = LoadError::NotMultiboot2;
        for offset in (0..head.len()).step_by(ALIGN) {
            if word(head, offset) != Some(MAGIC) {
                continue;
            }
            let field = |at| word(head, offset + at);
            let Some(((architecture, length), checksum)) = field(4).zip(field(8)).zip(field(12)) else { break };
            if MAGIC.wrapping_add(architecture).wrapping_add(length).wrapping_add(checksum) != 0 {
                reason = LoadError::Checksum { offset: offset as u32 };
                continue;
            }
            if architecture != ARCHITECTURE {
                return Err(LoadError::Architecture { number: architecture });
            }
            let tags = image.get(offset..).and_then(|rest| rest.get(FIXED_BYTES..length as usize));
            let tags = tags.ok_or(malformed("the header reaches beyond the file or is too short"))?;
            return Self { image, offset, address: None, entry: None }.with_tags(tags);
        }
        Err(reason)
    }

    fn with_tags(mut self, tags: &'a [u8]) -> Result<Self, LoadError> {
        let mut rest = tags;
        // Each turn takes at least the 8 bytes of a tag's own fields.
        while let Some((&[k0, k1, f0, f1], size)) = rest.first_chunk::<4>().zip(word(rest, 4)) {
            let (kind, flags) = (u16::from_le_bytes([k0, k1]), u16::from_le_bytes([f0, f1]));
            let content = rest.get(8..size as usize).ok_or(malformed("a tag reaches beyond the header"))?;
            match kind {
                END => break,
                ADDRESS if content.len() < 16 => return Err(malformed("the address tag is too short")),
                ADDRESS => self.address = Some(content),
                ENTRY => self.entry = Some(word(content, 0).ok_or(malformed("the entry tag is too short"))?),
                // There is a text screen, whatever the image would like: the information says so.
                CONSOLE_FLAGS | FRAMEBUFFER => {}
                // Modules are always page-aligned; an image that may be moved is not; nothing here is EFI.
                MODULE_ALIGNMENT | EFI_ENTRY_32 | EFI_ENTRY_64 | RELOCATABLE => {}
                _ if flags & OPTIONAL != 0 => {}
                INFORMATION_REQUEST => check_request(content)?,
                _ => return Err(LoadError::RequiredTag { kind }),
            }
            rest = rest.get((size as usize).next_multiple_of(ALIGN)..).unwrap_or(&[]);
        }
        Ok(self)
    }

    /// The entry point that the header gives.
    pub(super) fn entry(&self) -> Option<u32> {
        self.entry
    }

    /// The image by the header's own load addresses, or `None` if it has none.
    pub(super) fn by_addresses(&self) -> Option<Result<Image<'a>, LoadError>> {
        self.address.map(|content| self.read_addresses(content))
    }

    fn read_addresses(&self, content: &[u8]) -> Result<Image<'a>, LoadError> {
        let field = |offset| word(content, offset).ok_or(malformed("the address tag is too short"));
        let (header_addr, mut load_addr) = (field(0)?, field(4)?);
        if load_addr == FROM_THE_BEGINNING {
            let before = self.offset as u32; // at most 32 KiB
            load_addr = header_addr.checked_sub(before).ok_or(malformed("header_addr is too low for the file"))?;
        }
        let entry = self.entry.ok_or(malformed("load addresses need an entry tag"))?;
        let addresses = Addresses { header_addr, load_addr, load_end: field(8)?, bss_end: field(12)?, entry };
        addresses.read(self.image, self.offset)
    }
}

fn check_request(content: &[u8]) -> Result<(), LoadError> {
    let wanted = content.chunks_exact(4).filter_map(|chunk| word(chunk, 0));
    match wanted.into_iter().find(|kind| !SERVED.contains(kind)) {
        Some(kind) => Err(LoadError::RequiredInformation { kind }),
        None => Ok(()),
    }
}

fn malformed(problem: &'static str) -> LoadError {
    LoadError::MalformedAddresses { problem }
}
