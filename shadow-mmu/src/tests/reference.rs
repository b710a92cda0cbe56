//! The naive twin: what a CPU without any cache does with the guest's own tables. Written from SDM 3A 4.3 to 4.8, and on purpose
//! not from the library's code.

use super::memory::{self, Memory, ROM};
use crate::{Access, AccessKind, ControlWrite, Controls, Gpa, GuestMem, Privilege, cr0, cr4, efer};

/// How an access ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Goes to this physical address.
    At(u64),
    /// Page fault with this error code.
    Fault(u32),
    /// A table outside memory.
    Lost,
    /// No address in long mode: #GP or #SS.
    NotCanonical,
}

/// A translation as a TLB may keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cached {
    pub(super) frame: u64,
    rights: Rights,
    dirty: bool,
    /// A load of CR3 leaves it while CR4.PGE is set.
    pub(super) global: bool,
    /// log2 of the page's bytes.
    pub(super) size: u32,
}

impl Cached {
    /// Would a CPU let this access go by this entry without a walk?
    pub(super) fn serves(&self, access: Access, state: &State) -> bool {
        !state.forbids(self.rights, access) && (self.dirty || !access.is_write())
    }
}

/// What a paging-structure cache may keep: a table, and the rights of the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Partial {
    table: u64,
    rights: Rights,
}

/// One more entry on a way.
pub(super) enum Next {
    Table(Partial),
    Page(Cached),
}

/// U/S, R/W, NX of a way, turned to rights; and the page's protection key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rights {
    user: bool,
    write: bool,
    execute: bool,
    key: u32,
}

const ALL: Rights = Rights { user: true, write: true, execute: true, key: 0 };

pub(super) fn is_ram(frame: u64) -> bool {
    memory::is_ram(frame)
}

pub(super) fn is_memory(frame: u64) -> bool {
    is_ram(frame) || frame == ROM
}

/// How addresses are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Off,
    Two,
    Pae,
    Four,
    Five,
}

/// The registers that decide about translation. The CPU has 36 physical address bits and 1 GiB pages.
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
    Page(u64),
}

impl State {
    fn on4(&self, bit: u64) -> bool {
        self.controls.cr4 & bit != 0
    }

    pub(super) fn mode(&self) -> Mode {
        let pae = self.on4(cr4::PAE);
        match (self.controls.cr0 & cr0::PG != 0, self.controls.efer & efer::LMA != 0) {
            (false, _) => Mode::Off,
            (true, true) if self.on4(cr4::LA57) => Mode::Five,
            (true, true) => Mode::Four,
            (true, false) => {
                if pae {
                    Mode::Pae
                } else {
                    Mode::Two
                }
            }
        }
    }

    pub(super) fn long(&self) -> bool {
        matches!(self.mode(), Mode::Four | Mode::Five)
    }

    /// Do the control bits mean the same?
    pub(super) fn translates_as(&self, other: &Self) -> bool {
        let bits = |state: &Self| {
            let keys = state.long() && state.on4(cr4::PKE);
            (state.mode(), state.nxe(), state.smep(), state.smap(), state.wp(), keys)
        };
        bits(self) == bits(other)
    }

    fn nxe(&self) -> bool {
        self.mode() != Mode::Two && self.controls.efer & efer::NXE != 0
    }

    pub(super) fn smep(&self) -> bool {
        self.mode() != Mode::Off && self.on4(cr4::SMEP)
    }

    pub(super) fn smap(&self) -> bool {
        self.mode() != Mode::Off && self.on4(cr4::SMAP)
    }

    pub(super) fn wp(&self) -> bool {
        self.controls.cr0 & cr0::WP != 0
    }

    /// Levels of tables in memory that a walk reads.
    pub(super) fn levels(&self) -> u32 {
        match self.mode() {
            Mode::Off => 0,
            Mode::Two | Mode::Pae => 2,
            Mode::Four => 4,
            Mode::Five => 5,
        }
    }

    /// Address bits below those that index a table of `level`.
    pub(super) fn shift(&self, level: u32) -> u32 {
        12 + (level - 1) * if self.mode() == Mode::Two { 10 } else { 9 }
    }

    /// A write of the control registers: the state after it, or `None` for #GP(0).
    pub(super) fn load(self, memory: &Memory, controls: Controls, why: ControlWrite) -> Option<Self> {
        let old = self;
        let mut state = Self { controls, ..self };
        // LMA is the CPU's.
        state.controls.efer &= !efer::LMA;
        if controls.cr0 & cr0::PG != 0 && controls.efer & efer::LME != 0 {
            state.controls.efer |= efer::LMA;
        }
        let both_paging = old.mode() != Mode::Off && state.mode() != Mode::Off;
        if state.long() && !state.on4(cr4::PAE)
            || both_paging && old.long() != state.long()
            || old.long() && state.long() && old.mode() != state.mode()
            || controls.cr3 >= 1 << 36
        {
            return None;
        }
        let (cr0, cr4) = (controls.cr0 ^ self.controls.cr0, controls.cr4 ^ self.controls.cr4);
        let loads = match why {
            ControlWrite::Cr3 | ControlWrite::Reset => true,
            ControlWrite::Cr0 => cr0 & (1 << 29 | 1 << 30 | 1 << 31) != 0,
            ControlWrite::Cr4 => cr4 & (1 << 4 | 1 << 5 | 1 << 7 | 1 << 20) != 0,
            ControlWrite::Efer | ControlWrite::Pkru => false,
        };
        if state.mode() != Mode::Pae || !loads {
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

    /// Where a walk begins, if anywhere.
    pub(super) fn top(&self, gva: u64) -> Option<Partial> {
        let table = match self.mode() {
            Mode::Off => return None,
            Mode::Two => self.controls.cr3 & 0xffff_f000,
            Mode::Pae => {
                let top = self.pdptes[gva as usize >> 30 & 3];
                if top & 1 == 0 {
                    return None;
                }
                top & 0xf_ffff_f000
            }
            Mode::Four | Mode::Five => self.controls.cr3 & 0xf_ffff_f000,
        };
        Some(Partial { table, rights: ALL })
    }

    fn entry_at(&self, table: u64, level: u32, gva: u64) -> u64 {
        let index = gva >> self.shift(level);
        table + if self.mode() == Mode::Two { (index & 1023) * 4 } else { (index & 511) * 8 }
    }

    fn read(&self, memory: &Memory, at: u64) -> Option<u64> {
        if self.mode() == Mode::Two {
            memory.read_u32(Gpa::new(at)).map(u64::from)
        } else {
            memory.read_u64(Gpa::new(at))
        }
    }

    fn meaning(&self, raw: u64, level: u32) -> Meaning {
        if raw & 1 == 0 {
            return Meaning::Absent;
        }
        let large = raw & 0x80 != 0 && level > 1;
        if self.mode() == Mode::Two {
            if large && self.on4(cr4::PSE) {
                if raw & 0x003e_0000 != 0 {
                    return Meaning::Reserved;
                }
                return Meaning::Page(raw & 0xffc0_0000 | (raw >> 13 & 0xf) << 32);
            }
            return if level > 1 { Meaning::Table(raw & 0xffff_f000) } else { Meaning::Page(raw & 0xffff_f000) };
        }
        let reserved = if self.long() { 0x000f_fff0_0000_0000 } else { 0x7fff_fff0_0000_0000u64 };
        if raw & reserved != 0 || raw >> 63 != 0 && !self.nxe() {
            return Meaning::Reserved;
        }
        match (level, large) {
            (1, _) => Meaning::Page(raw & 0xf_ffff_f000),
            (_, false) => Meaning::Table(raw & 0xf_ffff_f000),
            (2, true) if raw & 0x001f_e000 == 0 => Meaning::Page(raw & 0xf_ffe0_0000),
            (3, true) if raw & 0x3fff_e000 == 0 => Meaning::Page(raw & 0xf_c000_0000),
            _ => Meaning::Reserved,
        }
    }

    fn join(&self, above: Rights, raw: u64) -> Rights {
        Rights {
            user: above.user && raw & 4 != 0,
            write: above.write && raw & 2 != 0,
            execute: above.execute && !(self.nxe() && raw >> 63 != 0),
            key: (raw >> 59 & 15) as u32,
        }
    }

    /// Does the protection key forbid it?
    fn key_forbids(&self, rights: Rights, access: Access) -> bool {
        let bits = self.controls.pkru >> (rights.key * 2) & 3;
        self.long()
            && self.on4(cr4::PKE)
            && rights.user
            && match access.kind {
                AccessKind::Fetch => false,
                AccessKind::Read => bits & 1 != 0,
                AccessKind::Write => bits & 1 != 0 || bits & 2 != 0 && (access.is_user() || self.wp()),
            }
    }

    fn forbids(&self, rights: Rights, access: Access) -> bool {
        let Rights { user, write, execute, .. } = rights;
        let smap = self.smap() && user && access.privilege == Privilege::Supervisor;
        self.key_forbids(rights, access)
            || match (access.is_user(), access.kind) {
                (true, _) if !user => true,
                (true, AccessKind::Read) => false,
                (true, AccessKind::Write) => !write,
                (true, AccessKind::Fetch) => !execute,
                (false, AccessKind::Read) => smap,
                (false, AccessKind::Write) => smap || !write && self.wp(),
                (false, AccessKind::Fetch) => !execute || user && self.smep(),
            }
    }

    fn error(&self, access: Access) -> u32 {
        let fetch = access.kind == AccessKind::Fetch && (self.smep() || self.nxe());
        u32::from(access.is_write()) << 1 | u32::from(access.is_user()) << 2 | u32::from(fetch) << 4
    }

    pub(super) fn canonical(&self, gva: u64) -> bool {
        match self.mode() {
            Mode::Four => matches!(gva >> 47, 0 | 0x1_ffff),
            Mode::Five => matches!(gva >> 56, 0 | 0xff),
            Mode::Off | Mode::Two | Mode::Pae => true,
        }
    }

    /// Is there a place for it in the tables of a host with 4 levels, whose hypervisor has the first 8 TiB of the upper half?
    pub(super) fn host_can(&self, gva: u64) -> bool {
        matches!(gva >> 47, 0 | 0x1_ffff) && !(0xffff_8000_0000_0000..0xffff_8800_0000_0000).contains(&gva)
    }

    /// The next thing that a walk may leave in a cache, coming from `from` to a table of `level`: only what has A set.
    pub(super) fn cacheable(&self, memory: &Memory, gva: u64, level: u32, from: Partial) -> Option<Next> {
        let raw = self.read(memory, self.entry_at(from.table, level, gva))?;
        if raw & 0x20 == 0 {
            return None;
        }
        let rights = self.join(from.rights, raw);
        match self.meaning(raw, level) {
            Meaning::Absent | Meaning::Reserved => None,
            Meaning::Table(table) => Some(Next::Table(Partial { table, rights })),
            Meaning::Page(page) => {
                let size = self.shift(level);
                let frame = (page + (gva & ((1 << size) - 1))) >> 12;
                Some(Next::Page(Cached { frame, rights, dirty: raw & 0x40 != 0, global: raw & 0x100 != 0, size }))
            }
        }
    }
}

/// One access by a CPU without a TLB. With `mark` it sets A and D. Says also whether A and D were set already.
pub(super) fn access(memory: &Memory, state: &State, gva: u64, access: Access, mark: bool) -> (Verdict, bool) {
    if state.mode() == Mode::Off {
        return (Verdict::At(gva), true);
    }
    if !state.canonical(gva) {
        return (Verdict::NotCanonical, true);
    }
    let base = state.error(access);
    let Some(Partial { mut table, mut rights }) = state.top(gva) else { return (Verdict::Fault(base), true) };
    let mut used = Vec::new();
    let mut level = state.levels();
    let target = loop {
        let at = state.entry_at(table, level, gva);
        let Some(raw) = state.read(memory, at) else { return (Verdict::Lost, true) };
        used.push((at, raw));
        match state.meaning(raw, level) {
            Meaning::Absent => return (Verdict::Fault(base), true),
            Meaning::Reserved => return (Verdict::Fault(base | 9), true),
            Meaning::Table(next) => table = next,
            Meaning::Page(page) => {
                rights = state.join(rights, raw);
                break page + (gva & ((1 << state.shift(level)) - 1));
            }
        }
        rights = state.join(rights, raw);
        level -= 1;
    };
    if state.forbids(rights, access) {
        let key = if state.key_forbids(rights, access) { 0x20 } else { 0 };
        return (Verdict::Fault(base | 1 | key), true);
    }
    let last = used.len() - 1;
    let marks = |n: usize| if n == last && access.is_write() { 0x60 } else { 0x20 };
    let marked = used.iter().enumerate().all(|(n, (_, raw))| raw & u64::from(marks(n)) == u64::from(marks(n)));
    if mark && !marked {
        for (n, &(at, _)) in used.iter().enumerate() {
            let old = memory.word(at);
            if old | marks(n) != old && memory.cmpxchg_u32(Gpa::new(at), old, old | marks(n)).is_err() {
                return (Verdict::Lost, marked);
            }
        }
    }
    (Verdict::At(target), marked)
}
