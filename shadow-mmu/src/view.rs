//! Views: which of the guest's privileges a shadow root serves.
//!
//! The kernel and the user code of a 64-bit guest both run in ring 3 of the real CPU, so U/S of a shadow entry cannot tell them
//! apart. Each has a root of its own instead, and the caller loads the one of the guest's privilege. A 32-bit guest's kernel runs in
//! ring 1, which is supervisor to the page walker: one root serves both.

use crate::access::Privilege;
use crate::controls::PagingCtx;
use crate::outcome::Root;

/// Whom a shadow page serves, and so what its leaves say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    /// Ring 1 and ring 3: U/S is the guest's.
    Both,
    /// The guest's supervisor in ring 3: all pages are user pages, with the supervisor's rights. CR4.SMAP holds.
    Kernel,
    /// The same while EFLAGS.AC suspends SMAP. Exists only while CR4.SMAP is set.
    KernelAc,
    /// The guest's user code in ring 3: the guest's user pages and nothing else.
    User,
}

/// Most views that a guest can have.
pub(crate) const MAX_VIEWS: usize = 3;

impl View {
    /// The view that an access of this privilege uses in `ctx`.
    #[inline]
    pub(crate) const fn of(ctx: &PagingCtx, privilege: Privilege) -> Self {
        if !ctx.mode.is_long() {
            return Self::Both;
        }
        match privilege {
            Privilege::User => Self::User,
            Privilege::SupervisorAc if ctx.smap => Self::KernelAc,
            Privilege::Supervisor | Privilege::SupervisorAc => Self::Kernel,
        }
    }

    /// The views that a guest of `ctx` has.
    pub(crate) const fn all(ctx: &PagingCtx) -> &'static [Self] {
        match (ctx.mode.is_long(), ctx.smap) {
            (false, _) => &[Self::Both],
            (true, false) => &[Self::Kernel, Self::User],
            (true, true) => &[Self::Kernel, Self::KernelAc, Self::User],
        }
    }
}

/// The roots to load into the real CR3, one for each privilege of the guest. While a mode has a single view all are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots {
    /// For [`Privilege::Supervisor`].
    pub supervisor: Root,
    /// For [`Privilege::SupervisorAc`]; differs from `supervisor` only while CR4.SMAP is set.
    pub supervisor_ac: Root,
    /// For [`Privilege::User`].
    pub user: Root,
}
