//! Keys: by what a shadow page is found.

use super::{
    CODE, DIRECT, DIRTY, FOLD, GLUE, PART_SHIFT, PATCHES, PERMS_SHIFT, PLACE, PSE, QUADRANT_SHIFT, Role, SMEP,
    VIEW_SHIFT, VOID, WINDOW,
};
use crate::access::Perms;
use crate::addr::{Gfn, Gva, Level};
use crate::controls::PagingCtx;
use crate::pte::{GuestFormat, quadrant};
use crate::view::View;

/// Key of a shadow page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The guest table; for a direct page the first frame it maps; for glue the guest's root.
    pub gfn: Gfn,
    /// What the page does with it.
    pub role: Role,
}

impl Key {
    /// The shadow page of `level` for `gva` of guest table `table`, reached with rights `inherited`.
    #[inline]
    pub(crate) fn table<F: GuestFormat>(
        ctx: &PagingCtx,
        level: Level,
        gva: Gva,
        (table, inherited): (Gfn, Perms),
    ) -> Self {
        let mut bits = Role::mode(ctx)
            | u32::from(quadrant::<F>(level, gva)) << QUADRANT_SHIFT
            | u32::from(inherited.bits()) << PERMS_SHIFT;
        if ctx.pse && level != Level::L1 {
            bits |= PSE;
        }
        Self { gfn: table, role: Role::new(level, bits) }
    }

    /// The shadow page of `level` for a run of frames that holds `gfn`; `perms` and `dirty` are those of the page they are in.
    #[inline]
    pub(crate) fn direct(ctx: &PagingCtx, level: Level, gfn: Gfn, (perms, dirty): (Perms, bool)) -> Self {
        let bits = Role::mode(ctx)
            | u32::from(perms.bits()) << PERMS_SHIFT
            | u32::from(perms.key()) << PART_SHIFT
            | DIRECT
            | if dirty { DIRTY } else { 0 };
        let order = u32::from(level.number()).wrapping_mul(9);
        Self { gfn: gfn.align_down(order), role: Role::new(level, bits) }
    }

    /// The same key for a large page with D clear.
    pub(crate) const fn without_dirty(self) -> Self {
        Self { gfn: self.gfn, role: Role(self.role.0 & !DIRTY) }
    }

    /// The glue page of `level` over the guest's root.
    ///
    /// Of PAE paging the key has the place of the PDPT, not what is in it: a load brings the page in step with the entries that
    /// it latches, see `root`.
    #[inline]
    pub(crate) fn glue(ctx: &PagingCtx, level: Level) -> Self {
        let bits = Role::mode(ctx) | GLUE | u32::from(ctx.part) << PART_SHIFT | if ctx.pse { PSE } else { 0 };
        Self { gfn: ctx.root, role: Role::new(level, bits) }
    }

    /// The page that keeps PML4 `table` of 5-level paging tracked, reached with rights `inherited`.
    pub(crate) fn fold(ctx: &PagingCtx, (table, inherited): (Gfn, Perms)) -> Self {
        let bits = Role::mode(ctx) | u32::from(inherited.bits()) << PERMS_SHIFT | FOLD;
        Self { gfn: table, role: Role::new(Level::L4, bits) }
    }

    /// A page of the virtual TLB in a view. Below the root it is known by the entry that names it only.
    #[inline]
    pub(crate) fn place(view: View, level: Level) -> Self {
        let view = match view {
            View::Both | View::Kernel => 0,
            View::KernelAc => 1 << VIEW_SHIFT,
            View::User => 2 << VIEW_SHIFT,
        };
        Self { gfn: Gfn::new(0), role: Role::new(level, PLACE | GLUE | view) }
    }

    /// What a page of the virtual TLB with `role` names.
    pub(crate) fn place_below(role: Role) -> Option<Self> {
        let below = role.level().down()?;
        Some(Self { gfn: Gfn::new(0), role: Role::new(below, role.0 & !7) })
    }

    /// The page for the code that the pages of this one map. D does not matter to it: it grants no writes. SMEP does: the CPU cannot
    /// tell code of user pages from other code.
    pub(crate) const fn code(self, ctx: &PagingCtx) -> Self {
        let smep = if ctx.smep { SMEP } else { 0 };
        Self { gfn: self.gfn, role: Role(self.role.0 & !DIRTY | CODE | smep) }
    }

    /// The page for the patches of the code that this one maps.
    pub(crate) const fn patches(self) -> Self {
        Self { gfn: self.gfn, role: Role(self.role.0 | PATCHES) }
    }

    /// The directory for the part of the code window in the GiB of `place`, where the guest has no directory.
    pub(crate) fn window_directory(ctx: &PagingCtx, place: Gva) -> Self {
        let glue = Self::glue(ctx, Level::L2);
        let quadrant = (place.raw() >> Level::L3.shift() & 3) as u32;
        Self { gfn: glue.gfn, role: Role(glue.role.0 | WINDOW | quadrant << QUADRANT_SHIFT) }
    }

    /// The root to load while the guest's own root lies outside memory. Nothing is ever linked below it.
    pub(crate) fn void(ctx: &PagingCtx) -> Self {
        let glue = Self::glue(ctx, Level::L4);
        Self { gfn: Gfn::new(0), role: Role(glue.role.0 | VOID) }
    }
}
