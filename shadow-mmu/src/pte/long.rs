//! 4-level and 5-level paging of long mode: 8-byte entries, pages of 4 KiB, 2 MiB and 1 GiB, NX, protection keys. SDM 3A 4.5.
//!
//! ```text
//!                      63  62  59 58  52 51      M M-1            30 29      21 20      13  12   11 9  8   7   6   5  4..0
//! PML5E, PML4E        [NX][ ignored    ][reserved][ frame of the table                      12 ][ign][ign][ 0][ign][A][..]
//! PDPTE, PDE, table   [NX][ ignored    ][reserved][ frame of the table                      12 ][ign][ign][ 0][ign][A][..]
//! PDPTE, 1 GiB page   [NX][ key ][ ign ][reserved][ address       ][ reserved           ][PAT ][ign][ G][ 1][ D ][A][..]
//! PDE, 2 MiB page     [NX][ key ][ ign ][reserved][ address                  ][reserved ][PAT ][ign][ G][ 1][ D ][A][..]
//! PTE                 [NX][ key ][ ign ][reserved][ frame of the page                        12 ][ign][ G][PAT][ D ][A][..]
//! ```
//! M is MAXPHYADDR. NX is reserved while EFER.NXE = 0. PS is reserved in PML5Es and PML4Es, and in PDPTEs of a CPU without 1 GiB
//! pages. Bit 8 of a PML4E is ignored, as Intel's CPUs do.

use super::wide::{self, ACCESSED, DIRTY, NO_EXECUTE, frame_bits};
use super::{GuestFormat, GuestPte};
use crate::addr::Level;
use crate::controls::PagingCtx;

/// Paging of long mode, with 4 or 5 levels.
#[derive(Clone, Copy, Debug)]
pub struct Long<const N: u8>;

/// 4-level paging.
pub type Long4 = Long<4>;
/// 5-level paging.
pub type Long5 = Long<5>;

/// Bits 58:52 of every entry, and the protection key or ignored bits above them.
const IGNORED: u64 = 0x7ff << 52;

impl<const N: u8> GuestFormat for Long<N>
where
    Self: super::sealed::Sealed,
{
    const LEVELS: u8 = N;
    const ENTRY_SHIFT: u32 = 3;
    const INDEX_BITS: u32 = 9;
    const ADDRESS_BITS: u32 = if N == 5 { 57 } else { 48 };
    const ACCESSED: u64 = ACCESSED;
    const DIRTY: u64 = DIRTY;

    #[inline]
    fn decode(raw: u64, level: Level, ctx: &PagingCtx) -> GuestPte {
        let nx = if ctx.nxe { NO_EXECUTE } else { 0 };
        wide::decode::<Self>(raw, level, !(frame_bits(ctx.maxphyaddr) | 0xfff | IGNORED | nx), ctx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Perms;
    use crate::addr::Gfn;
    use crate::controls::PagingMode;

    fn ctx(nxe: bool, maxphyaddr: u8, gib_pages: bool) -> PagingCtx {
        PagingCtx { mode: PagingMode::Long4, nxe, gib_pages, ..PagingCtx::off(maxphyaddr) }
    }

    /// Is `bit` reserved? Written from the figure above.
    fn expected(bit: u8, level: u8, large: bool, (nxe, maxphyaddr, gib): (bool, u8, bool)) -> bool {
        let high = bit >= maxphyaddr && bit <= 51 || bit == 63 && !nxe;
        let size = match (level, large || bit == 7) {
            (1, _) | (_, false) => false,
            (2, _) => (13..=20).contains(&bit),
            (3, _) if gib => (13..=29).contains(&bit),
            _ => true,
        };
        high || size
    }

    #[test]
    fn reserved_bits() {
        for (maxphyaddr, nxe, gib) in
            [(32, false, true), (36, true, true), (40, true, false), (46, false, false), (52, true, true)]
        {
            for (level, large, bit) in (1..=5)
                .flat_map(|level| [false, true].into_iter().flat_map(move |l| (3..64).map(move |b| (level, l, b))))
            {
                let raw = 7 | u64::from(large) << 7 | 1 << bit;
                let at = Level::from_number(level).unwrap();
                let reserved = Long5::decode(raw, at, &ctx(nxe, maxphyaddr, gib)) == GuestPte::Reserved;
                let wanted = expected(bit, level, large, (nxe, maxphyaddr, gib));
                assert_eq!(reserved, wanted, "{at} bit {bit} large {large} nxe {nxe} gib {gib} of {maxphyaddr}");
            }
        }
    }

    #[test]
    fn pages_of_each_size_have_their_address_and_key() {
        let ctx = ctx(true, 40, true);
        for (level, raw, gfn) in [
            (Level::L1, 0x12_3456_7000u64, 0x123_4567),
            (Level::L2, 0x12_3460_0000, 0x123_4600),
            (Level::L3, 0x12_4000_0000, 0x124_0000),
        ] {
            for large_pat in if level == Level::L1 { [0, 0] } else { [0, 1 << 12] } {
                let pte = Long4::decode(raw | large_pat | 0xe7 | 0xb << 59, level, &ctx);
                let GuestPte::Leaf { gfn: found, perms, accessed: true, dirty: true, .. } = pte else {
                    panic!("a leaf: {pte:?}")
                };
                assert_eq!((found, perms), (Gfn::new(gfn), Perms::new(true, true, true).with_key(11)), "{level}");
            }
        }
    }
}
