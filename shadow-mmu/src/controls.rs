//! The guest's control registers, and what of them matters to paging.
//!
//! Bits are named here and in `pte/`, nowhere else (SDM 3A 2.5, 4.1).

use core::fmt;

use crate::access::{Access, AccessKind, GuestFault, Perms, PfErr, Privilege};
use crate::addr::{Gfn, Gpa, Gva, PAGE_SHIFT};
use crate::pte::GuestFormat;
use crate::stop::VmStop;
use crate::view::View;

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
    /// Supervisor must not touch user pages, unless EFLAGS.AC is set.
    pub const SMAP: u64 = 1 << 21;
    /// Protection keys of user pages, in long mode.
    pub const PKE: u64 = 1 << 22;
    /// Changes of these bits empty the TLB (SDM 3A 4.10.4.1); the ones that only widen rights are among them for simplicity.
    pub(crate) const FLUSHING: u64 = PSE | PAE | PGE | LA57 | PCIDE | SMEP | SMAP | PKE;
    /// A change of these bits makes a CPU that uses PAE paging then load the PDPTEs (SDM 3A 4.4.1).
    pub(crate) const LATCHING: u64 = PAE | PGE | PSE | SMEP;
}

/// EFER bits that matter to paging.
pub mod efer {
    /// Long mode enable.
    pub const LME: u64 = 1 << 8;
    /// Long mode active.
    pub const LMA: u64 = 1 << 10;
    /// NX bit in entries.
    pub const NXE: u64 = 1 << 11;
}

/// The guest's architectural control registers, as its virtual CPU has them after the write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// CR0. [`cr0`] names the bits that matter; others are ignored.
    pub cr0: u64,
    /// CR3. PCD and PWT are ignored, and outside of long mode bits 63 to 32. Bits above MAXPHYADDR are refused in every mode.
    pub cr3: u64,
    /// CR4. [`cr4`] names the bits that matter; others are ignored.
    pub cr4: u64,
    /// EFER. LMA is the CPU's own bit, so it need not be right: it follows from CR0.PG and LME. Where the caller gives LMA with
    /// paging on, that means long mode, too.
    pub efer: u64,
    /// PKRU. Matters while CR4.PKE is set in long mode.
    pub pkru: u32,
}

impl Controls {
    /// The same with LMA as the CPU has it.
    #[must_use]
    #[inline]
    pub(crate) const fn settled(self) -> Self {
        let long = self.cr0 & cr0::PG != 0 && self.efer & (efer::LME | efer::LMA) != 0;
        Self { efer: self.efer & !efer::LMA | if long { efer::LMA } else { 0 }, ..self }
    }

    /// Long mode is active.
    const fn is_long(&self) -> bool {
        self.efer & efer::LMA != 0
    }

    /// Does the CPU take these values, coming from `old`? Both are [settled](Self::settled). (SDM 3A 2.5, 4.1.2, 9.8.5)
    ///
    /// # Errors
    /// [`ControlFault::GeneralProtection`], or `Unsupported` for CR4.PCIDE.
    fn check(&self, old: Option<&Self>, maxphyaddr: u8) -> Result<(), ControlFault> {
        let paging = |controls: &Self| controls.cr0 & cr0::PG != 0;
        let mut refused = paging(self) && self.cr0 & cr0::PE == 0
            || self.is_long() && self.cr4 & cr4::PAE == 0
            || self.cr3 >> (maxphyaddr & 63) != 0;
        if let Some(old) = old {
            refused |= paging(old) && paging(self) && (old.efer ^ self.efer) & (efer::LME | efer::LMA) != 0
                || old.is_long() && self.is_long() && (old.cr4 ^ self.cr4) & cr4::LA57 != 0;
        }
        if refused {
            return Err(ControlFault::GeneralProtection);
        }
        if self.cr4 & cr4::PCIDE != 0 { Err(ControlFault::Unsupported(*self)) } else { Ok(()) }
    }
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
    /// WRPKRU, or XRSTOR of PKRU.
    Pkru,
    /// First load, or a reset of the virtual CPU.
    Reset,
}

/// Why a load of the control registers did not happen. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlFault {
    /// The CPU would raise #GP(0): paging without protection, reserved bits in CR3 or in a PDPTE, long mode without CR4.PAE, a
    /// change of EFER.LME while paging is on, or of CR4.LA57 in long mode. What else a CPU refuses (CR0.NW without CR0.CD, reserved
    /// bits of CR0, CR4 and EFER) is for the caller to find.
    GeneralProtection,
    /// CR4.PCIDE is set, which this library does not do. A virtual CPU whose CPUID does not offer PCID answers by #GP(0).
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
#[repr(u8)]
pub enum PagingMode {
    /// CR0.PG = 0: addresses are physical.
    Off = 0,
    /// Two levels of 4-byte entries.
    Legacy32 = 1,
    /// Two levels of 8-byte entries below four latched ones.
    Pae = 2,
    /// Four levels of 8-byte entries, in long mode.
    Long4 = 3,
    /// Five levels of 8-byte entries, in long mode.
    Long5 = 4,
}

impl PagingMode {
    /// 64-bit entries and addresses, and a view for each privilege.
    #[must_use]
    #[inline]
    pub const fn is_long(self) -> bool {
        self as u8 >= Self::Long4 as u8
    }
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
    /// Supervisor data accesses to user pages fault, unless EFLAGS.AC is set.
    pub smap: bool,
    /// Protection keys are on.
    pub pke: bool,
    /// PKRU while `pke`, else 0: bit 2k of it forbids data accesses to user pages of key k, bit 2k + 1 writes.
    pub pkru: u32,
    /// Whom the pages that are linked and filled serve.
    pub view: View,
    /// The virtual CPU has 1 GiB pages.
    pub gib_pages: bool,
    /// Page faults report fetches in their error code.
    pub reports_fetch: bool,
    /// Physical address bits of the virtual CPU.
    pub maxphyaddr: u8,
}

/// What PKRU says of the key of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRights {
    /// Data accesses are forbidden.
    pub no_access: bool,
    /// User writes are forbidden, and while CR0.WP = 1 those of the supervisor.
    pub no_write: bool,
}

impl KeyRights {
    /// Of a page with rights `perms`; keys count for user pages only. A `pkru` of 0 forbids nothing.
    #[must_use]
    #[inline]
    pub const fn of(pkru: u32, perms: Perms) -> Self {
        let bits = if perms.user() { pkru >> ((perms.key() as u32) << 1 & 31) } else { 0 };
        Self { no_access: bits & 1 != 0, no_write: bits & 2 != 0 }
    }
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
            smap: false,
            pke: false,
            pkru: 0,
            view: View::Both,
            gib_pages: true,
            reports_fetch: false,
            maxphyaddr,
        }
    }

    /// What `controls` mean on a CPU that had `old` before, if that matters. `off` is the context without paging. The PDPTEs are
    /// left to [`ShadowMmu::load_controls`](crate::ShadowMmu::load_controls).
    ///
    /// # Errors
    /// The refusals of [`ControlFault`], `Stop` excepted.
    pub(crate) fn new(controls: Controls, old: Option<&Controls>, off: &Self) -> Result<Self, ControlFault> {
        controls.check(old, off.maxphyaddr)?;
        let (cr4, efer) = (controls.cr4, controls.efer);
        if controls.cr0 & cr0::PG == 0 {
            return Ok(*off);
        }
        let mode = match (cr4 & cr4::PAE != 0, controls.is_long(), cr4 & cr4::LA57 != 0) {
            (_, true, true) => PagingMode::Long5,
            (_, true, false) => PagingMode::Long4,
            (true, false, _) => PagingMode::Pae,
            (false, false, _) => PagingMode::Legacy32,
        };
        let pae = mode == PagingMode::Pae;
        let nxe = mode != PagingMode::Legacy32 && efer & efer::NXE != 0;
        let smep = cr4 & cr4::SMEP != 0;
        let pke = mode.is_long() && cr4 & cr4::PKE != 0;
        let ctx = Self {
            mode,
            part: if pae { (controls.cr3 >> PDPT_SHIFT & PDPT_MASK) as u8 } else { 0 },
            wp: controls.cr0 & cr0::WP != 0,
            pse: mode == PagingMode::Legacy32 && cr4 & cr4::PSE != 0,
            nxe,
            smep,
            smap: cr4 & cr4::SMAP != 0,
            pke,
            pkru: if pke { controls.pkru } else { 0 },
            view: if mode.is_long() { View::Kernel } else { View::Both },
            reports_fetch: smep || nxe,
            ..*off
        };
        Ok(Self { root: ctx.root_of(controls.cr3), ..ctx })
    }

    /// The frame of the top table that a CR3 value names in this mode.
    #[inline]
    pub(crate) fn root_of(&self, cr3: u64) -> Gfn {
        match self.mode {
            PagingMode::Off => Gfn::new(0),
            PagingMode::Legacy32 | PagingMode::Pae => Self::narrow_root(cr3),
            PagingMode::Long4 | PagingMode::Long5 => Gfn::new(cr3 >> PAGE_SHIFT),
        }
    }

    /// The same in 2-level and PAE paging, which know 32 bits of CR3.
    #[inline]
    pub(crate) const fn narrow_root(cr3: u64) -> Gfn {
        Gfn::new((cr3 & 0xffff_f000) >> PAGE_SHIFT)
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
    #[inline(always)] // Few instructions, and a call's arguments are as many.
    pub(crate) fn allows<F: GuestFormat>(&self, perms: Perms, access: Access) -> bool {
        let user = access.is_user();
        if user && !perms.user() {
            return false;
        }
        match access.kind {
            AccessKind::Read => self.allows_data::<F>(perms, access),
            AccessKind::Write => (perms.write() || (!user && !self.wp)) && self.allows_data::<F>(perms, access),
            AccessKind::Fetch => perms.execute() && (user || !self.smep || !perms.user()),
        }
    }

    /// Do SMAP and protection keys allow a data access? Keys there are in long mode only.
    #[inline]
    fn allows_data<F: GuestFormat>(&self, perms: Perms, access: Access) -> bool {
        if self.smap && perms.user() && access.privilege == Privilege::Supervisor {
            return false;
        }
        !(F::SPLIT && self.pkru != 0 && self.key_forbids(perms, access))
    }

    /// Does the protection key of a page forbid a data access? (SDM 3A 4.6.2)
    pub(crate) fn key_forbids(&self, perms: Perms, access: Access) -> bool {
        let KeyRights { no_access, no_write } = KeyRights::of(self.pkru, perms);
        access.kind != AccessKind::Fetch
            && (no_access || no_write && access.is_write() && (access.is_user() || self.wp))
    }

    /// The fault for an access that rights `perms` of a complete, present translation do not allow.
    #[cold]
    pub(crate) fn denial(&self, gva: Gva, access: Access, perms: Perms) -> GuestFault {
        let key = if self.key_forbids(perms, access) { PfErr::PK } else { PfErr::empty() };
        self.fault(gva, access, PfErr::PRESENT | key)
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
