//! The shadow's own entry: 4-level, 8 bytes (SDM 3A 4.5).
//!
//! ```text
//!  63 62        52 51                    12 11   9  8   7   6   5   4   3   2   1   0
//! [NX][00 X  zero ][ frame                ][00 K ][ G][PS ][ D][ A][ 0][ 0][ U][ W][P]
//! ```
//! A is always set, and D exactly where W is, so that the CPU never writes our tables: the guest's A and D bits are kept by
//! withholding the entry or its W (I3). G is never set, PS in a leaf of level 2 alone, which maps 2 MiB. An entry of zero is not
//! present. K, which the CPU ignores, marks a leaf of the virtual TLB that outlives CR3 loads. A *gap* has all bits of the frame set,
//! some of which are reserved in the CPU. X is protection key 1, which leaves that may be fetched from and not read have.

use core::fmt;

use crate::access::Perms;
use crate::addr::Pfn;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// PS in a table of level 2. In one of level 1 the bit is another's, and never set.
const LARGE: u64 = 1 << 7;
/// Ignored by the CPU.
const KEPT: u64 = 1 << 9;
/// Protection key [`Spte::UNREADABLE_KEY`].
const UNREADABLE: u64 = Spte::UNREADABLE_KEY << 59;
const NO_EXECUTE: u64 = 1 << 63;
/// The highest address bit there can be: set in gaps alone.
const HIGHEST: u64 = 1 << 51;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// One shadow page-table entry, as the CPU reads it. It writes none of the shadow: A, and D where it may write, are
/// set from the start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Spte(u64);

impl Spte {
    /// Not present.
    pub const ABSENT: Self = Self(0);

    /// Makes the CPU report a reserved bit ([`PfErr::RESERVED`](crate::PfErr::RESERVED)) at each access. All address bits are set: some
    /// of them are above MAXPHYADDR of every CPU with fewer than 52 physical address bits, and a CPU that goes on speculatively in spite
    /// of it finds no memory (L1 terminal fault).
    pub const GAP: Self = Self(FRAME | PRESENT);

    /// The protection key of leaves that are only fetched from: the host lets nobody read or write by it where its CPU has keys for
    /// supervisor pages. All others have key 0.
    pub const UNREADABLE_KEY: u64 = 1;

    /// Wraps the bits that a table holds.
    #[must_use]
    #[inline]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The bits as the CPU reads them.
    #[must_use]
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// An entry that names a lower table. It grants everything: rights are in the leaves.
    #[must_use]
    #[inline]
    pub const fn table(pfn: Pfn) -> Self {
        Self(pfn.base().raw() & FRAME | PRESENT | WRITABLE | USER | ACCESSED)
    }

    /// An entry that maps a 4 KiB page with exactly these rights.
    #[must_use]
    #[inline]
    pub const fn leaf(pfn: Pfn, perms: Perms) -> Self {
        // Shifts instead of branches: this is on every hot path.
        let write = perms.write() as u64;
        let rights = (perms.user() as u64) << 2 | write << 1 | write << 6 | (!perms.execute() as u64) << 63;
        Self(pfn.base().raw() & FRAME | PRESENT | ACCESSED | rights)
    }

    /// The same leaf for a table of level 2, where it maps 2 MiB. Its frame must be the first of 512 from a border of 2 MiB on.
    #[must_use]
    #[inline]
    pub const fn large(self) -> Self {
        Self(self.0 | if self.0 & PRESENT != 0 { LARGE } else { 0 })
    }

    /// Of an entry in a table of level 2: does it map 2 MiB?
    #[must_use]
    #[inline]
    pub const fn is_large(self) -> bool {
        self.0 & (LARGE | PRESENT | HIGHEST) == LARGE | PRESENT
    }

    /// The same entry without the right to write.
    #[must_use]
    #[inline]
    pub const fn read_only(self) -> Self {
        Self(self.0 & !(WRITABLE | DIRTY))
    }

    /// The same entry without the right to execute.
    #[must_use]
    #[inline]
    pub const fn no_execute(self) -> Self {
        Self(self.0 | if self.0 & PRESENT != 0 { NO_EXECUTE } else { 0 })
    }

    /// The same leaf with the key that takes the right to read, where there are such keys.
    #[must_use]
    #[inline]
    pub const fn unreadable(self) -> Self {
        Self(self.0 | if self.0 & PRESENT != 0 { UNREADABLE } else { 0 })
    }

    /// The same entry with the mark that it outlives CR3 loads.
    #[must_use]
    #[inline]
    pub(crate) const fn kept(self) -> Self {
        Self(self.0 | if self.0 & PRESENT != 0 { KEPT } else { 0 })
    }

    /// Does it outlive CR3 loads?
    #[must_use]
    #[inline]
    pub(crate) const fn is_kept(self) -> bool {
        self.0 & KEPT != 0
    }

    /// Does the CPU use it?
    #[must_use]
    #[inline]
    pub const fn present(self) -> bool {
        self.0 & (PRESENT | HIGHEST) == PRESENT
    }

    /// Does it only make the CPU report a reserved bit?
    #[must_use]
    #[inline]
    pub const fn is_gap(self) -> bool {
        self.0 == Self::GAP.0
    }

    /// May be written through.
    #[must_use]
    #[inline]
    pub const fn writable(self) -> bool {
        self.0 & WRITABLE != 0
    }

    /// May be used by user code.
    #[must_use]
    #[inline]
    pub const fn user(self) -> bool {
        self.0 & USER != 0
    }

    /// May be fetched from.
    #[must_use]
    #[inline]
    pub const fn executable(self) -> bool {
        self.0 & NO_EXECUTE == 0
    }

    /// The rights it grants.
    #[must_use]
    #[inline]
    pub const fn perms(self) -> Perms {
        Perms::new(self.user(), self.writable(), self.executable())
    }

    /// The frame it names: a table's or a page's.
    #[must_use]
    #[inline]
    pub const fn pfn(self) -> Pfn {
        Pfn::new((self.0 & FRAME) >> 12)
    }
}

impl fmt::Debug for Spte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Spte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::LowerHex for Spte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

const _: () = assert!(Spte::leaf(Pfn::new(0), Perms::ALL).0 == PRESENT | WRITABLE | USER | ACCESSED | DIRTY);
const _: () =
    assert!(Spte::leaf(Pfn::new(0), Perms::new(true, false, false)).0 == PRESENT | USER | ACCESSED | NO_EXECUTE);
