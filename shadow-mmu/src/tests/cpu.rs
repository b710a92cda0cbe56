//! The real CPU: walks the shadow tables from the root as hardware does, with CR0.WP = 1, through a TLB and a cache of L1 tables
//! that forget only what a flush plan or a fault says.

use std::collections::HashMap;

use super::memory::Tables;
use crate::{Access, AccessKind, FlushPlan, Gva, Level, Perms, Pfn, Privilege, Root, Spte, TableMem};

#[derive(Debug, Default)]
pub(super) struct Cpu {
    /// Does it have a TLB at all?
    pub(super) caching: bool,
    /// CR4.SMEP and CR4.SMAP, which the host takes from a guest in ring 1.
    pub(super) smep: bool,
    pub(super) smap: bool,
    pub(super) root: Option<Root>,
    /// The last access met reserved bits, as the error code of its fault says.
    pub(super) reserved: bool,
    /// By page, those of a large leaf, too: with the mark that it comes from one.
    tlb: HashMap<u64, (Pfn, Perms, bool)>,
    /// Address bits above 21, to the L1 table.
    upper: HashMap<u64, Pfn>,
}

/// What a directory names.
enum Named {
    Table(Pfn),
    Large(Spte),
}

impl Cpu {
    pub(super) fn new(caching: bool) -> Self {
        Self { caching, ..Self::default() }
    }

    /// Loads CR3 if the root changed, then does what the plan says.
    pub(super) fn execute(&mut self, root: Option<Root>, plan: FlushPlan) {
        if self.root != root || plan.is_all() {
            self.tlb.clear();
            self.upper.clear();
            self.root = root;
        }
        for page in plan.pages() {
            self.drop_page(page.raw());
            self.upper.clear();
        }
    }

    /// What INVLPG of a page drops: of a large one all.
    fn drop_page(&mut self, page: u64) {
        self.tlb.retain(|&other, &mut (_, _, large)| other != page && !(large && other >> 21 == page >> 21));
    }

    fn allows(&self, perms: Perms, access: Access) -> bool {
        let user = access.is_user();
        (!user || perms.user())
            && match access.kind {
                AccessKind::Fetch => perms.execute() && (user || !self.smep || !perms.user()),
                _ if self.smap && perms.user() && access.privilege == Privilege::Supervisor => false,
                AccessKind::Read => true,
                AccessKind::Write => perms.write(),
            }
    }

    /// The frame that the access goes to, or a page fault.
    pub(super) fn access(&mut self, tables: &Tables, gva: Gva, access: Access) -> Option<Pfn> {
        let page = gva.page().raw();
        self.reserved = false;
        if let Some(&(pfn, perms, _)) = self.tlb.get(&page) {
            if self.allows(perms, access) {
                return Some(pfn);
            }
            return self.fault(page);
        }
        let named = match self.upper.get(&(page >> 21)) {
            Some(&table) => Some(Named::Table(table)),
            None => self.walk_upper(tables, gva),
        };
        let (table, spte) = match named {
            Some(Named::Table(table)) => (Some(table), tables.load(table, gva.slot(Level::L1))),
            Some(Named::Large(spte)) => (None, spte),
            None => return self.fault(page),
        };
        self.reserved = spte.is_gap();
        if !spte.present() || !self.allows(spte.perms(), access) {
            return self.fault(page);
        }
        self.check_hardware_never_writes(spte);
        let large = table.is_none();
        let pfn = if large { Pfn::new(spte.pfn().raw() + (page >> 12 & 511)) } else { spte.pfn() };
        if self.caching {
            let mut near = self.tlb.iter().filter(|(other, _)| *other >> 21 == page >> 21);
            assert!(near.all(|(_, entry)| entry.2 == large), "translations of two sizes for {gva}");
            self.tlb.insert(page, (pfn, spte.perms(), large));
            self.upper.extend(table.map(|table| (page >> 21, table)));
        }
        Some(pfn)
    }

    fn walk_upper(&mut self, tables: &Tables, gva: Gva) -> Option<Named> {
        let mut table = self.root?.table;
        for level in [Level::L4, Level::L3, Level::L2] {
            let spte = tables.load(table, gva.slot(level));
            if !spte.present() {
                self.reserved = spte.is_gap();
                return None;
            }
            if level == Level::L2 && spte.is_large() {
                return Some(Named::Large(spte));
            }
            assert!(spte.raw() & 0x80 == 0 && spte.perms() == Perms::ALL, "a plain table entry: {spte:?}");
            self.check_hardware_never_writes(spte);
            table = spte.pfn();
        }
        Some(Named::Table(table))
    }

    fn check_hardware_never_writes(&self, spte: Spte) {
        assert!(spte.raw() & 0x20 != 0, "A is set: {spte:?}");
        // As in every leaf; a table's D means nothing.
        assert!(!spte.is_large() || spte.writable() == (spte.raw() & 0x40 != 0), "D where W: {spte:?}");
    }

    /// A page fault drops what would be used for that address (SDM 3A 4.10.4.1).
    fn fault(&mut self, page: u64) -> Option<Pfn> {
        self.drop_page(page);
        self.upper.remove(&(page >> 21));
        None
    }
}
