//! Load addresses in a multiboot header (the "a.out kludge"), which both versions of the protocol have.

use super::error::LoadError;
use super::image::{Image, Segment};
use super::layout::Range;

/// The fields, by the specification's names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) header_addr: u32,
    pub(super) load_addr: u32,
    pub(super) load_end: u32,
    pub(super) bss_end: u32,
    pub(super) entry: u32,
}

impl Addresses {
    /// The image by these addresses; the header is at `offset` in the file.
    pub(super) fn read(self, image: &[u8], offset: usize) -> Result<Image<'_>, LoadError> {
        let malformed = |problem| LoadError::MalformedAddresses { problem };
        let Self { header_addr, load_addr, load_end, bss_end, entry } = self;
        let before = header_addr.checked_sub(load_addr).ok_or(malformed("header_addr lies below load_addr"))?;
        let start = offset.checked_sub(before as usize);
        let start = start.ok_or(malformed("load_addr lies before the start of the file"))?;
        let rest = image.get(start..).unwrap_or(&[]);
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
        let segments = alloc::vec![Segment { range, bytes, notes: false }];
        Image { segments, entry }.checked()
    }
}
