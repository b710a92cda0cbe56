//! The same under every policy: the shadow may lag behind the guest's entries, as a TLB may, until the guest flushes.
//!
//! The walk is one and the same whatever the policy, so products over several levels are left to the reference. Here each level has
//! every combination by itself, so that each check comes after another one whose translation may be stale.

use gnomon_model::machine::Setup;
use gnomon_model::reference::Mode;
use shadow_mmu::{Counter, EagerFill, Policy, SyncPolicy};

use super::bench::{ALL, Bench};
use super::{bits, key_entry, mark_entries, rights_of_all_levels_by};

/// G, which counts in the entries that map pages.
const GLOBAL: u64 = 0x100;

/// A policy, and whether the real CPU has a TLB.
type Case = (Policy, bool);

const EAGER: Policy = Policy { reuse_detection: false, patience: 0, ..Policy::DEFAULT };
const WRITE_PROTECT: Case = (EAGER, true);
const UNSYNC: Case = (Policy { sync: SyncPolicy::UNSYNC, ..EAGER }, false);
const VTLB: Case = (Policy { sync: SyncPolicy::VirtualTlb, ..EAGER }, false);
/// No entry before it is asked for, gaps, and no root but the current one.
const LAZY: Policy = Policy { eager_fill: EagerFill::Never, mark_absent: true, root_cache: 0, ..EAGER };
const RECOMMENDED: Case = (Policy::RECOMMENDED, true);
const LAZY_WRITE_PROTECT: Case = (LAZY, true);
const LAZY_UNSYNC: Case = (Policy { sync: SyncPolicy::Unsync { tables: 1 }, prefetch: 16, ..LAZY }, true);
const LOCAL_VTLB: Case = (Policy { sync: SyncPolicy::VirtualTlb, keep_global: false, prefetch: 4, ..EAGER }, true);
const EAGER_VTLB: Case = (Policy { sync: SyncPolicy::VirtualTlb, prefetch: 64, ..Policy::DEFAULT }, true);
const HUGE: Case = (Policy { huge: true, ..Policy::RECOMMENDED }, true);
const HUGE_VTLB: Case = (Policy { sync: SyncPolicy::VirtualTlb, huge: true, ..EAGER }, true);

/// Every combination at one level; the others grant everything.
fn single_levels(bench: &mut Bench) {
    let count = if bench.size == 4 { 64 } else { 128 };
    for level in 0..bench.levels {
        (0..bench.levels).for_each(|level| bench.put(level, ALL));
        for n in 0..count {
            // Every other one is global, in turn with the bits that change slowest.
            let global = if (n ^ n >> 5) & 1 != 0 { GLOBAL } else { 0 };
            bench.check_lagging(|bench| bench.put(level, bits(n) | global));
        }
    }
}

fn under((policy, caching): Case, mode: Mode) {
    let long = matches!(mode, Mode::Long4 | Mode::Long5);
    for controls in 0..if long { 32 } else { 16 } {
        let mut bench = Bench::build(mode, controls, Setup { pool: 48, policy, caching, ..Setup::default() });
        (0..bench.levels).for_each(|level| bench.put(level, ALL));
        if controls >= 16 {
            for n in 0..32 {
                bench.check_lagging(|bench| bench.put(0, key_entry(n)));
            }
        } else {
            single_levels(&mut bench);
            for n in 0..4usize << bench.levels {
                bench.check_lagging(|bench| mark_entries(bench, n));
            }
        }
        // WP and NX or PSE, with four levels at most.
        if controls == 9 && bench.levels < 5 {
            rights_of_all_levels_by(&mut bench, Bench::check_lagging_once);
        }
        bench.machine.mmu.audit().expect("sound");
        // Else this would be the reference once more.
        let went = bench.machine.mmu.counters().get(Counter::TableUnsynced) != 0;
        assert!(went || policy.patience != 0 || !matches!(policy.sync, SyncPolicy::Unsync { .. }));
    }
}

macro_rules! of_each_format {
    ($($policy:ident: $case:expr;)*) => {
        $(mod $policy {
            use super::*;

            #[test]
            fn of_32_bits() {
                under($case, Mode::Legacy);
                under($case, Mode::Pae);
            }

            #[test]
            fn of_four_levels() {
                under($case, Mode::Long4);
            }

            #[test]
            fn of_five_levels() {
                under($case, Mode::Long5);
            }
        })*
    };
}

of_each_format! {
    write_protect: WRITE_PROTECT;
    unsync: UNSYNC;
    vtlb: VTLB;
    recommended: RECOMMENDED;
    lazy_write_protect: LAZY_WRITE_PROTECT;
    lazy_unsync: LAZY_UNSYNC;
    local_vtlb: LOCAL_VTLB;
    eager_vtlb: EAGER_VTLB;
    huge: HUGE;
    huge_vtlb: HUGE_VTLB;
}
