//! The path that the last fault went down.

use super::machine::{Machine, SUPERVISOR};
use super::reference::Verdict;
use super::scenarios::{LEAF_TABLE, SETUP, paged};
use crate::pte::Legacy32;
use crate::walk::Walk;
use crate::{Gva, cr0};

/// A machine that has used page 5.
fn used() -> Machine {
    let mut machine = paged(SETUP);
    machine.read(0x5000, SUPERVISOR);
    assert!(is_known(&machine));
    machine
}

/// Is the path to the first 2 MiB known?
fn is_known(machine: &Machine) -> bool {
    machine.mmu.audit().unwrap();
    let walk = Walk { leaf: 1, ..Walk::flat(Gva::new(0x5000)) };
    machine.mmu.known_path::<Legacy32>(&walk, Gva::new(0x5000)).unwrap().is_some()
}

#[test]
fn a_directory_entry_that_changes_ends_it() {
    let mut machine = used();
    machine.write(0x1000, SUPERVISOR, 0);
    assert!(!is_known(&machine));
    assert!(matches!(machine.read(0x6000, SUPERVISOR), Verdict::Fault(_)));
}

#[test]
fn a_table_that_is_given_up_ends_it() {
    let mut machine = used();
    // No kernel writes half an entry.
    machine.write(LEAF_TABLE + 0x802, SUPERVISOR, 0);
    assert!(!is_known(&machine));
}

#[test]
fn other_control_registers_end_it() {
    let mut machine = used();
    machine.set_cr0(cr0::WP, true);
    assert!(!is_known(&machine));
    machine.read(0x6000, SUPERVISOR);
    assert!(is_known(&machine));
}

#[test]
fn each_root_has_its_own() {
    let mut machine = used();
    machine.set_cr3(3);
    assert!(!is_known(&machine));
    machine.read(0x5000, SUPERVISOR);
    assert!(is_known(&machine));
    machine.set_cr3(1);
    assert!(!is_known(&machine), "the last was the other's");
}
