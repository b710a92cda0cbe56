//! The words of IDENTIFY DEVICE (ATA/ATAPI-6, 8.15).

use super::{MOST_MULTIPLE, SECTOR};

const HEADS: u16 = 16;
const SECTORS_IN_TRACK: u16 = 63;
const MODEL: &[u8; 40] = b"GNOMON VIRTUAL DISK                     ";
const SERIAL: &[u8; 20] = b"GN00000000000000000 ";
const FIRMWARE: &[u8; 8] = b"1.0     ";
/// The most that 28 bits address.
const MOST_28: u64 = 0x0FFF_FFFF;

/// Cylinders, heads and sectors in a track that the disk pretends to have.
pub(super) fn geometry(sectors: u64) -> (u16, u16, u16) {
    let cylinders = sectors / u64::from(HEADS * SECTORS_IN_TRACK);
    (cylinders.clamp(1, 16383) as u16, HEADS, SECTORS_IN_TRACK)
}

/// The sector of identification for a disk of so many sectors.
pub(super) fn identify(sectors: u64, multiple: u8) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    let mut set = |word: usize, value: u16| {
        if let Some(place) = bytes.get_mut(word * 2..word * 2 + 2) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    };
    let (cylinders, heads, track) = geometry(sectors);
    let in_geometry = (u32::from(cylinders) * u32::from(heads) * u32::from(track)).min(sectors as u32);
    set(0, 0x0040); // a fixed disk
    set(1, cylinders);
    set(3, heads);
    set(6, track);
    text(&mut set, 10, SERIAL);
    text(&mut set, 23, FIRMWARE);
    text(&mut set, 27, MODEL);
    set(47, 0x8000 | u16::from(MOST_MULTIPLE));
    set(48, 1); // 32-bit accesses of the data register
    set(49, 1 << 8 | 1 << 9 | 1 << 11); // DMA, LBA, IORDY
    set(50, 0x4000);
    set(51, 0x0200);
    set(53, 0b111); // words 54..58, 64..70 and 88 count
    set(54, cylinders);
    set(55, heads);
    set(56, track);
    set(57, in_geometry as u16);
    set(58, (in_geometry >> 16) as u16);
    set(59, if multiple == 0 { 0 } else { 0x0100 | u16::from(multiple) });
    let short = sectors.min(MOST_28) as u32;
    set(60, short as u16);
    set(61, (short >> 16) as u16);
    set(63, 0b111); // multiword DMA 0 to 2
    set(64, 0b11); // PIO 3 and 4
    set(65, 120);
    set(66, 120);
    set(67, 120);
    set(68, 120);
    set(80, 0x007E); // ATA-1 to ATA-6
    set(82, 1 << 14); // NOP
    set(83, 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10); // FLUSH CACHE EXT, FLUSH CACHE, 48-bit addresses
    set(84, 1 << 14);
    set(85, 1 << 14);
    set(86, 1 << 13 | 1 << 12 | 1 << 10);
    set(87, 1 << 14);
    set(88, 0x203F); // Ultra DMA 0 to 5, and 5 is set
    set(93, 0x6001); // the master's hardware reset found nothing wrong
    for (word, shift) in (100..104).zip([0, 16, 32, 48]) {
        set(word, (sectors >> shift) as u16);
    }
    bytes
}

/// Text has its bytes swapped in each word.
fn text(set: &mut impl FnMut(usize, u16), first: usize, text: &[u8]) {
    for (word, pair) in (first..).zip(text.as_chunks::<2>().0) {
        set(word, u16::from_be_bytes(*pair));
    }
}
