//! The virtual TLB.

use super::machine::{Machine, SUPERVISOR, Setup, USER};
use super::reference::Verdict;
use super::scenarios::{LEAF_TABLE, SETUP, count, faults, paged};
use crate::{Counter, Gfn, Policy, SyncPolicy, cr4};

const VTLB: Setup =
    Setup { policy: Policy { sync: SyncPolicy::VirtualTlb, ..Policy::DEFAULT }, caching: false, ..SETUP };

fn live(machine: &Machine) -> usize {
    machine.mmu.pool.iter().filter(|(_, page)| page.live).count()
}

#[test]
fn table_writes_cost_nothing_and_show_after_a_flush() {
    let mut machine = paged(VTLB);
    for page in 4..16 {
        machine.write(page << 12, USER, page);
    }
    machine.write(LEAF_TABLE + 23 * 4, SUPERVISOR, 0x17067);
    let before = faults(&machine);
    for page in 4..16 {
        machine.write(LEAF_TABLE + page * 4, SUPERVISOR, (page + 1) << 12 | 0x67);
    }
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x5000), "stale, as a TLB may be");
    assert_eq!(faults(&machine), before);
    machine.invlpg(0x5000);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x6000));
    assert_eq!(machine.read(0x6000, USER), Verdict::At(0x6000));
    machine.set_cr3(1);
    assert_eq!(machine.read(0x6000, USER), Verdict::At(0x7000));
    assert!(machine.mmu.write_kind(Gfn::new(1)).is_plain() && machine.mmu.write_kind(Gfn::new(2)).is_plain());
    assert_eq!(count(&machine, Counter::TrackedWrite), 0);
}

#[test]
fn a_directory_is_not_followed_either() {
    let mut machine = paged(VTLB);
    machine.write(0x4014, SUPERVISOR, 0x9067);
    machine.read(0x5000, USER);
    machine.write(0x1000, SUPERVISOR, 0x4067);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x5000));
    machine.invlpg(0x5000);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x9000), "by the new table");
}

#[test]
fn a_load_costs_what_was_filled_since_the_last() {
    let policy = Policy { keep_global: false, ..VTLB.policy };
    let mut machine = paged(Setup { pool: 48, policy, ..VTLB });
    let zapped = |machine: &mut Machine| {
        let before = count(machine, Counter::SpteZapped);
        machine.set_cr3(1);
        count(machine, Counter::SpteZapped) - before
    };
    zapped(&mut machine);
    assert_eq!(zapped(&mut machine), 0);
    for page in 4..16 {
        machine.read(page << 12, USER);
    }
    // Twelve leaves, and the three entries above them.
    assert_eq!(zapped(&mut machine), 15);
    assert_eq!(live(&machine), 1, "the root");
    machine.read(0x5000, USER);
    assert_eq!(zapped(&mut machine), 4);
}

/// Faults that reads of these pages by the supervisor cost.
fn cost(machine: &mut Machine, pages: impl IntoIterator<Item = u64>) -> u64 {
    let before = faults(machine);
    for page in pages {
        assert_eq!(machine.read(page << 12, SUPERVISOR), Verdict::At(page << 12));
    }
    faults(machine) - before
}

#[test]
fn global_pages_outlive_loads_of_cr3_and_nothing_else() {
    let mut machine = paged(Setup { pool: 48, ..VTLB });
    machine.flip_cr4(cr4::PGE);
    // The even pages are global.
    for page in (4..16).step_by(2) {
        machine.write(LEAF_TABLE + page * 4, SUPERVISOR, page << 12 | 0x167);
    }
    machine.set_cr3(1);
    assert_eq!(cost(&mut machine, 4..16), 12);
    for directory in [3, 1] {
        machine.set_cr3(directory);
        assert_eq!(cost(&mut machine, (4..16).step_by(2)), 0);
    }
    assert_eq!(cost(&mut machine, (5..16).step_by(2)), 6);
    machine.invlpg(0x4000);
    machine.set_cr3(3);
    assert_eq!(cost(&mut machine, 4..16), 7, "INVLPG drops a global page as well");
    machine.flip_cr4(cr4::PGE);
    assert_eq!(cost(&mut machine, 4..16), 12, "a change of PGE drops everything");
    machine.set_cr3(1);
    assert_eq!(cost(&mut machine, 4..16), 12, "G means nothing while PGE is clear");
    assert!(count(&machine, Counter::SpteGlobal) >= 7 && count(&machine, Counter::TlbTrimmed) >= 4);
}

#[test]
fn a_trim_costs_what_is_dropped_and_not_what_stays() {
    let mut machine = paged(Setup { pool: 48, ..VTLB });
    machine.flip_cr4(cr4::PGE);
    for page in 4..16 {
        machine.write(LEAF_TABLE + page * 4, SUPERVISOR, page << 12 | if page < 14 { 0x167 } else { 0x67 });
    }
    machine.set_cr3(1);
    cost(&mut machine, 4..16);
    let zapped = count(&machine, Counter::SpteZapped);
    machine.set_cr3(3);
    assert_eq!(count(&machine, Counter::SpteZapped), zapped + 2);
    machine.set_cr3(1);
    assert_eq!(count(&machine, Counter::SpteZapped), zapped + 2);
    assert!(machine.mmu.local.is_empty(), "pages of global leaves alone are not even looked at");
}

#[test]
fn a_stale_global_page_stays_until_it_is_flushed() {
    let mut machine = paged(VTLB);
    machine.flip_cr4(cr4::PGE);
    machine.write(LEAF_TABLE + 5 * 4, SUPERVISOR, 0x5167);
    machine.set_cr3(1);
    machine.read(0x5000, USER);
    machine.write(LEAF_TABLE + 5 * 4, SUPERVISOR, 0x6067);
    machine.set_cr3(1);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x5000), "as a CPU may");
    machine.invlpg(0x5000);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x6000));
    machine.write(LEAF_TABLE + 5 * 4, SUPERVISOR, 0x7067);
    machine.set_cr3(1);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x7000), "it is global no longer");
}

#[test]
fn with_the_switch_off_a_load_drops_global_pages_too() {
    let policy = Policy { keep_global: false, ..VTLB.policy };
    let mut machine = paged(Setup { policy, ..VTLB });
    machine.flip_cr4(cr4::PGE);
    machine.write(LEAF_TABLE + 5 * 4, SUPERVISOR, 0x5167);
    for _ in 0..2 {
        machine.set_cr3(1);
        assert_eq!(cost(&mut machine, [5]), 1);
    }
}

#[test]
fn parts_of_a_large_page_are_forgotten_together() {
    let mut machine = paged(Setup { caching: true, ..VTLB });
    machine.write(0x1004, SUPERVISOR, 0xe7);
    for page in [0x400, 0x401, 0x40f] {
        machine.read(page << 12, USER);
    }
    machine.write(0x1004, SUPERVISOR, 0);
    machine.invlpg(0x40_f000);
    for page in [0x400, 0x401, 0x40f] {
        assert_eq!(machine.read(page << 12, USER), Verdict::Fault(4));
    }
}

#[test]
fn a_watch_holds_though_nothing_else_is_tracked() {
    let mut machine = paged(VTLB);
    machine.write(0x8000, USER, 1);
    machine.watch(8, true);
    let before = count(&machine, Counter::TrackedWrite);
    machine.write(0x8000, USER, 2);
    assert_eq!(count(&machine, Counter::TrackedWrite), before + 1);
}

#[test]
fn thousands_of_address_spaces_fit() {
    for policy in super::unsync::EACH {
        let mut machine = paged(Setup { pool: 16, policy, caching: false, ..SETUP });
        machine.checking = false;
        for n in 0..3000u64 {
            let directory = 4 + n % 16;
            machine.write(directory << 12, SUPERVISOR, 0x2067);
            machine.set_cr3(directory);
            assert_eq!(machine.write(0x15000, USER, n), Verdict::At(0x15000));
            machine.set_cr3(1);
        }
        machine.checking = true;
        machine.settle();
        assert!(live(&machine) <= 16);
    }
}
