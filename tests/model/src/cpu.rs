//! The real CPU: walks the shadow tables from the real root as hardware does, through a TLB and a cache of tables that forget
//! only what a flush plan or a fault says (SDM 3A 4.10.4).

use std::collections::HashMap;

use shadow_mmu::{FlushPlan, Gva, Level, Pfn, Root, Spte, TableMem};

use crate::host::Tables;
use crate::reference::{What, Who};

/// What a leaf allows.
#[derive(Clone, Copy, Debug)]
struct Entry {
    pfn: Pfn,
    user: bool,
    write: bool,
    execute: bool,
    /// Its key says so to the supervisor.
    unreadable: bool,
    /// It comes from an entry that maps 2 MiB.
    large: bool,
}

/// The CPU that the guest really runs on. CR0.WP is 1 and EFER.NXE is on, as the library asks of its host.
#[derive(Debug, Default)]
pub struct Cpu {
    /// It has a TLB and a cache of L1 tables.
    caching: bool,
    /// CR4.SMEP, which a host takes from a guest in ring 1.
    pub smep: bool,
    /// CR4.SMAP, likewise.
    pub smap: bool,
    /// Keys for supervisor pages, of which one takes the right to read and write.
    pub keys: bool,
    root: Option<Root>,
    tlb: HashMap<u64, Entry>,
    /// The paging-structure caches: tables below the root, by level and by the addresses that they are for.
    tables: HashMap<(Level, u64), Pfn>,
    walks: usize,
    /// The last walk met reserved bits, as the error code of its fault says.
    pub reserved: bool,
}

/// The levels below the root's, with the first bit of an address that chooses the table.
const TABLES: [(Level, u32); 3] = [(Level::L1, 21), (Level::L2, 30), (Level::L3, 39)];

impl Cpu {
    /// With or without caches.
    #[must_use]
    pub fn new(caching: bool) -> Self {
        Self { caching, ..Self::default() }
    }

    /// Does what a plan says.
    pub fn execute(&mut self, plan: FlushPlan) {
        if plan.is_all() {
            self.forget();
        }
        for page in plan.pages() {
            self.drop_page(page.raw());
            self.tables.clear();
        }
    }

    /// What INVLPG drops: of a large page all, however the TLB keeps it.
    fn drop_page(&mut self, page: u64) {
        self.tlb.retain(|&other, entry| other != page && !(entry.large && other >> 21 == page >> 21));
    }

    /// Keeps a translation. There must be no other size in its 2 MiB: some CPUs do not bear that.
    fn keep(&mut self, page: u64, entry: Entry) {
        let mut near = self.tlb.iter().filter(|(other, _)| *other >> 21 == page >> 21);
        assert!(near.all(|(_, other)| other.large == entry.large), "translations of two sizes around {page:#x}");
        self.tlb.insert(page, entry);
    }

    fn forget(&mut self) {
        self.tlb.clear();
        self.tables.clear();
    }

    fn load(&mut self, root: Root) {
        if self.root.replace(root) != Some(root) {
            self.forget();
        }
    }

    fn allows(&self, entry: &Entry, what: What, who: Who) -> bool {
        let user = who == Who::User;
        (entry.user || !user)
            && match what {
                What::Read | What::Write if self.smap && entry.user && who == Who::Supervisor => false,
                What::Read | What::Write if self.keys && entry.unreadable && !user => false,
                What::Read => true,
                What::Write => entry.write,
                What::Fetch => entry.execute && (user || !self.smep || !entry.user),
            }
    }

    /// The host frame that an access goes to, or `None` for a page fault. CR3 is loaded if `root` is another one than before.
    pub fn access(&mut self, tables: &Tables, root: Root, va: u64, (what, who): (What, Who)) -> Option<Pfn> {
        self.load(root);
        let page = va & !0xfff;
        let entry = match self.tlb.get(&page) {
            Some(&entry) => {
                self.reserved = false;
                Some(entry)
            }
            None => self.walk(tables, va),
        };
        match entry.filter(|entry| self.allows(entry, what, who)) {
            Some(entry) => {
                if self.caching {
                    self.keep(page, entry);
                }
                Some(entry.pfn)
            }
            None => {
                // A page fault drops what was used for that address.
                self.drop_page(page);
                for (level, shift) in TABLES {
                    self.tables.remove(&(level, va >> shift));
                }
                None
            }
        }
    }

    /// Fills the TLB ahead of any access, as a CPU may at any time.
    pub fn speculate(&mut self, tables: &Tables, root: Root, va: u64) {
        self.load(root);
        if self.caching
            && !self.tlb.contains_key(&(va & !0xfff))
            && let Some(entry) = self.walk(tables, va)
        {
            self.keep(va & !0xfff, entry);
        }
    }

    /// Walks from a table in the caches, mostly from the lowest, or from the root.
    fn walk(&mut self, tables: &Tables, va: u64) -> Option<Entry> {
        let gva = Gva::new(va);
        self.walks += 1;
        self.reserved = false;
        let known = TABLES.iter().skip(self.walks % 8 / 5);
        let known = known.filter_map(|&(level, shift)| Some((level, *self.tables.get(&(level, va >> shift))?))).next();
        let (mut level, mut table) = known.unwrap_or((Level::L4, self.root?.table));
        while level > Level::L1 {
            let spte = tables.load(table, gva.slot(level));
            if !spte.present() {
                self.reserved = spte.is_gap();
                return None;
            }
            if level == Level::L2 && spte.is_large() {
                return Some(leaf(spte, va));
            }
            assert!(spte.raw() & 0xe6 == 0x26, "a table entry that grants everything: {spte}");
            table = spte.pfn();
            level = level.down()?;
            if self.caching {
                self.tables.insert((level, va >> (level.shift() + 9)), table);
            }
        }
        let spte = tables.load(table, gva.slot(Level::L1));
        self.reserved = spte.is_gap();
        spte.present().then(|| leaf(spte, va))
    }
}

/// What a leaf, large or not, says of an address. The CPU must have no reason to write a shadow table: A is set, and D wherever W is.
fn leaf(spte: Spte, va: u64) -> Entry {
    assert!(spte.raw() & 0x20 != 0 && (!spte.writable() || spte.raw() & 0x40 != 0), "{spte}");
    let large = spte.is_large();
    let part = if large { va >> 12 & 511 } else { 0 };
    Entry {
        pfn: Pfn::new(spte.pfn().raw() + part),
        user: spte.user(),
        write: spte.writable(),
        execute: spte.executable(),
        unreadable: spte.raw() >> 59 & 0xf == Spte::UNREADABLE_KEY,
        large,
    }
}
