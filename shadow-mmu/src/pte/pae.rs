//! PAE paging: 8-byte entries, 4 KiB and 2 MiB pages, NX. SDM 3A 4.4.
//!
//! ```text
//!                 63  62      M M-1            21 20      13 12  11   9  8   7   6   5   4    3    2    1   0
//! PDPTE           [ reserved   ][ frame of the page directory 12 ][ign][ reserved  8:5 ][PCD][PWT][reserved][P]
//! PDE, table      [NX][reserved][ frame of the page table     12 ][ign][ign][ 0][ign][A][PCD][PWT][U/S][R/W][P]
//! PDE, 2 MiB page [NX][reserved][ address     ][ reserved ][PAT][ign][ G][ 1][ D ][A][PCD][PWT][U/S][R/W][P]
//! PTE             [NX][reserved][ frame of the page           12 ][ign][ G][PAT][ D ][A][PCD][PWT][U/S][R/W][P]
//! ```
//! M is MAXPHYADDR. NX is reserved while EFER.NXE = 0. CR4.PSE means nothing here.
//!
//! The four PDPTEs are not a level of the walk: the CPU latches them when CR3 is loaded, and a walk begins in the directory that
//! the latched entry names. They carry no rights and no marks. So this format has two levels, and four tops.

use super::wide::{self, ACCESSED, DIRTY, PRESENT, frame_bits};
use super::{GuestFormat, GuestPte};
use crate::addr::{Gfn, Gpa, Gva, Level};
use crate::controls::PagingCtx;

/// Bits 2:1 and 8:5 of a PDPTE.
const TOP_LOW: u64 = 0x1e6;

/// PAE paging.
#[derive(Clone, Copy, Debug)]
pub struct Pae;

impl Pae {
    /// Does the CPU take this as a PDPTE? It refuses present entries with reserved bits by #GP(0) (SDM 3A 4.4.1).
    #[inline]
    pub(crate) const fn top_is_valid(raw: u64, maxphyaddr: u8) -> bool {
        raw & PRESENT == 0 || raw & (!(frame_bits(maxphyaddr) | 0xfff) | TOP_LOW) == 0
    }

    /// The directory that a latched PDPTE names.
    #[inline]
    pub(crate) const fn directory(raw: u64, maxphyaddr: u8) -> Option<Gfn> {
        if raw & PRESENT == 0 { None } else { Some(Gpa::new(raw & frame_bits(maxphyaddr)).gfn()) }
    }
}

impl GuestFormat for Pae {
    const LEVELS: u8 = 2;
    const ENTRY_SHIFT: u32 = 3;
    const INDEX_BITS: u32 = 9;
    const ADDRESS_BITS: u32 = 32;
    const ACCESSED: u64 = ACCESSED;
    const DIRTY: u64 = DIRTY;

    #[inline]
    fn top(ctx: &PagingCtx, gva: Gva) -> Option<Gfn> {
        Self::directory(ctx.pdpte(gva), ctx.maxphyaddr)
    }

    #[inline]
    fn decode(raw: u64, level: Level, ctx: &PagingCtx) -> GuestPte {
        let high = !(frame_bits(ctx.maxphyaddr) | 0xfff);
        wide::decode::<Self>(raw, level, if ctx.nxe { high & !wide::NO_EXECUTE } else { high }, ctx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controls::PagingMode;

    fn ctx(nxe: bool, maxphyaddr: u8) -> PagingCtx {
        PagingCtx { mode: PagingMode::Pae, nxe, ..PagingCtx::off(maxphyaddr) }
    }

    #[test]
    fn reserved_bits_begin_at_maxphyaddr() {
        for maxphyaddr in [32, 36, 40, 52] {
            for bit in 8..64 {
                for (nxe, level, large) in
                    [(false, 1, 0), (true, 1, 0), (false, 2, 0), (true, 2, 0), (false, 2, 0x80), (true, 2, 0x80)]
                {
                    let level = Level::from_number(level).unwrap();
                    let raw = 0x67 | large | 1 << bit;
                    let reserved = Pae::decode(raw, level, &ctx(nxe, maxphyaddr)) == GuestPte::Reserved;
                    let expected =
                        bit >= u32::from(maxphyaddr) && (bit != 63 || !nxe) || large != 0 && (13..=20).contains(&bit);
                    assert_eq!(reserved, expected, "{level} bit {bit} large {large:#x} nxe {nxe} of {maxphyaddr}");
                }
            }
        }
    }

    #[test]
    fn reserved_bits_of_the_top() {
        for bit in 1..64u32 {
            let reserved = matches!(bit, 1 | 2 | 5..=8 | 36..=63);
            assert_eq!(Pae::top_is_valid(1 | 1 << bit, 36), !reserved, "bit {bit}");
            assert!(Pae::top_is_valid(1 << bit, 36), "absent entries may hold anything");
        }
        assert_eq!(Pae::directory(0xf_1234_5019, 36), Some(Gfn::new(0xf1_2345)));
        assert_eq!(Pae::directory(0xf_1234_5018, 36), None);
    }

    #[test]
    fn nx_takes_the_right_to_fetch_and_pat_is_no_address() {
        let GuestPte::Leaf { gfn, perms, .. } = Pae::decode(1 << 63 | 0x60_10e7, Level::L2, &ctx(true, 36)) else {
            panic!("a leaf");
        };
        assert_eq!((gfn, perms), (Gfn::new(0x600), crate::access::Perms::new(true, true, false)));
    }
}
