//! The multiboot2 information (Multiboot2 Specification 2.0, section 3.6): a size, then tags, each at a multiple of 8.

use alloc::vec::Vec;

use crate::loader::elf::PlacedSections;
use crate::loader::layout::{MapEntry, Range};

// Tag types.
const END: u32 = 0;
const COMMAND_LINE: u32 = 1;
const LOADER: u32 = 2;
const MODULE: u32 = 3;
const MEMORY: u32 = 4;
const MEMORY_MAP: u32 = 6;
const FRAMEBUFFER: u32 = 8;
const ELF_SECTIONS: u32 = 9;
const LOAD_BASE: u32 = 21;

const ALIGN: usize = 8;
const TAG_BYTES: usize = 8;
const LOADER_NAME: &str = "Gnomon";
const MAP_ENTRY_BYTES: u32 = 24;
const MAP_VERSION: u32 = 0;

/// Everything the information tells. It holds no address of its own, so it fits anywhere.
pub(super) struct Info<'a> {
    /// RAM below the hole and above.
    pub(super) ram: [Range; 2],
    pub(super) map: &'a [MapEntry],
    pub(super) command_line: &'a str,
    /// Each module's place and command line.
    pub(super) modules: &'a [(Range, &'a str)],
    /// The lowest address of the image.
    pub(super) load_base: u64,
    /// The image's own section headers.
    pub(super) sections: Option<&'a PlacedSections>,
}

impl Info<'_> {
    /// The information.
    pub(super) fn build(&self) -> Vec<u8> {
        let mut block = alloc::vec![0; 8];
        tag(&mut block, COMMAND_LINE, |tag| string(tag, self.command_line));
        tag(&mut block, LOADER, |tag| string(tag, LOADER_NAME));
        for (range, text) in self.modules {
            tag(&mut block, MODULE, |tag| {
                words(tag, [range.start as u32, range.end as u32]);
                string(tag, text);
            });
        }
        let [low, high] = self.ram;
        tag(&mut block, MEMORY, |tag| words(tag, [(low.bytes() >> 10) as u32, (high.bytes() >> 10) as u32]));
        tag(&mut block, MEMORY_MAP, |tag| self.memory_map(tag));
        tag(&mut block, FRAMEBUFFER, text_screen);
        if let Some(sections) = self.sections {
            tag(&mut block, ELF_SECTIONS, |tag| {
                words(tag, [sections.count, sections.entry_bytes, sections.names]);
                tag.extend_from_slice(&sections.table);
            });
        }
        tag(&mut block, LOAD_BASE, |tag| words(tag, [self.load_base as u32]));
        tag(&mut block, END, |_| {});
        let total = (block.len() as u32).to_le_bytes();
        if let Some(place) = block.first_chunk_mut() {
            *place = total;
        }
        block
    }

    fn memory_map(&self, tag: &mut Vec<u8>) {
        words(tag, [MAP_ENTRY_BYTES, MAP_VERSION]);
        for entry in self.map {
            tag.extend_from_slice(&entry.range.start.to_le_bytes());
            tag.extend_from_slice(&entry.range.bytes().to_le_bytes());
            words(tag, [entry.kind as u32, 0]);
        }
    }
}

/// The text screen: address (64 bits), pitch, width, height; bits per character 16, type 2 (EGA text).
fn text_screen(tag: &mut Vec<u8>) {
    words(tag, [0xB_8000, 0, 160, 80, 25]);
    tag.extend_from_slice(&[16, 2, 0, 0]);
}

/// Appends a tag: type, size without the padding behind it, `content`, and the padding.
fn tag(block: &mut Vec<u8>, kind: u32, content: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    content(&mut body);
    words(block, [kind, body.len().saturating_add(TAG_BYTES) as u32]);
    block.append(&mut body);
    block.resize(block.len().next_multiple_of(ALIGN), 0);
}

fn string(tag: &mut Vec<u8>, text: &str) {
    tag.extend_from_slice(text.as_bytes());
    tag.push(0);
}

fn words<const N: usize>(block: &mut Vec<u8>, words: [u32; N]) {
    block.extend(words.into_iter().flat_map(u32::to_le_bytes));
}
