//! What the formats with entries of 8 bytes have in common. SDM 3A 4.4 and 4.5.
//!
//! ```text
//!        63  62  59 58  52 51  M M-1          13  12   11 9  8   7   6   5   4    3    2    1   0
//! table [NX][ high ][high][ rsv ][ frame of the table    ][ign][ign][ 0][ign][A][PCD][PWT][U/S][R/W][P]
//! page  [NX][ high ][high][ rsv ][ address ...     ][PAT ][ign][ G][ 1][ D ][A][PCD][PWT][U/S][R/W][P]
//! ```
//! M is MAXPHYADDR. Bit 7 of a 4 KiB page is PAT, and bit 12 an address bit. In a large page the bits between bit 12 and the
//! address are reserved. What the high bits are, the formats say themselves.

use super::{GuestFormat, GuestPte};
use crate::access::Perms;
use crate::addr::{Gfn, Gpa, Level};
use crate::controls::PagingCtx;

pub(super) const PRESENT: u64 = 1 << 0;
pub(super) const WRITABLE: u64 = 1 << 1;
pub(super) const USER: u64 = 1 << 2;
pub(super) const ACCESSED: u64 = 1 << 5;
pub(super) const DIRTY: u64 = 1 << 6;
pub(super) const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
pub(super) const NO_EXECUTE: u64 = 1 << 63;
/// PAT of a large page, where others have an address bit.
const LARGE_PAT: u64 = 1 << 12;
/// First bit of the protection key in a page's entry.
const KEY_SHIFT: u32 = 59;

/// Address bits of an entry of a CPU with `maxphyaddr` of them.
#[inline]
pub(super) const fn frame_bits(maxphyaddr: u8) -> u64 {
    (1u64 << (maxphyaddr as u32 & 63)).wrapping_sub(1) & !0xfff
}

/// Says what `raw` means in a table of `level`; bits of `reserved` must be zero in every present entry.
///
/// PS is reserved above L3, and in L3 on a CPU without 1 GiB pages.
#[inline]
pub(super) fn decode<F: GuestFormat>(raw: u64, level: Level, reserved: u64, ctx: &PagingCtx) -> GuestPte {
    if raw & PRESENT == 0 {
        return GuestPte::Absent;
    }
    if raw & reserved != 0 {
        return GuestPte::Reserved;
    }
    let perms = Perms::new(raw & USER != 0, raw & WRITABLE != 0, raw & NO_EXECUTE == 0);
    let accessed = raw & ACCESSED != 0;
    let frame = raw & frame_bits(ctx.maxphyaddr);
    let large = raw & PAGE_SIZE != 0;
    let leaf = |address: u64| GuestPte::Leaf {
        gfn: gfn(address),
        perms: if F::SPLIT { perms.with_key((raw >> KEY_SHIFT) as u8) } else { perms },
        accessed,
        dirty: raw & DIRTY != 0,
        global: raw & GLOBAL != 0,
    };
    match level {
        Level::L1 => leaf(frame),
        _ if !large => GuestPte::Table { gfn: gfn(frame), perms, accessed },
        Level::L2 => decode_large(frame, 21).map_or(GuestPte::Reserved, leaf),
        Level::L3 if F::SPLIT && ctx.gib_pages => decode_large(frame, 30).map_or(GuestPte::Reserved, leaf),
        _ => GuestPte::Reserved,
    }
}

/// The address of a page of `1 << shift` bytes; `None` if a bit below it is set that is not PAT.
#[inline]
const fn decode_large(frame: u64, shift: u32) -> Option<u64> {
    let low = (1u64 << (shift & 63)).wrapping_sub(1);
    if frame & low & !LARGE_PAT != 0 { None } else { Some(frame & !low) }
}

#[inline]
const fn gfn(address: u64) -> Gfn {
    Gpa::new(address).gfn()
}

const _: () = assert!(frame_bits(36) == 0xf_ffff_f000, "bits 35:12");
const _: () = assert!(frame_bits(52) == 0xf_ffff_ffff_f000, "bits 51:12");
