//! The naive twin: what a CPU without any cache does with the guest's own tables. Written from SDM 3A 4.3, 4.6 to 4.8, and on
//! purpose not from the library's code.

use super::memory::{HOLE, MMIO, Memory, RAM, ROM};
use crate::{Access, AccessKind, Controls, Gpa, GuestMem, cr0, cr4};

/// How an access ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Goes to this physical address.
    At(u64),
    /// Page fault with this error code.
    Fault(u32),
    /// A table outside memory.
    Lost,
}

/// A translation as a TLB may keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cached {
    pub(super) frame: u64,
    pub(super) user: bool,
    pub(super) write: bool,
    pub(super) dirty: bool,
    pub(super) large: bool,
}

impl Cached {
    /// Would a CPU let this access go by this entry without a walk?
    pub(super) fn serves(&self, access: Access, wp: bool) -> bool {
        let user = access.is_user();
        (self.user || !user) && (!access.is_write() || self.dirty && (self.write || !user && !wp))
    }
}

pub(super) fn is_ram(frame: u64) -> bool {
    frame < RAM
}

pub(super) fn is_memory(frame: u64) -> bool {
    frame <= ROM && frame != MMIO && frame != HOLE
}

pub(super) fn paging(controls: Controls) -> bool {
    controls.cr0 & cr0::PG != 0
}

pub(super) fn pde_address(controls: Controls, gva: u32) -> u64 {
    (controls.cr3 & 0xffff_f000) + u64::from(gva >> 22) * 4
}

fn is_large(pde: u32, controls: Controls) -> bool {
    pde & 0x80 != 0 && controls.cr4 & cr4::PSE != 0
}

fn large_base(pde: u32) -> u64 {
    u64::from(pde & 0xffc0_0000) | u64::from(pde >> 13 & 0xf) << 32
}

/// The translation that a walk beginning with this PDE may leave in a TLB.
pub(super) fn cacheable(memory: &Memory, controls: Controls, gva: u32, pde: u32) -> Option<Cached> {
    if pde & 0x21 != 0x21 {
        return None;
    }
    if is_large(pde, controls) {
        if pde & 0x003e_0000 != 0 {
            return None;
        }
        let frame = (large_base(pde) >> 12) + u64::from(gva >> 12 & 1023);
        return Some(Cached { frame, user: pde & 4 != 0, write: pde & 2 != 0, dirty: pde & 0x40 != 0, large: true });
    }
    let pte = memory.read_u32(Gpa::new(u64::from(pde & 0xffff_f000) + u64::from(gva >> 12 & 1023) * 4))?;
    (pte & 0x21 == 0x21).then(|| Cached {
        frame: u64::from(pte >> 12),
        user: pde & pte & 4 != 0,
        write: pde & pte & 2 != 0,
        dirty: pte & 0x40 != 0,
        large: false,
    })
}

/// One access by a CPU without a TLB. With `mark` it sets A and D. Says also whether A and D were set already.
pub(super) fn access(memory: &Memory, controls: Controls, gva: u32, access: Access, mark: bool) -> (Verdict, bool) {
    if !paging(controls) {
        return (Verdict::At(u64::from(gva)), true);
    }
    let base = u32::from(access.is_write()) << 1 | u32::from(access.is_user()) << 2;
    let pde_at = pde_address(controls, gva);
    let Some(pde) = memory.read_u32(Gpa::new(pde_at)) else { return (Verdict::Lost, true) };
    if pde & 1 == 0 {
        return (Verdict::Fault(base), true);
    }
    let (leaf_at, leaf, rights, target) = if is_large(pde, controls) {
        if pde & 0x003e_0000 != 0 {
            return (Verdict::Fault(base | 9), true);
        }
        (pde_at, pde, pde, large_base(pde) + u64::from(gva & 0x3f_ffff))
    } else {
        let pte_at = u64::from(pde & 0xffff_f000) + u64::from(gva >> 12 & 1023) * 4;
        let Some(pte) = memory.read_u32(Gpa::new(pte_at)) else { return (Verdict::Lost, true) };
        if pte & 1 == 0 {
            return (Verdict::Fault(base), true);
        }
        (pte_at, pte, pde & pte, u64::from(pte & 0xffff_f000) | u64::from(gva & 0xfff))
    };
    let forbidden = if access.is_user() {
        rights & 4 == 0 || access.kind == AccessKind::Write && rights & 2 == 0
    } else {
        access.kind == AccessKind::Write && rights & 2 == 0 && controls.cr0 & cr0::WP != 0
    };
    if forbidden {
        return (Verdict::Fault(base | 1), true);
    }
    let leaf_marks = if access.is_write() { 0x60 } else { 0x20 };
    let marked = pde & 0x20 != 0 && leaf & leaf_marks == leaf_marks;
    if mark && !marked {
        let table_marks = if leaf_at == pde_at { leaf_marks } else { 0x20 };
        for (at, marks) in [(pde_at, table_marks), (leaf_at, leaf_marks)] {
            let old = memory.word(at);
            if old | marks != old && memory.cmpxchg_u32(Gpa::new(at), old, old | marks).is_err() {
                return (Verdict::Lost, marked);
            }
        }
    }
    (Verdict::At(target), marked)
}
