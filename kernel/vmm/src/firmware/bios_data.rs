//! The BIOS data area and the extended one (IBM PS/2 and PC BIOS technical reference, BIOS data area): only what kernels
//! look at.

use alloc::vec;
use alloc::vec::Vec;

use crate::memory_map::EBDA;

const AREA: u64 = 0x400;
const AREA_BYTES: usize = 0x100;
/// Serial ports' addresses; COM1 is the first.
const SERIAL: usize = 0x00;
const EBDA_SEGMENT: usize = 0x0E;
/// Equipment: FPU, 80x25 colour, one serial port.
const EQUIPMENT: usize = 0x10;
const EQUIPMENT_WORD: u16 = 0x0222;
/// KiB of low memory.
const BASE_MEMORY: usize = 0x13;
/// The keyboard buffer's head, tail, start and end, as offsets from segment 0x40: it is empty.
const KEYBOARD: [(usize, u16); 4] = [(0x1A, 0x1E), (0x1C, 0x1E), (0x80, 0x1E), (0x82, 0x3E)];
const VIDEO_MODE: usize = 0x49;
const VIDEO_COLUMNS: usize = 0x4A;
const VIDEO_PAGE_BYTES: usize = 0x4C;
const CURSOR_SHAPE: usize = 0x60;
const CRTC_PORT: usize = 0x63;
const LAST_ROW: usize = 0x84;
const CHARACTER_HEIGHT: usize = 0x85;

/// Both areas with their addresses.
pub(super) fn areas() -> Vec<(u64, Vec<u8>)> {
    let mut area = vec![0; AREA_BYTES];
    let words = [
        (SERIAL, 0x3F8),
        (EBDA_SEGMENT, (EBDA >> 4) as u16),
        (EQUIPMENT, EQUIPMENT_WORD),
        (BASE_MEMORY, (EBDA >> 10) as u16),
        (VIDEO_MODE, 3),
        (VIDEO_COLUMNS, 80),
        (VIDEO_PAGE_BYTES, 0x1000),
        (CURSOR_SHAPE, 0x0607),
        (CRTC_PORT, 0x3D4),
        (CHARACTER_HEIGHT, 16),
        (LAST_ROW, 24 | 16 << 8),
    ];
    for (place, word) in words.into_iter().chain(KEYBOARD) {
        if let Some(bytes) = area.get_mut(place..place + 2) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
    vec![(AREA, area), (EBDA, vec![1])] // the extended area begins with its size in KiB
}
