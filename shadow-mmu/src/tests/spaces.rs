//! A guest with thousands of address spaces: the pool stays what it is, and a switch costs what it costs with a few.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use crate::{
    Access, AccessKind, CmpxchgError, Config, ControlWrite, Controls, Counter, Fault, Gfn, GfnKind, Gpa, GuestMem, Gva,
    Outcome, Pfn, Policy, Privilege, Refused, ShadowMmu, Spte, SyncPolicy, TableMem, cr0, cr4, efer,
};

/// How many address spaces: each is a frame that is the guest's root, and a frame that is its only leaf table.
const SPACES: u64 = 4000;
/// Page tables begin here, data behind them.
const TABLES: u64 = 1 + SPACES;
const DATA: u64 = 1 + 2 * SPACES;

/// A large guest that is mostly made up: directory n names table n, whose entries all name one page.
struct Crowd {
    long: bool,
    /// What was written, by address.
    changed: RefCell<HashMap<u64, u64>>,
}

impl Crowd {
    fn made_up(&self, gpa: u64) -> u64 {
        let entry = match gpa >> 12 {
            0 => 0,
            root @ 1..TABLES => TABLES + root - 1,
            // In long mode the one table serves as table of all lower levels, too: entry 0 of it names itself.
            table @ TABLES..DATA if self.long && gpa & 0xfff == 0 => table,
            _ => DATA,
        };
        if self.long { entry << 12 | 7 } else { (entry << 12 | 7) * 0x1_0000_0001 }
    }

    fn word(&self, gpa: u64) -> u64 {
        self.changed.borrow().get(&(gpa & !7)).copied().unwrap_or_else(|| self.made_up(gpa))
    }
}

impl GuestMem for Crowd {
    fn kind(&self, gfn: Gfn) -> GfnKind {
        if gfn.raw() <= DATA { GfnKind::Ram(Pfn::new(0x1_0000 + gfn.raw())) } else { GfnKind::Hole }
    }

    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        Some((self.word(gpa.raw()) >> (gpa.raw() % 8 * 8)) as u32)
    }

    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        Some(self.word(gpa.raw()))
    }

    fn cmpxchg_u32(&self, gpa: Gpa, _: u32, new: u32) -> Result<(), CmpxchgError> {
        let shift = gpa.raw() % 8 * 8;
        let rest = self.word(gpa.raw()) & !(0xffff_ffff << shift);
        self.changed.borrow_mut().insert(gpa.raw() & !7, rest | u64::from(new) << shift);
        Ok(())
    }

    fn cmpxchg_u64(&self, gpa: Gpa, _: u64, new: u64) -> Result<(), CmpxchgError> {
        self.changed.borrow_mut().insert(gpa.raw(), new);
        Ok(())
    }
}

/// Tables in the host frames 0, 1, ..., and a count of what is done to them: the cost.
struct Counting {
    tables: Vec<[Spte; 512]>,
    done: Cell<u64>,
}

impl Counting {
    fn count(&self) {
        self.done.set(self.done.get() + 1);
    }
}

impl TableMem for Counting {
    fn load(&self, table: Pfn, index: usize) -> Spte {
        self.count();
        self.tables[table.raw() as usize][index]
    }

    fn store(&mut self, table: Pfn, index: usize, spte: Spte) -> Result<(), Refused> {
        self.count();
        self.tables[table.raw() as usize][index] = spte;
        Ok(())
    }

    fn clear(&mut self, table: Pfn) {
        self.count();
        self.tables[table.raw() as usize].fill(Spte::ABSENT);
    }

    fn make_root(&mut self, table: Pfn) -> Result<(), Refused> {
        self.clear(table);
        Ok(())
    }

    fn retire_root(&mut self, table: Pfn) -> Result<(), Refused> {
        self.clear(table);
        Ok(())
    }
}

type Mmu = ShadowMmu<Crowd, Counting>;

fn crowd(policy: Policy, long: bool, pool: u64) -> Mmu {
    let frames = (0..pool).map(Pfn::new).collect();
    let tables = Counting { tables: vec![[Spte::ABSENT; 512]; pool as usize], done: Cell::new(0) };
    let memory = Crowd { long, changed: RefCell::default() };
    ShadowMmu::new(memory, tables, (), Config { policy, ..Config::new(frames, DATA + 1) })
        .expect("a good configuration")
}

/// Loads each of `spaces` in turn and writes to a page in each. Says what the dearest of them cost in accesses to shadow tables.
fn visit(mmu: &mut Mmu, spaces: std::ops::Range<u64>) -> u64 {
    let mut dearest = 0;
    for space in spaces {
        let before = mmu.tables().done.get();
        let long = mmu.mem().long;
        let controls = Controls {
            cr0: cr0::PE | cr0::PG | cr0::WP,
            cr3: (1 + space) << 12,
            cr4: if long { cr4::PAE } else { 0 },
            efer: if long { efer::LME } else { 0 },
            pkru: 0,
        };
        let why = if mmu.root().is_none() { ControlWrite::Reset } else { ControlWrite::Cr3 };
        let _plan = mmu.load_controls(controls, why).expect("a CPU takes these");
        let access = Access { kind: AccessKind::Write, privilege: Privilege::User };
        for gva in [0x3000, 0x5000] {
            let (outcome, _plan) = mmu.on_fault(Fault { gva: Gva::new(gva), access });
            assert_eq!(outcome, Outcome::Resume);
        }
        dearest = dearest.max(mmu.tables().done.get() - before);
    }
    dearest
}

#[test]
fn thousands_of_address_spaces_fit_into_a_tiny_pool_at_a_flat_cost() {
    let syncs = [SyncPolicy::WriteProtect, SyncPolicy::UNSYNC, SyncPolicy::VirtualTlb];
    for (sync, long, root_cache) in syncs.into_iter().flat_map(|sync| {
        [(false, Policy::ALL_ROOTS), (false, 2), (true, Policy::ALL_ROOTS), (true, 2)]
            .map(|(long, roots)| (sync, long, roots))
    }) {
        let mut mmu = crowd(Policy { sync, root_cache, ..Policy::DEFAULT }, long, 32);
        // Enough to fill the pool and to begin to give pages up.
        let early = visit(&mut mmu, 0..100);
        let late = visit(&mut mmu, 100..SPACES);
        assert!(late <= early, "{sync:?}, long {long}, roots {root_cache}: {late} accesses, {early} at first");
        assert_eq!(mmu.counters().get(Counter::TableMade), mmu.counters().get(Counter::TableFreed) + live(&mmu));
        mmu.audit().expect("every invariant holds");
        // The first is found as it was left.
        let again = visit(&mut mmu, 0..1);
        assert!(again <= early);
    }
}

fn live(mmu: &Mmu) -> u64 {
    let live = mmu.pool.iter().filter(|(_, page)| page.live).count();
    assert!(live <= 32, "the pool is what it was");
    live as u64
}

#[test]
fn a_bounded_root_cache_never_has_more() {
    for (long, root_cache) in [(false, 0), (false, 1), (false, 5), (true, 0), (true, 1), (true, 3)] {
        let mut mmu = crowd(Policy { root_cache, ..Policy::DEFAULT }, long, 200);
        let views = if long { 2 } else { 1 };
        for space in 0..50 {
            visit(&mut mmu, space..space + 1);
            let roots = mmu.pool.iter().filter(|(_, page)| page.live && page.key.role.is_root()).count() as u64;
            let expected = (space + 1).min(u64::from(root_cache) + 1) * views;
            assert_eq!(roots, expected, "long {long}, roots {root_cache}, space {space}");
        }
        let missed = mmu.counters().get(Counter::RootMiss);
        visit(&mut mmu, 50 - u64::from(root_cache) - 1..50);
        assert_eq!(mmu.counters().get(Counter::RootMiss), missed, "those last used are the ones that are kept");
        mmu.audit().expect("every invariant holds");
    }
}
