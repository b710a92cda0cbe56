//! 2-level paging with 4-byte entries, 4 MiB pages (PSE) and their 40-bit addresses (PSE-36). SDM 3A 4.3.
//!
//! ```text
//!                 31                 22 21 20          13 12 11  9  8   7   6   5   4    3    2   1   0
//! PDE, table      [ frame of the page table 31:12           ][ign][ign][PS][ign][A][PCD][PWT][U/S][R/W][P]
//! PDE, 4 MiB page [ address 31:22      ][0][address 39:32][PAT][ign][ G][PS][ D ][A][PCD][PWT][U/S][R/W][P]
//! PTE             [ frame of the page 31:12                 ][ign][ G][PAT][ D ][A][PCD][PWT][U/S][R/W][P]
//! ```
//! PS is ignored while CR4.PSE = 0. Of bits 20:13 of a 4 MiB page only those below MAXPHYADDR are address bits; the rest, and
//! bit 21, are reserved. Nothing is execute-disabled in this format.

use super::{GuestFormat, GuestPte};
use crate::access::Perms;
use crate::addr::{Gfn, Gpa, Level};
use crate::controls::PagingCtx;
use crate::mem::{CmpxchgError, GuestMem};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const FRAME: u64 = 0xffff_f000;
const LARGE_LOW: u64 = 0xffc0_0000;
/// Bits 20:13 hold address bits 39:32.
const LARGE_HIGH_FIRST: u32 = 13;
/// All bits between PAT and the address of a 4 MiB page.
const LARGE_MIDDLE: u64 = 0x003f_e000;

/// 2-level paging.
#[derive(Clone, Copy, Debug)]
pub struct Legacy32;

impl Legacy32 {
    /// The address bits among bits 21:13 of a 4 MiB page, for a CPU with `maxphyaddr` address bits.
    #[inline]
    const fn large_high(maxphyaddr: u8) -> u64 {
        let wide = if maxphyaddr > 40 {
            8
        } else if maxphyaddr < 32 {
            0
        } else {
            (maxphyaddr as u32).wrapping_sub(32)
        };
        (1u64 << wide).wrapping_sub(1) << LARGE_HIGH_FIRST
    }

    #[inline]
    fn decode_large(raw: u64, perms: Perms, ctx: &PagingCtx) -> GuestPte {
        let high = Self::large_high(ctx.maxphyaddr);
        if raw & LARGE_MIDDLE & !high != 0 {
            return GuestPte::Reserved;
        }
        let address = (raw & LARGE_LOW) | (raw & high) >> LARGE_HIGH_FIRST << 32;
        let (accessed, dirty, global) = (raw & ACCESSED != 0, raw & DIRTY != 0, raw & GLOBAL != 0);
        GuestPte::Leaf { gfn: Gpa::new(address).gfn(), perms, accessed, dirty, global }
    }
}

impl GuestFormat for Legacy32 {
    const LEVELS: u8 = 2;
    const ENTRY_SHIFT: u32 = 2;
    const INDEX_BITS: u32 = 10;
    const ADDRESS_BITS: u32 = 32;
    const ACCESSED: u64 = ACCESSED;
    const DIRTY: u64 = DIRTY;

    #[inline]
    fn decode(raw: u64, level: Level, ctx: &PagingCtx) -> GuestPte {
        if raw & PRESENT == 0 {
            return GuestPte::Absent;
        }
        let perms = Perms::new(raw & USER != 0, raw & WRITABLE != 0, true);
        let gfn: Gfn = Gpa::new(raw & FRAME).gfn();
        let accessed = raw & ACCESSED != 0;
        match level {
            Level::L1 => GuestPte::Leaf { gfn, perms, accessed, dirty: raw & DIRTY != 0, global: raw & GLOBAL != 0 },
            _ if raw & PAGE_SIZE != 0 && ctx.pse => Self::decode_large(raw, perms, ctx),
            _ => GuestPte::Table { gfn, perms, accessed },
        }
    }

    #[inline]
    fn read<G: GuestMem>(mem: &G, gpa: Gpa) -> Option<u64> {
        mem.read_u32(gpa).map(u64::from)
    }

    #[inline]
    fn cmpxchg<G: GuestMem>(mem: &G, gpa: Gpa, old: u64, new: u64) -> Result<(), CmpxchgError> {
        mem.cmpxchg_u32(gpa, old as u32, new as u32)
    }
}

const _: () = assert!(Legacy32::large_high(36) == 0x1_e000, "bits 16:13 are address bits 35:32");
const _: () = assert!(Legacy32::large_high(40) == 0x1f_e000, "bits 20:13 are address bits 39:32");
const _: () = assert!(Legacy32::large_high(32) == 0, "no PSE-36 bits on a 32-bit CPU");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controls::PagingMode;

    fn ctx(pse: bool, maxphyaddr: u8) -> PagingCtx {
        PagingCtx { mode: PagingMode::Legacy32, pse, ..PagingCtx::off(maxphyaddr) }
    }

    #[test]
    fn pse36_address_bits_end_at_maxphyaddr() {
        let raw = 0x0040_00e7 | 1 << 13;
        let GuestPte::Leaf { gfn, .. } = Legacy32::decode(raw, Level::L2, &ctx(true, 36)) else {
            panic!("a leaf");
        };
        assert_eq!(gfn, Gpa::new(0x1_0040_0000).gfn());
        assert_eq!(Legacy32::decode(raw, Level::L2, &ctx(true, 32)), GuestPte::Reserved);
        for bit in 13..=21 {
            let reserved = Legacy32::decode(0xe7 | 1 << bit, Level::L2, &ctx(true, 36)) == GuestPte::Reserved;
            assert_eq!(reserved, bit >= 17, "bit {bit}");
        }
    }

    #[test]
    fn page_size_is_ignored_without_pse_and_in_ptes() {
        let raw = 0x0012_3087;
        assert!(
            matches!(Legacy32::decode(raw, Level::L2, &ctx(false, 36)), GuestPte::Table { gfn, .. } if gfn.raw() == 0x123)
        );
        assert!(
            matches!(Legacy32::decode(raw, Level::L1, &ctx(true, 36)), GuestPte::Leaf { gfn, .. } if gfn.raw() == 0x123)
        );
    }
}
