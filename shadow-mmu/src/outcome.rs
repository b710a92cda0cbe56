//! What the caller asks, and what it is told.

use crate::access::{Access, GuestFault};
use crate::addr::{Gfn, Gpa, Gva, Pfn};
use crate::stop::VmStop;

/// A page fault that the real CPU reported while the guest ran, or an access on which the emulator failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// CR2.
    pub gva: Gva,
    /// What the guest tried, with the guest's own privilege.
    pub access: Access,
}

/// What to do about a fault.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Run the guest again at the same instruction.
    Resume,
    /// A true fault: deliver it to the guest.
    Inject(GuestFault),
    /// The guest may write there, but the frame is tracked: emulate the instruction, then report the write by
    /// [`ShadowMmu::on_write`](crate::ShadowMmu::on_write).
    ///
    /// Also a supervisor's write to a read-only user page in ring 1 while CR0.WP = 0 and CR4.SMAP = 1, which no shadow entry can
    /// allow without more.
    EmulateWrite(Gpa),
    /// The guest may fetch there, but not read, and no shadow entry can say so: emulate the instruction at this address. Happens
    /// to 64-bit guests only: a kernel that executes user pages under CR4.SMAP without CR4.SMEP, and pages that are not to be
    /// read by their protection key.
    EmulateFetch(Gpa),
    /// The guest may make this access, but no memory is there, or it writes to ROM: emulate it on the device.
    Mmio(Gpa),
    /// The access, or the walk for it, needs this frame, which is [not resident](crate::GfnKind::NotResident): bring it back, then
    /// run the guest again at the same instruction.
    NotResident(Gfn),
    /// In long mode this is no address: no CPU raises a page fault for it. Deliver #GP(0), or #SS(0) for a stack access.
    NonCanonical(Gva),
    /// The VM cannot go on.
    Stop(VmStop),
}

/// What to load into the real CR3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The PML4.
    pub table: Pfn,
}

/// Why a translation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranslateError {
    /// The guest's own fault: inject it.
    Fault(GuestFault),
    /// A guest table on the way lies in this frame, which is [not resident](crate::GfnKind::NotResident).
    NotResident(Gfn),
    /// No address of long mode: #GP(0), or #SS(0) for a stack access.
    NonCanonical(Gva),
    /// The VM cannot go on.
    Stop(VmStop),
}

/// Why writes to a frame are caught.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteKind {
    /// It is a guest page table whose shadow follows: writes must be reported by [`ShadowMmu::on_write`](crate::ShadowMmu::on_write).
    pub page_table: bool,
    /// The caller watches it for its own reasons.
    pub watched: bool,
}

impl WriteKind {
    /// Are writes to it not caught at all?
    #[must_use]
    pub const fn is_plain(self) -> bool {
        !self.page_table && !self.watched
    }
}
