//! The multiboot information structure (Multiboot Specification 0.6.96, section 3.3) with everything it points to, as one
//! block of bytes.
//!
//! ```text
//!   +0    info      120 bytes, EBX points here
//!   +120  mmap      24 bytes for each range
//!   ...   modules   16 bytes each
//!   ...   sections  the image's section headers
//!   ...   strings   zero-terminated: command line, loader's name, modules' command lines
//! ```

use alloc::vec::Vec;

use crate::loader::elf::PlacedSections;
use crate::loader::layout::{MapEntry, Range};

const INFO_BYTES: u32 = 120;
const MAP_ENTRY_BYTES: u32 = 24;
const MODULE_BYTES: u32 = 16;
const LOADER_NAME: &str = "Gnomon";

const MEMORY: u32 = 1 << 0;
const BOOT_DEVICE: u32 = 1 << 1;
const COMMAND_LINE: u32 = 1 << 2;
const MODULES: u32 = 1 << 3;
const ELF_SECTIONS: u32 = 1 << 5;
const MEMORY_MAP: u32 = 1 << 6;
const LOADER: u32 = 1 << 9;
const FRAMEBUFFER: u32 = 1 << 12;

/// `boot_device`: the first hard disk, and no part of it.
const FIRST_DISK: u32 = 0x8000_FFFF;

/// Everything the information tells.
pub(super) struct Info<'a> {
    /// RAM below the hole and above.
    pub(super) ram: [Range; 2],
    pub(super) map: &'a [MapEntry],
    pub(super) command_line: &'a str,
    /// Each module's place and command line.
    pub(super) modules: &'a [(Range, &'a str)],
    /// The image asked for the text screen.
    pub(super) text_mode: bool,
    /// The image's own section headers.
    pub(super) sections: Option<&'a PlacedSections>,
}

impl Info<'_> {
    /// How many bytes [`Self::build`] will give.
    pub(super) fn bytes(&self) -> u64 {
        self.build(0).len() as u64
    }

    /// The information for guest-physical address `base`.
    pub(super) fn build(&self, base: u32) -> Vec<u8> {
        let map = base.wrapping_add(INFO_BYTES);
        let map_bytes = MAP_ENTRY_BYTES.wrapping_mul(self.map.len() as u32);
        let modules = map.wrapping_add(map_bytes);
        let count = self.modules.len() as u32;
        let sections_at = modules.wrapping_add(MODULE_BYTES.wrapping_mul(count));
        let table = self.sections.map_or(&[][..], |sections| &sections.table);
        let mut strings = Strings { base: sections_at.wrapping_add(table.len() as u32), bytes: Vec::new() };
        let command_line = strings.add(self.command_line);
        let loader = strings.add(LOADER_NAME);

        let mut block = Vec::new();
        let [low, high] = self.ram;
        let mut flags = MEMORY | BOOT_DEVICE | COMMAND_LINE | MODULES | MEMORY_MAP | LOADER;
        if self.text_mode {
            flags |= FRAMEBUFFER;
        }
        let symbols = match self.sections {
            Some(sections) => {
                flags |= ELF_SECTIONS;
                [sections.count, sections.entry_bytes, sections_at, sections.names]
            }
            None => [0; 4],
        };
        words(&mut block, [flags, kib(low), kib(high), FIRST_DISK, command_line, count, modules]);
        words(&mut block, symbols);
        words(&mut block, [map_bytes, map]);
        words(&mut block, [0, 0, 0]); // no drives, no ROM configuration table
        words(&mut block, [loader, 0]); // no APM table
        words(&mut block, [0, 0, 0, 0]); // no VBE
        let screen = if self.text_mode { TEXT_SCREEN } else { [0; 8] };
        words(&mut block, screen);

        for entry in self.map {
            words(&mut block, [MAP_ENTRY_BYTES - 4]); // the size does not count itself
            block.extend_from_slice(&entry.range.start.to_le_bytes());
            block.extend_from_slice(&entry.range.bytes().to_le_bytes());
            words(&mut block, [entry.kind as u32]);
        }
        for (range, text) in self.modules {
            words(&mut block, [range.start as u32, range.end as u32, strings.add(text), 0]);
        }
        block.extend_from_slice(table);
        block.append(&mut strings.bytes);
        block
    }
}

/// framebuffer_addr (64 bits), pitch, width, height; bpp 16 and type 2 (EGA text); no colour information.
const TEXT_SCREEN: [u32; 8] = [0xB_8000, 0, 160, 80, 25, 0x0210, 0, 0];

/// The strings at the end of the block.
struct Strings {
    base: u32,
    bytes: Vec<u8>,
}

impl Strings {
    /// Appends `text` and a zero; the address it will have.
    fn add(&mut self, text: &str) -> u32 {
        let address = self.base.wrapping_add(self.bytes.len() as u32);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        address
    }
}

fn words<const N: usize>(block: &mut Vec<u8>, words: [u32; N]) {
    block.extend(words.into_iter().flat_map(u32::to_le_bytes));
}

fn kib(range: Range) -> u32 {
    (range.bytes() >> 10) as u32
}
