//! Entries that another CPU, or a device, changes between the walk's read and its compare-exchange.

use super::machine::{Machine, SUPERVISOR, Setup};
use super::scenarios::{LEAF_TABLE, SETUP, paged};
use crate::{Access, AccessKind, Fault, Gpa, Gva, Outcome, PfErr};

const AT: u64 = LEAF_TABLE + 5 * 4;
const WRITE: Access = Access { kind: AccessKind::Write, privilege: SUPERVISOR };

/// Page 5 has neither A nor D. `word` comes into its entry just before the walk would set them.
fn raced(word: u32) -> Machine {
    let machine = paged(Setup { caching: false, ..SETUP });
    machine.mmu.mem().store(Gpa::new(AT), &0x5007u32.to_le_bytes());
    machine.mmu.mem().race.set(Some((AT, word)));
    machine
}

fn fault(machine: &mut Machine) -> Outcome {
    let (outcome, plan) = machine.mmu.on_fault(Fault { gva: Gva::new(0x5000), access: WRITE });
    machine.execute(plan);
    machine.mmu.audit().expect("sound");
    outcome
}

#[test]
fn marks_of_another_cpu_are_kept() {
    for mark in [0x20u32, 0x40, 0x60] {
        let mut machine = raced(0x5007 | mark);
        let read = Access { kind: AccessKind::Read, ..WRITE };
        assert_eq!(machine.mmu.translate(Gva::new(0x5000), read), Ok(Gpa::new(0x5000)));
        assert_eq!(machine.mmu.mem().word(AT), 0x5027 | mark, "the read sets A, and D stays what it is");
    }
}

#[test]
fn an_entry_that_goes_to_another_page_is_walked_anew() {
    let mut machine = raced(0x6007);
    assert_eq!(fault(&mut machine), Outcome::Resume, "the guest tries again");
    assert_eq!(machine.mmu.mem().word(AT), 0x6007, "nothing was marked for a page that was not used");
    assert!(machine.mmu.shadow_access(Gva::new(0x5000), WRITE).is_none());
    assert_eq!(fault(&mut machine), Outcome::Resume);
    assert_eq!(machine.mmu.mem().word(AT), 0x6067);
    // An emulator's walk tries again by itself.
    let mut machine = raced(0x6007);
    assert_eq!(machine.mmu.translate(Gva::new(0x5000), WRITE), Ok(Gpa::new(0x6000)));
    assert_eq!(machine.mmu.mem().word(AT), 0x6067);
}

#[test]
fn an_entry_that_loses_the_right_faults() {
    let mut machine = raced(0x5005);
    assert_eq!(fault(&mut machine), Outcome::Resume);
    let Outcome::Inject(fault) = fault(&mut machine) else { panic!("a true fault") };
    assert_eq!(fault.error, PfErr::PRESENT | PfErr::WRITE);
    assert_eq!(machine.mmu.mem().word(AT), 0x5005);
}
