//! Guest slots, table frames and a CPU, as one value.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::cpu::{Cpu, Walked, Walker};
use crate::second::{SecondConfig, SecondFormat, SecondLevel, SecondOutcome, UsageTracking};
use crate::{AccessKind, CmpxchgError, FlushPlan, Gfn, GfnKind, Gpa, GuestMem, Pfn, Refused, Spte, TableMem};

/// Guest frames: RAM up to here, scattered but for one run; then ROM, a device, and a hole. Regions of 512 are crossed.
pub(super) const RAM: u64 = 2048;
pub(super) const ROM: u64 = RAM;
pub(super) const MMIO: u64 = RAM + 1;
pub(super) const HOLE: u64 = RAM + 2;
pub(super) const GUEST_FRAMES: u64 = RAM + 3;
/// The run of guest frames behind which the host's are neighbours, aligned alike.
pub(super) const RUN: core::ops::Range<u64> = 1024..1536;

pub(super) struct Slots {
    /// Frames that were moved, by how often.
    moved: RefCell<HashMap<u64, u64>>,
    pub(super) lie: Cell<Option<u64>>,
}

impl Slots {
    pub(super) fn pfn(&self, gfn: u64) -> Pfn {
        let moves = self.moved.borrow().get(&gfn).copied().unwrap_or(0);
        let base = if RUN.contains(&gfn) && moves == 0 { 0x10_0000 + gfn } else { 0x20_0000 + gfn * 7 };
        Pfn::new(base + moves * 0x100_0000)
    }

    pub(super) fn move_frame(&self, gfn: u64) {
        *self.moved.borrow_mut().entry(gfn).or_default() += 1;
    }
}

impl GuestMem for Slots {
    fn kind(&self, gfn: Gfn) -> GfnKind {
        match gfn.raw() {
            n if self.lie.get() == Some(n) => GfnKind::Ram(Pfn::new(0x66)),
            n if n < RAM => GfnKind::Ram(self.pfn(n)),
            ROM => GfnKind::Rom(self.pfn(ROM)),
            MMIO => GfnKind::Mmio,
            _ => GfnKind::Hole,
        }
    }
    fn read_u32(&self, _: Gpa) -> Option<u32> {
        None
    }
    fn read_u64(&self, _: Gpa) -> Option<u64> {
        None
    }
    fn cmpxchg_u32(&self, _: Gpa, _: u32, _: u32) -> Result<(), CmpxchgError> {
        Err(CmpxchgError::NoMemory)
    }
    fn cmpxchg_u64(&self, _: Gpa, _: u64, _: u64) -> Result<(), CmpxchgError> {
        Err(CmpxchgError::NoMemory)
    }
}

/// Table frames; what was never handed in does not exist.
#[derive(Debug)]
pub(super) struct Store(HashMap<Pfn, Box<[Spte; 512]>>);

impl Store {
    pub(super) fn load(&self, table: Pfn, index: usize) -> Spte {
        self.0[&table][index]
    }

    pub(super) fn poke(&mut self, table: Pfn, index: usize, spte: Spte) {
        self.0.get_mut(&table).expect("a table")[index] = spte;
    }
}

#[derive(Clone, Debug)]
pub(super) struct Tables(pub(super) Rc<RefCell<Store>>);

/// The frame that the gate refuses.
pub(super) const FOREIGN: u64 = 0x66;

impl TableMem for Tables {
    fn load(&self, table: Pfn, index: usize) -> Spte {
        self.0.borrow().load(table, index)
    }
    fn store(&mut self, table: Pfn, index: usize, spte: Spte) -> Result<(), Refused> {
        if spte.pfn() == Pfn::new(FOREIGN) {
            return Err(Refused);
        }
        self.0.borrow_mut().poke(table, index, spte);
        Ok(())
    }
    fn clear(&mut self, table: Pfn) {
        self.0.borrow_mut().0.get_mut(&table).expect("a table").fill(Spte::ABSENT);
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

pub(super) struct Machine<F> {
    pub(super) second: SecondLevel<F, Tables>,
    pub(super) slots: Slots,
    pub(super) store: Rc<RefCell<Store>>,
    pub(super) cpu: Cpu,
    pub(super) bits: bool,
}

impl<F: SecondFormat + Walker> Machine<F> {
    pub(super) fn new(frames: u64, change: impl FnOnce(&mut SecondConfig)) -> Self {
        let list: Vec<Pfn> = (0..frames).map(|n| Pfn::new(0x5000 + n * 3)).collect();
        let dirty = || Box::new([Spte::from_raw(0xdead_b007); 512]);
        let store = Rc::new(RefCell::new(Store(list.iter().map(|&pfn| (pfn, dirty())).collect())));
        let mut config = SecondConfig::new(list, GUEST_FRAMES);
        change(&mut config);
        let bits = config.usage == UsageTracking::ByBits;
        let second = SecondLevel::new(Tables(store.clone()), config).expect("a good configuration");
        Self {
            second,
            slots: Slots { moved: RefCell::default(), lie: Cell::new(None) },
            store,
            cpu: Cpu::default(),
            bits,
        }
    }

    pub(super) fn carry_out(&self, plan: FlushPlan) {
        assert_eq!(plan.pages().count(), 0);
        if plan.is_all() {
            self.cpu.flush();
        }
    }

    /// An access of the guest, with its violations, until it passes or somebody else has to act.
    pub(super) fn access(&mut self, gfn: u64, kind: AccessKind) -> Result<u64, SecondOutcome> {
        for _ in 0..3 {
            let walked = self.cpu.access::<F>(gfn, kind, self.second.root().table, &self.store);
            if let Walked::Page(pfn, _) = walked {
                return Ok(pfn);
            }
            let (outcome, plan) = self.second.on_violation(&self.slots, Gfn::new(gfn).base().add(0x123), kind);
            self.carry_out(plan);
            if outcome != SecondOutcome::Resume {
                return Err(outcome);
            }
        }
        panic!("no progress at gfn {gfn:#x}");
    }

    pub(super) fn audit(&self) {
        self.second.audit(&self.slots).unwrap_or_else(|error| panic!("{error}"));
    }
}
