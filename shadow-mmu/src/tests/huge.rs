//! Large leaves as single stories. Their checks are broken in `breaks/huge.rs`.

use super::machine::{Machine, SUPERVISOR, Setup, USER};
use super::memory::{BLOCK, pfn_of};
use super::reference::Verdict;
use super::scenarios::{SETUP, count, faults, paged};
use crate::{Counter, Gfn, Level, Perms, Policy, Spte, SyncPolicy, cr0, cr4};

/// The entry of the directory for 4 MiB, and the place in it where the block of RAM begins.
pub(super) const PDE: u64 = 0x1004;
pub(super) const AT: u64 = 0x60_0000;

fn huge(policy: Policy) -> Setup {
    Setup { policy: Policy { huge: true, ..policy }, ..SETUP }
}

/// A guest of 2-level paging with frames 0 to 1023 at 4 MiB, all marks set. The upper half of them is RAM in one piece.
pub(super) fn machine_with(policy: Policy) -> Machine {
    let mut machine = paged(huge(policy));
    machine.write(PDE, SUPERVISOR, 0xe7);
    machine
}

fn machine() -> Machine {
    machine_with(Policy::DEFAULT)
}

fn leaf(machine: &Machine, gva: u64) -> (Level, Spte) {
    let step = *machine.mmu.shadow_walk_for(crate::Gva::new(gva), USER).last().unwrap();
    assert!(step.spte.present(), "{gva:#x} is mapped");
    (step.level, step.spte)
}

#[test]
fn one_fault_maps_2_mib() {
    let mut machine = machine();
    assert_eq!(machine.write(AT + 0x5000, USER, 1), Verdict::At(0x20_5000));
    let before = faults(&machine);
    for page in [0, 1, 0x1ff] {
        assert_eq!(machine.read(AT + page * 0x1000, USER), Verdict::At((BLOCK.start + page) << 12));
    }
    assert_eq!(faults(&machine), before);
    assert_eq!(count(&machine, Counter::HugeFilled), 1);
    let (level, spte) = leaf(&machine, AT + 0x7000);
    assert!(level == Level::L2 && spte.is_large() && spte.writable() && spte.pfn() == pfn_of(BLOCK.start));
    let walk = machine.mmu.shadow_walk(crate::Gva::new(AT + 0x7123));
    assert_eq!(walk.hpa.map(|hpa| hpa.raw()), Some((pfn_of(BLOCK.start).raw() + 7) << 12 | 0x123));
    // The other half has ROM, a device and a hole.
    machine.read(0x40_5000, USER);
    assert_eq!(leaf(&machine, 0x40_5000).0, Level::L1);
}

#[test]
fn without_the_switch_there_is_none() {
    let mut machine = paged(SETUP);
    machine.write(PDE, SUPERVISOR, 0xe7);
    machine.write(AT, USER, 1);
    assert_eq!((leaf(&machine, AT).0, count(&machine, Counter::HugeFilled)), (Level::L1, 0));
}

#[test]
fn a_guest_that_does_not_page_has_large_leaves() {
    let mut machine = Machine::new(huge(Policy::DEFAULT), Vec::new());
    machine.write(0x20_5000, SUPERVISOR, 1);
    machine.read(0x3f_f000, SUPERVISOR);
    machine.read(0x5000, SUPERVISOR);
    assert_eq!((count(&machine, Counter::HugeFilled), count(&machine, Counter::HiddenFault)), (1, 2));
}

#[test]
fn d_is_exact() {
    let mut machine = machine();
    machine.write(PDE, SUPERVISOR, 0x87);
    machine.read(AT, USER);
    assert_eq!(machine.mmu.mem().word(PDE), 0xa7);
    assert!(!leaf(&machine, AT).1.writable());
    machine.write(AT + 0x9000, USER, 1);
    assert_eq!(machine.mmu.mem().word(PDE), 0xe7);
    assert!(leaf(&machine, AT).1.writable());
    assert_eq!(count(&machine, Counter::HugeFilled), 1, "the same leaf, with another right");
}

#[test]
fn a_page_table_in_the_block_breaks_it_up_before_it_counts() {
    let mut machine = machine();
    machine.write(AT, USER, 1);
    let flushes = count(&machine, Counter::FlushAll);
    // Frame 0x201 becomes the table for 8 MiB.
    machine.write(AT + 0x1000, USER, 0x5067);
    machine.write(0x1008, SUPERVISOR, 0x20_1067);
    assert_eq!(machine.read(0x80_0000, USER), Verdict::At(0x5000));
    assert_eq!((count(&machine, Counter::HugeBroken), count(&machine, Counter::FlushAll)), (1, flushes + 1));
    // A write through the large page is seen.
    machine.write(AT + 0x1000, SUPERVISOR, 0x6067);
    machine.invlpg(0x80_0000);
    assert_eq!(machine.read(0x80_0000, USER), Verdict::At(0x6000));
    machine.read(AT + 0x1000, SUPERVISOR);
    assert_eq!(leaf(&machine, AT + 0x1000).0, Level::L1);
    machine.write(AT + 0x2000, USER, 1);
    assert_eq!(leaf(&machine, AT + 0x2000).0, Level::L1, "its neighbours are small, too");
    // User code writes there: no table any more, and the block is in one piece again.
    machine.write(AT + 0x1000, USER, 1);
    machine.write(AT + 0x3000, USER, 1);
    assert_eq!(leaf(&machine, AT + 0x3000).0, Level::L2);
    assert_eq!(count(&machine, Counter::HugeFilled), 2);
}

#[test]
fn a_table_that_the_fault_itself_needs_lies_in_the_block() {
    let mut machine = paged(huge(Policy::DEFAULT));
    // The directory itself lies in the block, and maps it.
    machine.set_cr0(cr0::PG, false);
    machine.write(0x20_0000, SUPERVISOR, 0x2067);
    machine.write(0x20_0004, SUPERVISOR, 0xe7);
    machine.set_cr3(0x200);
    machine.set_cr0(cr0::PG, true);
    machine.write(AT + 0x8, SUPERVISOR, 0xe7);
    assert_eq!(count(&machine, Counter::HugeBroken), 1, "that of the guest without paging");
    assert_eq!(machine.read(0xa0_0000, USER), Verdict::At(0x20_0000));
    assert_eq!(leaf(&machine, AT).0, Level::L1);
}

#[test]
fn watches_looks_and_the_dirty_log_break_it_up() {
    type Story = fn(&mut Machine);
    let stories: [Story; 4] = [
        |machine| machine.watch(0x3ff, true),
        |machine| {
            let (used, plan) = machine.mmu.frame_use(Gfn::new(0x210));
            assert!(used.accessed && plan.is_all());
            machine.execute(plan);
        },
        |machine| {
            let plan = machine.mmu.start_dirty_log(Gfn::new(0x250)..Gfn::new(0x251));
            assert!(plan.is_all());
            machine.execute(plan);
        },
        |machine| {
            let plan = machine.mmu.take_frame(Gfn::new(0x2ff));
            machine.execute(plan);
            machine.mmu.mem().absent.set(Some(Gfn::new(0x2ff)));
        },
    ];
    for story in stories {
        let mut machine = machine();
        machine.write(AT, USER, 1);
        story(&mut machine);
        machine.mmu.audit().expect("sound");
        assert_eq!(count(&machine, Counter::HugeBroken), 1);
        machine.write(AT + 0x5000, USER, 1);
        assert_eq!(leaf(&machine, AT + 0x5000).0, Level::L1);
    }
}

#[test]
fn the_block_is_large_again_when_nothing_is_withheld() {
    let mut machine = machine();
    machine.watch(0x240, true);
    machine.write(AT, USER, 1);
    assert_eq!(leaf(&machine, AT).0, Level::L1);
    machine.watch(0x240, false);
    machine.write(AT + 0x1000, USER, 1);
    assert_eq!(leaf(&machine, AT).0, Level::L2);
    // The use of a frame is exact: it counts again when it was used.
    let (_, plan) = machine.mmu.frame_use(Gfn::new(0x203));
    machine.execute(plan);
    machine.read(AT + 0x3000, USER);
    assert_eq!(leaf(&machine, AT + 0x3000).0, Level::L1);
    machine.read(AT, USER);
    assert_eq!(leaf(&machine, AT).0, Level::L1, "it was not written yet");
    let (used, plan) = machine.mmu.frame_use(Gfn::new(0x203));
    machine.execute(plan);
    assert!(used.accessed && !used.written);
}

#[test]
fn the_guest_changes_its_entry() {
    let mut machine = machine();
    machine.write(AT, USER, 1);
    // What means the same changes nothing.
    machine.write(PDE, SUPERVISOR, 0xe7 | 0x200);
    assert_eq!(leaf(&machine, AT).0, Level::L2);
    // Read-only, and INVLPG of the other half.
    machine.write(PDE, SUPERVISOR, 0xe5);
    machine.invlpg(0x40_0000);
    assert_eq!(machine.write(AT, USER, 1), Verdict::Fault(7));
    machine.read(AT, USER);
    // Elsewhere, then a table, then nothing.
    machine.write(PDE, SUPERVISOR, 0x40_00e7);
    machine.invlpg(AT);
    machine.read(AT, USER);
    machine.write(PDE, SUPERVISOR, 0x2067);
    machine.invlpg(AT);
    machine.read(0x40_5000, USER);
    machine.write(PDE, SUPERVISOR, 0xe7);
    machine.read(AT, USER);
    machine.write(PDE, SUPERVISOR, 0);
    machine.invlpg(0x40_0000);
    assert_eq!(machine.read(AT, USER), Verdict::Fault(4));
}

#[test]
fn a_directory_with_new_large_leaves_is_not_flooded() {
    let mut machine = machine();
    for _ in 0..20 {
        machine.write(AT, USER, 1);
        machine.write(PDE, SUPERVISOR, 0);
        machine.invlpg(AT);
        machine.write(PDE, SUPERVISOR, 0xe7);
    }
    assert_eq!((count(&machine, Counter::TableFlooded), count(&machine, Counter::HugeFilled)), (0, 20));
}

#[test]
fn what_no_large_entry_can_say_is_said_by_small_ones() {
    // Without CR0.WP a supervisor writes a read-only user page; under SMAP that cannot be shown, and is emulated.
    let mut machine = machine();
    machine.write(PDE, SUPERVISOR, 0xe5);
    machine.set_cr0(cr0::WP, false);
    machine.write(AT, SUPERVISOR, 1);
    assert_eq!(leaf(&machine, AT), (Level::L2, Spte::leaf(pfn_of(BLOCK.start), Perms::new(false, true, true)).large()));
    machine.read(AT, USER);
    machine.flip_cr4(cr4::SMAP);
    machine.write(AT, crate::Privilege::SupervisorAc, 1);
    machine.read(AT, USER);
}

#[test]
fn a_virtual_tlb_drops_them_with_the_rest() {
    let mut machine = machine_with(Policy { sync: SyncPolicy::VirtualTlb, ..Policy::DEFAULT });
    machine.flip_cr4(cr4::PGE);
    machine.write(PDE, SUPERVISOR, 0x1e7);
    machine.write(0x1008, SUPERVISOR, 0xe7);
    machine.set_cr3(1);
    machine.write(AT, USER, 1);
    machine.write(0xa0_0000, USER, 1);
    assert_eq!(count(&machine, Counter::HugeFilled), 2);
    machine.set_cr3(1);
    let before = faults(&machine);
    machine.read(AT + 0x5000, USER);
    assert_eq!(faults(&machine), before, "the global one stays");
    machine.read(0xa0_0000, USER);
    assert_eq!(faults(&machine), before + 1);
    machine.write(PDE, SUPERVISOR, 0);
    machine.invlpg(0x40_0000);
    assert_eq!(machine.read(AT, USER), Verdict::Fault(4));
}
