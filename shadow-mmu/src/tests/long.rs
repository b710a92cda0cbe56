//! Single stories of long mode: views, control bits, the folded root, and what the audit sees of them.

use super::machine::{Machine, SUPERVISOR, Setup, USER, new_mmu};
use super::memory::pfn_of;
use super::reference::{Mode, Verdict};
use super::tables::{narrow_pages, rebuild};
use crate::{
    Access, AccessKind, Config, ControlFault, ControlWrite, Controls, Counter, Fault, FlushPlan, Gfn, Gpa, Gva, Level,
    Outcome, Perms, Policy, Privilege, ShadowMmu, Spte, TableMem, TranslateError, View, VmStop, cr0, cr4, efer,
};

const SETUP: Setup = Setup { pool: 48, policy: Policy::DEFAULT, caching: true, stepping: false };
const AC: Privilege = Privilege::SupervisorAc;
/// A page of 1 GiB shows all memory here.
const ALL: u64 = 1 << 30;
/// The table of the first 2 MiB, and the entry of the page 0x3000, which is frame 3.
const TABLE: u64 = 0x2000;
const ENTRY: u64 = TABLE + 3 * 8;
/// Where the top entry of a 5-level guest is.
pub(super) const PML5: u64 = 0x9000;
/// The upper half begins here for the guest.
const UPPER: u64 = 0xffff_8800_0000_0000;

fn machine(mode: Mode) -> Machine {
    let mut machine = Machine::new(SETUP, narrow_pages());
    rebuild(&mut machine, u64::MAX, mode);
    machine
}

/// Stores a whole entry at a physical address.
fn put(machine: &mut Machine, at: u64, entry: u64) {
    machine.access(ALL | at, Access { kind: AccessKind::Write, privilege: AC }, &entry.to_le_bytes());
}

fn fetch(machine: &mut Machine, gva: u64, privilege: Privilege) -> Verdict {
    machine.access(gva, Access { kind: AccessKind::Fetch, privilege }, &[])
}

fn fault(machine: &mut Machine, gva: u64, kind: AccessKind, privilege: Privilege) -> Outcome {
    let (outcome, plan) = machine.mmu.on_fault(Fault { gva: Gva::new(gva), access: Access { kind, privilege } });
    assert!(!matches!(outcome, Outcome::Stop(_)) || plan.is_none());
    outcome
}

fn leaf(machine: &Machine, gva: u64, privilege: Privilege) -> Option<Spte> {
    let last = *machine.mmu.shadow_walk_for(Gva::new(gva), privilege).last()?;
    (last.level == Level::L1 && last.spte.present()).then_some(last.spte)
}

#[test]
fn each_privilege_has_its_view() {
    for mode in [Mode::Four, Mode::Five] {
        let mut machine = machine(mode);
        put(&mut machine, ENTRY, 0x3063);
        assert_eq!(machine.write(0x3000, SUPERVISOR, 1), Verdict::At(0x3000));
        assert_eq!(machine.read(0x3000, USER), Verdict::Fault(5));
        assert_eq!(machine.read(0x1000, USER), Verdict::At(0x1000));
        let roots = machine.mmu.roots().unwrap();
        assert_ne!(roots.supervisor, roots.user);
        assert_eq!(roots.supervisor, roots.supervisor_ac, "no SMAP, no third view");
        // All of it is ring 3 to the CPU.
        assert_eq!(leaf(&machine, 0x3000, SUPERVISOR), Some(Spte::leaf(pfn_of(3), Perms::ALL)));
        assert_eq!(leaf(&machine, 0x3000, USER), None);
        // A write of the entry reaches both views.
        put(&mut machine, ENTRY, 0x3067);
        assert_eq!(machine.write(0x3000, USER, 1), Verdict::At(0x3000));
        put(&mut machine, ENTRY, 0x4065);
        machine.invlpg(0x3000);
        for privilege in [SUPERVISOR, USER] {
            let at = leaf(&machine, 0x3000, privilege).expect("followed, not dropped");
            assert_eq!((at.pfn(), at.perms()), (pfn_of(4), Perms::new(true, false, true)), "{privilege:?}");
        }
    }
}

#[test]
fn a_cr3_load_among_known_roots_makes_nothing() {
    let mut machine = machine(Mode::Four);
    let visit = |machine: &mut Machine| {
        for root in [7, 8] {
            machine.set_cr3(root);
            for privilege in [SUPERVISOR, USER] {
                assert_eq!(machine.read(0x3000, privilege), Verdict::At(0x3000));
            }
        }
    };
    visit(&mut machine);
    let made = |machine: &Machine| {
        [Counter::TableMade, Counter::HiddenFault].map(|counter| machine.mmu.counters().get(counter))
    };
    let before = made(&machine);
    visit(&mut machine);
    assert_eq!(made(&machine), before);
}

#[test]
fn the_supervisor_honours_wp_smep_and_smap_in_its_view() {
    let mut machine = machine(Mode::Four);
    put(&mut machine, ENTRY, 0x3065);
    assert_eq!(machine.write(0x3000, SUPERVISOR, 1), Verdict::Fault(3));
    machine.set_cr0(cr0::WP, false);
    assert_eq!(machine.write(0x3000, SUPERVISOR, 1), Verdict::At(0x3000));
    assert_eq!(machine.write(0x3000, USER, 1), Verdict::Fault(7));
    machine.set_cr0(cr0::WP, true);
    machine.flip_cr4(cr4::SMEP);
    assert_eq!(fetch(&mut machine, 0x3000, SUPERVISOR), Verdict::Fault(0x11));
    assert_eq!(fetch(&mut machine, 0x3000, USER), Verdict::At(0x3000));
    machine.flip_cr4(cr4::SMAP);
    assert_eq!(machine.read(0x3000, SUPERVISOR), Verdict::Fault(1));
    assert_eq!(machine.read(0x3000, AC), Verdict::At(0x3000));
    assert_eq!(machine.read(0x3000, SUPERVISOR), Verdict::Fault(1), "AC is clear again");
    let roots = machine.mmu.roots().unwrap();
    assert!(roots.supervisor != roots.supervisor_ac && roots.supervisor_ac != roots.user);
    // Without SMEP the supervisor may fetch what it must not read.
    machine.flip_cr4(cr4::SMEP);
    assert_eq!(fault(&mut machine, 0x3000, AccessKind::Fetch, SUPERVISOR), Outcome::EmulateFetch(Gpa::new(0x3000)));
    assert_eq!(machine.mmu.counters().get(Counter::FetchEmulated), 1);
}

#[test]
fn protection_keys_are_obeyed_at_once() {
    let mut machine = machine(Mode::Four);
    put(&mut machine, ENTRY, 0x3067 | 1 << 59);
    machine.set_pkru(0x4);
    assert_eq!(machine.write(0x3000, USER, 1), Verdict::At(0x3000), "PKE is clear");
    machine.flip_cr4(cr4::PKE);
    assert_eq!(machine.read(0x3000, USER), Verdict::Fault(0x25));
    assert_eq!(machine.read(0x3000, SUPERVISOR), Verdict::Fault(0x21), "a user page, whoever reads");
    assert_eq!(fetch(&mut machine, 0x3000, USER), Verdict::At(0x3000));
    machine.set_pkru(0x8);
    assert_eq!(machine.read(0x3000, USER), Verdict::At(0x3000));
    assert_eq!(machine.write(0x3000, USER, 1), Verdict::Fault(0x27));
    assert_eq!(machine.write(0x3000, SUPERVISOR, 1), Verdict::Fault(0x23));
    machine.set_cr0(cr0::WP, false);
    assert_eq!(machine.write(0x3000, SUPERVISOR, 1), Verdict::At(0x3000));
    // Off, changed meanwhile, and on again.
    machine.flip_cr4(cr4::PKE);
    machine.set_pkru(0x4);
    machine.flip_cr4(cr4::PKE);
    assert_eq!(machine.read(0x3000, USER), Verdict::Fault(0x25));
}

#[test]
fn long_mode_is_entered_and_left_as_the_cpu_does() {
    let mut mmu = new_mmu(SETUP);
    let off = Controls { cr0: cr0::PE, ..Controls::default() };
    let lme = Controls { efer: efer::LME, ..off };
    let on = |controls: Controls| Controls { cr0: controls.cr0 | cr0::PG, ..controls };
    let pae = |controls: Controls| Controls { cr4: controls.cr4 | cr4::PAE, ..controls };
    let refused = Err(ControlFault::GeneralProtection);
    let mut load = |controls, why| {
        let done: Result<FlushPlan, ControlFault> = mmu.load_controls(controls, why);
        (done.is_ok(), done, mmu.controls())
    };
    assert!(load(off, ControlWrite::Reset).0);
    assert!(load(lme, ControlWrite::Efer).0);
    assert_eq!(load(on(lme), ControlWrite::Cr0).1, refused, "PG and LME without PAE");
    let long = on(pae(lme));
    assert!(load(pae(lme), ControlWrite::Cr4).0);
    let (_, done, now) = load(long, ControlWrite::Cr0);
    assert!(done.is_ok() && now.efer == efer::LME | efer::LMA, "LMA is the CPU's");
    for (bad, why) in [
        (on(lme), ControlWrite::Cr4),
        (Controls { cr4: long.cr4 | cr4::LA57, ..long }, ControlWrite::Cr4),
        (Controls { efer: 0, ..long }, ControlWrite::Efer),
        (Controls { cr3: 1 << 36, ..long }, ControlWrite::Cr3),
        (Controls { cr3: 1 << 63, ..long }, ControlWrite::Cr3),
    ] {
        assert_eq!(load(bad, why).1, refused, "{bad:x?}");
        assert_eq!(load(long, ControlWrite::Cr3).2, now);
    }
    let pcid = Controls { cr4: long.cr4 | cr4::PCIDE, ..long };
    assert!(matches!(load(pcid, ControlWrite::Cr4).1, Err(ControlFault::Unsupported(_))));
    let (_, done, now) = load(pae(lme), ControlWrite::Cr0);
    assert!(done.is_ok() && now.efer == efer::LME, "paging off");
    assert!(load(Controls { cr4: cr4::PAE | cr4::LA57, ..lme }, ControlWrite::Cr4).0);
    assert!(load(on(Controls { cr4: cr4::PAE | cr4::LA57, ..lme }), ControlWrite::Cr0).0);
}

#[test]
fn addresses_that_no_shadow_holds() {
    let mut four = machine(Mode::Four);
    let window = 0xffff_8000_0000_3000;
    assert_eq!(
        fault(&mut four, window, AccessKind::Read, SUPERVISOR),
        Outcome::Stop(VmStop::InWindow(Gva::new(window))),
        "the guest maps something there"
    );
    put(&mut four, 0x8000 + 256 * 8, 0);
    assert_eq!(four.read(window, USER), Verdict::Fault(4), "its own fault, as long as it maps nothing");
    let odd = Gva::new(0x0000_8000_0000_0000);
    assert_eq!(fault(&mut four, odd.raw(), AccessKind::Read, USER), Outcome::NonCanonical(odd));
    let access = Access { kind: AccessKind::Read, privilege: USER };
    assert_eq!(four.mmu.translate(odd, access), Err(TranslateError::NonCanonical(odd)));
    assert_eq!(four.mmu.probe(odd, access), Err(TranslateError::NonCanonical(odd)));
    let mut five = machine(Mode::Five);
    let wide = Gva::new(0x0001_0000_0000_3000);
    let outcome = fault(&mut five, wide.raw(), AccessKind::Read, SUPERVISOR);
    assert_eq!(outcome, Outcome::Stop(VmStop::BeyondHost(wide)));
    assert_eq!(five.mmu.translate(wide, access), Ok(Gpa::new(0x3000)), "the guest's own tables hold it");
    assert_eq!(five.read(0x0002_0000_0000_0000, USER), Verdict::Fault(4));
    let odd = Gva::new(0x0100_0000_0000_0000);
    assert_eq!(fault(&mut five, odd.raw(), AccessKind::Read, USER), Outcome::NonCanonical(odd));
}

#[test]
fn the_root_is_followed_and_survives_its_misuse() {
    let mut machine = machine(Mode::Four);
    for privilege in [SUPERVISOR, USER] {
        assert_eq!(machine.read(0x3000, privilege), Verdict::At(0x3000));
        assert_eq!(machine.read(UPPER | 0x3000, privilege), Verdict::At(0x3000));
    }
    // User code scribbles over a byte of the PML4: the shadow of any other table would be given up.
    let write = Access { kind: AccessKind::Write, privilege: USER };
    machine.access(ALL + 0x8000 + 300 * 8, write, &[0]);
    assert!(machine.mmu.write_kind(Gfn::new(8)).page_table);
    put(&mut machine, 0x8000, 0);
    machine.invlpg(0x3000);
    for privilege in [SUPERVISOR, USER] {
        assert!(matches!(machine.read(0x3000, privilege), Verdict::Fault(0 | 4)));
    }
    assert_eq!(machine.read(UPPER | 0x3000, USER), Verdict::At(0x3000));
}

#[test]
fn three_tables_are_one_root() {
    let mut machine = machine(Mode::Five);
    let read = |machine: &mut Machine, gva| [SUPERVISOR, USER].map(|privilege| machine.read(gva, privilege));
    let (there, gone) = ([Verdict::At(0x3000); 2], [Verdict::Fault(0), Verdict::Fault(4)]);
    assert_eq!(read(&mut machine, 0x3000), there);
    assert_eq!(read(&mut machine, UPPER | 0x3000), there);
    for frame in [9, 7, 5, 1, 2] {
        assert!(machine.mmu.write_kind(Gfn::new(frame)).page_table, "frame {frame}");
    }
    // Both halves go through PML4 7. Its entry 0 is the lower half's only.
    put(&mut machine, 0x7000 + 272 * 8, 0);
    machine.invlpg(UPPER | 0x3000);
    assert_eq!(read(&mut machine, UPPER | 0x3000), gone);
    assert_eq!(read(&mut machine, 0x3000), there);
    // Another PML4 for the upper half.
    put(&mut machine, 0x9000 + 511 * 8, 0x8067);
    machine.invlpg(UPPER | 0x3000);
    assert_eq!(read(&mut machine, UPPER | 0x3000), there);
    put(&mut machine, 0x9000 + 511 * 8, 0);
    machine.invlpg(UPPER | 0x3000);
    assert_eq!(read(&mut machine, UPPER | 0x3000), gone);
    assert_eq!(read(&mut machine, 0x3000), there);
}

#[test]
fn a_page_of_1_gib_keeps_a_and_d_exact_and_goes_as_a_whole() {
    let mut machine = machine(Mode::Four);
    let entry = 0x5008;
    put(&mut machine, entry, 0x87);
    machine.invlpg(ALL);
    // Through the small pages: the large one is what is watched.
    let word = |machine: &Machine| machine.mmu.mem().word(entry);
    assert_eq!(machine.read(ALL | 0x3000, USER), Verdict::At(0x3000));
    assert_eq!(word(&machine), 0xa7);
    assert_eq!(machine.write(ALL | 0xa000, USER, 1), Verdict::At(0xa000));
    assert_eq!(word(&machine), 0xe7);
    assert_eq!(machine.write(ALL | 0xb000, SUPERVISOR, 1), Verdict::At(0xb000));
    put(&mut machine, entry, 0);
    machine.invlpg(ALL | 0x3000);
    for page in [0x3000, 0xa000, 0xb000] {
        assert_eq!(machine.read(ALL | page, USER), Verdict::Fault(4));
    }
}

#[test]
fn a_cpu_without_1_gib_pages_takes_ps_for_a_reserved_bit() {
    let tables = super::memory::table_frames(32);
    let config = Config { gib_pages: false, ..Config::new(tables.clone(), 32) };
    let memory = super::memory::Memory::new();
    for (at, entry) in [(0x1000, 0x2067u64), (0x2000, 0xe7)] {
        memory.store(Gpa::new(at), &entry.to_le_bytes());
    }
    let mut mmu = ShadowMmu::new(memory, super::memory::Tables::new(&tables), (), config).unwrap();
    let controls = Controls { cr0: cr0::PE | cr0::PG, cr3: 0x1000, cr4: cr4::PAE, efer: efer::LME, pkru: 0 };
    let _plan = mmu.load_controls(controls, ControlWrite::Reset).unwrap();
    let access = Access { kind: AccessKind::Read, privilege: USER };
    let Err(TranslateError::Fault(fault)) = mmu.probe(Gva::new(0x3000), access) else { panic!("a fault") };
    assert_eq!(fault.error.bits(), 0xd);
}

#[test]
fn in_ring_1_smap_holds_although_wp_is_clear() {
    let mut machine = machine(Mode::Two);
    machine.write(TABLE + 0x200 * 4, SUPERVISOR, 0x5065);
    machine.set_cr0(cr0::WP, false);
    machine.flip_cr4(cr4::SMAP);
    assert_eq!(machine.write(0x20_0000, AC, 1), Verdict::At(0x5000));
    assert_eq!(machine.read(0x20_0000, SUPERVISOR), Verdict::Fault(1), "not even after that write");
    assert_eq!(machine.read(0x20_0000, USER), Verdict::At(0x5000));
}

/// A guest of each mode that has used pages in both views.
pub(super) fn used(mode: Mode) -> Machine {
    let mut machine = machine(mode);
    put(&mut machine, ENTRY, 0x3063);
    for page in [0x1000, 0x2000, 0x3000, 0x5000] {
        machine.read(page, SUPERVISOR);
        machine.read(page, USER);
    }
    machine.mmu.audit().expect("sound before");
    machine
}

fn breaks(mode: Mode, invariant: u8, breakage: impl FnOnce(&mut Machine)) {
    let mut machine = used(mode);
    breakage(&mut machine);
    let error = machine.mmu.audit().expect_err("the audit must see it");
    assert_eq!(error.invariant, invariant, "{error}");
}

/// Replaces the leaf of an address in a view.
fn poke(machine: &mut Machine, gva: u64, view: View, spte: Spte) {
    let mut index = machine.mmu.root_of_view(view).unwrap().index;
    for level in [Level::L4, Level::L3, Level::L2] {
        index = machine.mmu.child(index, Gva::new(gva).slot(level)).unwrap().unwrap();
    }
    let table = machine.mmu.pool.get(index).unwrap().pfn;
    assert!(machine.mmu.tables().load(table, Gva::new(gva).slot(Level::L1)).present());
    machine.mmu.tables.poke(table, Gva::new(gva).slot(Level::L1), spte);
}

fn store(machine: &Machine, at: u64, entry: u64) {
    machine.mmu.mem().store(Gpa::new(at), &entry.to_le_bytes());
}

#[test]
fn the_audit_sees_a_leaf_that_its_view_must_not_have() {
    for mode in [Mode::Four, Mode::Five] {
        // A supervisor page, which is right in the kernel's view, and for ring 1 with U clear.
        breaks(mode, 2, |machine| store(machine, TABLE + 5 * 8, 0x4063));
        breaks(mode, 2, |machine| {
            poke(machine, 0x5000, View::User, Spte::leaf(pfn_of(4), Perms::new(false, false, true)))
        });
        breaks(mode, 2, |machine| {
            poke(machine, 0x3000, View::Kernel, Spte::leaf(pfn_of(3), Perms::new(false, true, true)))
        });
    }
}

#[test]
fn the_audit_sees_smap_and_keys() {
    let mut machine = used(Mode::Four);
    machine.flip_cr4(cr4::SMAP);
    assert_eq!(machine.read(0x3000, SUPERVISOR), Verdict::At(0x3000));
    // The supervisor's page becomes a user page behind the library's back.
    store(&machine, ENTRY, 0x3067);
    assert_eq!(machine.mmu.audit().expect_err("seen").invariant, 2);
    let mut machine = used(Mode::Four);
    put(&mut machine, TABLE + 5 * 8, 0x4067 | 1 << 59);
    machine.flip_cr4(cr4::PKE);
    machine.read(0x5000, USER);
    machine.mmu.audit().expect("sound");
    machine.mmu.pkru = 0x4;
    assert_eq!(machine.mmu.audit().expect_err("seen").invariant, 2);
}

#[test]
fn the_audit_sees_a_view_without_its_root() {
    breaks(Mode::Four, 8, |machine| machine.mmu.side_roots = [None; 2]);
    breaks(Mode::Four, 8, |machine| machine.mmu.side_roots = [None, machine.mmu.root]);
    breaks(Mode::Five, 8, |machine| machine.mmu.ctx.smap = true);
}

#[test]
fn the_audit_sees_upper_entries_without_a() {
    breaks(Mode::Four, 3, |machine| store(machine, 0x8000, 0x5047));
    breaks(Mode::Four, 3, |machine| store(machine, 0x5000, 0x1047));
    breaks(Mode::Five, 3, |machine| store(machine, 0x7000, 0x5047));
    breaks(Mode::Five, 3, |machine| store(machine, 0x9000, 0x7047));
}

#[test]
fn the_audit_sees_a_wrong_fold() {
    breaks(Mode::Five, 2, |machine| store(machine, 0x9000, 0x8067));
    breaks(Mode::Five, 2, |machine| store(machine, 0x9000, 0x7063));
    breaks(Mode::Five, 2, |machine| store(machine, 0x7000, 0x6067));
}

#[test]
fn the_audit_sees_a_guest_entry_in_the_window() {
    for mode in [Mode::Four, Mode::Five] {
        for slot in [258, 271] {
            breaks(mode, 11, |machine| {
                let index = machine.mmu.root.unwrap().index;
                machine.mmu.pool.get_mut(index).unwrap().set_present(slot);
            });
        }
    }
}
