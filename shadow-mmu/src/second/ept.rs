//! Extended page tables (SDM 3C, chapter "VMX support for address translation").
//!
//! ```text
//!  63        52 51                    12 11 10  9   8   7   6    5  3   2   1   0
//! [   zero     ][ frame                 ][zero][D ][A ][PS][IPAT][type][ X][ W][ R]
//! ```
//! Memory type 6 (write-back) and "ignore PAT" in leaves: behind every leaf is ordinary memory, whatever the guest's own tables
//! say of it. In entries that name tables only the frame, R, W, X and A.

use crate::addr::{Level, Pfn};
use crate::pte::Spte;
use crate::second::format::{SecondFormat, SecondLeaf, SecondPte};

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
const WRITE_BACK: u64 = 6 << 3;
const IGNORE_PAT: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
const FRAME: u64 = 0x000f_ffff_ffff_f000;
const RIGHTS: u64 = READ | WRITE | EXECUTE;

/// VT-x's format.
#[derive(Clone, Copy, Debug)]
pub struct Ept;

impl SecondFormat for Ept {
    #[inline]
    fn table(pfn: Pfn) -> Spte {
        Spte::from_raw(pfn.base().raw() & FRAME | RIGHTS | ACCESSED)
    }

    #[inline]
    fn leaf(leaf: SecondLeaf, level: Level) -> Spte {
        let mut raw = leaf.pfn.base().raw() & FRAME | READ | EXECUTE | WRITE_BACK | IGNORE_PAT;
        raw |= if leaf.writable { WRITE } else { 0 };
        raw |= if leaf.accessed { ACCESSED } else { 0 };
        raw |= if leaf.dirty { DIRTY } else { 0 };
        raw |= if level == Level::L1 { 0 } else { LARGE };
        Spte::from_raw(raw)
    }

    fn decode(spte: Spte, level: Level) -> SecondPte {
        let raw = spte.raw();
        if raw & RIGHTS == 0 {
            return if raw == 0 { SecondPte::Absent } else { SecondPte::Malformed };
        }
        let pfn = Pfn::new((raw & FRAME) >> 12);
        if level != Level::L1 && raw & LARGE == 0 {
            let plain = raw & !FRAME == RIGHTS | ACCESSED;
            return if plain { SecondPte::Table(pfn) } else { SecondPte::Malformed };
        }
        let fixed = READ | EXECUTE | WRITE_BACK | IGNORE_PAT | if level == Level::L1 { 0 } else { LARGE };
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
