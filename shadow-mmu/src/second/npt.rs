//! Nested page tables of AMD-V: the long-mode format, walked with user rights (APM 2, 15.25).
//!
//! ```text
//!  63 62        52 51                    12 11   8  7   6   5   4   3   2   1   0
//! [NX][  zero    ][ frame                 ][zero ][PS][ D][ A][ 0][ 0][ U][ W][P]
//! ```
//! U is always set, because every nested access counts as the user's; NX never: what the guest may fetch is in its own tables. The
//! memory type is write-back (PAT entry 0).

use crate::addr::{Level, Pfn};
use crate::pte::Spte;
use crate::second::format::{SecondFormat, SecondLeaf, SecondPte};

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// AMD-V's format.
#[derive(Clone, Copy, Debug)]
pub struct Npt;

impl SecondFormat for Npt {
    #[inline]
    fn table(pfn: Pfn) -> Spte {
        Spte::from_raw(pfn.base().raw() & FRAME | PRESENT | WRITE | USER | ACCESSED)
    }

    #[inline]
    fn leaf(leaf: SecondLeaf, level: Level) -> Spte {
        let mut raw = leaf.pfn.base().raw() & FRAME | PRESENT | USER;
        raw |= if leaf.writable { WRITE } else { 0 };
        raw |= if leaf.accessed { ACCESSED } else { 0 };
        raw |= if leaf.dirty { DIRTY } else { 0 };
        raw |= if level == Level::L1 { 0 } else { LARGE };
        Spte::from_raw(raw)
    }

    fn decode(spte: Spte, level: Level) -> SecondPte {
        let raw = spte.raw();
        if raw & PRESENT == 0 {
            return if raw == 0 { SecondPte::Absent } else { SecondPte::Malformed };
        }
        let pfn = Pfn::new((raw & FRAME) >> 12);
        if level != Level::L1 && raw & LARGE == 0 {
            let plain = raw & !FRAME == PRESENT | WRITE | USER | ACCESSED;
            return if plain { SecondPte::Table(pfn) } else { SecondPte::Malformed };
        }
        let fixed = PRESENT | USER | if level == Level::L1 { 0 } else { LARGE };
        let aligned = level == Level::L1 || (level == Level::L2 && pfn.raw() & 511 == 0);
        if !aligned || raw & !(FRAME | WRITE | ACCESSED | DIRTY) != fixed {
            return SecondPte::Malformed;
        }
        SecondPte::Leaf(SecondLeaf {
            pfn,
            writable: raw & WRITE != 0,
            accessed: raw & ACCESSED != 0,
            dirty: raw & DIRTY != 0,
        })
    }
}
