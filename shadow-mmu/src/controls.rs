//! The guest's control registers, and what of them matters to paging.
//!
//! Bits are named here and in `pte/`, nowhere else (SDM 3A 2.5, 4.1).

use core::fmt;

use crate::access::{Access, AccessKind, GuestFault, Perms, PfErr};
use crate::addr::{Gfn, Gpa, Gva, PAGE_SHIFT};
use crate::stop::VmStop;

/// CR0 bits that matter to paging.
pub mod cr0 {
    /// Protection enable.
    pub const PE: u64 = 1 << 0;
    /// Write protect: supervisor writes honour read-only pages.
    pub const WP: u64 = 1 << 16;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Cache disable.
    pub const CD: u64 = 1 << 30;
    /// Paging.
    pub const PG: u64 = 1 << 31;
    /// A change of these bits makes a CPU that uses PAE paging then load the PDPTEs (SDM 3A 4.4.1).
    pub(crate) const LATCHING: u64 = PG | CD | NW;
}

/// CR4 bits that matter to paging.
pub mod cr4 {
    /// 4 MiB pages in 2-level paging.
    pub const PSE: u64 = 1 << 4;
    /// Entries of 8 bytes.
    pub const PAE: u64 = 1 << 5;
    /// Global pages.
    pub const PGE: u64 = 1 << 7;
    /// Five levels.
    pub const LA57: u64 = 1 << 12;
    /// Process-context identifiers.
    pub const PCIDE: u64 = 1 << 17;
    /// Supervisor must not fetch from user pages.
    pub const SMEP: u64 = 1 << 20;
    /// Supervisor must not touch user pages.
    pub const SMAP: u64 = 1 << 21;
    /// Changes of these bits empty the TLB (SDM 3A 4.10.4.1); the ones that only widen rights are among them for simplicity.
    pub(crate) const FLUSHING: u64 = PSE | PAE | PGE | LA57 | PCIDE | SMEP | SMAP;
    /// A change of these bits makes a CPU that uses PAE paging then load the PDPTEs (SDM 3A 4.4.1).
    pub(crate) const LATCHING: u64 = PAE | PGE | PSE | SMEP;
}

/// EFER bits that matter to paging.
pub mod efer {
    /// Long mode active.
    pub const LMA: u64 = 1 << 10;
    /// NX bit in entries.
    pub const NXE: u64 = 1 << 11;
}

/// The guest's architectural control registers, as its virtual CPU has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

/// Which register was written; decides what leaves the TLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlWrite {
    /// MOV to CR0, LMSW.
    Cr0,
    /// MOV to CR3, task switch: flushes even if the value is the same.
    Cr3,
    /// MOV to CR4.
    Cr4,
    /// WRMSR to EFER.
    Efer,
    /// First load, or a reset of the virtual CPU.
    Reset,
}

/// Why a load of the control registers did not happen. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlFault {
    /// The CPU would raise #GP(0): paging without protection, or reserved bits in a PDPTE.
    GeneralProtection,
    /// A paging mode that this build does not shadow.
    Unsupported(Controls),
    /// The PDPTEs lie in this frame, which is [not resident](crate::GfnKind::NotResident): bring it back and load again.
    NotResident(Gfn),
    /// The VM cannot go on.
    Stop(VmStop),
}

impl fmt::Display for ControlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GeneralProtection => f.write_str("#GP(0)"),
            Self::Unsupported(c) => {
                write!(f, "paging mode not supported: cr0={:#x} cr4={:#x} efer={:#x}", c.cr0, c.cr4, c.efer)
            }
            Self::NotResident(gfn) => write!(f, "the PDPTEs are in frame {gfn}, which is not resident"),
            Self::Stop(stop) => stop.fmt(f),
        }
    }
}

/// How the guest translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PagingMode {
    /// CR0.PG = 0: addresses are physical.
    Off,
    /// Two levels of 4-byte entries.
    Legacy32,
    /// Two levels of 8-byte entries below four latched ones.
    Pae,
}

/// What of the control registers matters to a walk. A value: computed once per control register load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagingCtx {
    /// The format of the tables.
    pub mode: PagingMode,
    /// The frame of the top guest table: the one that CR3 names.
    pub root: Gfn,
    /// Which of the 128 tables in that frame it is; 0 for tables that fill a frame.
    pub part: u8,
    /// The latched PDPTEs of PAE paging.
    pub pdptes: [u64; 4],
    /// Supervisor writes honour read-only pages.
    pub wp: bool,
    /// Large pages are on in 2-level paging.
    pub pse: bool,
    /// Bit 63 of an entry forbids fetches; else it is reserved.
    pub nxe: bool,
    /// Supervisor fetches from user pages fault.
    pub smep: bool,
    /// Page faults report fetches in their error code.
    pub reports_fetch: bool,
    /// Physical address bits of the virtual CPU.
    pub maxphyaddr: u8,
}

/// log2 of the bytes in a page-directory-pointer table of PAE paging.
const PDPT_SHIFT: u32 = 5;
/// Such tables in a frame, less one.
const PDPT_MASK: u64 = 127;

impl PagingCtx {
    /// Paging off.
    pub(crate) const fn off(maxphyaddr: u8) -> Self {
        Self {
            mode: PagingMode::Off,
            root: Gfn::new(0),
            part: 0,
            pdptes: [0; 4],
            wp: true,
            pse: false,
            nxe: false,
            smep: false,
            reports_fetch: false,
            maxphyaddr,
        }
    }

    /// What `controls` mean. The PDPTEs are left to [`ShadowMmu::load_controls`](crate::ShadowMmu::load_controls).
    ///
    /// # Errors
    /// The refusals of [`ControlFault`], `Stop` excepted.
    pub(crate) fn new(controls: Controls, maxphyaddr: u8) -> Result<Self, ControlFault> {
        let paging = controls.cr0 & cr0::PG != 0;
        if paging && controls.cr0 & cr0::PE == 0 {
            return Err(ControlFault::GeneralProtection);
        }
        if paging && controls.efer & efer::LMA != 0 {
            return Err(ControlFault::Unsupported(controls));
        }
        if !paging {
            return Ok(Self::off(maxphyaddr));
        }
        let pae = controls.cr4 & cr4::PAE != 0;
        let nxe = pae && controls.efer & efer::NXE != 0;
        let smep = controls.cr4 & cr4::SMEP != 0;
        let ctx = Self {
            mode: if pae { PagingMode::Pae } else { PagingMode::Legacy32 },
            part: if pae { (controls.cr3 >> PDPT_SHIFT & PDPT_MASK) as u8 } else { 0 },
            wp: controls.cr0 & cr0::WP != 0,
            pse: !pae && controls.cr4 & cr4::PSE != 0,
            nxe,
            smep,
            reports_fetch: smep || nxe,
            ..Self::off(maxphyaddr)
        };
        Ok(Self { root: ctx.root_of(controls.cr3), ..ctx })
    }

    /// The frame of the top table that a CR3 value names in this mode.
    #[inline]
    pub(crate) fn root_of(&self, cr3: u64) -> Gfn {
        match self.mode {
            PagingMode::Off => Gfn::new(0),
            PagingMode::Legacy32 | PagingMode::Pae => Gfn::new((cr3 & 0xffff_f000) >> PAGE_SHIFT),
        }
    }

    /// The latched PDPTE for an address.
    #[inline]
    pub(crate) const fn pdpte(&self, gva: Gva) -> u64 {
        let [a, b, c, d] = self.pdptes;
        match gva.raw() >> 30 & 3 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        }
    }

    /// Where the PDPTE with this number was read.
    pub(crate) const fn pdpte_gpa(&self, number: u64) -> Gpa {
        self.root.base().add((self.part as u64) << PDPT_SHIFT | (number & 3) << 3)
    }

    /// Do rights `perms` of a complete, present translation allow `access`? (SDM 3A 4.6.1)
    #[inline]
    pub(crate) fn allows(&self, perms: Perms, access: Access) -> bool {
        let user = access.is_user();
        if user && !perms.user() {
            return false;
        }
        match access.kind {
            AccessKind::Read => true,
            AccessKind::Write => perms.write() || (!user && !self.wp),
            AccessKind::Fetch => perms.execute() && (user || !self.smep || !perms.user()),
        }
    }

    /// The fault that the CPU reports for `access`; `cause` is what it adds to the access itself (SDM 3A 4.7).
    #[cold]
    pub(crate) fn fault(&self, gva: Gva, access: Access, cause: PfErr) -> GuestFault {
        let mut error = cause;
        error.set(PfErr::USER, access.is_user());
        error.set(PfErr::WRITE, access.is_write());
        error.set(PfErr::FETCH, access.kind == AccessKind::Fetch && self.reports_fetch);
        GuestFault { gva, error }
    }
}
