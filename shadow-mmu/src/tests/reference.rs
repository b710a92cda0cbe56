//! The naive twin: what a CPU without any cache does with the guest's own tables. Written from SDM 3A 4.3, 4.4, 4.6 to 4.8, and on
//! purpose not from the library's code.

use super::memory::{HOLE, MMIO, Memory, RAM, ROM};
use crate::{Access, AccessKind, ControlWrite, Controls, Gpa, GuestMem, cr0, cr4, efer};

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
    pub(super) execute: bool,
    pub(super) dirty: bool,
    pub(super) large: bool,
}

impl Cached {
    /// Would a CPU let this access go by this entry without a walk?
    pub(super) fn serves(&self, access: Access, state: &State) -> bool {
        let user = access.is_user();
        (self.user || !user)
            && match access.kind {
                AccessKind::Read => true,
                AccessKind::Write => self.dirty && (self.write || !user && state.controls.cr0 & cr0::WP == 0),
                AccessKind::Fetch => self.execute && (user || !self.user || !state.smep()),
            }
    }
}

pub(super) fn is_ram(frame: u64) -> bool {
    frame < RAM
}

pub(super) fn is_memory(frame: u64) -> bool {
    frame <= ROM && frame != MMIO && frame != HOLE
}

/// The registers that decide about translation. The CPU has 36 physical address bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) controls: Controls,
    pub(super) pdptes: [u64; 4],
}

/// What one entry says.
enum Meaning {
    Absent,
    Reserved,
    Table(u64),
    /// A page of two to this many bytes.
    Page(u64, u32),
}

impl State {
    pub(super) fn paging(&self) -> bool {
        self.controls.cr0 & cr0::PG != 0
    }

    pub(super) fn pae(&self) -> bool {
        self.paging() && self.controls.cr4 & cr4::PAE != 0
    }

    /// Do the control bits mean the same?
    pub(super) fn translates_as(&self, other: &Self) -> bool {
        let wp = |state: &Self| state.controls.cr0 & cr0::WP;
        let bits = |state: &Self| (state.paging(), state.pae(), state.nxe(), state.smep(), wp(state));
        bits(self) == bits(other)
    }

    fn nxe(&self) -> bool {
        self.pae() && self.controls.efer & efer::NXE != 0
    }

    pub(super) fn smep(&self) -> bool {
        self.paging() && self.controls.cr4 & cr4::SMEP != 0
    }

    /// Address bits that a directory entry maps.
    pub(super) fn pde_shift(&self) -> u32 {
        if self.pae() { 21 } else { 22 }
    }

    /// A write of the control registers: the state after it, or `None` for #GP(0) (SDM 3A 4.4.1).
    pub(super) fn load(self, memory: &Memory, controls: Controls, why: ControlWrite) -> Option<Self> {
        let mut state = Self { controls, ..self };
        let (cr0, cr4) = (controls.cr0 ^ self.controls.cr0, controls.cr4 ^ self.controls.cr4);
        let loads = match why {
            ControlWrite::Cr3 | ControlWrite::Reset => true,
            ControlWrite::Cr0 => cr0 & (1 << 29 | 1 << 30 | 1 << 31) != 0,
            ControlWrite::Cr4 => cr4 & (1 << 4 | 1 << 5 | 1 << 7 | 1 << 20) != 0,
            ControlWrite::Efer => false,
        };
        if !state.pae() || !loads {
            return Some(state);
        }
        let mut table = controls.cr3 & 0xffff_ffe0;
        for entry in &mut state.pdptes {
            *entry = memory.read_u64(Gpa::new(table))?;
            if *entry & 1 != 0 && *entry & 0xffff_fff0_0000_01e6 != 0 {
                return None;
            }
            table += 8;
        }
        Some(state)
    }

    /// Where the directory entry is, if there is a directory.
    pub(super) fn pde_address(&self, gva: u32) -> Option<u64> {
        if self.pae() {
            let top = self.pdptes[gva as usize >> 30];
            (top & 1 != 0).then_some((top & 0xf_ffff_f000) + u64::from(gva >> 21 & 511) * 8)
        } else {
            Some((self.controls.cr3 & 0xffff_f000) + u64::from(gva >> 22) * 4)
        }
    }

    fn pte_address(&self, table: u64, gva: u32) -> u64 {
        table + if self.pae() { u64::from(gva >> 12 & 511) * 8 } else { u64::from(gva >> 12 & 1023) * 4 }
    }

    pub(super) fn read(&self, memory: &Memory, at: u64) -> Option<u64> {
        if self.pae() { memory.read_u64(Gpa::new(at)) } else { memory.read_u32(Gpa::new(at)).map(u64::from) }
    }

    fn meaning(&self, raw: u64, directory: bool) -> Meaning {
        if raw & 1 == 0 {
            return Meaning::Absent;
        }
        if !self.pae() {
            if directory && raw & 0x80 != 0 && self.controls.cr4 & cr4::PSE != 0 {
                if raw & 0x003e_0000 != 0 {
                    return Meaning::Reserved;
                }
                return Meaning::Page(raw & 0xffc0_0000 | (raw >> 13 & 0xf) << 32, 22);
            }
            return if directory { Meaning::Table(raw & 0xffff_f000) } else { Meaning::Page(raw & 0xffff_f000, 12) };
        }
        if raw & 0x7fff_fff0_0000_0000 != 0 || raw >> 63 != 0 && !self.nxe() {
            return Meaning::Reserved;
        }
        match (directory, raw & 0x80 != 0) {
            (true, true) if raw & 0x001f_e000 != 0 => Meaning::Reserved,
            (true, true) => Meaning::Page(raw & 0xf_ffe0_0000, 21),
            (true, false) => Meaning::Table(raw & 0xf_ffff_f000),
            (false, _) => Meaning::Page(raw & 0xf_ffff_f000, 12),
        }
    }

    /// U/S, R/W and NX as rights: user, write, execute.
    fn rights(&self, raw: u64) -> [bool; 3] {
        [raw & 4 != 0, raw & 2 != 0, !(self.nxe() && raw >> 63 != 0)]
    }

    fn both(&self, a: u64, b: u64) -> [bool; 3] {
        let (a, b) = (self.rights(a), self.rights(b));
        [a[0] && b[0], a[1] && b[1], a[2] && b[2]]
    }

    fn forbids(&self, [user, write, execute]: [bool; 3], access: Access) -> bool {
        match (access.is_user(), access.kind) {
            (true, _) if !user => true,
            (_, AccessKind::Read) => false,
            (true, AccessKind::Write) => !write,
            (false, AccessKind::Write) => !write && self.controls.cr0 & cr0::WP != 0,
            (true, AccessKind::Fetch) => !execute,
            (false, AccessKind::Fetch) => !execute || user && self.smep(),
        }
    }

    fn error(&self, access: Access) -> u32 {
        let fetch = access.kind == AccessKind::Fetch && (self.smep() || self.nxe());
        u32::from(access.is_write()) << 1 | u32::from(access.is_user()) << 2 | u32::from(fetch) << 4
    }
}

fn within(page: u64, size: u32, gva: u32) -> u64 {
    page + (u64::from(gva) & ((1 << size) - 1))
}

/// The translation that a walk beginning with this PDE may leave in a TLB.
pub(super) fn cacheable(memory: &Memory, state: &State, gva: u32, pde: u64) -> Option<Cached> {
    if pde & 0x20 == 0 {
        return None;
    }
    let (leaf, page, size, [user, write, execute]) = match state.meaning(pde, true) {
        Meaning::Absent | Meaning::Reserved => return None,
        Meaning::Page(page, size) => (pde, page, size, state.rights(pde)),
        Meaning::Table(table) => {
            let pte = state.read(memory, state.pte_address(table, gva))?;
            let Meaning::Page(page, size) = state.meaning(pte, false) else { return None };
            (pte, page, size, state.both(pde, pte))
        }
    };
    let frame = within(page, size, gva) >> 12;
    (leaf & 0x20 != 0).then_some(Cached { frame, user, write, execute, dirty: leaf & 0x40 != 0, large: size != 12 })
}

/// One access by a CPU without a TLB. With `mark` it sets A and D. Says also whether A and D were set already.
pub(super) fn access(memory: &Memory, state: &State, gva: u32, access: Access, mark: bool) -> (Verdict, bool) {
    if !state.paging() {
        return (Verdict::At(u64::from(gva)), true);
    }
    let base = state.error(access);
    let Some(pde_at) = state.pde_address(gva) else { return (Verdict::Fault(base), true) };
    let Some(pde) = state.read(memory, pde_at) else { return (Verdict::Lost, true) };
    let (leaf_at, leaf, rights, target) = match state.meaning(pde, true) {
        Meaning::Absent => return (Verdict::Fault(base), true),
        Meaning::Reserved => return (Verdict::Fault(base | 9), true),
        Meaning::Page(page, size) => (pde_at, pde, state.rights(pde), within(page, size, gva)),
        Meaning::Table(table) => {
            let pte_at = state.pte_address(table, gva);
            let Some(pte) = state.read(memory, pte_at) else { return (Verdict::Lost, true) };
            match state.meaning(pte, false) {
                Meaning::Page(page, size) => (pte_at, pte, state.both(pde, pte), within(page, size, gva)),
                Meaning::Reserved => return (Verdict::Fault(base | 9), true),
                Meaning::Absent | Meaning::Table(_) => return (Verdict::Fault(base), true),
            }
        }
    };
    if state.forbids(rights, access) {
        return (Verdict::Fault(base | 1), true);
    }
    let leaf_marks = if access.is_write() { 0x60 } else { 0x20 };
    let marked = pde & 0x20 != 0 && leaf & u64::from(leaf_marks) == u64::from(leaf_marks);
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
