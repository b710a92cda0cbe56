//! The boot parameters ("zero page"), with the GDT and the command line behind them.

use alloc::vec::Vec;

use super::header::{LIMIT, START, SetupHeader};
use crate::loader::layout::{MapEntry, PAGE, Range};

/// Place of the GDT in the block, and its size: entries 0 to 3.
pub(super) const GDT_OFFSET: u32 = PAGE as u32;
pub(super) const GDT_BYTES: u16 = 32;
const COMMAND_LINE_OFFSET: u32 = GDT_OFFSET + GDT_BYTES as u32;

// Fields of the boot parameters outside the setup header.
const SCREEN_INFO: usize = 0x000;
const ALT_MEM_K: usize = 0x1E0;
const E820_ENTRIES: usize = 0x1E8;
const E820_TABLE: usize = 0x2D0;
const E820_ENTRY_BYTES: usize = 20;
const E820_MOST: usize = 128;

// Fields of the setup header that a boot loader fills.
const VID_MODE: usize = 0x1FA;
const TYPE_OF_LOADER: usize = 0x210;
const CODE32_START: usize = 0x214;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21C;
const CMD_LINE_PTR: usize = 0x228;

/// A loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xFF;
/// `vid_mode` "normal": the mode that the screen is in.
const VIDEO_NORMAL: u16 = 0xFFFF;

/// `__BOOT_CS` (0x10) and `__BOOT_DS` (0x18): flat, 4 GiB, level 0.
const GDT: [u64; 4] = [0, 0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];

/// The text screen as `struct screen_info` has it: field offset and value.
const TEXT_SCREEN: [(usize, u8); 6] = [
    (0x06, 3),  // orig_video_mode: 80 by 25 text, colour
    (0x07, 80), // orig_video_cols
    (0x0E, 25), // orig_video_lines
    (0x0F, 1),  // orig_video_isVGA
    (0x10, 16), // orig_video_points: height of a character
    (0x01, 24), // orig_y: the cursor is in the last line
];

/// Everything the block tells but the initrd.
pub(super) struct Params<'a> {
    pub(super) header: &'a SetupHeader<'a>,
    /// Load address of the kernel.
    pub(super) load: u32,
    pub(super) command_line: &'a str,
    pub(super) map: Vec<MapEntry>,
}

impl Params<'_> {
    /// How many bytes [`Self::build`] will give.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(COMMAND_LINE_OFFSET).saturating_add(self.command_line.len() as u64).saturating_add(1)
    }

    /// The block for guest-physical address `base`.
    pub(super) fn build(&self, base: u32, initrd: Range) -> Vec<u8> {
        let mut block = alloc::vec![0; PAGE as usize];
        put(&mut block, START, self.header.bytes());
        for (offset, value) in TEXT_SCREEN {
            put(&mut block, SCREEN_INFO + offset, &[value]);
        }
        self.put_memory(&mut block);
        put(&mut block, VID_MODE, &VIDEO_NORMAL.to_le_bytes());
        put(&mut block, TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
        let command_line = base.wrapping_add(COMMAND_LINE_OFFSET);
        for (offset, value) in [
            (CODE32_START, self.load),
            (RAMDISK_IMAGE, initrd.start as u32),
            (RAMDISK_SIZE, initrd.bytes() as u32),
            (CMD_LINE_PTR, command_line),
        ] {
            put(&mut block, offset, &value.to_le_bytes());
        }
        block.extend(GDT.into_iter().flat_map(u64::to_le_bytes));
        block.extend_from_slice(self.command_line.as_bytes());
        block.push(0);
        block
    }

    fn put_memory(&self, block: &mut [u8]) {
        let entries = self.map.iter().take(E820_MOST);
        let mut count = 0_u8;
        for (entry, offset) in entries.zip((E820_TABLE..LIMIT_OF_TABLE).step_by(E820_ENTRY_BYTES)) {
            put(block, offset, &entry.range.start.to_le_bytes());
            put(block, offset + 8, &entry.range.bytes().to_le_bytes());
            put(block, offset + 16, &(entry.kind as u32).to_le_bytes());
            count = count.saturating_add(1);
        }
        put(block, E820_ENTRIES, &[count]);
        // For kernels that look no further: KiB above 1 MiB.
        let high = self.map.last().map_or(0, |entry| entry.range.bytes() >> 10);
        put(block, ALT_MEM_K, &(high as u32).to_le_bytes());
    }
}

const LIMIT_OF_TABLE: usize = E820_TABLE + E820_MOST * E820_ENTRY_BYTES;
const _: () = assert!(LIMIT_OF_TABLE <= PAGE as usize && LIMIT <= E820_TABLE);

/// Writes `bytes` at `offset`; what would lie outside is left out.
fn put(block: &mut [u8], offset: usize, bytes: &[u8]) {
    let place = block.get_mut(offset..).unwrap_or(&mut []);
    for (to, from) in place.iter_mut().zip(bytes) {
        *to = *from;
    }
}
