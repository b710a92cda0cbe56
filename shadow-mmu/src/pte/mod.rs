//! Entry formats: the guest's, one file for each, and the shadow's.
//!
//! Raw guest bits are decoded to a [`GuestPte`] here and nowhere else; every decision is made on that value. Reserved bits are
//! decided here too. The only raw bits that leave this module are the A and D bits a walk sets by compare-exchange.

mod flat;
mod legacy32;
mod long;
mod pae;
mod spte;
mod wide;

pub use flat::Flat;
pub use legacy32::Legacy32;
pub use long::{Long, Long4, Long5};
pub use pae::Pae;
pub use spte::Spte;

use crate::access::Perms;
use crate::addr::{Gfn, Gpa, Gva, Level};
use crate::controls::PagingCtx;
use crate::mem::{CmpxchgError, GuestMem};

/// A decoded guest entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestPte {
    /// Not present.
    Absent,
    /// Present with a reserved bit set.
    Reserved,
    /// Names a table of the next lower level.
    Table {
        /// The table's frame.
        gfn: Gfn,
        /// Rights of this entry alone.
        perms: Perms,
        /// A bit.
        accessed: bool,
    },
    /// Maps a page.
    Leaf {
        /// First frame of the page.
        gfn: Gfn,
        /// Rights of this entry alone, and its protection key.
        perms: Perms,
        /// A bit.
        accessed: bool,
        /// D bit.
        dirty: bool,
        /// G bit. It means something while CR4.PGE is set.
        global: bool,
    },
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Flat {}
    impl Sealed for super::Legacy32 {}
    impl Sealed for super::Pae {}
    impl Sealed for super::Long4 {}
    impl Sealed for super::Long5 {}
}

/// One guest page-table format. Pure: everything is a constant or a function of its arguments.
pub trait GuestFormat: sealed::Sealed {
    /// Number of levels that a walk reads; 0 if the guest does not page.
    const LEVELS: u8;
    /// log2 of the bytes in an entry.
    const ENTRY_SHIFT: u32;
    /// log2 of the entries in a table.
    const INDEX_BITS: u32;
    /// Bits of a linear address that are translated. Above 32, the bits above them must be copies of the highest.
    const ADDRESS_BITS: u32;
    /// The guest's kernel runs in ring 3, in a view of its own.
    const SPLIT: bool = Self::ADDRESS_BITS > 32;
    /// Accessed bit.
    const ACCESSED: u64;
    /// Dirty bit, in leaves.
    const DIRTY: u64;

    /// The table in which a walk to `gva` begins; `None` if nothing is mapped there.
    #[inline]
    fn top(ctx: &PagingCtx, _gva: Gva) -> Option<Gfn> {
        Some(ctx.root)
    }

    /// Says what `raw` means in a table of `level`.
    fn decode(raw: u64, level: Level, ctx: &PagingCtx) -> GuestPte;

    /// Reads the entry at `gpa`; `None` if no memory is there. Entries have 8 bytes if the format does not say otherwise.
    #[inline]
    fn read<G: GuestMem>(mem: &G, gpa: Gpa) -> Option<u64> {
        mem.read_u64(gpa)
    }

    /// Replaces the entry at `gpa` if it still is `old`.
    ///
    /// # Errors
    /// Those of [`GuestMem::cmpxchg_u64`].
    #[inline]
    fn cmpxchg<G: GuestMem>(mem: &G, gpa: Gpa, old: u64, new: u64) -> Result<(), CmpxchgError> {
        mem.cmpxchg_u64(gpa, old, new)
    }
}

/// log2 of the bytes that an entry of a guest table of `level` maps.
#[inline]
pub(crate) fn span_shift<F: GuestFormat>(level: Level) -> u32 {
    12u32.wrapping_add(F::INDEX_BITS.wrapping_mul(u32::from(level.number()).wrapping_sub(1)))
}

/// Can `gva` be an address of this format: within 32 bits, or canonical?
#[inline]
pub(crate) fn is_address<F: GuestFormat>(gva: Gva) -> bool {
    if F::ADDRESS_BITS == 32 {
        return gva.raw() >> 32 == 0;
    }
    let unused = 64u32.wrapping_sub(F::ADDRESS_BITS) & 63;
    (gva.raw() << unused) as i64 >> unused == gva.raw() as i64
}

/// Can the shadow's own 4 levels hold `gva`?
#[inline]
pub(crate) fn is_host_address(gva: Gva) -> bool {
    is_address::<Long4>(gva)
}

/// Where the guest entry for `gva` lies in the table `table` of `level`.
#[inline]
pub(crate) fn entry_gpa<F: GuestFormat>(table: Gfn, level: Level, gva: Gva) -> Gpa {
    let index = gva.raw() >> span_shift::<F>(level) & (1u64 << F::INDEX_BITS).wrapping_sub(1);
    table.base().add(index << F::ENTRY_SHIFT)
}

/// log2 of the shadow entries of `level` that stand for one guest entry of that level. A 4 MiB guest entry is two 2 MiB ones.
#[inline]
pub(crate) fn ratio_shift<F: GuestFormat>(level: Level) -> u32 {
    span_shift::<F>(level).wrapping_sub(level.shift())
}

/// Which of the shadow tables for a guest table of `level` covers `gva`. Guest tables of 1024 entries need several.
#[inline]
pub(crate) fn quadrant<F: GuestFormat>(level: Level, gva: Gva) -> u8 {
    let guest_table = span_shift::<F>(level).wrapping_add(F::INDEX_BITS);
    let shadow_table = level.shift().wrapping_add(9);
    let mask = (1u64 << (guest_table.wrapping_sub(shadow_table) & 7)).wrapping_sub(1);
    (gva.raw() >> shadow_table & mask) as u8
}

/// An address that entry `slot` of the shadow table of `level` for quadrant `quadrant` maps, relative to the guest table.
#[inline]
pub(crate) fn frame_index(level: Level, quadrant: u8, slot: usize) -> Gva {
    Gva::new((u64::from(quadrant) << 9 | slot as u64) << level.shift())
}
