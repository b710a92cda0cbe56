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

/// With which privilege an access is made, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Privilege {
    /// Guest CPL below 3, or an implicit system access (descriptor tables, TSS).
    Supervisor,
    /// Guest CPL 3.
    User,
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

/// Rights of a translation; all positive.
///
/// ```text
/// bit 0 u  user accesses are allowed       bit 1 w  writes are allowed       bit 2 x  fetches are allowed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Perms(u8);

impl Perms {
    /// Everything allowed.
    pub const ALL: Self = Self(7);

    /// Rights from the three positive answers.
    #[must_use]
    #[inline]
    pub const fn new(user: bool, write: bool, execute: bool) -> Self {
        Self(user as u8 | (write as u8) << 1 | (execute as u8) << 2)
    }

    /// The low three bits of `bits`.
    #[must_use]
    #[inline]
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// The bits as drawn above.
    #[must_use]
    #[inline]
    pub(crate) const fn bits(self) -> u8 {
        self.0
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
