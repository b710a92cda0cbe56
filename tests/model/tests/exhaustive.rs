//! Every combination of the bits that decide about rights, at every level, against every access and every control bit that matters.
//! The idea is that of the access test of kvm-unit-tests.

use gnomon_model::machine::{Machine, Setup};
use gnomon_model::reference::{Features, LA57, LME, Mode, NXE, PAE, PG, PKE, PSE, SMAP, SMEP, Verdict, WP, What, Who};
use shadow_mmu::Policy;

/// P, R/W, U/S, A, D, PS (PAT in the last level), NX.
const BITS: [u64; 7] = [1, 2, 4, 0x20, 0x40, 0x80, NX];
const ALL: u64 = 0x67;
const NX: u64 = 1 << 63;
/// Frames of the tables, the root's last; frame 0 is the table of the last level, so that a large page there is memory.
const TABLES: [u64; 5] = [0, 4, 5, 6, 7];
/// The frame of the PDPT of PAE paging.
const PDPT: u64 = 8;
/// The address has this index at each level.
const INDEX: u64 = 1;
/// What the last level maps.
const TARGET: u64 = 9 << 12;

const ACCESSES: [What; 3] = [What::Read, What::Write, What::Fetch];
const PRIVILEGES: [Who; 3] = [Who::Supervisor, Who::SupervisorAc, Who::User];

/// One of the machines: a mode, and control bits.
struct Bench {
    machine: Machine,
    levels: usize,
    size: u64,
    gva: u64,
}

impl Bench {
    fn new(mode: Mode, controls: u32, features: Features) -> Self {
        let policy = Policy { reuse_detection: false, ..Policy::DEFAULT };
        let mut machine = Machine::new(Setup { pool: 48, policy, features, ..Setup::default() });
        machine.checking = false;
        let bit = |n: u32| controls >> n & 1 != 0;
        let long = matches!(mode, Mode::Long4 | Mode::Long5);
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
            Mode::Legacy => INDEX << 22 | INDEX << 12,
            Mode::Pae => INDEX << 30 | INDEX << 21 | INDEX << 12,
            _ => INDEX << 39 | INDEX << 30 | INDEX << 21 | INDEX << 12,
        };
        let root = if mode == Mode::Pae { PDPT } else { TABLES[levels - 1] };
        assert!(machine.set_cr3(root << 12));
        assert!(machine.set_cr0(PG, true), "{mode:?}");
        Self { machine, levels, size: if mode == Mode::Legacy { 4 } else { 8 }, gva }
    }

    /// Where the entry of a level is, 0 the last. The PML5's index is 0, so that the address has 48 bits.
    fn place(&self, level: usize) -> u64 {
        let index = if level == 4 { 0 } else { INDEX };
        (TABLES[level] << 12) + index * self.size
    }

    /// Writes the entry of a level with these bits: it names the table below or, of the last level, the page.
    fn put(&mut self, level: usize, bits: u64) {
        let below = if level == 0 { TARGET } else { TABLES[level - 1] << 12 };
        let entry = bits | if bits & 1 != 0 { below } else { 0 };
        // A large page lies at 0.
        let large = level > 0 && bits & 0x80 != 0;
        let entry = if large { bits } else { entry };
        let at = self.place(level);
        self.machine.device(at, &entry.to_le_bytes()[..self.size as usize]);
    }

    /// Each access, on entries that `put` writes anew for it; then whatever the shadow allows must be right.
    fn check(&mut self, put: impl Fn(&mut Self)) {
        for (what, who) in accesses() {
            put(self);
            self.access(what, who);
        }
    }

    fn access(&mut self, what: What, who: Who) {
        self.machine.probe(self.gva, what, who);
        self.machine.access(self.gva, what, who, &[]);
        for level in 0..self.levels {
            self.machine.compare_at(self.place(level));
        }
        self.machine.permits_only_what_is_right(self.gva);
    }
}

fn accesses() -> impl Iterator<Item = (What, Who)> {
    ACCESSES.into_iter().flat_map(|what| PRIVILEGES.map(|who| (what, who)))
}

/// R/W, U/S and NX in every combination at all levels at once; every mark is set.
fn rights_of_all_levels(bench: &mut Bench) {
    let nx = bench.machine.regs().nxe();
    let values = if nx { 8 } else { 4 };
    let mut last = vec![usize::MAX; bench.levels];
    for combination in 0..usize::pow(values, bench.levels as u32) {
        let mut rest = combination;
        for (level, last) in last.iter_mut().enumerate() {
            let value = rest % values;
            rest /= values;
            if std::mem::replace(last, value) != value {
                let rights = bits(value << 1 & 6) | if value & 4 != 0 { NX } else { 0 };
                bench.put(level, rights | 0x61);
            }
        }
        accesses().for_each(|(what, who)| bench.access(what, who));
    }
}

/// A in every combination at all levels at once, with D and R/W of the last.
fn marks_of_all_levels(bench: &mut Bench) {
    for combination in 0..4usize << bench.levels {
        bench.check(|bench| {
            for level in 0..bench.levels {
                let accessed = combination >> (2 + level) & 1 != 0;
                let last = if level == 0 { bits(combination << 1 & 2) | bits(combination << 3 & 0x10) } else { 2 };
                bench.put(level, 5 | last | if accessed { 0x20 } else { 0 });
            }
        });
    }
}

/// The `n`th combination.
fn bits(n: usize) -> u64 {
    BITS.iter().enumerate().filter(|(place, _)| n >> place & 1 != 0).map(|(_, bit)| bit).sum()
}

/// All combinations at two neighbouring levels, the others granting everything; an absent entry is tried with one other only.
fn two_levels(bench: &mut Bench, upper: usize) {
    let count = if bench.size == 4 { 64 } else { 128 };
    for level in 0..bench.levels {
        bench.put(level, ALL);
    }
    for (above, below) in (0..count).flat_map(|above| (0..count).map(move |below| (bits(above), bits(below)))) {
        // Of two levels above the last, one entry at a time has all its bits, and A and D stay: their product was tried below.
        let dull = upper > 1 && (above & 0x61 != 0x21 || below & 0x61 != 0x21) && above != ALL && below != ALL;
        if dull || above & 1 == 0 && below != ALL || below & 1 == 0 && above != ALL {
            continue;
        }
        bench.check(|bench| {
            bench.put(upper, above);
            bench.put(upper - 1, below);
        });
    }
    bench.put(upper, ALL);
    bench.put(upper - 1, ALL);
    bench.machine.mmu.audit().expect("sound");
}

/// Every reserved or ignored bit, one at a time, at every level.
fn single_bits(bench: &mut Bench) {
    for level in 0..bench.levels {
        let last = 8 * bench.size;
        for (large, bit) in [0, 0x80].into_iter().flat_map(|large| (8..last).map(move |bit| (large, bit))) {
            bench.put(level, ALL | large);
            let at = bench.place(level);
            let size = bench.size as usize;
            let entry = bench.machine.entry(at, bench.size) ^ 1 << bit;
            for what in ACCESSES {
                bench.machine.device(at, &entry.to_le_bytes()[..size]);
                bench.machine.probe(bench.gva, what, Who::Supervisor);
            }
        }
        bench.put(level, ALL);
    }
}

/// Every key, with every right of the page.
fn keys(bench: &mut Bench) {
    for (key, rights) in (0..4u64).flat_map(|key| (0..8usize).map(move |rights| (key, rights))) {
        bench.check(|bench| {
            let marks = if rights & 4 != 0 { 0x60 } else { 0 };
            bench.put(0, bits(rights << 1 & 6) | 1 | marks | key << 59);
        });
    }
}

fn every_combination(mode: Mode, controls: u32) {
    for controls in 0..controls {
        let mut bench = Bench::new(mode, controls, Features::default());
        for level in 0..bench.levels {
            bench.put(level, ALL);
        }
        assert_eq!(bench.machine.read(bench.gva, Who::SupervisorAc), Verdict::At(TARGET), "{mode:?} pages");
        single_bits(&mut bench);
        if controls < 16 {
            marks_of_all_levels(&mut bench);
            // With five levels it would take a minute for each.
            if bench.levels < 5 || controls == 9 {
                rights_of_all_levels(&mut bench);
            }
            for upper in 1..bench.levels {
                two_levels(&mut bench, upper);
            }
        } else {
            keys(&mut bench);
        }
    }
}

#[test]
fn of_two_levels() {
    every_combination(Mode::Legacy, 16);
}

#[test]
fn of_pae() {
    every_combination(Mode::Pae, 16);
}

#[test]
fn of_four_levels() {
    every_combination(Mode::Long4, 32);
}

#[test]
fn of_five_levels() {
    every_combination(Mode::Long5, 32);
}

#[test]
fn reserved_bits_of_other_cpus() {
    for (mode, width, gib_pages) in [Mode::Legacy, Mode::Pae, Mode::Long4, Mode::Long5]
        .into_iter()
        .flat_map(|mode| [32, 33, 39, 40, 41, 46, 52].map(|width| (mode, width, width % 2 == 0)))
    {
        // PSE, or NXE, off and on.
        for controls in [1, 9] {
            let mut bench = Bench::new(mode, controls, Features { width, gib_pages });
            (0..bench.levels).for_each(|level| bench.put(level, ALL));
            single_bits(&mut bench);
        }
    }
}
