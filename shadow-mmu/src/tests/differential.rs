//! Random guests: whatever they do, the machine behaves as its twin, and every invariant holds after every step.

use proptest::collection::vec;
use proptest::prelude::*;

use super::machine::{Machine, SUPERVISOR, Setup};
use super::memory::GUEST_FRAMES;
use crate::{Access, AccessKind, EagerFill, Policy, Privilege, SyncPolicy, cr0, cr4, efer};

const PDES: [u32; 5] = [0, 1, 0x200, 0x201, 0x3ff];
/// Entries of PAE tables, of 512.
const WIDE: [u32; 7] = [0, 1, 2, 3, 5, 0x1fe, 0x1ff];
const PTES: [u32; 9] = [0, 1, 2, 3, 5, 0x200, 0x201, 0x3fe, 0x3ff];

fn pages() -> Vec<u32> {
    PDES.iter().flat_map(|pde| PTES.iter().map(move |pte| pde << 10 | pte)).collect()
}

#[derive(Clone, Debug)]
enum Step {
    /// An access to a page of the set, or a write of an entry through it.
    Access(u32, Access, Vec<u8>),
    Invlpg(u32),
    Cr3(u64),
    /// Another PDPT in the same frame.
    Part(u64),
    Paging,
    /// CR4.PAE while paging, mostly in vain; and CR0.CD, which loads the PDPTEs.
    Pae,
    Cd,
    Nxe,
    Smep,
    Wp,
    Pse,
    Pge,
    Watch(u64, bool),
    /// Paging off, the tables built anew, paging on: a guest that survives. With PAE if so.
    Rebuild(u32, bool),
}

fn gpte() -> impl Strategy<Value = u32> {
    let frame = prop_oneof![8 => 1u32..8, 2 => 0..GUEST_FRAMES as u32];
    let flags = prop_oneof![
        6 => any::<u32>().prop_map(|n| n & 0x7f | 1),
        2 => any::<u32>().prop_map(|n| n & 0x1ff),
        4 => Just(0x67u32),
        2 => Just(0x07u32),
    ];
    let large = prop_oneof![12 => Just(None), 3 => Just(Some(0u32)), 1 => (0u32..0x400).prop_map(Some)];
    (frame, flags, large).prop_map(|(frame, flags, large)| match large {
        None => frame << 12 | flags,
        Some(middle) => middle << 12 | flags | 0x80,
    })
}

/// The high half of an entry of 8 bytes.
fn high() -> impl Strategy<Value = u32> {
    prop_oneof![10 => Just(0u32), 4 => Just(1u32 << 31), 1 => 0u32..32]
}

fn address() -> impl Strategy<Value = u32> {
    let entry = prop_oneof![4 => prop::sample::select(PDES.to_vec()), 6 => prop::sample::select(PTES.to_vec())];
    (prop::sample::select(pages()), entry).prop_map(|(page, entry)| page << 12 | entry << 2)
}

fn access() -> impl Strategy<Value = Access> {
    let kind = prop_oneof![
        3 => Just(AccessKind::Read),
        3 => Just(AccessKind::Write),
        1 => Just(AccessKind::Fetch),
    ];
    let privilege = prop_oneof![Just(SUPERVISOR), Just(Privilege::User)];
    (kind, privilege).prop_map(|(kind, privilege)| Access { kind, privilege })
}

/// A write of entries, mostly by the supervisor, mostly aligned.
fn entry_write() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![
        12 => gpte().prop_map(|pte| pte.to_le_bytes().to_vec()),
        2 => (gpte(), gpte()).prop_map(|(a, b)| [a.to_le_bytes(), b.to_le_bytes()].concat()),
        2 => high().prop_map(|high| high.to_le_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..3),
    ];
    let privilege = prop_oneof![9 => Just(SUPERVISOR), 1 => Just(Privilege::User)];
    let skew = prop_oneof![14 => Just(0u32), 1 => 1u32..4];
    (address(), skew, bytes, privilege).prop_map(|(gva, skew, bytes, privilege)| {
        let room = 0x1000 - bytes.len() as u32;
        let gva = gva & !0xfff | (gva & 0xfff | skew).min(room);
        Step::Access(gva, Access { kind: AccessKind::Write, privilege }, bytes)
    })
}

/// A write of a whole entry of 8 bytes.
fn wide_write() -> impl Strategy<Value = Step> {
    let page = prop::sample::select(pages());
    let entry = prop::sample::select(WIDE.to_vec());
    (page, entry, gpte(), high()).prop_map(|(page, entry, low, high)| {
        let bytes = [low.to_le_bytes(), high.to_le_bytes()].concat();
        let access = Access { kind: AccessKind::Write, privilege: SUPERVISOR };
        Step::Access(page << 12 | entry << 3, access, bytes)
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (address(), access()).prop_map(|(gva, access)| Step::Access(gva, access, vec![0x67, 0x10, 0, 0])),
        20 => entry_write(),
        8 => wide_write(),
        4 => address().prop_map(Step::Invlpg),
        3 => (1u64..5).prop_map(Step::Cr3),
        1 => (0..GUEST_FRAMES + 2).prop_map(Step::Cr3),
        3 => prop_oneof![3 => 0u64..2, 1 => 0u64..128].prop_map(Step::Part),
        1 => Just(Step::Paging),
        1 => prop_oneof![Just(Step::Pae), Just(Step::Cd), Just(Step::Nxe), Just(Step::Smep)],
        1 => Just(Step::Wp),
        1 => Just(Step::Pse),
        1 => Just(Step::Pge),
        1 => (0u64..12, any::<bool>()).prop_map(|(frame, on)| Step::Watch(frame, on)),
        2 => any::<(u32, bool)>().prop_map(|(variant, pae)| Step::Rebuild(variant, pae)),
    ]
}

/// Paging off, tables built anew, paging on.
fn rebuild(machine: &mut Machine, variant: u32, pae: bool) {
    machine.set_cr0(cr0::PG, false);
    // Nothing can be stale here: paging is off, and the load of CR3 below empties every cache.
    machine.checking = false;
    if (machine.controls.cr4 & cr4::PAE != 0) != pae {
        machine.flip_cr4(cr4::PAE);
    }
    if pae {
        build_wide(machine, variant);
    } else {
        build(machine, variant);
    }
    machine.checking = true;
    let root = if pae { 7 << 12 | u64::from(variant >> 6 & 1) << 5 } else { u64::from(variant >> 5 & 2 | 1) << 12 };
    machine.set_cr3_raw(root);
    machine.set_cr0(cr0::PG, true);
}

/// Frame 7: two PDPTs. Frames 1 and 3: directories, at 0 and 2 GiB in the one and the other way round in the other. Frames 2 and
/// 4: tables. Frame 6: directory at 3 GiB, which maps itself and, as a table, directory 1.
fn build_wide(machine: &mut Machine, variant: u32) {
    let put = |machine: &mut Machine, frame: u32, index: u32, low: u32, high: u32| {
        machine.write(frame << 12 | index << 3, SUPERVISOR, low);
        machine.write(frame << 12 | index << 3 | 4, SUPERVISOR, high);
    };
    let nx = if machine.controls.efer & efer::NXE != 0 { variant & 1 << 31 } else { 0 };
    for (n, top) in [1, 0, 3, 6, 3, 1, 1, 6].into_iter().enumerate() {
        put(machine, 7, n as u32, if top == 0 { 0 } else { top << 12 | 0x19 }, 0);
    }
    for directory in [1, 3] {
        put(machine, directory, 0, 2 << 12 | if variant & 1 != 0 { 0x67 } else { 0x07 }, 0);
        put(machine, directory, 1, 4 << 12 | if variant & 2 != 0 { 0x67 } else { 0x03 }, nx);
        put(machine, directory, 2, if variant & 16 != 0 { 0xe7 } else { 0x87 | variant >> 8 & 0x66 }, 0);
        put(machine, directory, 3, if variant & 4 != 0 { 4 << 12 | 0x65 } else { 2 << 12 | 0x67 }, 0);
    }
    put(machine, 6, 0x1fe, 1 << 12 | 0x67, 0);
    put(machine, 6, 0x1ff, 6 << 12 | if variant & 8 != 0 { 0x67 } else { 0x03 }, 0);
    for (n, &index) in WIDE.iter().enumerate() {
        put(machine, 2, index, (n as u32) << 12 | if variant & 32 != 0 { 0x67 } else { 0x07 }, nx);
        put(machine, 4, index, (n as u32 + 1) << 12 | variant >> n & 0x66 | 1, 0);
    }
}

/// Frame 1: directory. Frame 2: its first table, identity. Frame 3: second directory. Frame 4: table at 2 GiB. The directory
/// maps itself at the top, and `variant` picks what else it holds.
fn build(machine: &mut Machine, variant: u32) {
    let put = |machine: &mut Machine, frame: u32, index: u32, value: u32| {
        machine.write(frame << 12 | index << 2, SUPERVISOR, value);
    };
    for directory in [1, 3] {
        put(machine, directory, 0, 2 << 12 | if variant & 1 != 0 { 0x67 } else { 0x07 });
        put(machine, directory, 0x200, 4 << 12 | if variant & 2 != 0 { 0x67 } else { 0x03 });
        put(machine, directory, 0x201, if variant & 4 != 0 { 4 << 12 | 0x65 } else { 2 << 12 | 0x67 });
        put(machine, directory, 0x3ff, directory << 12 | if variant & 8 != 0 { 0x67 } else { 0x03 });
        put(machine, directory, 1, if variant & 16 != 0 { 0xe7 } else { 0x87 | variant >> 8 & 0x66 });
    }
    for (n, &index) in PTES.iter().enumerate() {
        put(machine, 2, index, (n as u32) << 12 | if variant & 32 != 0 { 0x67 } else { 0x07 });
        put(machine, 4, index, (n as u32 % 7 + 1) << 12 | variant >> n & 0x66 | 1);
    }
}

fn control(machine: &mut Machine, step: Step) {
    let taken = match step {
        Step::Cr3(frame) if machine.pae() => {
            machine.set_cr3_raw((frame & 1) << 5 | if frame < 5 { 7 << 12 } else { frame << 12 })
        }
        Step::Cr3(frame) => machine.set_cr3(frame),
        Step::Part(part) => machine.set_cr3_raw(machine.controls.cr3 & !0xfff | part << 5),
        Step::Paging => machine.flip_cr0(cr0::PG),
        Step::Wp => machine.flip_cr0(cr0::WP),
        Step::Cd => machine.flip_cr0(cr0::CD),
        Step::Pae => machine.flip_cr4(cr4::PAE),
        Step::Pse => machine.flip_cr4(cr4::PSE),
        Step::Pge => machine.flip_cr4(cr4::PGE),
        Step::Smep => machine.flip_cr4(cr4::SMEP),
        Step::Nxe => machine.flip_nxe(),
        Step::Access(..) | Step::Invlpg(_) | Step::Watch(..) | Step::Rebuild(..) => true,
    };
    assert!(taken || machine.controls.cr4 & cr4::PAE != 0 || matches!(step, Step::Pae), "only PDPTEs are refused");
}

fn run(setup: Setup, steps: Vec<Step>) {
    let mut machine = Machine::new(setup, pages());
    machine.flip_cr4(cr4::PSE);
    rebuild(&mut machine, 0x1234_5678, setup.pool == 24);
    for step in steps {
        match step {
            Step::Access(gva, access, bytes) => {
                machine.access(gva, access, &bytes);
            }
            Step::Invlpg(gva) => machine.invlpg(gva),
            Step::Watch(frame, on) => machine.watch(frame, on),
            Step::Rebuild(variant, pae) => rebuild(&mut machine, variant, pae),
            step => control(&mut machine, step),
        }
    }
}

/// Every policy with every combination of switches.
fn policy() -> impl Strategy<Value = Policy> {
    let sync = prop_oneof![
        Just(SyncPolicy::WriteProtect),
        Just(SyncPolicy::VirtualTlb),
        (1u16..4).prop_map(|tables| SyncPolicy::Unsync { tables }),
    ];
    let eager = prop_oneof![Just(EagerFill::Never), Just(EagerFill::IfAccessed)];
    (sync, eager, any::<bool>()).prop_map(|(sync, eager_fill, reuse_detection)| Policy {
        sync,
        eager_fill,
        reuse_detection,
    })
}

fn setup() -> impl Strategy<Value = Setup> {
    let pool = prop_oneof![Just(16u64), Just(24), Just(48)];
    (pool, policy(), any::<bool>(), prop::bool::weighted(0.3)).prop_map(|(pool, policy, caching, stepping)| Setup {
        pool,
        policy,
        caching,
        stepping,
    })
}

/// How many random guests: PROPTEST_CASES, or as many as take a few seconds.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_its_twin(setup in setup(), steps in vec(step(), 1..120)) {
        run(setup, steps);
    }
}
