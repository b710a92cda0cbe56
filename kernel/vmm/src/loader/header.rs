//! The multiboot1 header in an image (Multiboot Specification 0.6.96, section 3.1).

use super::error::LoadError;
use super::layout::Range;
use super::{Image, Segment};

const MAGIC: u32 = 0x1BAD_B002;
const MAGIC_2: u32 = 0xE852_50D6;
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
            match word(head, offset) {
                Some(MAGIC) => {
                    let Some((flags, checksum)) = word(head, offset + 4).zip(word(head, offset + 8)) else { break };
                    if MAGIC.wrapping_add(flags).wrapping_add(checksum) == 0 {
                        return Self { image, offset, flags }.checked();
                    }
                    reason = LoadError::Checksum { offset: offset as u32 };
                }
                Some(MAGIC_2) if reason == LoadError::NotMultiboot => reason = LoadError::Multiboot2,
                _ => {}
            }
        }
        Err(reason)
    }

    fn checked(self) -> Result<Self, LoadError> {
        let unknown = self.flags & REQUIREMENTS & !KNOWN;
        if unknown != 0 {
            return Err(LoadError::RequiredFlags { flags: unknown });
        }
        if self.flags & VIDEO_MODE != 0 && self.field(32) != Some(TEXT) {
            return Err(LoadError::GraphicsMode);
        }
        Ok(self)
    }

    /// Whether the image asked for text mode, so that it may want to know about the text screen.
    pub(super) fn wants_text_mode(&self) -> bool {
        self.flags & VIDEO_MODE != 0
    }

    /// The image by the header's own load addresses (the "a.out kludge"), or `None` if it has none.
    pub(super) fn by_addresses(&self) -> Option<Result<Image<'a>, LoadError>> {
        (self.flags & ADDRESSES != 0).then(|| self.read_addresses())
    }

    fn read_addresses(&self) -> Result<Image<'a>, LoadError> {
        let malformed = |problem| LoadError::MalformedAddresses { problem };
        let field = |offset| self.field(offset).ok_or(malformed("the file ends within the header"));
        let (header_addr, load_addr) = (field(12)?, field(16)?);
        let (load_end, bss_end, entry) = (field(20)?, field(24)?, field(28)?);

        let before = header_addr.checked_sub(load_addr).ok_or(malformed("header_addr lies below load_addr"))?;
        let start = self.offset.checked_sub(before as usize);
        let start = start.ok_or(malformed("load_addr lies before the start of the file"))?;
        let rest = self.image.get(start..).unwrap_or(&[]);
        let bytes = match load_end {
            0 => rest,
            _ => {
                let length = load_end.checked_sub(load_addr).ok_or(malformed("load_end_addr lies below load_addr"))?;
                rest.get(..length as usize).ok_or(malformed("load_end_addr lies beyond the end of the file"))?
            }
        };
        let mut range = Range::sized(u64::from(load_addr), bytes.len() as u64);
        if bss_end != 0 {
            if u64::from(bss_end) < range.end {
                return Err(malformed("bss_end_addr lies below the end of the data"));
            }
            range.end = u64::from(bss_end);
        }
        let segments = alloc::vec![Segment { range, bytes }];
        Image { segments, entry }.checked()
    }

    /// The header's 32-bit field at `offset`.
    fn field(&self, offset: usize) -> Option<u32> {
        word(self.image, self.offset.checked_add(offset)?)
    }
}

/// The little-endian word at `offset`.
fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}
