//! Rights, accesses and page-fault error codes.
//!
//! All rights are positive: NX exists only inside `pte`, where it is turned into `x` at once. So rights of the levels of a walk
//! combine by a plain AND (SDM 3A 4.6).

use core::fmt;
use core::ops::BitAnd;

use bitflags::bitflags;

use crate::addr::Gva;

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// Data read.
    Read,
    /// Data write, or a read that will be followed by a write of the same instruction.
    Write,
    /// Instruction fetch.
    Fetch,
}

/// With which privilege an access is made, as the guest sees it (SDM 3A 4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Privilege {
    /// Guest CPL below 3 with EFLAGS.AC clear, or an implicit system access (descriptor tables, TSS) at any CPL and with any AC.
    /// CR4.SMAP holds.
    Supervisor,
    /// An explicit access at guest CPL below 3 with EFLAGS.AC set, which suspends CR4.SMAP. SMAP says nothing about fetches, but a
    /// fault of a fetch has this privilege, too, while AC is set: it names the root that the CPU used.
    SupervisorAc,
    /// Guest CPL 3.
    User,
}

impl Privilege {
    /// An implicit supervisor access: what the CPU reads for itself, from GDT, LDT, IDT and TSS. AC does not suspend SMAP for it.
    pub const IMPLICIT: Self = Self::Supervisor;

    /// The privilege of explicit accesses at a guest's CPL (0..=3) with this EFLAGS.AC.
    #[must_use]
    #[inline]
    pub const fn explicit(cpl: u8, ac: bool) -> Self {
        match (cpl, ac) {
            (3.., _) => Self::User,
            (_, true) => Self::SupervisorAc,
            (_, false) => Self::Supervisor,
        }
    }
}

/// One memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// What it does.
    pub kind: AccessKind,
    /// Who does it.
    pub privilege: Privilege,
}

impl Access {
    /// A supervisor read, as the emulator makes for descriptor tables.
    pub const SUPERVISOR_READ: Self = Self { kind: AccessKind::Read, privilege: Privilege::Supervisor };

    /// The access that raised a page fault with this error code. The host has NX enabled always, so its fetch bit is exact.
    ///
    /// Right for guests in ring 1 as it is; with CR4.SMAP on, and for 64-bit guests, whose kernel runs in ring 3 too, the real
    /// error code does not tell the guest's privilege: add it by [`with_privilege`](Self::with_privilege).
    #[must_use]
    #[inline]
    pub const fn from_error(error: PfErr) -> Self {
        let kind = if error.contains(PfErr::FETCH) {
            AccessKind::Fetch
        } else if error.contains(PfErr::WRITE) {
            AccessKind::Write
        } else {
            AccessKind::Read
        };
        let privilege = if error.contains(PfErr::USER) { Privilege::User } else { Privilege::Supervisor };
        Self { kind, privilege }
    }

    /// The same access with another privilege.
    #[must_use]
    #[inline]
    pub const fn with_privilege(self, privilege: Privilege) -> Self {
        Self { privilege, ..self }
    }

    /// Is it a write?
    #[must_use]
    #[inline]
    pub const fn is_write(self) -> bool {
        matches!(self.kind, AccessKind::Write)
    }

    /// Is it made with user privilege?
    #[must_use]
    #[inline]
    pub const fn is_user(self) -> bool {
        matches!(self.privilege, Privilege::User)
    }
}

bitflags! {
    /// Error code of a page fault (SDM 3A 4.7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PfErr: u32 {
        /// The translation was present; a right was missing.
        const PRESENT = 1 << 0;
        /// The access was a write.
        const WRITE = 1 << 1;
        /// The access had user privilege.
        const USER = 1 << 2;
        /// A reserved bit was set in a paging-structure entry.
        const RESERVED = 1 << 3;
        /// The access was an instruction fetch; reported only where the CPU reports it.
        const FETCH = 1 << 4;
        /// A protection key forbade it.
        const PK = 1 << 5;
    }
}

/// A page fault that the guest must see: a *true fault*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestFault {
    /// What CR2 must hold.
    pub gva: Gva,
    /// The error code to push.
    pub error: PfErr,
}

impl fmt::Display for GuestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#PF gva={} error={:#x}", self.gva, self.error.bits())
    }
}

/// Rights of a translation; all positive. And its protection key, which only entries that map pages have: all ones in others,
/// so that the AND over a walk leaves the page's.
///
/// ```text
/// bit 0 u  user accesses are allowed       bit 1 w  writes are allowed       bit 2 x  fetches are allowed
/// bits 6..3 protection key
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Perms(u8);

impl Perms {
    /// Everything allowed.
    pub const ALL: Self = Self(0x7f);
    /// No protection key of its own.
    const NO_KEY: u8 = 0x78;

    /// Rights from the three positive answers.
    #[must_use]
    #[inline]
    pub const fn new(user: bool, write: bool, execute: bool) -> Self {
        Self(user as u8 | (write as u8) << 1 | (execute as u8) << 2 | Self::NO_KEY)
    }

    /// The same rights with protection key `key` (0..=15).
    #[must_use]
    #[inline]
    pub const fn with_key(self, key: u8) -> Self {
        Self(self.0 & 7 | (key & 15) << 3)
    }

    /// The protection key; 15 if there is none.
    #[must_use]
    #[inline]
    pub const fn key(self) -> u8 {
        self.0 >> 3
    }

    /// The low three bits of `bits`, without a key.
    #[must_use]
    #[inline]
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits & 7 | Self::NO_KEY)
    }

    /// The low three bits as drawn above.
    #[must_use]
    #[inline]
    pub(crate) const fn bits(self) -> u8 {
        self.0 & 7
    }

    /// User accesses are allowed.
    #[must_use]
    #[inline]
    pub const fn user(self) -> bool {
        self.0 & 1 != 0
    }

    /// Writes are allowed (to supervisor code under CR0.WP = 0: whatever this says).
    #[must_use]
    #[inline]
    pub const fn write(self) -> bool {
        self.0 & 2 != 0
    }

    /// Fetches are allowed.
    #[must_use]
    #[inline]
    pub const fn execute(self) -> bool {
        self.0 & 4 != 0
    }
}

impl BitAnd for Perms {
    type Output = Self;

    #[inline]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}
