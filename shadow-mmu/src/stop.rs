//! Why a VM cannot go on.

use core::fmt;

use crate::addr::{Gpa, Gva, Level, Pfn};

/// The guest did what cannot be shadowed, or this library has a bug. Stops this VM only; the others run on.
///
/// After [`Refused`](Self::Refused) and [`Internal`](Self::Internal) nothing can be relied on, and every later fault may get the same
/// answer. The others are about the one access that was asked for: the state is sound, and a caller who has a way to go on for the guest
/// may do so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmStop {
    /// A page-table entry that the walk needs lies outside memory, or needs its A or D bit set and cannot be written.
    TableOutsideMemory {
        /// Where the walk was going.
        gva: Gva,
        /// The entry.
        entry: Gpa,
        /// Its level.
        level: Level,
    },
    /// A linear address that the guest's mode cannot form.
    AddressTooWide(Gva),
    /// The guest maps and uses an address in the hypervisor's window, [`PML4 slots 256 to 271`](crate::WINDOW): the 8 TiB from
    /// 0xffff_8000_0000_0000 on. No shadow entry can exist there.
    InWindow(Gva),
    /// A guest of 5-level paging maps and uses an address that the host's 4 levels cannot hold: bits 63 to 47 are not all alike.
    BeyondHost(Gva),
    /// The caller asked for a fetch through the code window in long mode, which has none.
    NoCodeWindow(Gva),
    /// No control registers were loaded yet.
    NoRoot,
    /// The last gate refused a shadow entry; a bug of the hypervisor.
    Refused {
        /// The shadow table.
        table: Pfn,
        /// The entry in it.
        index: u16,
    },
    /// An invariant of the shadow MMU did not hold; a bug of the hypervisor. The number is that of `docs/invariants.md`.
    Internal {
        /// 1 for I1 and so on.
        invariant: u8,
    },
}

impl fmt::Display for VmStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableOutsideMemory { gva, entry, level } => {
                write!(f, "the walk of gva={gva} needs a page-table entry outside memory: gpa={entry} level={level}")
            }
            Self::AddressTooWide(gva) => write!(f, "linear address {gva} is too wide for the guest's mode"),
            Self::InWindow(gva) => write!(f, "the guest uses linear address {gva}, which is the hypervisor's own"),
            Self::BeyondHost(gva) => write!(f, "linear address {gva} is beyond the 48 bits of the host's page tables"),
            Self::NoCodeWindow(gva) => {
                write!(f, "hypervisor bug: a fetch from {gva} through a code window in long mode")
            }
            Self::NoRoot => f.write_str("the guest's control registers were never loaded"),
            Self::Refused { table, index } => {
                write!(f, "hypervisor bug: the last gate refused entry {index} of shadow table pfn={table}")
            }
            Self::Internal { invariant } => write!(f, "hypervisor bug: shadow MMU invariant I{invariant} is broken"),
        }
    }
}

/// An invariant does not hold; the number is that of [`VmStop::Internal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) u8);

/// Why a change of the tables failed: a [`VmStop`] in the making, small enough for a register on the hot paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// An invariant does not hold.
    Broken(u8),
    /// The last gate refused this entry of this page.
    Refused {
        /// The page's number in the pool.
        page: u32,
        /// The entry.
        slot: u16,
    },
}

impl From<Broken> for Trouble {
    #[inline]
    fn from(broken: Broken) -> Self {
        Self::Broken(broken.0)
    }
}

const _: () = assert!(size_of::<Result<(), Trouble>>() <= 8, "fits a register");
