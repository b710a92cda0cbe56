//! Single stories that the random guests might tell too rarely.

use super::machine::{Machine, SUPERVISOR, Setup, USER, new_mmu};
use super::memory::{HOLE, MMIO, RAM, ROM};
use super::reference::Verdict;
use crate::{
    Access, AccessKind, Config, ConfigError, ControlFault, ControlWrite, Controls, Counter, Fault, Gfn, Gpa, Gva,
    Outcome, PfErr, Policy, ShadowMmu, TranslateError, VmStop, cr0, cr4,
};

pub(super) const SETUP: Setup = Setup { pool: 24, policy: Policy::DEFAULT, caching: true, stepping: false };
pub(super) const LEAF_TABLE: u64 = 0x2000;

fn pages() -> Vec<u64> {
    (0..24).chain(0x400..0x410).collect()
}

/// Frame 1: directory; frame 2: table, identity for 24 pages, A and D set; frame 3: second directory with the same table.
pub(super) fn paged(setup: Setup) -> Machine {
    let mut machine = Machine::new(setup, pages());
    machine.flip_cr4(cr4::PSE);
    for directory in [0x1000, 0x3000] {
        machine.write(directory, SUPERVISOR, 0x2067);
    }
    for page in 0..24 {
        machine.write(LEAF_TABLE + page * 4, SUPERVISOR, page << 12 | 0x67);
    }
    machine.set_cr3(1);
    machine.set_cr0(cr0::PG, true);
    machine
}

pub(super) fn count(machine: &Machine, counter: Counter) -> u64 {
    machine.mmu.counters().get(counter)
}

pub(super) fn faults(machine: &Machine) -> u64 {
    [Counter::HiddenFault, Counter::TrueFault, Counter::SpuriousFault, Counter::TrackedWrite, Counter::MmioAccess]
        .iter()
        .map(|&counter| count(machine, counter))
        .sum()
}

#[test]
fn a_present_entry_that_moves_needs_no_second_fault() {
    let mut machine = paged(SETUP);
    machine.read(0x5000, USER);
    machine.write(LEAF_TABLE + 5 * 4, SUPERVISOR, 0x6067);
    machine.invlpg(0x5000);
    let before = faults(&machine);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x6000));
    assert_eq!(machine.write(0x5000, USER, 1), Verdict::At(0x6000));
    assert_eq!(faults(&machine), before);
    assert_eq!(count(&machine, Counter::SpteUpdated), 1);
}

#[test]
fn an_entry_without_a_is_learnt_by_a_fault() {
    let mut machine = paged(SETUP);
    machine.write(LEAF_TABLE + 20 * 4, SUPERVISOR, 0);
    assert_eq!(machine.read(0x14000, USER), Verdict::Fault(4));
    machine.write(LEAF_TABLE + 20 * 4, SUPERVISOR, 0x8007);
    assert_eq!(machine.mmu.mem().word(LEAF_TABLE + 80), 0x8007);
    assert_eq!(machine.read(0x14000, USER), Verdict::At(0x8000));
    assert_eq!(machine.mmu.mem().word(LEAF_TABLE + 80), 0x8027);
    assert_eq!(machine.write(0x14000, USER, 1), Verdict::At(0x8000));
    assert_eq!(machine.mmu.mem().word(LEAF_TABLE + 80), 0x8067);
}

#[test]
fn a_cr3_load_among_known_roots_makes_nothing() {
    let mut machine = paged(SETUP);
    for root in [1, 3, 1] {
        machine.set_cr3(root);
        machine.read(0x5000, USER);
    }
    let (made, faulted) = (count(&machine, Counter::TableMade), faults(&machine));
    for root in [3, 1, 3, 1] {
        machine.set_cr3(root);
        machine.read(0x5000, USER);
    }
    assert_eq!((count(&machine, Counter::TableMade), faults(&machine)), (made, faulted));
}

#[test]
fn two_directories_share_the_shadow_of_one_table() {
    let mut machine = paged(SETUP);
    machine.read(0x5000, USER);
    machine.set_cr3(3);
    let made = count(&machine, Counter::TableMade);
    machine.read(0x5000, USER);
    // One more L3 and one more L2 page; the L1 page is shared.
    assert_eq!(count(&machine, Counter::TableMade), made + 2);
}

#[test]
fn supervisor_writes_to_read_only_pages_while_wp_is_clear() {
    let mut machine = paged(SETUP);
    machine.set_cr0(cr0::WP, false);
    machine.write(LEAF_TABLE + 5 * 4, SUPERVISOR, 0x5065);
    for _ in 0..2 {
        assert_eq!(machine.read(0x5000, USER), Verdict::At(0x5000));
        assert_eq!(machine.write(0x5000, SUPERVISOR, 7), Verdict::At(0x5000));
        assert_eq!(machine.write(0x5000, USER, 7), Verdict::Fault(7));
    }
    machine.set_cr0(cr0::WP, true);
    assert_eq!(machine.write(0x5000, SUPERVISOR, 7), Verdict::Fault(3));
}

#[test]
fn a_large_page_is_forgotten_as_a_whole() {
    let mut machine = paged(SETUP);
    machine.write(0x1004, SUPERVISOR, 0xe7);
    for page in 0x400..0x410 {
        machine.read(page << 12, USER);
    }
    assert_eq!(machine.write(0x40_8000, USER, 1), Verdict::At(0x8000));
    machine.write(0x1004, SUPERVISOR, 0);
    machine.invlpg(0x40_0000);
    for page in 0x400..0x410 {
        assert_eq!(machine.read(page << 12, USER), Verdict::Fault(4));
    }
}

#[test]
fn a_large_page_keeps_a_and_d_exact_and_its_tables_tracked() {
    let mut machine = paged(SETUP);
    machine.write(0x1004, SUPERVISOR, 0x87);
    machine.read(0x40_8000, USER);
    assert_eq!(machine.mmu.mem().word(0x1004), 0xa7);
    machine.write(0x40_8000, USER, 1);
    assert_eq!(machine.mmu.mem().word(0x1004), 0xe7);
    // A page table inside the large page, written through it.
    machine.read(0x5000, USER);
    machine.write(0x40_2000 + 5 * 4, SUPERVISOR, 0);
    machine.invlpg(0x5000);
    assert_eq!(machine.read(0x5000, USER), Verdict::Fault(4));
    // D cleared: the next write must set it again.
    machine.write(0x1004, SUPERVISOR, 0xa7);
    machine.invlpg(0x40_8000);
    machine.write(0x40_8000, USER, 1);
    assert_eq!(machine.mmu.mem().word(0x1004), 0xe7);
}

#[test]
fn a_directory_that_maps_itself() {
    let mut machine = paged(SETUP);
    machine.write(0x1ffc, SUPERVISOR, 0x1003);
    assert_eq!(machine.read(0xffff_f000, SUPERVISOR), Verdict::At(0x1000));
    assert_eq!(machine.write(0xffc0_0000 + 5 * 4, SUPERVISOR, 0x7067), Verdict::At(0x2014));
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x7000));
    // The directory's own entry, through itself: the window goes away under the write's feet.
    assert_eq!(machine.write(0xffff_fffc, SUPERVISOR, 0), Verdict::At(0x1ffc));
    machine.invlpg(0xffff_f000);
    assert_eq!(machine.read(0xffff_f000, SUPERVISOR), Verdict::Fault(0));
}

#[test]
fn a_table_becomes_data_and_back() {
    let mut machine = paged(SETUP);
    machine.read(0x5000, USER);
    assert!(machine.mmu.write_kind(Gfn::new(2)).page_table);
    // User code writes it: given up at once, unless the very write goes through it.
    machine.write(0x1004, SUPERVISOR, 0x9067);
    machine.write(0x9000, SUPERVISOR, 0x2067);
    let reused = count(&machine, Counter::TableReused);
    machine.write(0x40_0000, USER, 0x67);
    assert_eq!(count(&machine, Counter::TableReused), reused + 1);
    assert!(machine.mmu.write_kind(Gfn::new(2)).is_plain());
    machine.read(0x6000, USER);
    assert!(machine.mmu.write_kind(Gfn::new(2)).page_table);
}

#[test]
fn an_unlinked_table_is_given_up_by_its_first_write() {
    let mut machine = paged(SETUP);
    machine.write(0x1004, SUPERVISOR, 0x9067);
    machine.read(0x40_0000, SUPERVISOR);
    machine.write(0x9000, SUPERVISOR, 0xa067);
    machine.read(0x40_0000, SUPERVISOR);
    machine.write(0x1004, SUPERVISOR, 0);
    assert!(machine.mmu.write_kind(Gfn::new(9)).page_table);
    machine.write(0x9004, SUPERVISOR, 0x1234_5678);
    assert!(machine.mmu.write_kind(Gfn::new(9)).is_plain());
    let before = count(&machine, Counter::TrackedWrite);
    machine.write(0x9008, SUPERVISOR, 0);
    assert_eq!(count(&machine, Counter::TrackedWrite), before);
}

#[test]
fn accesses_without_memory() {
    let mut machine = paged(SETUP);
    for (page, frame) in [(20u64, MMIO), (21, HOLE), (22, ROM), (23, RAM + 9)] {
        machine.write(LEAF_TABLE + page * 4, SUPERVISOR, frame << 12 | 0x67);
        machine.read(page << 12, USER);
        machine.write(page << 12, USER, 1);
    }
    assert_eq!(count(&machine, Counter::MmioAccess), 7, "all but the read of the ROM");
    // A table outside memory stops the VM; the library goes on.
    machine.write(0x1004, SUPERVISOR, HOLE << 12 | 0x67);
    assert_eq!(machine.read(0x40_0000, USER), Verdict::Lost);
    machine.set_cr3(HOLE + 100);
    assert_eq!(machine.read(0x5000, SUPERVISOR), Verdict::Lost);
    assert!(machine.mmu.root().is_some(), "a root there is, but nothing is in it");
}

#[test]
fn a_watched_frame_is_caught_and_released() {
    let mut machine = paged(SETUP);
    machine.write(0x8000, USER, 1);
    machine.watch(8, true);
    machine.watch(8, true);
    let access = Access { kind: AccessKind::Write, privilege: USER };
    let (outcome, _plan) = machine.mmu.on_fault(Fault { gva: Gva::new(0x8004), access });
    assert_eq!(outcome, Outcome::EmulateWrite(Gpa::new(0x8004)));
    machine.watch(8, false);
    assert!(machine.mmu.write_kind(Gfn::new(8)).watched);
    machine.watch(8, false);
    assert!(machine.mmu.write_kind(Gfn::new(8)).is_plain());
    let (outcome, _plan) = machine.mmu.on_fault(Fault { gva: Gva::new(0x8004), access });
    assert_eq!(outcome, Outcome::Resume);
}

#[test]
fn user_code_gives_up_a_table_but_not_one_that_is_watched() {
    for watched in [false, true] {
        let mut machine = paged(SETUP);
        machine.read(0x5000, USER);
        machine.watch(LEAF_TABLE >> 12, watched);
        let access = Access { kind: AccessKind::Write, privilege: USER };
        let reused = count(&machine, Counter::TableReused);
        let (outcome, _plan) = machine.mmu.on_fault(Fault { gva: Gva::new(LEAF_TABLE), access });
        // The first of these tables maps itself, so the way there makes it a table again; of the second nothing would be gained.
        assert_eq!(outcome, Outcome::EmulateWrite(Gpa::new(LEAF_TABLE)));
        assert_eq!(count(&machine, Counter::TableReused), reused + u64::from(!watched));
    }
}

#[test]
fn a_stale_write_right_is_flushed_before_a_frame_becomes_a_table() {
    let mut machine = paged(SETUP);
    machine.write(0x1004, SUPERVISOR, 0x9067);
    machine.write(0x9000, SUPERVISOR, 0xa067);
    // The entry becomes read-only; the TLB keeps the right to write, as it may.
    machine.write(LEAF_TABLE + 9 * 4, SUPERVISOR, 0x9065);
    assert_eq!(machine.write(0x9004, SUPERVISOR, 0xb067), Verdict::At(0x9004));
    // Now it is a table: the right must be gone, or the next write goes unseen.
    let before = count(&machine, Counter::FlushAll);
    assert_eq!(machine.read(0x40_0000, USER), Verdict::At(0xa000));
    assert_eq!(count(&machine, Counter::FlushAll), before + 1);
    assert_eq!(machine.write(0x9000, SUPERVISOR, 0), Verdict::Fault(3));
}

#[test]
fn the_pool_is_never_outgrown() {
    let mut machine = paged(Setup { pool: 16, caching: false, ..SETUP });
    for round in 0..3u64 {
        for directory in 4..20u64 {
            machine.write(directory << 12, SUPERVISOR, 0x2067);
            machine.set_cr3(directory);
            assert_eq!(machine.write(0x15000, USER, round), Verdict::At(0x15000));
            machine.set_cr3(1);
        }
    }
    assert!(count(&machine, Counter::TableEvicted) > 40);
}

#[test]
fn a_table_frame_is_not_used_again_while_the_cpu_may_remember_it() {
    let mut machine = paged(Setup { pool: 16, ..SETUP });
    for table in 4..20u64 {
        machine.write(0x1000 + table * 4, SUPERVISOR, table << 12 | 0x67);
        for page in 0..4 {
            machine.write((table << 12) + page * 4, SUPERVISOR, ((table + page) & 15) << 12 | 0x65);
        }
    }
    // Each pass touches another page of each table, so the caches of upper levels are used and those of leaves are not.
    for page in 0..4 {
        for table in 4..20u64 {
            let gva = table << 22 | page << 12;
            assert_eq!(machine.read(gva, USER), Verdict::At(((table + page) & 15) << 12));
        }
    }
    assert!(count(&machine, Counter::TableEvicted) > 40);
}

#[test]
fn fetch_is_reported_only_with_smep() {
    let mut machine = paged(SETUP);
    machine.write(LEAF_TABLE + 20 * 4, SUPERVISOR, 0);
    let fetch = Access { kind: AccessKind::Fetch, privilege: USER };
    assert_eq!(machine.access(0x14000, fetch, &[]), Verdict::Fault(4));
    let controls = Controls { cr4: machine.controls.cr4 | cr4::SMEP, ..machine.controls };
    let _plan = machine.mmu.load_controls(controls, ControlWrite::Cr4).unwrap();
    let supervisor = Access { kind: AccessKind::Fetch, privilege: SUPERVISOR };
    for (gva, access, error) in
        [(0x14000, fetch, PfErr::FETCH | PfErr::USER), (0x5000, supervisor, PfErr::FETCH | PfErr::PRESENT)]
    {
        let Err(TranslateError::Fault(fault)) = machine.mmu.probe(Gva::new(gva), access) else { panic!("a fault") };
        assert_eq!(fault.error, error);
    }
    assert!(machine.mmu.probe(Gva::new(0x5000), fetch).is_ok());
}

#[test]
fn reports_show_both_walks() {
    let mut machine = paged(SETUP);
    machine.read(0x5123, USER);
    let guest = machine.mmu.guest_walk(Gva::new(0x5123));
    assert_eq!(guest.gpa, Some(Gpa::new(0x5123)));
    assert_eq!(guest.to_string(), "L2 gpa=0x1000 gpte=0x2067  L1 gpa=0x2014 gpte=0x5067  -> gpa=0x5123");
    let shadow = machine.mmu.shadow_walk(Gva::new(0x5123));
    assert_eq!(shadow.steps().count(), 4);
    assert_eq!(shadow.hpa.map(|hpa| hpa.pfn()), Some(super::memory::pfn_of(5)));
    assert_eq!(machine.mmu.shadow_walk(Gva::new(0x8000_0000)).to_string().matches("->").count(), 1);
}

#[test]
fn what_the_cpu_refuses_changes_nothing() {
    let mut mmu = new_mmu(SETUP);
    let no_protection = Controls { cr0: cr0::PG, ..Controls::default() };
    assert_eq!(mmu.load_controls(no_protection, ControlWrite::Cr0), Err(ControlFault::GeneralProtection));
    let pcid = Controls { cr4: cr4::PCIDE, ..Controls::default() };
    assert_eq!(mmu.load_controls(pcid, ControlWrite::Cr4), Err(ControlFault::Unsupported(pcid)));
    assert_eq!(mmu.root(), None);
    let access = Access { kind: AccessKind::Read, privilege: USER };
    let (outcome, _plan) = mmu.on_fault(Fault { gva: Gva::new(0), access });
    assert_eq!(outcome, Outcome::Stop(VmStop::NoRoot));
    let (outcome, _plan) = mmu.on_fault(Fault { gva: Gva::new(1 << 32), access });
    assert_eq!(outcome, Outcome::Stop(VmStop::NoRoot));
}

#[test]
fn configurations_out_of_range_say_so() {
    let make = |config| ShadowMmu::new(super::memory::Memory::new(), super::memory::Tables::new(&[]), (), config).err();
    assert_eq!(make(Config::new(Vec::new(), 1)), Some(ConfigError::PoolSize(0)));
    let frames = super::memory::table_frames(16);
    assert_eq!(make(Config::new(frames.clone(), 0)), Some(ConfigError::GuestFrames(0)));
    let config = Config { maxphyaddr: 31, ..Config::new(frames, 1) };
    assert_eq!(make(config), Some(ConfigError::MaxPhyAddr(31)));
    assert!(ConfigError::PoolSize(3).to_string().contains("expected 16"));
}

#[test]
fn a_look_at_the_hypervisors_window_ends_at_the_root() {
    let machine = paged(SETUP);
    let walk = machine.mmu.shadow_walk(Gva::new(0xffff_8000_0000_0000));
    let spte = walk.last().unwrap().spte;
    assert_eq!((walk.steps().count(), spte.present(), walk.hpa), (1, true, None));
}

#[test]
fn a_write_is_followed_to_the_end_of_the_guests_memory() {
    let mut machine = paged(SETUP);
    let _ = machine.read(0x5000, USER);
    for gpa in [LEAF_TABLE, u64::MAX] {
        let plan = machine.mmu.on_write(Gpa::new(gpa), usize::MAX);
        machine.execute(plan);
        machine.mmu.audit().unwrap();
    }
}
