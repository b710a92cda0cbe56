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
    tlb: HashMap<u64, (Pfn, Perms)>,
    /// Address bits above 21, to the L1 table.
    upper: HashMap<u64, Pfn>,
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
            self.tlb.remove(&page.raw());
            self.upper.clear();
        }
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
        if let Some(&(pfn, perms)) = self.tlb.get(&page) {
            if self.allows(perms, access) {
                return Some(pfn);
            }
            return self.fault(page);
        }
        let table = match self.upper.get(&(page >> 21)) {
            Some(&table) => table,
            None => match self.walk_upper(tables, gva) {
                Some(table) => table,
                None => return self.fault(page),
            },
        };
        let spte = tables.load(table, gva.slot(Level::L1));
        self.reserved = spte.is_gap();
        if !spte.present() || !self.allows(spte.perms(), access) {
            return self.fault(page);
        }
        self.check_hardware_never_writes(spte);
        if self.caching {
            self.tlb.insert(page, (spte.pfn(), spte.perms()));
            self.upper.insert(page >> 21, table);
        }
        Some(spte.pfn())
    }

    fn walk_upper(&mut self, tables: &Tables, gva: Gva) -> Option<Pfn> {
        let mut table = self.root?.table;
        for level in [Level::L4, Level::L3, Level::L2] {
            let spte = tables.load(table, gva.slot(level));
            if !spte.present() {
                self.reserved = spte.is_gap();
                return None;
            }
            assert!(spte.raw() & 0x80 == 0 && spte.perms() == Perms::ALL, "a plain table entry: {spte:?}");
            self.check_hardware_never_writes(spte);
            table = spte.pfn();
        }
        Some(table)
    }

    fn check_hardware_never_writes(&self, spte: Spte) {
        assert!(spte.raw() & 0x20 != 0, "A is set: {spte:?}");
    }

    /// A page fault drops what would be used for that address (SDM 3A 4.10.4.1).
    fn fault(&mut self, page: u64) -> Option<Pfn> {
        self.tlb.remove(&page);
        self.upper.remove(&(page >> 21));
        None
    }
}
