//! The multiboot1 header in an image (Multiboot Specification 0.6.96, section 3.1).

use crate::loader::addresses::Addresses;
use crate::loader::error::LoadError;
use crate::loader::image::Image;
use crate::loader::word;

const MAGIC: u32 = 0x1BAD_B002;
/// The header lies in this many first bytes of the image.
const SEARCH: usize = 8192;

/// Bits 0..=15 are requirements: one that is not understood means that the image must not be loaded.
const REQUIREMENTS: u32 = 0xFFFF;
const KNOWN: u32 = PAGE_ALIGN | MEMORY_INFO | VIDEO_MODE;
const PAGE_ALIGN: u32 = 1 << 0;
const MEMORY_INFO: u32 = 1 << 1;
const VIDEO_MODE: u32 = 1 << 2;
const ADDRESSES: u32 = 1 << 16;
/// The `mode_type` of text mode.
const TEXT: u32 = 1;

/// A multiboot1 header that can be served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    image: &'a [u8],
    offset: usize,
    flags: u32,
}

impl<'a> Header<'a> {
    /// Finds the header in `image` and checks what it requires.
    pub(super) fn find(image: &'a [u8]) -> Result<Self, LoadError> {
        let head = image.get(..SEARCH).unwrap_or(image);
        let mut reason = LoadError::NotMultiboot;
        for offset in (0..head.len()).step_by(4) {
            if word(head, offset) == Some(MAGIC) {
                let Some((flags, checksum)) = word(head, offset + 4).zip(word(head, offset + 8)) else { break };
                if MAGIC.wrapping_add(flags).wrapping_add(checksum) == 0 {
                    return Self { image, offset, flags }.checked();
                }
                reason = LoadError::Checksum { offset: offset as u32 };
            }
        }
        Err(reason)
    }

    fn checked(self) -> Result<Self, LoadError> {
        let unknown = self.flags & REQUIREMENTS & !KNOWN;
        if unknown != 0 {
            return Err(LoadError::RequiredFlags { flags: unknown });
        }
        Ok(self)
    }

    /// Whether the image asked for text mode, so that it may want to know about the text screen. One that asked for graphics gets no
    /// screen described, as from QEMU, and has to do without.
    pub(super) fn wants_text_mode(&self) -> bool {
        self.flags & VIDEO_MODE != 0 && self.field(32) == Some(TEXT)
    }

    /// The image by the header's own load addresses (the "a.out kludge"), or `None` if it has none.
    pub(super) fn by_addresses(&self) -> Option<Result<Image<'a>, LoadError>> {
        (self.flags & ADDRESSES != 0).then(|| self.read_addresses())
    }

    fn read_addresses(&self) -> Result<Image<'a>, LoadError> {
        let cut = LoadError::MalformedAddresses { problem: "the file ends within the header" };
        let field = |offset| self.field(offset).ok_or(cut);
        let (header_addr, load_addr) = (field(12)?, field(16)?);
        let addresses =
            Addresses { header_addr, load_addr, load_end: field(20)?, bss_end: field(24)?, entry: field(28)? };
        addresses.read(self.image, self.offset)
    }

    /// The header's 32-bit field at `offset`.
    fn field(&self, offset: usize) -> Option<u32> {
        word(self.image, self.offset.checked_add(offset)?)
    }
}
