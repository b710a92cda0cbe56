//! An image as its format describes it, and the places of its parts and of its modules.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::Module;
use super::error::LoadError;
use super::layout::{HIGH_START, Layout, PAGE, Range};
use crate::memory_map::ROM;

/// A part of an image: `bytes` at the start of `range`, zeroes behind them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) range: Range,
    pub(super) bytes: &'a [u8],
    /// Notes about the image, which a kernel runs without: linkers put them far above a kernel for which they have no other place.
    pub(super) notes: bool,
}

impl Segment<'_> {
    /// The part of it that does not lie in the ROM, if any does: what is written there is lost. Linkers put the file's headers in front of
    /// a kernel at 1 MiB when nobody tells them not to.
    fn outside_rom(self) -> Option<Self> {
        let Range { start, end } = self.range;
        if !(ROM..HIGH_START).contains(&start) {
            return Some(self);
        }
        let bytes = self.bytes.get(HIGH_START.saturating_sub(start) as usize..).unwrap_or(&[]);
        (end > HIGH_START).then_some(Self { range: Range { start: HIGH_START, end }, bytes, ..self })
    }
}

/// The parts that are loaded and the physical entry point.
#[derive(Clone, Debug)]
pub(super) struct Image<'a> {
    pub(super) segments: Vec<Segment<'a>>,
    pub(super) entry: u32,
}

/// Modules with the places they got.
pub(super) type Placed<'a> = Vec<(Range, &'a str)>;

impl<'a> Image<'a> {
    /// The image, if its entry point is inside it.
    pub(super) fn checked(mut self) -> Result<Self, LoadError> {
        self.segments = self.segments.into_iter().filter_map(Segment::outside_rom).collect();
        let inside = self.segments.iter().any(|segment| segment.range.contains(u64::from(self.entry)));
        if inside { Ok(self) } else { Err(LoadError::Entry { address: self.entry }) }
    }

    /// Gives the image and the modules their places, and leaves out notes for which there is no memory. If memory is too small, the error
    /// counts all of them.
    pub(super) fn place<'m>(&mut self, modules: &[Module<'m>], memory: u64) -> Result<(Layout, Placed<'m>), LoadError> {
        self.segments.retain(|segment| !segment.notes || segment.range.end <= memory);
        let pages = |bytes: u64| bytes.max(1).next_multiple_of(PAGE);
        let for_modules: u64 = modules.iter().map(|(bytes, _)| pages(bytes.len() as u64)).sum();
        let image_end = self.segments.iter().map(|segment| segment.range.end).fold(HIGH_START, u64::max);
        let too_little = LoadError::TooLittleMemory { needed: pages(image_end).saturating_add(for_modules), memory };

        let mut layout = Layout::new(memory);
        for segment in &self.segments {
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

    /// The writes that put the parts and the modules where they belong.
    pub(super) fn writes(&self, modules: &[Module<'a>], placed: &[(Range, &str)]) -> Vec<(u64, Cow<'a, [u8]>)> {
        let parts = self.segments.iter().map(|segment| (segment.range.start, segment.bytes));
        let modules = modules.iter().zip(placed).map(|((bytes, _), (range, _))| (range.start, *bytes));
        parts.chain(modules).map(|(start, bytes)| (start, bytes.into())).collect()
    }
}
