//! Roots, the hypervisor's window in them, folds, and the plan: I2, I3, I8, I10, I11, I12.

use super::*;
use crate::pool::PageId;
use crate::tests::long;
use crate::tests::memory::WINDOW;
use crate::tests::reference::Mode;
use crate::{Gfn, TableMem};

pub(super) fn seen(violation: Violation) -> AuditError {
    let five = |entry| broken(long::used(Mode::Five), |mmu| store(mmu, long::PML5, entry));
    match violation {
        Violation::OtherFold => five(0x8067),
        Violation::FoldUnused => five(0x7047),
        Violation::ViewRootless => broken(long::used(Mode::Four), |mmu| mmu.side_roots = [None; 2]),
        Violation::WindowsDiffer => {
            let mut machine = running_machine();
            machine.set_cr3(3);
            machine.set_cr3(1);
            broken(machine, |mmu| {
                let root = mmu.root().unwrap().table;
                mmu.tables.poke(root, 260, Spte::from_raw(WINDOW.raw() | 4));
            })
        }
        _ => broken(running_machine(), |mmu| match violation {
            Violation::RootLinked => {
                // The audit comes to the root before the page that names it.
                let (upper, root) = (page(mmu, Level::L2), mmu.root.unwrap().index);
                assert!(root < upper);
                link(mmu, (upper, 7), root);
            }
            Violation::RootGone => {
                let PageId { index, generation } = mmu.root.unwrap();
                mmu.root = Some(PageId { index, generation: generation.wrapping_sub(1) });
            }
            Violation::RootOther => mmu.ctx.root = Gfn::new(7),
            Violation::WindowUsed => {
                let root = mmu.root.unwrap().index;
                mmu.pool.get_mut(root).unwrap().set_present(260);
            }
            // That of the guest without paging is still there.
            Violation::TooManyRoots => mmu.policy.root_cache = 0,
            Violation::PlanLeft => mmu.flush_all(),
            other => panic!("{other:?} is no matter of roots"),
        }),
    }
}

#[test]
fn i11_a_window_that_is_put_right_is_right() {
    let mut machine = running_machine();
    machine.set_cr3(3);
    let root = machine.mmu.root().unwrap().table;
    let was = machine.mmu.tables().load(root, 271);
    machine.mmu.tables.poke(root, 271, Spte::ABSENT);
    assert_eq!(machine.mmu.audit().expect_err("seen").invariant, 11);
    machine.mmu.tables.poke(root, 271, was);
    machine.mmu.audit().expect("sound again");
}
