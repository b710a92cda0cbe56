//! Random events under every switch: what an access reaches is always what the slots say, and nothing the plans missed stays in a TLB
//! that forgets only what it is told to.

use std::collections::HashMap;

use proptest::prelude::*;

use super::cpu::Walker;
use super::machine::{GUEST_FRAMES, HOLE, MMIO, Machine, RAM, ROM, RUN};
use crate::second::{Ept, HugePages, Npt, SecondFormat, SecondOutcome, Usage, UsageTracking};
use crate::{AccessKind, Gfn, Gpa};

#[derive(Clone, Copy, Debug)]
enum Event {
    Access(u64, AccessKind),
    Map(u64),
    Unmap(u64),
    Move(u64),
    Watch(u64),
    Unwatch(u64),
    Harvest(u64),
}

fn gfn() -> impl Strategy<Value = u64> {
    // Few frames, so that they meet; in all regions, on their borders, and beyond the end.
    prop_oneof![
        0..4u64,
        RUN.start - 2..RUN.start + 3,
        RUN.end - 2..RUN.end + 2,
        RAM - 2..GUEST_FRAMES + 2,
        Just(1 << 27),
        Just(u64::MAX >> 12),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop_oneof![Just(AccessKind::Read), Just(AccessKind::Write), Just(AccessKind::Fetch)];
    prop_oneof![
        8 => (gfn(), kind).prop_map(|(gfn, kind)| Event::Access(gfn, kind)),
        1 => gfn().prop_map(Event::Map),
        1 => gfn().prop_map(Event::Unmap),
        1 => gfn().prop_map(Event::Move),
        1 => gfn().prop_map(Event::Watch),
        1 => gfn().prop_map(Event::Unwatch),
        1 => gfn().prop_map(Event::Harvest),
    ]
}

/// What the slots and watches say an access must end in.
fn expected<F>(m: &Machine<F>, watches: &HashMap<u64, u32>, gfn: u64, kind: AccessKind) -> Result<u64, SecondOutcome> {
    let (write, gpa) = (kind == AccessKind::Write, Gpa::new((gfn << 12) + 0x123));
    match gfn {
        n if n < RAM && write && watches.get(&n).is_some_and(|&n| n > 0) => Err(SecondOutcome::WriteProtected(gpa)),
        n if n < RAM => Ok(m.slots.pfn(n).raw()),
        ROM if write => Err(SecondOutcome::RomWrite(gpa)),
        ROM => Ok(m.slots.pfn(ROM).raw()),
        MMIO => Err(SecondOutcome::Mmio(gpa)),
        n => {
            assert!(n >= HOLE);
            Err(SecondOutcome::Hole(gpa))
        }
    }
}

fn run<F: SecondFormat + Walker>(m: &mut Machine<F>, events: &[Event]) {
    let mut watches: HashMap<u64, u32> = HashMap::new();
    let mut used: HashMap<u64, Usage> = HashMap::new();
    let exact = m.bits;
    for &event in events {
        match event {
            Event::Access(gfn, kind) => {
                let want = expected(m, &watches, gfn, kind);
                assert_eq!(m.access(gfn, kind), want, "{event:?}");
                if want.is_ok() {
                    let usage = used.entry(gfn).or_default();
                    usage.accessed = true;
                    usage.written |= kind == AccessKind::Write;
                }
            }
            Event::Map(gfn) => {
                let plan = m.second.map(&m.slots, Gfn::new(gfn));
                m.carry_out(plan);
            }
            Event::Unmap(gfn) => {
                let plan = m.second.unmap(Gfn::new(gfn));
                m.carry_out(plan);
                assert_eq!(m.second.translate(Gfn::new(gfn).base()), None);
            }
            // What eviction does: take it away, then the memory behind it changes.
            Event::Move(gfn) if gfn < RAM => {
                let plan = m.second.unmap(Gfn::new(gfn));
                m.carry_out(plan);
                m.slots.move_frame(gfn);
            }
            Event::Move(_) => {}
            Event::Watch(gfn) => {
                let plan = m.second.watch(Gfn::new(gfn));
                m.carry_out(plan);
                *watches.entry(gfn).or_default() += 1;
            }
            Event::Unwatch(gfn) => {
                m.second.unwatch(Gfn::new(gfn));
                let count = watches.entry(gfn).or_default();
                *count = count.saturating_sub(1);
            }
            Event::Harvest(gfn) => {
                let (usage, plan) = m.second.harvest(Gfn::new(gfn));
                m.carry_out(plan);
                let was = used.remove(&gfn).unwrap_or_default();
                assert!(usage.accessed || !was.accessed, "an access was missed: {event:?}");
                assert!(usage.written || !was.written, "a write was missed: {event:?}");
                if exact {
                    assert_eq!(usage, was, "{event:?}");
                }
            }
        }
        m.audit();
    }
}

fn switches() -> impl Strategy<Value = (u64, HugePages, UsageTracking)> {
    (
        prop_oneof![Just(4u64), Just(5), Just(6), Just(12)],
        prop_oneof![Just(HugePages::Never), Just(HugePages::WhereContiguous)],
        prop_oneof![Just(UsageTracking::Off), Just(UsageTracking::ByViolation), Just(UsageTracking::ByBits)],
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ept_is_what_the_slots_say((frames, huge, usage) in switches(), events in proptest::collection::vec(event(), 1..120)) {
        run(&mut Machine::<Ept>::new(frames, |c| (c.huge, c.usage) = (huge, usage)), &events);
    }

    #[test]
    fn npt_is_what_the_slots_say((frames, huge, usage) in switches(), events in proptest::collection::vec(event(), 1..120)) {
        run(&mut Machine::<Npt>::new(frames, |c| (c.huge, c.usage) = (huge, usage)), &events);
    }
}

/// A frame is mapped once more while the TLB holds what an access made of it.
#[test]
fn what_is_mapped_again_keeps_what_the_tlb_has() {
    let write = Event::Access(2, AccessKind::Write);
    let stories = [
        [write, Event::Map(2), Event::Watch(2), write, write],
        [write, Event::Map(2), Event::Harvest(2), write, Event::Harvest(2)],
    ];
    for (story, usage) in stories.iter().flat_map(|story| {
        [UsageTracking::Off, UsageTracking::ByViolation, UsageTracking::ByBits].map(|usage| (story, usage))
    }) {
        run(&mut Machine::<Ept>::new(6, |c| c.usage = usage), story);
        run(&mut Machine::<Npt>::new(6, |c| c.usage = usage), story);
    }
}
