//! What takes patches away (`patches.rs`): the guest's own doing, or what else is needed in their place.

use shadow_mmu::Patches;

use super::patch::Patch;
use super::patches::Patching;
use super::view::{Span, View};
use crate::vm::Vm;

/// After so many times that the guest took the addresses of patches there are none any more.
const MOST_LOST: u8 = 8;

/// What undid a patch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    /// The guest wrote its bytes.
    Written,
    /// The guest jumped among its instructions too often, or into one of them.
    Entered,
    /// An instruction was discovered that overlaps it.
    Overlapped,
    /// Another patch begins in front of it.
    Replaced,
    /// Its page was given to other code.
    Recycled,
    /// The guest took the place of all patches.
    Lost,
    /// The guest has a breakpoint among its instructions.
    Breakpoint,
}

impl Undo {
    pub(super) const NAMES: [&'static str; 7] = [
        "unpatched: written",
        "unpatched: entered",
        "unpatched: overlap",
        "unpatched: replaced",
        "unpatched: recycled",
        "unpatched: place lost",
        "unpatched: breakpoint",
    ];
}

impl Vm {
    /// Undoes patches of a view.
    pub(super) fn undo_patches(&mut self, at: usize, why: Undo, which: impl Fn(&Patch) -> bool) {
        let Some(view) = self.code.views.get_mut(at) else { return };
        let before = view.patches.len();
        let mut changed = Span::EMPTY;
        let View { patches, patch_page, .. } = view;
        patches.retain(|patch| {
            let goes = which(patch);
            if let (true, Some(page)) = (goes, patch_page.as_mut()) {
                changed = changed.join(patch.shown());
                patch.room.iter().for_each(|&span| page.room.give(span));
            }
            !goes
        });
        let undone = before.saturating_sub(view.patches.len());
        if undone != 0 {
            self.code.patching.forget(undone, why);
            self.show(at, changed);
        }
    }

    /// No patches any more.
    #[cold]
    pub(crate) fn give_up_patches(&mut self) {
        self.code.patching.lost = MOST_LOST;
        self.undo_all_patches();
    }

    /// The guest took the addresses of patches.
    #[cold]
    pub(super) fn undo_all_patches(&mut self) {
        for at in 0..self.code.views.len() {
            self.undo_patches(at, Undo::Lost, |_| true);
        }
        log::debug!("guest {}: the place of its patches is lost", self.name);
        let patching = &mut self.code.patching;
        patching.regions.fill(0);
        patching.place.distance = 0;
        patching.lost = patching.lost.saturating_add(1);
        patching.on = patching.lost < MOST_LOST;
        // The frames may be elsewhere by the next time.
        for at in 0..self.code.views.len() {
            if let Some(gfn) =
                self.code.views.get(at).filter(|view| view.patch_page.is_some()).map(|view| view.code.gfn)
            {
                let plan = self.mmu.unmap_code(gfn);
                self.flush(plan);
            }
        }
        self.mmu.set_patches(Patches { distance: 0, sure: true });
    }
}

impl Patching {
    /// So many patches are gone.
    pub(super) fn forget(&mut self, patches: usize, why: Undo) {
        self.count = self.count.saturating_sub(patches);
        if let Some(undone) = self.undone.get_mut(why as usize) {
            *undone = undone.saturating_add(patches as u64);
        }
    }
}
