//! A guest with 2-level paging on a CPU without a TLB: it exits exactly where the shadow does not allow what it does.

use std::hint::black_box;

use shadow_mmu::{
    Access, AccessKind, Config, ControlWrite, Controls, Fault, Gva, Outcome, Pfn, Policy, Privilege, ShadowMmu, cr0,
};

use crate::Measure;
use crate::memory::{Memory, Tables};

/// Guest memory in frames: 64 MiB.
pub const FRAMES: u64 = 16384;
/// Shadow tables.
const TABLES: u64 = 2048;
/// P, R/W, U/S, A, D.
pub const ALL: u32 = 0x67;
/// Where a guest's kernel sees all its memory, from frame 0 on.
const DIRECT: u64 = 0xc000_0000;
/// The frames of the tables of that: 16 of 4 MiB each.
const DIRECT_TABLES: u64 = 16;
/// The first frame that a workload may use for tables.
pub const FREE: u64 = 64;

/// An entry that names a frame.
#[must_use]
pub const fn entry(frame: u64, bits: u32) -> u32 {
    (frame << 12) as u32 | bits
}

/// The guest.
#[derive(Debug)]
pub struct Guest<M> {
    /// The library.
    pub mmu: ShadowMmu<Memory, Tables>,
    /// Around its calls.
    pub measure: M,
}

impl<M: Measure> Guest<M> {
    /// A guest that does not page yet.
    #[must_use]
    pub fn new(policy: Policy, measure: M) -> Self {
        let config = Config { policy, ..Config::new((0..TABLES).map(Pfn::new).collect(), FRAMES) };
        let mmu = ShadowMmu::new(Memory::new(FRAMES), Tables::new(TABLES), (), config).expect("a good configuration");
        let guest = Self { mmu, measure };
        for table in 0..DIRECT_TABLES {
            for page in 0..1024 {
                guest.put_entry(DIRECT_TABLES + table, page, entry(table << 10 | page, ALL));
            }
        }
        guest
    }

    /// Makes an address space in the directory `directory`: nothing but the kernel's view of all memory.
    pub fn make_space(&self, directory: u64) {
        for table in 0..DIRECT_TABLES {
            self.put_entry(directory, (DIRECT >> 22) + table, entry(DIRECT_TABLES + table, ALL));
        }
    }

    /// Writes an entry of a frame that is no table yet.
    pub fn put_entry(&self, frame: u64, index: u64, entry: u32) {
        self.mmu.mem().put(frame << 12 | index << 2, entry);
    }

    /// MOV to CR3.
    pub fn load(&mut self, directory: u64) {
        let controls = Controls { cr0: cr0::PE | cr0::WP | cr0::PG, cr3: directory << 12, ..Controls::default() };
        let (mmu, controls) = (&mut self.mmu, black_box(controls));
        let plan = self.measure.call(|| mmu.load_controls(controls, ControlWrite::Cr3));
        let _ = black_box(plan).expect("no refusal");
    }

    /// INVLPG.
    pub fn invlpg(&mut self, gva: u64) {
        let (mmu, gva) = (&mut self.mmu, black_box(Gva::new(gva)));
        let _ = black_box(self.measure.call(|| mmu.on_invlpg(gva)));
    }

    /// The kernel writes an entry of a table, through its view of all memory.
    pub fn write_entry(&mut self, frame: u64, index: u64, entry: u32) {
        let gpa = frame << 12 | index << 2;
        match self.touch(DIRECT + gpa, AccessKind::Write) {
            None | Some(Outcome::Resume) => self.mmu.mem().put(gpa, entry),
            Some(Outcome::EmulateWrite(gpa)) => {
                self.mmu.mem().put(gpa.raw(), entry);
                let (mmu, gpa) = (&mut self.mmu, black_box(gpa));
                let _ = black_box(self.measure.call(|| mmu.on_write(gpa, 4)));
            }
            Some(other) => panic!("{other:?}"),
        }
    }

    /// Makes an access, and returns what the library said if the CPU could not.
    pub fn touch(&mut self, gva: u64, kind: AccessKind) -> Option<Outcome> {
        let access = Access { kind, privilege: Privilege::Supervisor };
        if self.mmu.shadow_access(Gva::new(gva), access).is_some() {
            return None;
        }
        let (mmu, fault) = (&mut self.mmu, black_box(Fault { gva: Gva::new(gva), access }));
        let (outcome, plan) = self.measure.call(|| mmu.on_fault(fault));
        let _ = black_box(plan);
        Some(outcome)
    }

    /// How often the library has touched guest memory and shadow tables, the CPU of this guest included.
    #[must_use]
    pub fn touches(&self) -> u64 {
        self.mmu.mem().touches() + self.mmu.tables().touches()
    }
}
