//! The machine of the exhaustive tests: one address, and the entries on the way to it.

use gnomon_model::machine::{Machine, Setup};
use gnomon_model::ram::BLOCK;
use gnomon_model::reference::{Features, LA57, LME, Mode, NXE, PAE, PG, PGE, PKE, PSE, SMAP, SMEP, WP, What, Who};
use shadow_mmu::Policy;

use super::accesses;

/// Every right and mark.
pub(crate) const ALL: u64 = 0x67;
/// Frames of the tables, the root's last; frame 0 is the table of the last level, so that a large page there is memory.
const TABLES: [u64; 5] = [0, 4, 5, 6, 7];
/// The frame of the PDPT of PAE paging.
const PDPT: u64 = 8;
/// The address has this index at each level.
const INDEX: u64 = 1;
/// What the last level maps.
pub(crate) const TARGET: u64 = 9 << 12;
/// In another part of its address space the guest's kernel maps all memory for itself, by tables in these frames, the last level's
/// first.
const OWN_TABLES: [u64; 4] = [10, 11, 12, 13];
/// The root of an address space that has nothing else.
const OTHER_ROOT: u64 = 14;
/// P, W, A, D.
const OWN: u64 = 0x63;

/// One of the machines: a mode, and control bits.
pub(crate) struct Bench {
    pub(crate) machine: Machine,
    pub(crate) levels: usize,
    pub(crate) size: u64,
    pub(crate) gva: u64,
    /// Where the guest maps its memory for itself.
    own: u64,
    /// It writes its entries there; else a device does.
    by_guest: bool,
    /// What CR3 is, and what it is for the other address space.
    spaces: [u64; 2],
    checks: usize,
    /// Large pages lie where one entry of the shadow can map 2 MiB of them.
    huge: bool,
}

impl Bench {
    /// The reference's policy, whose shadow is in step after each write; a device writes the entries.
    pub(crate) fn new(mode: Mode, controls: u32, features: Features) -> Self {
        let policy = Policy { reuse_detection: false, ..Policy::DEFAULT };
        let mut bench = Self::build(mode, controls, Setup { pool: 48, policy, features, ..Setup::default() });
        bench.by_guest = false;
        bench
    }

    /// The same with large leaves.
    pub(crate) fn large(mode: Mode, controls: u32) -> Self {
        let policy = Policy { reuse_detection: false, huge: true, ..Policy::DEFAULT };
        let mut bench = Self::build(mode, controls, Setup { pool: 48, policy, ..Setup::default() });
        bench.by_guest = false;
        bench
    }

    /// Any policy; the guest itself writes the entries.
    pub(crate) fn build(mode: Mode, controls: u32, setup: Setup) -> Self {
        let huge = setup.policy.huge;
        let mut machine = Machine::new(setup);
        machine.checking = false;
        let bit = |n: u32| controls >> n & 1 != 0;
        let long = matches!(mode, Mode::Long4 | Mode::Long5);
        let (own, spaces) = own_tables(&mut machine, mode);
        machine.write((PDPT << 12) + 8 * INDEX, Who::Supervisor, &(TABLES[1] << 12 | 1).to_le_bytes());
        machine.set_cr4(PAE, mode != Mode::Legacy);
        machine.set_cr4(LA57, mode == Mode::Long5);
        machine.set_efer(LME, long);
        machine.set_cr0(WP, bit(0));
        machine.set_cr4(SMEP, bit(1));
        machine.set_cr4(SMAP, bit(2));
        if mode == Mode::Legacy {
            machine.set_cr4(PSE, bit(3))
        } else {
            machine.set_efer(NXE, bit(3))
        };
        if long && bit(4) {
            machine.set_cr4(PKE, true);
            // Key 0: nothing. Key 1: no access. Key 2: no write. Key 3: both.
            machine.set_pkru(0b1110_0100);
        }
        let levels = match mode {
            Mode::Off => unreachable!("no tables"),
            Mode::Legacy | Mode::Pae => 2,
            Mode::Long4 => 4,
            Mode::Long5 => 5,
        };
        let gva = match mode {
            // The half of a 4 MiB page that lies in the block.
            Mode::Legacy if huge => INDEX << 22 | (BLOCK.start + INDEX) << 12,
            Mode::Legacy => INDEX << 22 | INDEX << 12,
            Mode::Pae => INDEX << 30 | INDEX << 21 | INDEX << 12,
            _ => INDEX << 39 | INDEX << 30 | INDEX << 21 | INDEX << 12,
        };
        assert!(machine.set_cr3(spaces[0]));
        assert!(machine.set_cr0(PG, true), "{mode:?}");
        // Half of the machines have global pages.
        machine.set_cr4(PGE, bit(0) != bit(2));
        machine.follow(&[gva]);
        let size = if mode == Mode::Legacy { 4 } else { 8 };
        Self { machine, levels, size, gva, own, by_guest: true, spaces, checks: 0, huge }
    }

    /// Where the entry of a level is, 0 the last. The PML5's index is 0, so that the address has 48 bits.
    pub(crate) fn place(&self, level: usize) -> u64 {
        let index = match level {
            4 => 0,
            0 => self.gva >> 12 & (4096 / self.size - 1),
            _ => INDEX,
        };
        (TABLES[level] << 12) + index * self.size
    }

    /// Writes the entry of a level with these bits: it names the table below or, of the last level, the page.
    pub(crate) fn put(&mut self, level: usize, bits: u64) {
        let below = if level == 0 { TARGET } else { TABLES[level - 1] << 12 };
        let entry = bits | if bits & 1 != 0 { below } else { 0 };
        // A large page lies at 0; with `huge` one of 2 MiB lies behind, and the others reach there by the address.
        let large = level > 0 && bits & 0x80 != 0;
        let base = if self.huge && level == 1 && self.size == 8 { BLOCK.start << 12 } else { 0 };
        let entry = if large { bits | base } else { entry };
        let at = self.place(level);
        let bytes = &entry.to_le_bytes()[..self.size as usize];
        if self.by_guest {
            self.machine.write(self.own + at, Who::Supervisor, bytes);
        } else {
            self.machine.device(at, bytes);
        }
    }

    /// Each access, on entries that `put` writes anew for it; then whatever the shadow allows must be right.
    pub(crate) fn check(&mut self, put: impl Fn(&mut Self)) {
        for (what, who) in accesses() {
            put(self);
            self.access(what, who);
        }
    }

    pub(crate) fn access(&mut self, what: What, who: Who) {
        self.machine.probe(self.gva, what, who);
        self.machine.access(self.gva, what, who, &[]);
        for level in 0..self.levels {
            self.machine.compare_at(self.place(level));
        }
        self.machine.permits_only_what_is_right(self.gva);
    }

    /// The same where the shadow may lag behind: before the guest flushes, an access ends as the entries say that the guest has had
    /// since its last flush of the address; after it, as they are.
    pub(crate) fn check_lagging(&mut self, put: impl Fn(&mut Self)) {
        for (what, who) in accesses() {
            put(self);
            self.check_lagging_once(what, who);
        }
    }

    /// One access, on the entries as they are.
    pub(crate) fn check_lagging_once(&mut self, what: What, who: Who) {
        self.machine.access(self.gva, what, who, &[]);
        self.flush();
        self.access(what, who);
    }

    /// INVLPG, or a load of CR3, or loads by way of the other address space. Global pages may outlive the loads, so INVLPG ends all.
    fn flush(&mut self) {
        self.checks += 1;
        match self.checks % 3 {
            0 => {}
            1 => assert!(self.machine.set_cr3(self.spaces[0])),
            _ => self.spaces.into_iter().rev().for_each(|cr3| assert!(self.machine.set_cr3(cr3))),
        }
        if !self.checks.is_multiple_of(3) {
            self.machine.access(self.gva, What::Read, Who::Supervisor, &[]);
        }
        self.machine.invlpg(self.gva);
        self.machine.permits_only_what_is_right(self.gva);
        self.machine.settle();
    }
}

/// Builds the guest's own mapping of its memory, before it pages. Says where it is, and what the two values of CR3 are.
fn own_tables(machine: &mut Machine, mode: Mode) -> (u64, [u64; 2]) {
    let size = if mode == Mode::Legacy { 4u64 } else { 8 };
    let mut put = |table: u64, index: u64, entry: u64| {
        machine.write((table << 12) + index * size, Who::Supervisor, &entry.to_le_bytes()[..size as usize]);
    };
    let [leaves, second, third, fourth] = OWN_TABLES;
    (0..32).for_each(|frame| put(leaves, frame, frame << 12 | OWN));
    let link = |table: u64| table << 12 | OWN;
    match mode {
        Mode::Off => unreachable!("no tables"),
        Mode::Legacy => {
            [TABLES[1], OTHER_ROOT].into_iter().for_each(|root| put(root, 2, link(leaves)));
            (2 << 22, [TABLES[1] << 12, OTHER_ROOT << 12])
        }
        Mode::Pae => {
            put(second, 0, link(leaves));
            [0, 4].into_iter().for_each(|pdpte| put(PDPT, pdpte, second << 12 | 1));
            (0, [PDPT << 12, PDPT << 12 | 32])
        }
        Mode::Long4 => {
            put(second, 0, link(leaves));
            put(third, 0, link(second));
            [TABLES[3], OTHER_ROOT].into_iter().for_each(|root| put(root, 2, link(third)));
            (2 << 39, [TABLES[3] << 12, OTHER_ROOT << 12])
        }
        Mode::Long5 => {
            put(second, 0, link(leaves));
            put(third, 0, link(second));
            put(fourth, 300, link(third));
            [TABLES[4], OTHER_ROOT].into_iter().for_each(|root| put(root, 511, link(fourth)));
            (u64::MAX << 48 | 300 << 39, [TABLES[4] << 12, OTHER_ROOT << 12])
        }
    }
}
