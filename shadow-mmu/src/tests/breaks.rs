//! Break it: each invariant is broken on purpose, and the audit must name it.

use super::machine::{Machine, Mmu, SUPERVISOR, Setup, USER};
use super::memory::{ROM, WINDOW, pfn_of};
use super::scenarios::{SETUP, paged};
use crate::frames::Uses;
use crate::links::{NIL, node_of};
use crate::pool::PageId;
use crate::{ControlWrite, Gfn, Gpa, Level, Perms, Policy, Spte, SyncPolicy, cr0};

/// Frame 1: directory, frame 2: its table, identity for the first 16 pages, all of them used.
fn running_machine() -> Machine {
    machine_with(Policy::DEFAULT)
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

fn breaks(invariant: u8, breakage: impl FnOnce(&mut Mmu)) {
    let mut machine = running_machine();
    machine.mmu.audit().expect("sound before");
    breakage(&mut machine.mmu);
    let error = machine.mmu.audit().expect_err("the audit must see it");
    assert_eq!(error.invariant, invariant, "{error}");
}

fn poke(mmu: &mut Mmu, level: Level, slot: usize, spte: Spte) {
    let index = page(mmu, level);
    let table = mmu.pool.get(index).unwrap().pfn;
    mmu.tables.poke(table, slot, spte);
}

#[test]
fn i1_a_leaf_maps_a_foreign_frame() {
    breaks(1, |mmu| poke(mmu, Level::L1, 5, Spte::leaf(crate::Pfn::new(0x9999), Perms::ALL)));
}

#[test]
fn i2_a_leaf_grants_more_than_the_guest() {
    breaks(2, |mmu| mmu.mem().store(Gpa::new(0x2000 + 5 * 4), &0x5065u32.to_le_bytes()));
    breaks(2, |mmu| mmu.mem().store(Gpa::new(0x2000 + 5 * 4), &0x6067u32.to_le_bytes()));
}

#[test]
fn i2_an_entry_grants_what_the_memory_does_not() {
    let mut machine = running_machine();
    machine.write(0x2000 + 20 * 4, SUPERVISOR, ROM << 12 | 0x67);
    machine.read(20 << 12, USER);
    machine.mmu.audit().expect("sound before");
    poke(&mut machine.mmu, Level::L1, 20, Spte::leaf(pfn_of(ROM), Perms::ALL));
    assert_eq!(machine.mmu.audit().expect_err("seen").invariant, 2);
    // Bits of an entry that is not present.
    breaks(2, |mmu| poke(mmu, Level::L1, 100, Spte::from_raw(0x1000)));
}

#[test]
fn i3_a_leaf_is_there_before_a_and_d() {
    breaks(3, |mmu| mmu.mem().store(Gpa::new(0x2000 + 5 * 4), &0x5047u32.to_le_bytes()));
    breaks(3, |mmu| mmu.mem().store(Gpa::new(0x2000 + 5 * 4), &0x5027u32.to_le_bytes()));
    breaks(3, |mmu| mmu.mem().store(Gpa::new(0x1000), &0x2047u32.to_le_bytes()));
}

#[test]
fn i4_a_tracked_frame_is_writable() {
    breaks(4, |mmu| poke(mmu, Level::L1, 1, Spte::leaf(pfn_of(1), Perms::ALL)));
    breaks(4, |mmu| mmu.frames.get_mut(Gfn::new(2)).unwrap().tables = 2);
    breaks(4, |mmu| mmu.frames.get_mut(Gfn::new(9)).unwrap().watches = 1);
}

#[test]
fn i5_what_is_no_leaf_table_goes_out_of_sync() {
    let set = |mmu: &mut Mmu, gfn: u64| {
        mmu.frames.get_mut(Gfn::new(gfn)).unwrap().snapshot = 1;
        mmu.unsync.force(Gfn::new(gfn));
    };
    breaks(5, |mmu| set(mmu, 1));
    breaks(5, |mmu| set(mmu, 9));
    breaks(5, |mmu| {
        set(mmu, 2);
        mmu.frames.get_mut(Gfn::new(2)).unwrap().watches = 1;
    });
    // This machine has no snapshots.
    breaks(5, |mmu| set(mmu, 2));
    breaks(5, |mmu| mmu.unsync.force(Gfn::new(2)));
    breaks(5, |mmu| mmu.frames.get_mut(Gfn::new(2)).unwrap().snapshot = 1);
}

#[test]
fn i5_a_snapshot_is_not_what_the_shadow_was_made_of() {
    let policy = Policy { sync: SyncPolicy::UNSYNC, patience: 0, ..Policy::DEFAULT };
    let breaks_byte = |byte: usize| {
        let mut machine = machine_with(policy);
        machine.read(0x2000, SUPERVISOR);
        // The table is mapped by itself, and goes out of sync. Entry 7 is no more than the guest's own business.
        machine.write(0x2000 + 7 * 4, SUPERVISOR, 0);
        let number = machine.mmu.frames.get(Gfn::new(2)).unwrap().snapshot;
        assert_ne!(number, 0, "out of sync");
        machine.mmu.audit().expect("sound before");
        machine.mmu.unsync.corrupt(number, byte);
        machine.mmu.audit()
    };
    // Flags of an entry that is present, its frame, and an entry that the shadow does not have.
    assert_eq!(breaks_byte(5 * 4).expect_err("seen").invariant, 5);
    assert_eq!(breaks_byte(5 * 4 + 1).expect_err("seen").invariant, 5);
    breaks_byte(100 * 4).expect("nothing depends on it");
}

#[test]
fn i6_the_reverse_map_is_not_exact() {
    breaks(6, |mmu| poke(mmu, Level::L1, 5, Spte::ABSENT));
    breaks(6, |mmu| poke(mmu, Level::L1, 40, Spte::leaf(pfn_of(5), Perms::ALL)));
    breaks(6, |mmu| mmu.frames.get_mut(Gfn::new(5)).unwrap().rmap = NIL);
    breaks(6, |mmu| {
        let other = mmu.frames.get(Gfn::new(6)).unwrap().rmap;
        mmu.frames.get_mut(Gfn::new(5)).unwrap().rmap = other;
    });
}

#[test]
fn i7_parent_links_are_not_exact() {
    breaks(7, |mmu| {
        let index = page(mmu, Level::L1);
        mmu.pool.get_mut(index).unwrap().parents = NIL;
    });
    breaks(7, |mmu| {
        let (upper, lower) = (page(mmu, Level::L2), page(mmu, Level::L3));
        mmu.links.corrupt(node_of(upper, 0), lower);
    });
}

#[test]
fn i7_a_page_is_named_by_what_is_no_link() {
    breaks(7, |mmu| {
        let (upper, free) = (page(mmu, Level::L2), mmu.pool.iter().find(|(_, page)| !page.live).unwrap().0);
        mmu.pool.get_mut(free).unwrap().parents = node_of(upper, 0);
    });
    breaks(7, |mmu| {
        let index = page(mmu, Level::L1);
        mmu.pool.get_mut(index).unwrap().parents = node_of(index, 5);
    });
}

#[test]
fn i8_the_current_root_was_given_up() {
    breaks(8, |mmu| {
        let PageId { index, generation } = mmu.root.unwrap();
        mmu.root = Some(PageId { index, generation: generation.wrapping_sub(1) });
    });
    breaks(8, |mmu| mmu.ctx.root = Gfn::new(7));
}

#[test]
fn i9_a_page_is_not_found_by_its_key() {
    breaks(9, |mmu| {
        let index = page(mmu, Level::L1);
        let chain = mmu.frames.get(Gfn::new(2)).unwrap().pages;
        assert_eq!(chain, index);
        mmu.frames.get_mut(Gfn::new(2)).unwrap().pages = NIL;
        mmu.frames.get_mut(Gfn::new(2)).unwrap().tables = 0;
        // The frame's sptes are read-only still, so only the chain is wrong.
    });
}

#[test]
fn i9_a_page_is_found_by_the_key_of_another() {
    breaks(9, |mmu| mmu.frames.get_mut(Gfn::new(9)).unwrap().pages = page(mmu, Level::L1));
}

#[test]
fn i10_a_free_table_kept_an_entry() {
    breaks(10, |mmu| {
        let table = mmu.pool.iter().find(|(_, page)| !page.live).unwrap().1.pfn;
        mmu.tables.poke(table, 3, Spte::leaf(pfn_of(5), Perms::ALL));
    });
    breaks(10, |mmu| mmu.flush_all());
}

#[test]
fn i11_the_window_is_not_the_same_in_every_root() {
    let mut machine = running_machine();
    machine.set_cr3(3);
    machine.set_cr3(1);
    let root = machine.mmu.root().unwrap().table;
    machine.mmu.tables.poke(root, 260, Spte::from_raw(WINDOW.raw() | 4));
    assert_eq!(machine.mmu.audit().expect_err("seen").invariant, 11);
    machine.mmu.tables.poke(root, 260, WINDOW);
    machine.mmu.audit().expect("sound again");
    let index = machine.mmu.root.unwrap().index;
    machine.mmu.pool.get_mut(index).unwrap().set_present(260);
    assert_eq!(machine.mmu.audit().expect_err("seen").invariant, 11);
}

#[test]
fn i12_the_pool_lost_a_page() {
    breaks(12, |mmu| {
        let mut room = mmu.pool.reserve(1).unwrap();
        let key = crate::Key { gfn: Gfn::new(9), role: crate::Role::NONE };
        let index = mmu.pool.take(&mut room, key).unwrap();
        mmu.pool.get_mut(index).unwrap().live = false;
    });
}

#[test]
fn i13_a_frame_is_used_without_a_note() {
    let frame = |mmu: &mut Mmu, uses: Uses| mmu.frames.get_mut(Gfn::new(9)).unwrap().uses.remove(uses);
    breaks(13, |mmu| frame(mmu, Uses::ACCESSED));
    breaks(13, |mmu| frame(mmu, Uses::WRITTEN));
    breaks(13, |mmu| frame(mmu, Uses::LOGGED));
}

#[test]
fn i13_a_frame_is_gone_but_in_use() {
    // A mapped page, and a table whose own mapping was taken away.
    breaks(13, |mmu| mmu.mem().absent.set(Some(Gfn::new(9))));
    breaks(13, |mmu| {
        let table = Gfn::new(2);
        mmu.unmap(table).unwrap();
        mmu.mem().absent.set(Some(table));
    });
}

#[test]
fn a_bug_stops_the_vm_and_not_the_hypervisor() {
    let mut machine = running_machine();
    machine.mmu.root = Some(PageId { index: 4_000, generation: 0 });
    let access = crate::Access { kind: crate::AccessKind::Read, privilege: USER };
    let fault = crate::Fault { gva: crate::Gva::new(0x5000), access };
    let (outcome, plan) = machine.mmu.on_fault(fault);
    assert!(matches!(outcome, crate::Outcome::Stop(crate::VmStop::Internal { .. })), "{outcome:?}");
    assert!(plan.is_none());
    let controls = machine.controls;
    assert!(machine.mmu.load_controls(controls, ControlWrite::Cr3).is_ok());
}

#[test]
fn i14_a_leaf_escapes_the_next_load() {
    let policy = Policy { sync: SyncPolicy::VirtualTlb, ..Policy::DEFAULT };
    let mut machine = paged(Setup { policy, ..SETUP });
    machine.set_cr3(1);
    machine.read(0x5000, USER);
    machine.mmu.audit().expect("sound before");
    let page = machine.mmu.local.pop().unwrap();
    assert_eq!(machine.mmu.audit().expect_err("the list lacks a page").invariant, 14);
    machine.mmu.pool.get_mut(page).unwrap().local = false;
    assert_eq!(machine.mmu.audit().expect_err("a leaf is lost").invariant, 14);
}

#[test]
fn i15_a_gap_lies() {
    let broken = |breakage: fn(&mut Mmu)| {
        let policy = Policy { mark_absent: true, ..Policy::DEFAULT };
        let mut machine = paged(Setup { policy, ..SETUP });
        machine.read(0x5000, USER);
        machine.read(0x28000, USER);
        machine.mmu.audit().expect("sound before");
        breakage(&mut machine.mmu);
        machine.mmu.audit().expect_err("the audit must see it").invariant
    };
    assert_eq!(broken(|mmu| mmu.mem().store(Gpa::new(0x2000 + 40 * 4), &0x8007u32.to_le_bytes())), 15);
    assert_eq!(broken(|mmu| poke(mmu, Level::L1, 40, Spte::ABSENT)), 15);
    assert_eq!(broken(|mmu| poke(mmu, Level::L1, 41, Spte::GAP)), 2);
    assert_eq!(broken(|mmu| mmu.policy.mark_absent = false), 15);
}
