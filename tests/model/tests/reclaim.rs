//! What a host does through the reverse map, as single stories: take a frame, look at its use, log writes.

use gnomon_model::event::Event;
use gnomon_model::guest;
use gnomon_model::machine::{Machine, Setup};
use gnomon_model::ram::BLOCK;
use gnomon_model::reference::{Mode, PSE, Verdict, What, Who};
use shadow_mmu::{
    Access, AccessKind, ControlFault, ControlWrite, Controls, Counter, Fault, FlushPlan, FrameUse, Gfn, Gva, Outcome,
    Policy, Privilege,
};

const SUPERVISOR: Who = Who::Supervisor;
const USER: Who = Who::User;

/// Pages 0, 1, 2, 3 and 5 are mapped to frames 0 to 4, with A and D set; the directory maps itself.
const EVERYTHING_SET: u32 = 0x3f;

fn machine() -> Machine {
    let mut machine =
        Machine::new(Setup { pool: 48, policy: Policy::default(), caching: true, stepping: false, ..Setup::default() });
    machine.set_cr4(PSE, true);
    guest::rebuild(&mut machine, Mode::Legacy, EVERYTHING_SET);
    // Page 5 gets a frame that is no table.
    machine.write(0x2014, SUPERVISOR, &0x1_4067u32.to_le_bytes());
    machine
}

/// A frame that is no table, and the page that maps it.
const FRAME: u64 = 20;
const PAGE: u64 = 0x5000;

fn count(machine: &Machine, counter: Counter) -> u64 {
    machine.mmu.counters().get(counter)
}

/// What the library answers to an access that the CPU could not make.
fn fault(machine: &mut Machine, gva: u64) -> Outcome {
    let access = Access { kind: AccessKind::Read, privilege: Privilege::User };
    machine.mmu.on_fault(Fault { gva: Gva::new(gva), access }).0
}

#[test]
fn a_taken_frame_is_asked_for_and_comes_back_elsewhere() {
    let mut machine = machine();
    machine.write(PAGE, USER, b"here");
    machine.page_out(FRAME);
    machine.settle();
    assert_eq!(fault(&mut machine, PAGE), Outcome::NotResident(Gfn::new(FRAME)));
    assert_eq!(count(&machine, Counter::AbsentFault), 1);
    // The machine brings it back, in another host frame, and goes on.
    assert_eq!(machine.read(PAGE, USER), Verdict::At(FRAME << 12));
    assert_eq!(machine.mmu.mem().ram.read(FRAME << 12, 4), Some(u64::from(u32::from_le_bytes(*b"here"))));
}

#[test]
fn a_table_in_a_taken_frame_loses_its_shadow_and_nothing_else() {
    let mut machine = machine();
    machine.read(PAGE, USER);
    machine.read(0x8020_0000, USER);
    assert!(machine.mmu.write_kind(Gfn::new(2)).page_table);
    machine.page_out(2);
    machine.settle();
    assert!(machine.mmu.write_kind(Gfn::new(2)).is_plain());
    assert_eq!(fault(&mut machine, PAGE), Outcome::NotResident(Gfn::new(2)));
    let before = count(&machine, Counter::HiddenFault);
    // The other table is untouched, but for the TLB.
    machine.read(0x8020_0000, USER);
    assert_eq!(count(&machine, Counter::HiddenFault), before);
    assert_eq!(machine.read(PAGE, USER), Verdict::At(FRAME << 12));
}

#[test]
fn a_guest_lives_with_no_frame_in_memory_at_first() {
    let mut machine = machine();
    for frame in (0..=32).chain(BLOCK) {
        machine.page_out(frame);
    }
    machine.settle();
    assert_eq!(machine.mmu.mem().resident(), 0);
    assert_eq!(machine.write(PAGE, USER, b"back"), Verdict::At(FRAME << 12));
    assert_eq!(machine.mmu.mem().resident(), 3, "directory, table, page");
    machine.set_cr3(3 << 12);
    machine.read(PAGE, USER);
}

#[test]
fn pdptes_in_a_taken_frame_refuse_the_load_until_it_is_back() {
    let mut machine = machine();
    guest::rebuild(&mut machine, Mode::Pae, EVERYTHING_SET);
    machine.page_out(7);
    let before = machine.mmu.controls();
    let next = Controls { cr3: guest::space(Mode::Pae, 0), ..before };
    let refused = machine.mmu.load_controls(next, ControlWrite::Cr3);
    assert_eq!(refused, Err(ControlFault::NotResident(Gfn::new(7))));
    assert_eq!(machine.mmu.controls(), before);
    assert!(machine.set_cr3(guest::space(Mode::Pae, 0)));
}

#[test]
fn the_use_of_a_frame_is_exact() {
    let mut machine = machine();
    let seen = |machine: &mut Machine| {
        let (seen, plan) = machine.mmu.frame_use(Gfn::new(FRAME));
        // Nothing was used: nothing can be in the TLB.
        assert!(plan.is_all() == seen.accessed);
        (seen.accessed, seen.written)
    };
    machine.look(FRAME);
    assert_eq!(seen(&mut machine), (false, false));
    machine.look(FRAME);
    machine.read(PAGE, USER);
    let faults = count(&machine, Counter::HiddenFault);
    machine.read(PAGE, USER);
    assert_eq!(count(&machine, Counter::HiddenFault), faults, "one fault for each look");
    machine.look(FRAME);
    machine.write(PAGE, SUPERVISOR, b"x");
    machine.look(FRAME);
    // The guest's own A and D are as they were.
    assert_eq!(machine.mmu.mem().ram.read(0x2014, 4), Some(0x1_4067));
    assert_eq!(seen(&mut machine), (false, false));
}

#[test]
fn an_entry_that_moves_to_an_unused_frame_is_no_use_of_it() {
    let mut machine = machine();
    machine.read(PAGE, USER);
    machine.look(21);
    // With A and D set the library would make the entry at once, and miss the first access.
    machine.write(0x2014, SUPERVISOR, &0x1_5067u32.to_le_bytes());
    machine.look(21);
    machine.invlpg(PAGE);
    machine.write(PAGE, USER, b"x");
    machine.look(21);
}

#[test]
fn setting_a_or_d_is_a_write_of_the_table() {
    let mut machine = machine();
    machine.write(0x2014, SUPERVISOR, &0x1_4007u32.to_le_bytes());
    machine.look(2);
    machine.collect(0, 33);
    machine.read(PAGE, USER);
    assert_eq!(machine.collect(0, 33), [2], "A in the table; the page itself was only read");
    machine.write(PAGE, USER, b"x");
    assert_eq!(machine.collect(0, 33), [2, FRAME], "D in the table, and the page");
    machine.look(2);
}

#[test]
fn a_dirty_log_costs_a_fault_for_each_frame_written() {
    let mut machine = machine();
    machine.write(PAGE, USER, b"x");
    machine.event(Event::LogStart(0, 33));
    let faults = count(&machine, Counter::HiddenFault);
    machine.read(PAGE, USER);
    assert_eq!(count(&machine, Counter::HiddenFault), faults, "reads go on");
    for _ in 0..3 {
        machine.write(PAGE, USER, b"x");
    }
    assert_eq!(count(&machine, Counter::HiddenFault), faults + 1);
    assert_eq!(machine.collect(0, 33), [FRAME]);
    assert_eq!(machine.collect(0, 33), []);
    machine.event(Event::LogStop(0, 33));
    machine.write(PAGE, USER, b"x");
    machine.write(PAGE, USER, b"x");
    assert_eq!(count(&machine, Counter::HiddenFault), faults + 2, "the right comes back at the next write");
}

#[test]
fn pages_of_a_large_page_are_taken_and_logged_one_by_one() {
    let mut machine = machine();
    // 4 MiB at 4 MiB are frames 0 to 1023.
    let at = |frame: u64| 0x40_0000 + (frame << 12);
    for frame in [20, 21, 22] {
        machine.write(at(frame), SUPERVISOR, b"large");
    }
    machine.collect(0, 33);
    machine.page_out(21);
    machine.settle();
    let before = count(&machine, Counter::HiddenFault);
    machine.read(at(22), SUPERVISOR);
    assert_eq!(count(&machine, Counter::HiddenFault), before, "its neighbours stay");
    machine.write(at(21), SUPERVISOR, b"again");
    assert_eq!(machine.collect(0, 33), [21]);
}

#[test]
fn frames_outside_memory_are_nothing() {
    let mut machine = machine();
    let far = Gfn::new(u64::MAX);
    assert!(machine.mmu.take_frame(far).is_none());
    assert_eq!(machine.mmu.frame_use(far), (FrameUse::default(), FlushPlan::none()));
    assert!(machine.mmu.collect_dirty(far..far, |_| panic!("no frame")).is_none());
    machine.access(PAGE, What::Read, USER, &[]);
}
