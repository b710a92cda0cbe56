//! Random guests: whatever they do, the machine behaves as its twin, and every invariant holds after every step.

use proptest::collection::vec;
use proptest::prelude::*;

use super::machine::{Machine, SUPERVISOR, Setup};
use super::memory::HOLE;
use super::reference::Mode;
use super::tables::{PDES, PML4S, PML5, PTES, STRANGE, WIDE, long_pages, narrow_pages, rebuild};
use crate::{Access, AccessKind, EagerFill, Policy, Privilege, SyncPolicy, cr0, cr4, efer};

/// Where a step goes: one address for 32-bit guests, one for 64-bit ones.
#[derive(Clone, Copy, Debug)]
struct Spot {
    narrow: u64,
    long: u64,
}

#[derive(Clone, Debug)]
enum Step {
    /// An access to a page of the set, or a write of an entry through it.
    Access(Spot, Access, Vec<u8>),
    Invlpg(Spot),
    Cr3(u64),
    /// Another PDPT in the same frame.
    Part(u64),
    /// A control bit changes, in vain where the CPU refuses.
    Cr0(u64),
    Cr4(u64),
    Efer(u64),
    Pkru(u32),
    Watch(u64, bool),
    /// Paging off, the tables built anew, paging on: a guest that survives.
    Rebuild(u64, Mode),
}

fn gpte() -> impl Strategy<Value = u32> {
    let frame = prop_oneof![8 => 1u32..10, 2 => 0..HOLE as u32 + 1, 1 => 0x200u32..0x204];
    let flags = prop_oneof![
        6 => any::<u32>().prop_map(|n| n & 0x7f | 1),
        2 => any::<u32>().prop_map(|n| n & 0x1ff),
        4 => Just(0x67u32),
        2 => Just(0x07u32),
        2 => Just(0x167u32),
    ];
    let large = prop_oneof![
        12 => Just(None), 2 => Just(Some(0u32)), 2 => Just(Some(0x200)), 1 => (0u32..0x400).prop_map(Some),
    ];
    (frame, flags, large).prop_map(|(frame, flags, large)| match large {
        None => frame << 12 | flags,
        Some(middle) => middle << 12 | flags | 0x80,
    })
}

/// The high half of an entry of 8 bytes: NX, protection keys, ignored and reserved bits.
fn high() -> impl Strategy<Value = u32> {
    prop_oneof![
        10 => Just(0u32),
        4 => Just(1u32 << 31),
        4 => (0u32..4).prop_map(|key| key << 27),
        1 => Just(1u32 << 20),
        1 => 0u32..32,
    ]
}

fn spot() -> impl Strategy<Value = Spot> {
    let narrow_entry = prop_oneof![4 => prop::sample::select(PDES.to_vec()), 6 => prop::sample::select(PTES.to_vec())];
    let narrow = (prop::sample::select(narrow_pages()), narrow_entry).prop_map(|(page, n)| page << 12 | n << 2);
    let long_entry = prop_oneof![8 => prop::sample::select(WIDE.to_vec()), 1 => Just(256), 1 => Just(272)];
    let half = prop_oneof![6 => Just(0u64), 1 => Just(4)];
    let page = prop::sample::select(long_pages()).prop_map(|page| page << 12);
    let long = prop_oneof![
        40 => (page, long_entry, half).prop_map(|(page, n, half)| page | n << 3 | half),
        1 => prop::sample::select(STRANGE.to_vec()),
    ];
    (narrow, long).prop_map(|(narrow, long)| Spot { narrow, long })
}

fn access() -> impl Strategy<Value = Access> {
    let kind = prop_oneof![
        3 => Just(AccessKind::Read),
        3 => Just(AccessKind::Write),
        1 => Just(AccessKind::Fetch),
    ];
    let privilege = prop_oneof![2 => Just(SUPERVISOR), 1 => Just(Privilege::SupervisorAc), 3 => Just(Privilege::User)];
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
    let privilege = prop_oneof![6 => Just(SUPERVISOR), 4 => Just(Privilege::SupervisorAc), 1 => Just(Privilege::User)];
    let skew = prop_oneof![14 => Just(0u64), 1 => 1u64..4];
    (spot(), skew, bytes, privilege).prop_map(|(spot, skew, bytes, privilege)| {
        let room = 0x1000 - bytes.len() as u64;
        let skewed = |gva: u64| gva & !0xfff | (gva & 0xfff | skew).min(room);
        let spot = Spot { narrow: skewed(spot.narrow), long: skewed(spot.long) };
        Step::Access(spot, Access { kind: AccessKind::Write, privilege }, bytes)
    })
}

/// A write of a whole entry of 8 bytes.
fn wide_write() -> impl Strategy<Value = Step> {
    let privilege = prop_oneof![Just(SUPERVISOR), Just(Privilege::SupervisorAc)];
    (spot(), gpte(), high(), privilege).prop_map(|(spot, low, high, privilege)| {
        let bytes = [low.to_le_bytes(), high.to_le_bytes()].concat();
        let aligned = Spot { narrow: spot.narrow & !7, long: spot.long & !7 };
        Step::Access(aligned, Access { kind: AccessKind::Write, privilege }, bytes)
    })
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![1 => Just(Mode::Two), 1 => Just(Mode::Pae), 2 => Just(Mode::Four), 2 => Just(Mode::Five)]
}

fn control() -> impl Strategy<Value = Step> {
    let pkru = prop_oneof![Just(0u32), any::<u32>().prop_map(|n| n & 0xfc)];
    prop_oneof![
        2 => prop_oneof![Just(cr0::PG), Just(cr0::WP), Just(cr0::WP), Just(cr0::CD)].prop_map(Step::Cr0),
        4 => prop::sample::select(vec![
            cr4::PAE, cr4::PSE, cr4::PGE, cr4::SMEP, cr4::SMAP, cr4::SMAP, cr4::LA57, cr4::PKE, cr4::PKE,
        ]).prop_map(Step::Cr4),
        2 => prop_oneof![4 => Just(efer::NXE), 1 => Just(efer::LME)].prop_map(Step::Efer),
        2 => pkru.prop_map(Step::Pkru),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (spot(), access()).prop_map(|(spot, access)| Step::Access(spot, access, vec![0x67, 0x10, 0, 0])),
        20 => entry_write(),
        8 => wide_write(),
        4 => spot().prop_map(Step::Invlpg),
        3 => (1u64..5).prop_map(Step::Cr3),
        1 => (0..HOLE + 3).prop_map(Step::Cr3),
        2 => prop_oneof![3 => 0u64..2, 1 => 0u64..128].prop_map(Step::Part),
        5 => control(),
        1 => (prop_oneof![3 => 0u64..12, 1 => 0x200u64..0x204], any::<bool>()).prop_map(|(frame, on)| Step::Watch(frame, on)),
        2 => (any::<u64>(), mode()).prop_map(|(variant, mode)| Step::Rebuild(variant, mode)),
    ]
}

/// A CR3 that names one of the guest's top tables, or any frame.
fn root(mode: Mode, frame: u64) -> u64 {
    match (mode, frame) {
        (Mode::Pae, 0..5) => 7 << 12 | (frame & 1) << 5,
        (Mode::Four, 0..5) => PML4S[frame as usize & 1] << 12,
        (Mode::Five, 0..4) => PML5 << 12,
        _ => frame << 12,
    }
}

fn run(setup: Setup, first: Mode, steps: Vec<Step>) {
    let mut machine = Machine::new(setup, narrow_pages());
    machine.flip_cr4(cr4::PSE | cr4::PGE);
    rebuild(&mut machine, 0x1234_5678, first);
    for step in steps {
        let long = matches!(machine.mode(), Mode::Four | Mode::Five);
        let at = |Spot { narrow, long: wide }| if long { wide } else { narrow };
        match step {
            Step::Access(spot, access, bytes) => {
                machine.access(at(spot), access, &bytes);
            }
            Step::Invlpg(spot) => machine.invlpg(at(spot)),
            Step::Watch(frame, on) => machine.watch(frame, on),
            Step::Rebuild(variant, mode) => rebuild(&mut machine, variant, mode),
            Step::Cr3(frame) => {
                machine.set_cr3_raw(root(machine.mode(), frame));
            }
            Step::Part(part) => {
                machine.set_cr3_raw(machine.controls.cr3 & !0xfff | part << 5);
            }
            Step::Cr0(bit) => {
                machine.flip_cr0(bit);
            }
            Step::Cr4(bit) => {
                machine.flip_cr4(bit);
            }
            Step::Efer(bit) => {
                machine.flip_efer(bit);
            }
            Step::Pkru(pkru) => machine.set_pkru(pkru),
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
    let prefetch = prop_oneof![Just(1u16), Just(4), Just(512)];
    let roots = prop_oneof![2 => Just(Policy::ALL_ROOTS), 1 => 0u16..3];
    let bursts = (prop_oneof![Just(0u8), 1u8..5], prop_oneof![Just(0u8), 1u8..5], 0u8..3);
    (sync, eager, any::<[bool; 5]>(), prefetch, roots, bursts).prop_map(
        |(
            sync,
            eager_fill,
            [reuse_detection, keep_global, mark_absent, huge, fill_ahead],
            prefetch,
            root_cache,
            (flood, teardown, patience),
        )| {
            Policy {
                sync,
                eager_fill,
                reuse_detection,
                prefetch,
                root_cache,
                flood,
                teardown,
                patience,
                keep_global,
                mark_absent,
                huge,
                fill_ahead,
            }
        },
    )
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
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(384)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_its_twin(setup in setup(), first in mode(), steps in vec(step(), 1..120)) {
        run(setup, first, steps);
    }
}
