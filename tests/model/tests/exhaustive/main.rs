//! Every combination of the bits that decide about rights, at every level, against every access and every control bit that matters.
//! The idea is that of the access test of kvm-unit-tests.

mod bench;
mod policies;

use bench::{ALL, Bench, TARGET};
use gnomon_model::reference::{Features, Mode, Verdict, What, Who};
use shadow_mmu::Counter;

/// P, R/W, U/S, A, D, PS (PAT in the last level), NX.
const BITS: [u64; 7] = [1, 2, 4, 0x20, 0x40, 0x80, NX];
const NX: u64 = 1 << 63;

const ACCESSES: [What; 3] = [What::Read, What::Write, What::Fetch];
const PRIVILEGES: [Who; 3] = [Who::Supervisor, Who::SupervisorAc, Who::User];

fn accesses() -> impl Iterator<Item = (What, Who)> {
    ACCESSES.into_iter().flat_map(|what| PRIVILEGES.map(|who| (what, who)))
}

/// R/W, U/S and NX in every combination at all levels at once; every mark is set.
fn rights_of_all_levels(bench: &mut Bench) {
    rights_of_all_levels_by(bench, |bench, what, who| bench.access(what, who));
}

/// The same, with each access made by `access`.
fn rights_of_all_levels_by(bench: &mut Bench, access: impl Fn(&mut Bench, What, Who)) {
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
        accesses().for_each(|(what, who)| access(bench, what, who));
    }
}

/// A in every combination at all levels at once, with D and R/W of the last.
fn marks_of_all_levels(bench: &mut Bench) {
    for combination in 0..4usize << bench.levels {
        bench.check(|bench| mark_entries(bench, combination));
    }
}

/// The `n`th combination of those.
fn mark_entries(bench: &mut Bench, n: usize) {
    for level in 0..bench.levels {
        let accessed = n >> (2 + level) & 1 != 0;
        let last = if level == 0 { bits(n << 1 & 2) | bits(n << 3 & 0x10) } else { 2 };
        bench.put(level, 5 | last | if accessed { 0x20 } else { 0 });
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
    for n in 0..32 {
        bench.check(|bench| bench.put(0, key_entry(n)));
    }
}

/// The `n`th of those.
fn key_entry(n: usize) -> u64 {
    let marks = if n & 4 != 0 { 0x60 } else { 0 };
    bits(n << 1 & 6) | 1 | marks | (n as u64 >> 3) << 59
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

/// The combinations that have to do with large pages, where they get large entries in the shadow.
fn large_combinations(mode: Mode, controls: std::ops::Range<u32>) {
    for controls in controls {
        let mut bench = Bench::large(mode, controls);
        for level in 0..bench.levels {
            bench.put(level, ALL);
        }
        let made = |bench: &Bench| bench.machine.mmu.counters().get(Counter::HugeFilled);
        let before = made(&bench);
        for upper in 1..bench.levels.min(3) {
            two_levels(&mut bench, upper);
        }
        // Without CR4.PSE there is none.
        let large = mode != Mode::Legacy || controls & 8 != 0;
        assert!(!large || made(&bench) > before + 100, "{mode:?}: {} large leaves", made(&bench) - before);
        for n in 0..if controls >= 16 { 32 } else { 0 } {
            bench.check(|bench| bench.put(1, key_entry(n) | 0x80));
        }
    }
}

#[test]
fn of_large_pages_of_two_levels() {
    large_combinations(Mode::Legacy, 0..16);
}

#[test]
fn of_large_pages_of_pae() {
    large_combinations(Mode::Pae, 0..16);
}

#[test]
fn of_large_pages_of_four_levels() {
    // CR0.WP, SMEP and SMAP in all combinations, with NXE and keys.
    large_combinations(Mode::Long4, 24..32);
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
