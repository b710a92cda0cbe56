//! What an x86 CPU without any cache does with the guest's own tables. Written from the Intel SDM, volume 3A, chapter 4 ("SDM"
//! below), to be obviously right and nothing else. It knows nothing of the library, and shares no code with it.

mod registers;

use crate::ram::Ram;

pub use registers::*;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 0x20;
const DIRTY: u64 = 0x40;
const LARGE: u64 = 0x80;
const GLOBAL: u64 = 0x100;
const NX: u64 = 1 << 63;

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Fetch,
}

/// Who makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// CPL below 3.
    Supervisor,
    /// CPL below 3 with EFLAGS.AC set.
    SupervisorAc,
    /// CPL 3.
    User,
}

/// Rights of one entry, or of a whole walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rights {
    /// U/S.
    pub user: bool,
    /// R/W.
    pub write: bool,
    /// Not NX.
    pub execute: bool,
}

impl Rights {
    /// What a walk begins with.
    pub const ALL: Self = Self { user: true, write: true, execute: true };

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { user: self.user && other.user, write: self.write && other.write, execute: self.execute && other.execute }
    }
}

/// What one entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// P = 0.
    Absent,
    /// A reserved bit is set.
    Reserved,
    /// The table at this address, with these rights.
    Table(u64, Rights),
    /// A page.
    Page(Page),
}

/// A page as one entry gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its first address.
    pub base: u64,
    /// log2 of its bytes.
    pub shift: u32,
    /// Rights of the entry.
    pub rights: Rights,
    /// D.
    pub dirty: bool,
    /// G.
    pub global: bool,
    /// Protection key.
    pub key: u8,
}

/// How an access ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes to this physical address.
    At(u64),
    /// Page fault with this error code.
    Fault(u32),
    /// An entry at this address was needed, or had to be marked, and no memory is there.
    Lost(u64),
}

/// An entry that a successful walk used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Where it is.
    pub at: u64,
    /// A or D had to be set in it.
    pub marked: bool,
}

/// A walk, with what it used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// How it ended.
    pub verdict: Verdict,
    /// The entries it used, if it succeeded.
    pub used: Vec<Used>,
    /// Where it read entries.
    pub read: Vec<u64>,
}

impl Walk {
    /// Did it need a frame, for a table or for the page?
    #[must_use]
    pub fn needs(&self, frame: u64) -> bool {
        let page = match self.verdict {
            Verdict::At(target) => target >> 12 == frame,
            Verdict::Fault(_) | Verdict::Lost(_) => false,
        };
        page || self.read.iter().any(|at| at >> 12 == frame)
    }

    /// Were A and D already as the access needs them?
    #[must_use]
    pub fn was_marked(&self) -> bool {
        self.used.iter().all(|used| !used.marked)
    }
}

impl Regs {
    /// Reads an entry; `None` if no memory is there.
    #[must_use]
    pub fn read(&self, ram: &Ram, at: u64) -> Option<u64> {
        ram.read(at, self.entry_size())
    }

    /// What an entry means at the level where entries map `1 << shift` bytes (SDM 4.3, 4.4.2, 4.5.4).
    #[must_use]
    pub fn decode(&self, raw: u64, shift: u32) -> Entry {
        if raw & PRESENT == 0 {
            return Entry::Absent;
        }
        let rights =
            Rights { user: raw & USER != 0, write: raw & WRITABLE != 0, execute: !(self.nxe() && raw & NX != 0) };
        let page = |base, shift| {
            Entry::Page(Page {
                base,
                shift,
                rights,
                dirty: raw & DIRTY != 0,
                global: raw & GLOBAL != 0,
                key: (raw >> 59 & 15) as u8,
            })
        };
        if self.mode() == Mode::Legacy {
            return match (shift, raw & LARGE != 0 && self.cr4 & PSE != 0) {
                (12, _) => page(raw & 0xffff_f000, 12),
                // PSE-36: of bits 20:13, those that the CPU has are address bits 39:32. The others and bit 21 are reserved.
                (_, true) if raw >> 13 & 0x1ff & !(self.address_bits() >> 32 & 0xff) != 0 => Entry::Reserved,
                (_, true) => page(raw & 0xffc0_0000 | (raw >> 13 & 0xff) << 32, 22),
                (_, false) => Entry::Table(raw & 0xffff_f000, rights),
            };
        }
        // Bits 51:MAXPHYADDR are reserved; in PAE paging so are 62:52. NX is while EFER.NXE = 0.
        let mut reserved = 0x000f_ffff_ffff_f000 & !self.address_bits();
        if self.mode() == Mode::Pae {
            reserved |= 0x7ff0_0000_0000_0000;
        }
        if !self.nxe() {
            reserved |= NX;
        }
        let address = raw & self.address_bits();
        if raw & reserved != 0 {
            return Entry::Reserved;
        }
        match (shift, raw & LARGE != 0) {
            (12, _) => page(address, 12),
            (_, false) => Entry::Table(address, rights),
            // Bits 20:13 of a 2 MiB page and 29:13 of a 1 GiB page are reserved; bit 12 is PAT. No larger page exists.
            (30, true) if !self.features.gib_pages => Entry::Reserved,
            (21 | 30, true) if address & ((1 << shift) - 1) & !0x1000 != 0 => Entry::Reserved,
            (21 | 30, true) => page(address >> shift << shift, shift),
            (_, true) => Entry::Reserved,
        }
    }

    /// Do the rights of a walk forbid an access (SDM 4.6.1)?
    #[must_use]
    pub fn forbids(&self, rights: Rights, what: What, who: Who) -> bool {
        let user = who == Who::User;
        if user && !rights.user {
            return true;
        }
        let smap = self.cr4 & SMAP != 0 && rights.user && who == Who::Supervisor;
        match what {
            What::Read => smap,
            What::Write => smap || !rights.write && (user || self.cr0 & WP != 0),
            What::Fetch => !rights.execute || !user && rights.user && self.cr4 & SMEP != 0,
        }
    }

    /// Does the protection key of a page forbid an access (SDM 4.6.2)?
    #[must_use]
    pub fn key_forbids(&self, rights: Rights, key: u8, what: What, who: Who) -> bool {
        if !self.is_long() || self.cr4 & PKE == 0 || !rights.user || what == What::Fetch {
            return false;
        }
        let (no_access, no_write) = (self.pkru >> (2 * key) & 1 != 0, self.pkru >> (2 * key + 1) & 1 != 0);
        no_access || no_write && what == What::Write && (who == Who::User || self.cr0 & WP != 0)
    }

    /// The part of an error code that comes from the access itself (SDM 4.7).
    fn error(&self, what: What, who: Who) -> u32 {
        let fetch = what == What::Fetch && (self.cr4 & SMEP != 0 || self.nxe());
        u32::from(what == What::Write) << 1 | u32::from(who == Who::User) << 2 | u32::from(fetch) << 4
    }

    /// One access. With `mark` it sets A and D in `ram` (SDM 4.8): in all entries it used, and only if it is allowed.
    #[must_use]
    pub fn access(&self, ram: &Ram, va: u64, what: What, who: Who, mark: bool) -> Walk {
        let mut walk = Walk { verdict: Verdict::At(va), used: Vec::new(), read: Vec::new() };
        if self.mode() == Mode::Off {
            return walk;
        }
        let mut entries = Vec::new();
        walk.verdict = self.descend(ram, va, (what, who), &mut entries);
        walk.read = entries.iter().map(|entry| entry.0).collect();
        if let Verdict::At(_) = walk.verdict {
            self.finish(ram, &entries, mark, &mut walk);
        }
        walk
    }

    /// The walk itself; `used` gets each entry read, and the marks it must have.
    fn descend(&self, ram: &Ram, va: u64, (what, who): (What, Who), used: &mut Vec<(u64, u64)>) -> Verdict {
        let error = self.error(what, who);
        let Some(mut table) = self.top(va) else { return Verdict::Fault(error) };
        let mut rights = Rights::ALL;
        for &shift in self.levels() {
            let at = self.entry_at(table, va, shift);
            let Some(raw) = self.read(ram, at) else { return Verdict::Lost(at) };
            let entry = self.decode(raw, shift);
            let leaf = matches!(entry, Entry::Page(_));
            let wanted = ACCESSED | if leaf && what == What::Write { DIRTY } else { 0 };
            used.push((at, wanted));
            match entry {
                Entry::Absent => return Verdict::Fault(error),
                Entry::Reserved => return Verdict::Fault(error | 9),
                Entry::Table(next, own) => {
                    table = next;
                    rights = rights.and(own);
                }
                Entry::Page(page) => {
                    rights = rights.and(page.rights);
                    let key = self.key_forbids(rights, page.key, what, who);
                    if key || self.forbids(rights, what, who) {
                        return Verdict::Fault(error | 1 | u32::from(key) << 5);
                    }
                    return Verdict::At(page.base + (va & ((1 << page.shift) - 1)));
                }
            }
        }
        unreachable!("the last level maps pages")
    }

    /// Sets the marks. An entry that is used twice by one walk gets both.
    fn finish(&self, ram: &Ram, entries: &[(u64, u64)], mark: bool, walk: &mut Walk) {
        for &(at, wanted) in entries {
            let raw = self.read(ram, at).expect("it was read before");
            let marked = raw & wanted != wanted;
            if mark && marked {
                if !ram.is_ram(at) {
                    walk.verdict = Verdict::Lost(at);
                    return;
                }
                ram.write(at, &(raw | wanted).to_le_bytes()[..self.entry_size() as usize]);
            }
            walk.used.push(Used { at, marked });
        }
    }
}
