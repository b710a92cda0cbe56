//! Break it: each check of the audit is broken on purpose, and the audit must name it.
//!
//! [`seen`] has an arm for every [`Violation`], so a check without a test does not build. The other tests of this module tell stories
//! about single invariants that one arm cannot.

mod huge;
mod lagging;
mod leaves;
mod links;
mod roots;
mod window;

use super::machine::{Machine, Mmu, SUPERVISOR, Setup, USER};
use super::scenarios::{SETUP, paged};
use crate::audit::Violation;
use crate::links::node_of;
use crate::{AuditError, ControlWrite, Gpa, Level, Policy, Spte, SyncPolicy, cr0};

const DEFAULT: Policy = Policy::DEFAULT;
const VTLB: Policy = Policy { sync: SyncPolicy::VirtualTlb, ..DEFAULT };
const GAPS: Policy = Policy { mark_absent: true, ..DEFAULT };

/// Frame 1: directory, frame 2: its table, identity for the first 16 pages, all of them used.
fn running_machine() -> Machine {
    machine_with(DEFAULT)
}

fn machine_with(policy: Policy) -> Machine {
    let setup = Setup { pool: 16, policy, caching: false, stepping: false };
    let mut machine = Machine::new(setup, Vec::new());
    machine.write(0x1000, SUPERVISOR, 0x2067);
    for page in 0..16 {
        machine.write(0x2000 + page * 4, SUPERVISOR, page << 12 | 0x67);
    }
    machine.set_cr3(1);
    machine.set_cr0(cr0::PG, true);
    for page in 4..16 {
        machine.write(page << 12, USER, page);
    }
    machine.read(0x1000, SUPERVISOR);
    machine
}

/// The same tables; one page was used after a load of CR3, and page 40 was found absent.
fn little_used(policy: Policy) -> Machine {
    let mut machine = paged(Setup { policy, ..SETUP });
    machine.set_cr3(1);
    machine.read(0x5000, USER);
    machine.read(0x28000, USER);
    machine
}

/// The page of `level` that is a shadow of a guest table, or glue, in the present root.
fn page(mmu: &Mmu, level: Level) -> u32 {
    let mut index = mmu.root.unwrap().index;
    let mut at = Level::L4;
    while at != level {
        index = mmu.child(index, 0).unwrap().unwrap();
        at = at.down().unwrap();
    }
    index
}

fn poke(mmu: &mut Mmu, level: Level, slot: usize, spte: Spte) {
    let index = page(mmu, level);
    let table = mmu.pool.get(index).unwrap().pfn;
    mmu.tables.poke(table, slot, spte);
}

/// Changes the guest's memory behind the library's back.
fn store(mmu: &Mmu, at: u64, entry: u32) {
    mmu.mem().store(Gpa::new(at), &entry.to_le_bytes());
}

/// Links a page once more, with all bookkeeping.
fn link(mmu: &mut Mmu, (parent, slot): (u32, usize), child: u32) {
    let (table, below) = (mmu.pool.get(parent).unwrap().pfn, mmu.pool.get(child).unwrap().pfn);
    let node = node_of(parent, slot);
    mmu.links.insert(&mut mmu.pool.get_mut(child).unwrap().parents, node, child).unwrap();
    mmu.pool.get_mut(parent).unwrap().set_present(slot);
    mmu.tables.poke(table, slot, Spte::table(below));
}

/// What the audit says of a sound machine after a breakage.
fn broken(mut machine: Machine, breakage: impl FnOnce(&mut Mmu)) -> AuditError {
    machine.mmu.audit().expect("sound before");
    breakage(&mut machine.mmu);
    machine.mmu.audit().expect_err("the audit must see it")
}

fn breaks(invariant: u8, breakage: impl FnOnce(&mut Mmu)) {
    let error = broken(running_machine(), breakage);
    assert_eq!(error.invariant, invariant, "{error}");
}

/// What the audit says when the thing is broken that a check is about.
fn seen(violation: Violation) -> AuditError {
    use Violation as V;
    match violation {
        V::NoMemory | V::ForeignFrame | V::UnmappedByGuest | V::OtherFrame | V::OtherRights => leaves::seen(violation),
        V::RomWritable | V::AbsentNotZero | V::LeafBeforeA | V::WritableBeforeD => leaves::seen(violation),
        V::TrackedWritable | V::FrameAway | V::NotAccessed | V::NotWritten => leaves::seen(violation),
        V::OtherTable | V::PlaceNamesTable | V::TableUnused | V::TablesMiscounted | V::BitsDiffer => {
            links::seen(violation)
        }
        V::RmapForeign | V::RmapLacks | V::FreeNamed | V::LinkElsewhere | V::ParentForeign => links::seen(violation),
        V::PathElsewhere | V::ParentLacks | V::Nowhere | V::PlaceShared | V::KeyLost | V::ChainForeign => {
            links::seen(violation)
        }
        V::KeyTwice | V::FreeNotEmpty | V::TableAway | V::PoolLists => links::seen(violation),
        V::OtherFold | V::FoldUnused | V::RootLinked | V::ViewRootless | V::RootGone => roots::seen(violation),
        V::RootOther | V::WindowUsed | V::WindowsDiffer | V::TooManyRoots | V::PlanLeft => roots::seen(violation),
        V::UnsyncUnlisted | V::UnsyncUpper | V::UnsyncNoTable | V::UnsyncTooMany => lagging::seen(violation),
        V::LeafUnlisted | V::LocalUnlisted | V::GapUnwanted | V::GapUnfollowed | V::GapLies => lagging::seen(violation),
        V::CodeRights | V::CodeUnmapped | V::CodeOtherFrame | V::CodeForbidden => window::seen(violation),
        V::CodeMisplaced | V::CodeBeforeA | V::CodeUnlisted => window::seen(violation),
        V::LargeElsewhere | V::LargeMisplaced | V::LargeUnlisted | V::LargeUnwanted => huge::seen(violation),
        V::LargeMisaligned | V::BlockTracked | V::BlockForeign | V::BlockLacks | V::BlockAway => huge::seen(violation),
        V::BlockUnused | V::BlockNotClear | V::BlockInPieces => huge::seen(violation),
        V::SecondBeyond | V::SecondForeign | V::SecondMalformed | V::SecondRom | V::SecondDirty => {
            crate::second::tests::seen(violation)
        }
        V::SecondWatched | V::SecondNowhere | V::SecondMiscounted | V::SecondOrphan | V::SecondUnnamed => {
            crate::second::tests::seen(violation)
        }
        V::SecondRoots | V::SecondLost | V::SecondPool => crate::second::tests::seen(violation),
    }
}

#[test]
fn every_check_of_the_audit_fires() {
    for &violation in Violation::ALL {
        let error = seen(violation);
        assert_eq!((error.violation, error.invariant), (violation, violation.invariant()), "{error}");
    }
}

#[test]
fn a_bug_stops_the_vm_and_not_the_hypervisor() {
    let mut machine = running_machine();
    machine.mmu.root = Some(crate::pool::PageId { index: 4_000, generation: 0 });
    let access = crate::Access { kind: crate::AccessKind::Read, privilege: USER };
    let fault = crate::Fault { gva: crate::Gva::new(0x5000), access };
    let (outcome, plan) = machine.mmu.on_fault(fault);
    assert!(matches!(outcome, crate::Outcome::Stop(crate::VmStop::Internal { .. })), "{outcome:?}");
    assert!(plan.is_none());
    let controls = machine.controls;
    assert!(machine.mmu.load_controls(controls, ControlWrite::Cr3).is_ok());
}
