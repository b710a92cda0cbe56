//! What makes two shadow pages of one guest frame interchangeable.
//!
//! Equal ([`Gfn`](crate::Gfn), [`Role`]) means equal contents are right; everything that decides what an entry may hold is in the key, and
//! nothing else: no age, no owner, no validity. A switch of a control bit that changes entries changes the role, so the tables
//! made before stay good for the time the bit is switched back.

mod key;

use core::fmt;

pub use key::Key;

use crate::access::Perms;
use crate::addr::Level;
use crate::controls::{PagingCtx, PagingMode};
use crate::view::View;

/// Packed, so that a comparison is one instruction.
///
/// ```text
/// 31     30      29    28    27..26  25..23  22..16     15   14    13    12    11        10  9      8       7..5   4..3            2..0
/// place  window  code  smap  view    format  part, key  nxe  void  smep  glue  pse, pke  wp  dirty  direct  perms  quadrant, fold  level
/// ```
/// Bits 22 to 16 are the part of a glue page, and the protection key of a direct page. Bit 11 is PSE in 2-level paging and PKE in
/// long mode. Bit 3 is a quadrant's, and says of an L4 page that it is a fold.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Role(u32);

const QUADRANT_SHIFT: u32 = 3;
const PERMS_SHIFT: u32 = 5;
const DIRECT: u32 = 1 << 8;
const DIRTY: u32 = 1 << 9;
const WP: u32 = 1 << 10;
const PSE: u32 = 1 << 11;
const GLUE: u32 = 1 << 12;
const SMEP: u32 = 1 << 13;
const VOID: u32 = 1 << 14;
const NXE: u32 = 1 << 15;
const PART_SHIFT: u32 = 16;
const FORMAT_SHIFT: u32 = 23;
const VIEW_SHIFT: u32 = 26;
const SMAP: u32 = 1 << 28;
const CODE: u32 = 1 << 29;
const WINDOW: u32 = 1 << 30;
/// A directory of the window maps no code, so both bits together are free for pages of patches.
const PATCHES: u32 = CODE | WINDOW;
/// What is PSE in 2-level paging is PKE in long mode.
const PKE: u32 = PSE;
/// Of an L4 page, which has no quadrants.
const FOLD: u32 = 1 << QUADRANT_SHIFT;
const PLACE: u32 = 1 << 31;

impl Role {
    /// Of no page.
    pub(crate) const NONE: Self = Self(0);

    /// The bits that every page of a mode has: only those that make a difference in its view.
    ///
    /// In a view for both rings SMEP and SMAP matter only where CR0.WP = 0 makes user pages supervisor pages; the user's rights
    /// depend on none of the three.
    #[inline]
    fn mode(ctx: &PagingCtx) -> u32 {
        let rights = match ctx.view {
            View::Both if ctx.wp => WP,
            View::Both => Self::supervisor(ctx),
            _ => Self::split(ctx),
        };
        (ctx.mode as u32) << FORMAT_SHIFT | rights | if ctx.nxe { NXE } else { 0 }
    }

    fn supervisor(ctx: &PagingCtx) -> u32 {
        let smep = if ctx.smep { SMEP } else { 0 };
        smep | if ctx.smap { SMAP } else { 0 }
    }

    fn split(ctx: &PagingCtx) -> u32 {
        let wp = if ctx.wp { WP } else { 0 };
        let rights = match ctx.view {
            View::Both | View::Kernel => 1 << VIEW_SHIFT | Self::supervisor(ctx) | wp,
            View::KernelAc => 1 << VIEW_SHIFT | Self::supervisor(ctx) & !SMAP | wp,
            View::User => 2 << VIEW_SHIFT | WP,
        };
        rights | if ctx.pke { PKE } else { 0 }
    }

    #[inline]
    fn new(level: Level, bits: u32) -> Self {
        Self(u32::from(level.number()) | bits)
    }

    /// Level of the shadow page.
    #[must_use]
    #[inline]
    pub const fn level(self) -> Level {
        match self.0 & 7 {
            1 => Level::L1,
            2 => Level::L2,
            3 => Level::L3,
            4 => Level::L4,
            _ => Level::L5,
        }
    }

    /// Its entries are leaves.
    #[must_use]
    #[inline]
    pub const fn is_leaf_table(self) -> bool {
        self.0 & 7 == 1
    }

    /// Which part of a guest table of more than 512 entries.
    #[must_use]
    #[inline]
    pub const fn quadrant(self) -> u8 {
        (self.0 >> QUADRANT_SHIFT & 3) as u8
    }

    /// Rights inherited from the levels above; of a direct page: the rights of its pages, and their protection key.
    #[must_use]
    #[inline]
    pub const fn perms(self) -> Perms {
        let perms = Perms::from_bits((self.0 >> PERMS_SHIFT) as u8);
        if self.direct() { perms.with_key((self.0 >> PART_SHIFT) as u8) } else { perms }
    }

    /// It maps consecutive guest frames and has no guest table: paging off, or a part of a large page.
    #[must_use]
    #[inline]
    pub const fn direct(self) -> bool {
        self.0 & DIRECT != 0
    }

    /// A direct page whose large page has D set.
    #[must_use]
    #[inline]
    pub const fn dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    /// Supervisor writes honour read-only pages.
    #[must_use]
    #[inline]
    pub const fn wp(self) -> bool {
        self.0 & WP != 0
    }

    /// Large pages are on.
    #[must_use]
    #[inline]
    pub const fn pse(self) -> bool {
        self.0 & PSE != 0 && !self.format().is_long()
    }

    /// Bit 63 of an entry forbids fetches; else it is reserved.
    #[must_use]
    #[inline]
    pub const fn nxe(self) -> bool {
        self.0 & NXE != 0
    }

    /// Of glue: which of the 128 tables in the root's frame it is for.
    #[must_use]
    #[inline]
    pub const fn part(self) -> u8 {
        (self.0 >> PART_SHIFT & 127) as u8
    }

    /// Supervisor may not fetch from user pages (kept only where it makes a difference).
    #[must_use]
    #[inline]
    pub const fn smep(self) -> bool {
        self.0 & SMEP != 0
    }

    /// Supervisor may not touch user pages (kept only where it makes a difference).
    #[must_use]
    #[inline]
    pub const fn smap(self) -> bool {
        self.0 & SMAP != 0
    }

    /// Leaves depend on protection keys.
    #[must_use]
    #[inline]
    pub const fn pke(self) -> bool {
        self.0 & PKE != 0 && self.format().is_long()
    }

    /// Whom it serves. The kernel's view with SMAP suspended is the same page as that of a kernel without SMAP.
    #[must_use]
    #[inline]
    pub const fn view(self) -> View {
        match self.0 >> VIEW_SHIFT & 3 {
            0 => View::Both,
            1 => View::Kernel,
            _ => View::User,
        }
    }

    /// A level of the shadow that the guest's format does not have.
    #[must_use]
    #[inline]
    pub const fn glue(self) -> bool {
        self.0 & GLUE != 0
    }

    /// Its entries map shadow code, see `window`.
    #[must_use]
    #[inline]
    pub const fn code(self) -> bool {
        self.0 & CODE != 0
    }

    /// Its entries map pages of patches, which lie at a distance from the shadow code, see `window`.
    #[must_use]
    #[inline]
    pub(crate) const fn patches(self) -> bool {
        self.0 & PATCHES == PATCHES
    }

    /// A directory of the code window where the guest has none.
    #[must_use]
    #[inline]
    pub(crate) const fn window(self) -> bool {
        self.0 & PATCHES == WINDOW
    }

    /// It shadows a guest table, whose frame must be tracked.
    #[must_use]
    #[inline]
    pub const fn is_table(self) -> bool {
        self.0 & (DIRECT | GLUE) == 0
    }

    /// It is a PML4 and holds the hypervisor's window.
    #[must_use]
    #[inline]
    pub const fn is_root(self) -> bool {
        self.0 & (FOLD | 7) == Level::L4.number() as u32
    }

    /// It keeps a PML4 of 5-level paging tracked, which is folded into roots: an empty page, never linked by the CPU's tables.
    #[must_use]
    #[inline]
    pub const fn fold(self) -> bool {
        self.0 & (FOLD | 7) == FOLD | Level::L4.number() as u32
    }

    /// It holds what a TLB would for one place in the guest's address space, whatever tables that came from. No key finds it.
    #[must_use]
    #[inline]
    pub const fn is_place(self) -> bool {
        self.0 & PLACE != 0
    }

    /// It is found by its key. The pages of the virtual TLB below its root are not.
    #[inline]
    pub(crate) const fn has_key(self) -> bool {
        !self.is_place() || self.is_root()
    }

    /// The context in which the entries of a page with this role mean something, whatever mode is on now.
    #[inline]
    pub(crate) fn ctx(self, now: &PagingCtx) -> PagingCtx {
        PagingCtx {
            mode: self.format(),
            wp: self.wp(),
            pse: self.pse(),
            nxe: self.nxe(),
            smep: self.smep(),
            smap: self.smap(),
            pke: self.pke(),
            view: self.view(),
            ..*now
        }
    }

    /// The guest's format.
    #[must_use]
    #[inline]
    pub const fn format(self) -> PagingMode {
        match self.0 >> FORMAT_SHIFT & 7 {
            0 => PagingMode::Off,
            1 => PagingMode::Legacy32,
            2 => PagingMode::Pae,
            3 => PagingMode::Long4,
            _ => PagingMode::Long5,
        }
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let perms = self.perms();
        let format = match self.format() {
            PagingMode::Off => "off",
            PagingMode::Legacy32 => "legacy32",
            PagingMode::Pae => "pae",
            PagingMode::Long4 => "long4",
            PagingMode::Long5 => "long5",
        };
        write!(f, "{}/{format}/q{}/", self.level(), self.quadrant())?;
        f.write_str(if perms.user() { "u" } else { "-" })?;
        f.write_str(if perms.write() { "w" } else { "-" })?;
        f.write_str(if perms.execute() { "x" } else { "-" })?;
        for (on, name) in [
            (self.direct(), "/direct"),
            (self.dirty(), "/dirty"),
            (!self.wp(), "/wp0"),
            (self.pse(), "/pse"),
            (self.nxe(), "/nxe"),
            (self.smep(), "/smep"),
            (self.smap(), "/smap"),
            (self.pke(), "/pke"),
            (self.view() == View::Kernel, "/kernel"),
            (self.view() == View::User, "/user"),
            (self.fold(), "/fold"),
            (self.glue(), "/glue"),
            (self.is_place(), "/place"),
            (self.0 & VOID != 0, "/void"),
            (self.window(), "/window"),
            (self.code(), "/code"),
            (self.patches(), "/patches"),
        ] {
            if on {
                f.write_str(name)?;
            }
        }
        match (self.direct(), self.0 >> PART_SHIFT & 127) {
            (_, 0) => Ok(()),
            (true, key) if self.pke() => write!(f, "/key{key}"),
            (true, _) => Ok(()),
            (false, part) => write!(f, "/part{part}"),
        }
    }
}
