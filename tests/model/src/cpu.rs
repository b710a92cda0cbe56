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
            self.tlb.remove(&page.raw());
            self.tables.clear();
        }
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
                    self.tlb.insert(page, entry);
                }
                Some(entry.pfn)
            }
            None => {
                // A page fault drops what was used for that address.
                self.tlb.remove(&page);
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
            self.tlb.insert(va & !0xfff, entry);
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
            assert!(spte.raw() & 0xe6 == 0x26, "a table entry that grants everything: {spte}");
            table = spte.pfn();
            level = level.down()?;
            if self.caching {
                self.tables.insert((level, va >> (level.shift() + 9)), table);
            }
        }
        let spte = tables.load(table, gva.slot(Level::L1));
        self.reserved = spte.is_gap();
        if spte.present() {
            check_leaf(spte);
        }
        spte.present().then(|| Entry {
            pfn: spte.pfn(),
            user: spte.user(),
            write: spte.writable(),
            execute: spte.executable(),
        })
    }
}

/// The CPU must have no reason to write a shadow table: A is set, and D wherever W is.
fn check_leaf(spte: Spte) {
    assert!(spte.raw() & 0x20 != 0 && (!spte.writable() || spte.raw() & 0x40 != 0), "{spte}");
}
