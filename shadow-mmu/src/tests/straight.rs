//! The straight walk of two levels agrees with the walk level by level, marks and events included, wherever it does not give up.

use proptest::prelude::*;

use super::memory::Memory;
use crate::controls::{PagingCtx, PagingMode};
use crate::pte::Legacy32;
use crate::straight::walk_straight;
use crate::walk::{Mark, walk_levels};
use crate::{Access, AccessKind, Event, Gfn, Gpa, Gva, Observer, Privilege};

const DIRECTORY: u64 = 1;

/// Events as text.
#[derive(Default)]
struct Events(String);

impl Observer for Events {
    fn event(&mut self, event: Event) {
        self.0 += &format!("{event:?}\n");
    }
}

/// An entry that names a frame of RAM mostly, with any low bits.
fn entry() -> impl Strategy<Value = u32> {
    (prop_oneof![9 => 0_u32..8, 1 => 30_u32..40], 0_u32..0x1000, any::<bool>())
        .prop_map(|(frame, low, present)| frame << 12 | low & !1 | u32::from(present))
}

fn access() -> impl Strategy<Value = Access> {
    let kind = prop_oneof![Just(AccessKind::Read), Just(AccessKind::Write), Just(AccessKind::Fetch)];
    let privilege = prop_oneof![Just(Privilege::Supervisor), Just(Privilege::SupervisorAc), Just(Privilege::User)];
    (kind, privilege).prop_map(|(kind, privilege)| Access { kind, privilege })
}

fn context() -> impl Strategy<Value = PagingCtx> {
    any::<[bool; 5]>().prop_map(|[pse, wp, smep, smap, reports_fetch]| PagingCtx {
        mode: PagingMode::Legacy32,
        root: Gfn::new(DIRECTORY),
        pse,
        wp,
        smep,
        smap,
        reports_fetch,
        ..PagingCtx::off(36)
    })
}

proptest! {
    #[test]
    fn both_walks_are_one(
        ctx in context(),
        access in access(),
        (upper, leaf) in (entry(), entry()),
        gva in any::<u32>(),
        marks in any::<bool>(),
    ) {
        let gva = Gva::new(gva.into());
        let mark = if marks { Mark::Set } else { Mark::Leave };
        let machine = || {
            let memory = Memory::new();
            let leaf_table = u64::from(upper >> 12);
            memory.store(Gpa::new(leaf_table << 12 | (gva.raw() >> 12 & 0x3ff) << 2), &leaf.to_le_bytes());
            memory.store(Gpa::new(DIRECTORY << 12 | (gva.raw() >> 22) << 2), &upper.to_le_bytes());
            memory
        };
        let (straight, level_by_level) = (machine(), machine());
        let (mut few, mut all) = (Events::default(), Events::default());
        if let Some(got) = walk_straight(&straight, &ctx, (gva, access), mark, &mut few) {
            let wanted = walk_levels::<Legacy32, _, _>(&level_by_level, &ctx, (gva, access), mark, &mut all);
            prop_assert_eq!(format!("{got:?}"), format!("{wanted:?}"));
            prop_assert_eq!(straight.first_difference(&level_by_level), None);
            prop_assert_eq!(few.0, all.0);
        }
    }

    #[test]
    fn plain_pages_are_walked(leaf in 2_u32..30, access in access(), gva in any::<u32>()) {
        let ctx = PagingCtx { mode: PagingMode::Legacy32, root: Gfn::new(DIRECTORY), ..PagingCtx::off(36) };
        let memory = Memory::new();
        memory.store(Gpa::new(DIRECTORY << 12 | u64::from(gva >> 22) << 2), &0x2027_u32.to_le_bytes());
        memory.store(Gpa::new(2 << 12 | u64::from(gva >> 12 & 0x3ff) << 2), &(leaf << 12 | 7).to_le_bytes());
        let done = walk_straight(&memory, &ctx, (Gva::new(gva.into()), access), Mark::Set, &mut ());
        prop_assert_eq!(done.map(|walk| walk.map(|walk| walk.gfn)), Some(Ok(Gfn::new(leaf.into()))));
    }
}
