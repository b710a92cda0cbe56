use super::machine::{FOREIGN, GUEST_FRAMES, Machine, RAM, RUN};
use crate::second::{Ept, HugePages, Npt, SecondConfig, SecondLeaf, SecondOutcome, SecondPte, Usage, UsageTracking};
use crate::second::{SecondFormat, SecondLevel};
use crate::{AccessKind, ConfigError, Gfn, Gpa, Level, Pfn, Spte, VmStop};

#[test]
fn every_frame_of_the_guest_is_where_the_slots_say() {
    let frames = SecondConfig::enough_frames(GUEST_FRAMES) as u64;
    let mut m = Machine::<Npt>::new(frames, |_| {});
    for gfn in 0..RAM {
        assert_eq!(m.access(gfn, AccessKind::Read), Ok(m.slots.pfn(gfn).raw()));
    }
    m.audit();
    let counters = *m.second.counters();
    assert_eq!((counters.filled, counters.evicted, counters.flushes), (RAM, 0, 0), "first touches never flush");
    assert_eq!(SecondConfig::enough_frames(1), 4);
    assert_eq!(SecondConfig::enough_frames(1 << 18), 512 + 3);
}

#[test]
fn two_mebibytes_are_one_entry_where_the_host_allows() {
    let mut m = Machine::<Ept>::new(8, |c| c.huge = HugePages::WhereContiguous);
    m.access(RUN.start + 77, AccessKind::Read).unwrap();
    m.access(RUN.end - 1, AccessKind::Write).unwrap();
    m.access(0, AccessKind::Write).unwrap();
    assert_eq!((m.second.counters().filled_huge, m.second.counters().filled), (1, 1));
    // A watch on one frame takes the entry apart; the others stay writable.
    let plan = m.second.watch(Gfn::new(RUN.start));
    assert!(plan.is_all());
    m.carry_out(plan);
    assert!(matches!(m.access(RUN.start, AccessKind::Write), Err(SecondOutcome::WriteProtected(_))));
    assert_eq!(m.access(RUN.start + 1, AccessKind::Write), Ok(m.slots.pfn(RUN.start + 1).raw()));
    m.audit();
}

#[test]
fn another_frame_in_place_of_one_empties_the_tlb() {
    let mut m = Machine::<Ept>::new(8, |_| {});
    m.access(1, AccessKind::Read).unwrap();
    // The caller should have said so by `unmap`.
    m.slots.move_frame(1);
    let plan = m.second.map(&m.slots, Gfn::new(1));
    assert!(plan.is_all());
    m.carry_out(plan);
    assert_eq!(m.access(1, AccessKind::Read), Ok(m.slots.pfn(1).raw()));
}

#[test]
fn an_empty_table_that_is_given_up_leaves_the_caches_of_the_cpu() {
    // Room for the tables of one region.
    let mut m = Machine::<Npt>::new(4, |_| {});
    m.access(1, AccessKind::Read).unwrap();
    let plan = m.second.unmap(Gfn::new(1));
    m.carry_out(plan);
    // The CPU looks again, and may remember the way to the empty table.
    let (outcome, plan) = m.second.on_violation(&m.slots, Gpa::new(513 << 12), AccessKind::Read);
    assert!(outcome == SecondOutcome::Resume && plan.is_all());
    assert_eq!(m.second.counters().evicted, 1);
}

#[test]
fn usage_is_exact_by_bits_and_by_violation() {
    for usage in [UsageTracking::ByBits, UsageTracking::ByViolation] {
        let mut m = Machine::<Ept>::new(8, |c| c.usage = usage);
        m.access(1, AccessKind::Read).unwrap();
        m.access(2, AccessKind::Write).unwrap();
        for (gfn, accessed, written) in [(1, true, false), (2, true, true), (3, false, false), (2, false, false)] {
            let (used, plan) = m.second.harvest(Gfn::new(gfn));
            m.carry_out(plan);
            assert_eq!(used, Usage { accessed, written }, "{usage:?} gfn {gfn}");
        }
        m.access(2, AccessKind::Read).unwrap();
        assert_eq!(m.second.harvest(Gfn::new(2)).0, Usage { accessed: true, written: false });
        m.audit();
    }
}

#[test]
fn a_refusal_of_the_gate_stops_the_vm() {
    let mut m = Machine::<Npt>::new(8, |_| {});
    m.slots.lie.set(Some(3));
    let (outcome, _) = m.second.on_violation(&m.slots, Gpa::new(0x3000), AccessKind::Read);
    assert!(matches!(outcome, SecondOutcome::Stop(VmStop::Refused { .. })), "{outcome:?} for frame {FOREIGN:#x}");
}

#[test]
fn bad_configurations_are_refused() {
    let make = |frames: u64, guest| {
        let tables = Machine::<Ept>::new(8, |_| {}).second.tables().clone();
        SecondLevel::<Ept, _>::new(tables, SecondConfig::new((0..frames).map(Pfn::new).collect(), guest)).err()
    };
    assert_eq!(make(3, 100), Some(ConfigError::PoolSize(3)));
    assert_eq!(make(8, 0), Some(ConfigError::GuestFrames(0)));
}

/// Whatever is encoded decodes to itself, and no other bit pattern is taken for an entry of ours.
fn formats_are_exact<F: SecondFormat>() {
    for level in [Level::L1, Level::L2] {
        for bits in 0..8u64 {
            let (writable, accessed, dirty) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            let leaf = SecondLeaf { pfn: Pfn::new(0x1234 << 9), writable, accessed, dirty };
            let spte = F::leaf(leaf, level);
            assert_eq!(F::decode(spte, level), SecondPte::Leaf(leaf));
            for bit in 0..64 {
                let other = Spte::from_raw(spte.raw() ^ 1 << bit);
                match F::decode(other, level) {
                    SecondPte::Leaf(seen) => assert_eq!(F::leaf(seen, level), other),
                    SecondPte::Table(pfn) => assert_eq!(F::table(pfn), other),
                    SecondPte::Malformed => {}
                    SecondPte::Absent => panic!("{other:?}"),
                }
            }
        }
    }
    assert_eq!(F::decode(F::table(Pfn::new(9)), Level::L3), SecondPte::Table(Pfn::new(9)));
    assert_eq!(F::decode(Spte::ABSENT, Level::L1), SecondPte::Absent);
}

#[test]
fn entries_survive_their_encoding() {
    formats_are_exact::<Ept>();
    formats_are_exact::<Npt>();
}
