//! What a second-level entry can say, whatever its bits.

use crate::addr::{Level, Pfn};
use crate::pte::Spte;

/// A decoded second-level entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondPte {
    /// Maps nothing.
    Absent,
    /// Names a table of the next lower level, with all rights.
    Table(Pfn),
    /// Maps memory.
    Leaf(SecondLeaf),
    /// The CPU would call it a misconfiguration or a reserved bit, or this library never makes it.
    Malformed,
}

/// An entry that maps memory. It is always readable and executable, and write-back cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondLeaf {
    /// First frame of the host: one frame at [`Level::L1`], 512 at [`Level::L2`].
    pub pfn: Pfn,
    /// Writes pass.
    pub writable: bool,
    /// A: the CPU used it. Set by us from the start where nobody asks.
    pub accessed: bool,
    /// D: the CPU wrote through it. Set by us from the start in writable entries where nobody asks.
    pub dirty: bool,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::super::Ept {}
    impl Sealed for super::super::Npt {}
}

/// A format of second-level tables. Pure: functions of their arguments only.
pub trait SecondFormat: sealed::Sealed {
    /// An entry that names a lower table; rights are in the leaves.
    fn table(pfn: Pfn) -> Spte;

    /// An entry of a table of `level` ([`Level::L1`] or [`Level::L2`]) that maps memory.
    fn leaf(leaf: SecondLeaf, level: Level) -> Spte;

    /// What an entry of a table of `level` means to the CPU.
    fn decode(spte: Spte, level: Level) -> SecondPte;
}
