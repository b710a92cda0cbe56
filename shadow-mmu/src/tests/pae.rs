//! Single stories of PAE paging: latched entries, tables of 32 bytes, entries of two halves.

use super::machine::{Machine, SUPERVISOR, Setup, USER};
use super::memory::{GUEST_FRAMES, HOLE, MMIO};
use super::reference::Verdict;
use super::window;
use crate::{Access, AccessKind, CodeOutcome, Counter, Gfn, Gpa, Gva, PfErr, Policy, Privilege, cr0, cr4};

const SETUP: Setup = Setup { pool: 32, policy: Policy::DEFAULT, caching: true, stepping: false };
/// PDPTs lie in this frame, directories in frames 1 and 3, the table in frame 2.
const TOPS: u64 = 0x7000;
pub(super) const TABLE: u64 = 0x2000;

fn pages() -> Vec<u64> {
    (0..16).chain(0x200..0x208).chain(0x4_0000..0x4_0008).collect()
}

fn put(machine: &mut Machine, at: u64, entry: u64) {
    machine.write(at, SUPERVISOR, entry);
    machine.write(at + 4, SUPERVISOR, entry >> 32);
}

/// Pages 0 to 15 identity mapped by both directories; the two PDPTs name one of them at 0 each.
fn paged() -> Machine {
    let mut machine = Machine::new(SETUP, pages());
    for (top, directory) in [(TOPS, 0x1000), (TOPS + 32, 0x3000)] {
        put(&mut machine, top, directory | 1);
        put(&mut machine, directory, TABLE | 0x67);
    }
    for page in 0..16 {
        put(&mut machine, TABLE + page * 8, page << 12 | 0x67);
    }
    machine.flip_cr4(cr4::PAE);
    machine.set_cr3(7);
    assert!(machine.set_cr0(cr0::PG, true));
    machine
}

/// The same with EFER.NXE.
pub(super) fn with_nx() -> Machine {
    let mut machine = paged();
    machine.flip_nxe();
    machine
}

fn count(machine: &Machine, counter: Counter) -> u64 {
    machine.mmu.counters().get(counter)
}

fn fetch(machine: &mut Machine, gva: u64, privilege: Privilege) -> Verdict {
    machine.access(gva, Access { kind: AccessKind::Fetch, privilege }, &[])
}

#[test]
fn a_pdpte_counts_when_it_is_loaded() {
    let mut machine = paged();
    assert_eq!(machine.read(0x4000_0000, USER), Verdict::Fault(4));
    put(&mut machine, TOPS + 8, 0x3001);
    machine.invlpg(0x4000_0000);
    assert_eq!(machine.read(0x4000_0000, USER), Verdict::Fault(4), "not loaded yet");
    machine.set_cr3(7);
    assert_eq!(machine.read(0x4000_5000, USER), Verdict::At(0x5000));
    put(&mut machine, TOPS + 8, 0);
    machine.invlpg(0x4000_0000);
    assert_eq!(machine.read(0x4000_6000, USER), Verdict::At(0x6000), "still latched");
    machine.set_cr3(7);
    assert_eq!(machine.read(0x4000_0000, USER), Verdict::Fault(4));
    assert_eq!(count(&machine, Counter::PdpteChanged), 1);
}

#[test]
fn which_writes_load_the_pdptes() {
    for (cr0_bit, cr4_bit, loads) in [
        (cr0::WP, 0, false),
        (cr0::CD, 0, true),
        (cr0::NW, 0, true),
        (0, cr4::PGE, true),
        (0, cr4::PSE, true),
        (0, cr4::SMEP, true),
        (0, 0, false),
    ] {
        let mut machine = paged();
        put(&mut machine, TOPS + 8, 0x3001);
        assert!(match (cr0_bit, cr4_bit) {
            (0, 0) => machine.flip_nxe(),
            (0, bit) => machine.flip_cr4(bit),
            (bit, _) => machine.flip_cr0(bit),
        });
        let expected = if loads { Verdict::At(0x5000) } else { Verdict::Fault(4) };
        assert_eq!(machine.read(0x4000_5000, USER), expected, "{cr0_bit:#x} {cr4_bit:#x}");
    }
}

#[test]
fn a_bad_pdpte_is_refused_and_changes_nothing() {
    let mut machine = paged();
    machine.read(0x5000, USER);
    for bad in [0x3003u64, 0x3005, 0x3021, 0x3101, 0x3001 | 1 << 36, 0x3001 | 1 << 63] {
        put(&mut machine, TOPS + 40, bad);
        assert!(!machine.set_cr3_raw(TOPS + 32), "{bad:#x}");
        assert_eq!(machine.read(0x5000, USER), Verdict::At(0x5000));
    }
    put(&mut machine, TOPS + 40, 0x1e6 | 1 << 63);
    assert!(machine.set_cr3_raw(TOPS + 32), "absent entries may hold anything");
    for frame in [MMIO, HOLE, GUEST_FRAMES + 7] {
        assert!(!machine.set_cr3(frame), "an empty bus reads as ones");
    }
}

#[test]
fn many_pdpts_in_a_frame_have_a_root_each() {
    let mut machine = paged();
    put(&mut machine, 0x3008, 0x2067);
    for _ in 0..2 {
        for (root, expected) in [(0, Verdict::Fault(4)), (32, Verdict::At(0x5000))] {
            machine.set_cr3_raw(TOPS + root);
            assert_eq!(machine.read(0x5000, USER), Verdict::At(0x5000));
            assert_eq!(machine.read(0x20_5000, USER), expected);
        }
    }
    let (made, missed) = (count(&machine, Counter::TableMade), count(&machine, Counter::RootMiss));
    for root in [0, 32, 0, 32] {
        // The low bits of CR3 do not count.
        machine.set_cr3_raw(TOPS + root + 0x18);
        machine.read(0x5000, USER);
    }
    assert_eq!((count(&machine, Counter::TableMade), count(&machine, Counter::RootMiss)), (made, missed));
    assert_eq!(count(&machine, Counter::PdpteChanged), 0);
}

#[test]
fn an_upper_page_that_outlives_its_root_is_compared_too() {
    let mut machine = paged();
    machine.read(0x5000, USER);
    let root = machine.mmu.root.unwrap().index;
    machine.set_cr3_raw(TOPS + 32);
    machine.mmu.zap_page(root).unwrap();
    put(&mut machine, TOPS, 0x9001);
    machine.set_cr3(7);
    assert_eq!(machine.read(0x5000, USER), Verdict::Fault(4), "directory 9 is empty");
}

#[test]
fn directories_and_tables_are_tracked_and_pdpts_are_not() {
    let mut machine = paged();
    machine.read(0x5000, USER);
    for (frame, tracked) in [(7, false), (1, true), (2, true)] {
        assert_eq!(machine.mmu.write_kind(Gfn::new(frame)).page_table, tracked);
    }
    // Each half of an entry counts when it is written.
    machine.flip_nxe();
    machine.read(0x5000, USER);
    machine.write(TABLE + 5 * 8 + 4, SUPERVISOR, 1 << 31);
    machine.invlpg(0x5000);
    assert_eq!(fetch(&mut machine, 0x5000, USER), Verdict::Fault(0x15));
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x5000));
    machine.write(TABLE + 5 * 8 + 4, SUPERVISOR, 1 << 4);
    machine.invlpg(0x5000);
    assert_eq!(machine.read(0x5000, USER), Verdict::Fault(0xd), "bit 36 is reserved");
    machine.write(TABLE + 5 * 8 + 4, SUPERVISOR, 0);
    machine.write(TABLE + 5 * 8, SUPERVISOR, 0x6067);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x6000));
    // And both at once, as CMPXCHG8B does.
    let write = Access { kind: AccessKind::Write, privilege: SUPERVISOR };
    machine.access(TABLE + 5 * 8, write, &(1u64 << 63 | 0x7067).to_le_bytes());
    machine.invlpg(0x5000);
    assert_eq!(fetch(&mut machine, 0x5000, USER), Verdict::Fault(0x15));
    assert_eq!(machine.write(0x5000, USER, 0x3001), Verdict::At(0x7000));
}

#[test]
fn the_window_depends_on_directories_of_every_gib() {
    let mut machine = paged();
    put(&mut machine, TOPS + 8, 0x3001);
    machine.set_cr3(7);
    let mut machine = window::opened(machine);
    assert!(matches!(window::fetch(&mut machine, 0x4000_5000), CodeOutcome::Wanted(_)));
    window::map(&mut machine, 0x4000_5000, 5);
    assert_eq!(window::fetch(&mut machine, 0x4000_5000), CodeOutcome::Resume);
    machine.write(0x3000, SUPERVISOR, 0);
    machine.mmu.audit().unwrap();
    assert!(matches!(window::fetch(&mut machine, 0x4000_5000), CodeOutcome::Inject(_)));
}

#[test]
fn nx_is_reserved_while_nxe_is_clear() {
    let mut machine = paged();
    put(&mut machine, TABLE + 5 * 8, 1 << 63 | 0x5067);
    assert_eq!(machine.read(0x5000, USER), Verdict::Fault(0xd));
    assert_eq!(fetch(&mut machine, 0x5000, SUPERVISOR), Verdict::Fault(9), "fetches are not reported");
    machine.flip_nxe();
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x5000));
    assert_eq!(fetch(&mut machine, 0x5000, SUPERVISOR), Verdict::Fault(0x11));
    assert_eq!(fetch(&mut machine, 0x4000_0000, USER), Verdict::Fault(0x14));
    machine.flip_nxe();
    assert_eq!(machine.read(0x5000, USER), Verdict::Fault(0xd));
}

#[test]
fn a_large_page_keeps_a_and_d_exact() {
    let mut machine = paged();
    put(&mut machine, 0x1008, 0x87);
    assert_eq!(machine.read(0x20_8000, USER), Verdict::At(0x8000));
    assert_eq!(machine.mmu.mem().word(0x1008), 0xa7);
    assert_eq!(machine.write(0x20_8000, USER, 1), Verdict::At(0x8000));
    assert_eq!(machine.mmu.mem().word(0x1008), 0xe7);
    // The table, written through the large page.
    machine.read(0x5000, USER);
    machine.write(0x20_2000 + 5 * 8, SUPERVISOR, 0);
    machine.invlpg(0x5000);
    assert_eq!(machine.read(0x5000, USER), Verdict::Fault(4));
    put(&mut machine, 0x1008, 0x20_0087 | 1 << 13);
    machine.invlpg(0x20_0000);
    assert_eq!(machine.read(0x20_8000, USER), Verdict::Fault(0xd));
}

#[test]
fn one_frame_is_a_table_of_both_formats() {
    let mut machine = paged();
    machine.read(0x5000, USER);
    machine.set_cr0(cr0::PG, false);
    machine.flip_cr4(cr4::PAE);
    machine.set_cr3(3);
    machine.set_cr0(cr0::PG, true);
    // Entry 10 of the same table, of 4 bytes now, is the low half of entry 5; the table itself is page 4.
    assert_eq!(machine.read(0xa000, USER), Verdict::At(0x5000));
    machine.write(2 * TABLE + 40, SUPERVISOR, 0x6067);
    machine.invlpg(0xa000);
    assert_eq!(machine.read(0xa000, USER), Verdict::At(0x6000));
    machine.set_cr0(cr0::PG, false);
    machine.flip_cr4(cr4::PAE);
    machine.set_cr3(7);
    machine.set_cr0(cr0::PG, true);
    assert_eq!(machine.read(0x5000, USER), Verdict::At(0x6000));
}

#[test]
fn the_audit_sees_a_wrong_root_or_directory() {
    let sound = || {
        let mut machine = paged();
        machine.read(0x5000, USER);
        machine.mmu.audit().expect("sound");
        machine
    };
    let mut machine = sound();
    machine.mmu.ctx.part = 1;
    assert_eq!(machine.mmu.audit().expect_err("seen").invariant, 8);
    let mut machine = sound();
    machine.mmu.ctx.nxe = true;
    assert_eq!(machine.mmu.audit().expect_err("seen").invariant, 8);
    let mut machine = sound();
    machine.mmu.ctx.pdptes[0] = 0x3001;
    assert_eq!(machine.mmu.audit().expect_err("seen").invariant, 2);
    machine.mmu.ctx.pdptes[0] = 0;
    assert_eq!(machine.mmu.audit().expect_err("seen").invariant, 3);
}

#[test]
fn reports_show_the_latched_entry() {
    let mut machine = paged();
    machine.read(0x5123, USER);
    put(&mut machine, TOPS, 0);
    let walk = machine.mmu.guest_walk(Gva::new(0x5123));
    assert_eq!(walk.gpa, Some(Gpa::new(0x5123)));
    let expected = "L3 gpa=0x7000 gpte=0x1001  L2 gpa=0x1000 gpte=0x2067  L1 gpa=0x2028 gpte=0x5067  -> gpa=0x5123";
    assert_eq!(walk.to_string(), expected);
    assert_eq!(machine.mmu.guest_walk(Gva::new(0xc000_0000)).last().map(|step| step.gpte), Some(Some(0)));
    let error = PfErr::USER.bits();
    assert_eq!(machine.read(0xc000_0000, USER), Verdict::Fault(error));
}
