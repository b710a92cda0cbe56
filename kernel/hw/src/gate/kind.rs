//! The two kinds of trees that the gate guards, and what differs.

use super::{FRAME, PRESENT};
use crate::frames::{Owner, VmId};
use core::ops::Range;
use shadow_mmu::Spte;

/// A kind of tree. Each has an owner of its own, so that no table is ever part of both.
pub(crate) trait Kind {
    /// Bits of which any makes an entry name a frame.
    const NAMES: u64;
    /// Entries of a root that belong to the hypervisor's window.
    const WINDOW: Range<usize>;
    /// Whether L1 tables may map shadow code.
    const CODE: bool;

    /// Who owns the frames of such tables.
    fn owner(vm: VmId) -> Owner;

    /// The frame that entry `raw` names, if any.
    #[inline]
    fn target(raw: u64) -> Option<u64> {
        (raw & Self::NAMES != 0).then_some((raw & FRAME) >> 12)
    }
}

/// Shadow tables: what CR3 leads to. Some entries of a root are the hypervisor's window.
#[derive(Debug, Clone, Copy)]
pub struct Shadow;

impl Kind for Shadow {
    const NAMES: u64 = PRESENT;
    const WINDOW: Range<usize> = shadow_mmu::WINDOW;
    const CODE: bool = true;

    fn owner(vm: VmId) -> Owner {
        Owner::Table(vm)
    }

    /// A gap names nothing: the CPU reports a reserved bit. `tables` sees to it that the CPU does.
    #[inline]
    fn target(raw: u64) -> Option<u64> {
        (raw & Self::NAMES != 0 && raw != Spte::GAP.raw()).then_some((raw & FRAME) >> 12)
    }
}

/// Second-level tables: what the EPT pointer or nCR3 leads to. The host never runs on them, so they have no window.
///
/// The gate does not ask which of the two formats it sees: the frame, the level of tables and the bit for large pages are at the same
/// places, and an entry counts if any of bits 0 to 2 is set (R, W, X of EPT; P, W, U of NPT), which is at least when a CPU
/// uses it.
#[derive(Debug, Clone, Copy)]
pub struct Nested;

impl Kind for Nested {
    const NAMES: u64 = 7;
    const WINDOW: Range<usize> = 0..0;
    const CODE: bool = false;

    fn owner(vm: VmId) -> Owner {
        Owner::Nested(vm)
    }
}
