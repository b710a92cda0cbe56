//! The code window: what is linked where, and what takes it out again.

use super::machine::{Machine, SUPERVISOR, Setup, USER};
use super::memory::pfn_of;
use super::reference::Verdict;
use super::scenarios::{LEAF_TABLE, SETUP, count, paged};
use crate::{CodeOutcome, CodePage, Counter, Gfn, GuestFault, Gva, Patches, PfErr, Policy, SyncPolicy, cr0, cr4};

/// Fetches of page `n` go to this address plus `n` pages.
const SHIFT: u32 = 0x4000_0000;
/// The same as an address: where page 0 is fetched from.
pub(super) const WINDOW: u64 = SHIFT as u64;
/// The page directory's entry for the window.
pub(super) const DIRECTORY_ENTRY: u64 = 0x1000 + (WINDOW >> 22) * 4;
/// What shows the code: any frame that the test's last gate lets pass.
pub(super) const SHADOW: u64 = 22;

pub(super) fn windowed() -> Machine {
    opened(paged(SETUP))
}

/// A machine with the window open.
pub(super) fn opened(mut machine: Machine) -> Machine {
    machine.mmu.set_fetch_guard(true);
    let plan = machine.mmu.set_window(SHIFT);
    machine.execute(plan);
    machine
}

pub(super) fn fetch(machine: &mut Machine, gva: u32) -> CodeOutcome {
    let (outcome, plan) = machine.mmu.on_code_fetch(Gva::new(gva.into()));
    machine.execute(plan);
    machine.mmu.audit().unwrap();
    outcome
}

pub(super) fn map(machine: &mut Machine, gva: u32, gfn: u64) {
    let plan = machine.mmu.map_code(Gva::new(gva.into()), Gfn::new(gfn), pfn_of(SHADOW));
    machine.execute(plan);
    machine.mmu.audit().unwrap();
}

fn wanted(gfn: u64, following: u64) -> CodeOutcome {
    CodeOutcome::Wanted(CodePage { gfn: Gfn::new(gfn), following: Some(Gfn::new(following)) })
}

#[test]
fn a_fetch_asks_for_a_page_once() {
    let mut machine = windowed();
    assert_eq!(fetch(&mut machine, 0x5123), wanted(5, 6));
    map(&mut machine, 0x5123, 5);
    assert_eq!(fetch(&mut machine, 0x5123), CodeOutcome::Resume);
    assert_eq!(machine.mmu.code_regions().collect::<Vec<_>>(), [Gva::new(0)]);
    let shown = machine.mmu.shadow_walk(Gva::new(WINDOW + 0x5000)).to_string();
    assert!(shown.contains(&format!("{:x}", pfn_of(SHADOW).base().raw())), "{shown}");
}

#[test]
fn other_code_in_place_of_a_page_of_code_empties_the_tlb() {
    let mut machine = windowed();
    let _ = fetch(&mut machine, 0x5000);
    map(&mut machine, 0x5000, 5);
    let mut show = |frame| machine.mmu.map_code(Gva::new(0x5000), Gfn::new(5), pfn_of(frame));
    assert!(show(SHADOW).is_none(), "the same again");
    assert!(show(SHADOW - 1).is_all());
}

#[test]
fn more_regions_than_are_remembered_are_linked_anew() {
    let shown = |machine: &Machine| {
        let walk = machine.mmu.shadow_walk(Gva::new(WINDOW + 0x5000)).to_string();
        walk.contains(&format!("{:x}", pfn_of(SHADOW).base().raw()))
    };
    let mut machine = windowed();
    for n in 0..70u32 {
        machine.write(0x1000 + u64::from(n) * 4, SUPERVISOR, 0x2067);
        let at = n << 22 | 0x5000;
        let mut turns = 0;
        while fetch(&mut machine, at) != CodeOutcome::Resume {
            map(&mut machine, at, 5);
            turns += 1;
            assert!(turns < 3, "no end of a fetch");
        }
        assert_eq!(shown(&machine), n < 64, "what is not remembered is not linked");
    }
    assert_eq!(machine.mmu.code_regions().count(), 6);
}

#[test]
fn the_links_outlive_cr3_loads_and_are_shared_with_the_table() {
    let mut machine = windowed();
    let _ = fetch(&mut machine, 0x5000);
    map(&mut machine, 0x5000, 5);
    machine.set_cr3(3);
    assert_eq!(fetch(&mut machine, 0x5000), CodeOutcome::Resume, "the other directory has the same table");
    machine.set_cr3(1);
    machine.mmu.audit().unwrap();
    assert_eq!(fetch(&mut machine, 0x5000), CodeOutcome::Resume);
}

#[test]
fn a_write_to_the_table_takes_the_page_and_the_one_before() {
    let mut machine = windowed();
    for page in [4, 5, 6] {
        let _ = fetch(&mut machine, page << 12);
        map(&mut machine, page << 12, page.into());
    }
    machine.write(LEAF_TABLE + 6 * 4, SUPERVISOR, 0x8067);
    machine.mmu.audit().unwrap();
    assert_eq!(fetch(&mut machine, 0x4000), CodeOutcome::Resume);
    assert_eq!(fetch(&mut machine, 0x5000), wanted(5, 8));
    assert_eq!(fetch(&mut machine, 0x6000), wanted(8, 7));
}

#[test]
fn the_guests_own_use_of_the_place_wins() {
    let mut machine = windowed();
    let _ = fetch(&mut machine, 0x5000);
    map(&mut machine, 0x5000, 5);
    machine.write(DIRECTORY_ENTRY, SUPERVISOR, 0x2067);
    machine.mmu.audit().unwrap();
    assert_eq!(machine.read(WINDOW + 0x7000, USER), Verdict::At(0x7000));
    assert_eq!(fetch(&mut machine, 0x5000), CodeOutcome::Taken);
    assert!(!machine.mmu.window_fits(SHIFT, Gva::new(0x5000)));
    assert!(machine.mmu.window_fits(SHIFT << 1, Gva::new(0x5000)));
    let plan = machine.mmu.set_window(SHIFT << 1);
    machine.execute(plan);
    assert_eq!(fetch(&mut machine, 0x5000), wanted(5, 6));
    machine.write(DIRECTORY_ENTRY, SUPERVISOR, 0);
    machine.mmu.audit().unwrap();
}

#[test]
fn a_directory_that_changes_for_the_code_takes_the_link() {
    let mut machine = windowed();
    let _ = fetch(&mut machine, 0x5000);
    map(&mut machine, 0x5000, 5);
    machine.write(0x1000, SUPERVISOR, 0);
    machine.mmu.audit().unwrap();
    let absent = GuestFault { gva: Gva::new(0x5000), error: PfErr::empty() };
    assert_eq!(fetch(&mut machine, 0x5000), CodeOutcome::Inject(absent));
}

#[test]
fn a_directory_that_changes_while_another_is_loaded_takes_the_link_at_its_next_load() {
    let mut machine = windowed();
    let _ = fetch(&mut machine, 0x5000);
    map(&mut machine, 0x5000, 5);
    machine.set_cr3(3);
    let _ = fetch(&mut machine, 0x5000);
    machine.write(0x1000, SUPERVISOR, 0);
    machine.set_cr3(1);
    machine.mmu.audit().unwrap();
    let absent = GuestFault { gva: Gva::new(0x5000), error: PfErr::empty() };
    assert_eq!(fetch(&mut machine, 0x5000), CodeOutcome::Inject(absent));
    machine.set_cr3(3);
    assert_eq!(fetch(&mut machine, 0x5000), CodeOutcome::Resume, "its own directory did not change");
}

#[test]
fn smep_that_comes_while_another_directory_is_loaded_takes_the_link_at_its_next_load() {
    let mut machine = windowed();
    let _ = fetch(&mut machine, 0x5000);
    map(&mut machine, 0x5000, 5);
    machine.set_cr3(3);
    machine.flip_cr4(cr4::SMEP);
    machine.set_cr3(1);
    machine.mmu.audit().unwrap();
    // The page is one of user code.
    let forbidden = GuestFault { gva: Gva::new(0x5000), error: PfErr::PRESENT | PfErr::FETCH };
    assert_eq!(fetch(&mut machine, 0x5000), CodeOutcome::Inject(forbidden));
}

#[test]
fn a_table_with_code_does_not_go_out_of_sync() {
    let policy = Policy { sync: SyncPolicy::UNSYNC, patience: 0, ..Policy::DEFAULT };
    let mut machine = opened(paged(Setup { policy, ..SETUP }));
    let _ = fetch(&mut machine, 0x5000);
    map(&mut machine, 0x5000, 5);
    machine.write(LEAF_TABLE + 9 * 4, SUPERVISOR, 0x9067);
    assert_eq!(count(&machine, Counter::TableUnsynced), 0);
    // No flush of the guest's names the window's addresses.
    machine.write(LEAF_TABLE + 5 * 4, SUPERVISOR, 0x8067);
    assert_eq!(fetch(&mut machine, 0x5000), wanted(8, 6));
    // One that is out of sync comes back for its code.
    let mut machine = opened(paged(Setup { policy, ..SETUP }));
    machine.read(0x5000, SUPERVISOR);
    machine.write(LEAF_TABLE + 5 * 4, SUPERVISOR, 0x8067);
    assert_eq!(count(&machine, Counter::TableUnsynced), 1);
    let _ = fetch(&mut machine, 0x5000);
    assert_eq!(count(&machine, Counter::TableResynced), 1);
}

#[test]
fn unmapping_the_code_of_a_frame_leaves_the_others() {
    let mut machine = windowed();
    for page in [5, 6] {
        let _ = fetch(&mut machine, page << 12);
        map(&mut machine, page << 12, page.into());
    }
    let plan = machine.mmu.unmap_code(Gfn::new(5));
    assert!(plan.is_all(), "the TLB may know it by another page that was given up");
    machine.execute(plan);
    assert_eq!(fetch(&mut machine, 0x6000), CodeOutcome::Resume);
    assert_eq!(fetch(&mut machine, 0x5000), wanted(5, 6));
}

#[test]
fn without_paging_the_window_is_where_no_memory_is() {
    let mut machine = windowed();
    machine.set_cr0(cr0::PG, false);
    assert_eq!(fetch(&mut machine, 0x5000), wanted(5, 6));
    map(&mut machine, 0x5000, 5);
    assert_eq!(fetch(&mut machine, 0x5000), CodeOutcome::Resume);
    assert!(!machine.mmu.window_fits(0, Gva::new(0x5000)), "memory");
    assert!(!machine.mmu.window_fits(0xf000_0000, Gva::new(0x5000)), "devices");
}

#[test]
fn a_page_that_the_supervisor_alone_may_use_cannot_be_executed() {
    let mut machine = windowed();
    machine.write(LEAF_TABLE + 9 * 4, SUPERVISOR, 0x9063);
    machine.read(0x9000, SUPERVISOR);
    machine.mmu.audit().unwrap();
    let shown = machine.mmu.shadow_walk(Gva::new(0x9000)).to_string();
    assert!(shown.contains("spte=0x8000"), "NX: {shown}");
}

/// Patches of page `n` are at this address plus `n` pages; they are fetched from there plus [`SHIFT`].
const DISTANCE: u32 = 0x1000_0000;
const PATCHES: Patches = Patches { distance: DISTANCE, sure: true };

fn patched() -> Machine {
    let mut machine = windowed();
    assert!(machine.mmu.patches_fit(PATCHES, Gva::new(0x5000)));
    machine.mmu.set_patches(PATCHES);
    for page in [5, 6] {
        let _ = fetch(&mut machine, page << 12);
        map(&mut machine, page << 12, page.into());
        assert!(map_patches(&mut machine, page << 12, page.into()));
    }
    machine
}

fn map_patches(machine: &mut Machine, gva: u32, gfn: u64) -> bool {
    let (done, plan) = machine.mmu.map_patches(Gva::new(gva.into()), Gfn::new(gfn), pfn_of(SHADOW));
    machine.execute(plan);
    machine.mmu.audit().unwrap();
    done
}

fn has_patches(machine: &Machine, gva: u64) -> bool {
    let shown = machine.mmu.shadow_walk(Gva::new(WINDOW + u64::from(DISTANCE) + gva)).to_string();
    shown.contains(&format!("{:x}", pfn_of(SHADOW).base().raw()))
}

#[test]
fn patches_go_with_the_code_that_they_are_of() {
    let mut machine = patched();
    assert!(has_patches(&machine, 0x5000) && has_patches(&machine, 0x6000));
    machine.write(LEAF_TABLE + 6 * 4, SUPERVISOR, 0x8067);
    machine.mmu.audit().unwrap();
    assert!(!has_patches(&machine, 0x6000));
    assert!(!map_patches(&mut machine, 0x6000, 6), "its code is not there any more");
    let _ = fetch(&mut machine, 0x5000);
    map(&mut machine, 0x5000, 5);
    assert!(map_patches(&mut machine, 0x5000, 5));
    let plan = machine.mmu.unmap_code(Gfn::new(5));
    machine.execute(plan);
    machine.mmu.audit().unwrap();
    assert!(!has_patches(&machine, 0x5000));
}

#[test]
fn patches_that_are_unlinked_come_back_by_a_map() {
    let mut machine = patched();
    let plan = machine.mmu.unlink_patches();
    machine.execute(plan);
    machine.mmu.audit().unwrap();
    assert!(!has_patches(&machine, 0x5000));
    assert!(map_patches(&mut machine, 0x5000, 5));
    assert!(has_patches(&machine, 0x6000), "the whole table came back");
}

#[test]
fn the_guest_takes_what_it_needs() {
    for at in [DISTANCE, SHIFT + DISTANCE] {
        let mut machine = patched();
        assert!(!machine.mmu.take_patches_lost());
        machine.write(0x1000 + u64::from(at >> 22) * 4, SUPERVISOR, LEAF_TABLE | 0x67);
        machine.mmu.audit().unwrap();
        // Of the place one need not be told: a jump there faults.
        assert_eq!(machine.mmu.take_patches_lost(), at == DISTANCE);
        assert!(!has_patches(&machine, 0x5000));
        assert!(!map_patches(&mut machine, 0x5000, 5));
        let unsure = Patches { sure: false, ..PATCHES };
        assert_eq!(machine.mmu.patches_fit(unsure, Gva::new(0x5000)), at == DISTANCE);
    }
}
