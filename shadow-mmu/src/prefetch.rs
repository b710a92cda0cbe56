//! Prefetch: a fault fills its neighbours, too, if the guest's entries have A set already. It lies about nothing, since A and D are
//! exact; it costs where they are not used.

use crate::addr::{Gva, Level};
use crate::counters::Counter;
use crate::event::Observer;
use crate::links::SLOTS;
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::propagate::Rules;
use crate::pte::{GuestFormat, GuestPte, entry_gpa};
use crate::stop::Trouble;
use crate::walk::Walk;

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Fills the absent entries above that for `gva` in L1 page `page`, which `walk` led to: up to the border of the block, or to the
    /// first that is there or cannot be filled. So what is of no use costs one look.
    #[inline(never)]
    pub(crate) fn prefetch<F: GuestFormat>(&mut self, walk: &Walk, page: u32, gva: Gva) -> Result<(), Trouble> {
        let block = usize::from(self.policy.prefetch).min(SLOTS);
        let slot = gva.slot(Level::L1);
        let first = slot & !block.wrapping_sub(1);
        let mut near = slot.wrapping_add(1);
        while near < first.wrapping_add(block) && self.prefetch_one::<F>(walk, (page, near), gva)? {
            near = near.wrapping_add(1);
        }
        Ok(self.note_made(page, slot.wrapping_add(1)..near)?)
    }

    #[inline]
    fn prefetch_one<F: GuestFormat>(
        &mut self,
        walk: &Walk,
        (page, near): (u32, usize),
        gva: Gva,
    ) -> Result<bool, Trouble> {
        if self.pool.get(page)?.has(near) {
            return Ok(false);
        }
        let at = Gva::new(gva.page().raw() ^ ((gva.slot(Level::L1) ^ near) as u64) << Level::L1.shift());
        let Some(near_walk) = self.neighbour::<F>(walk, at) else { return Ok(false) };
        let Walk { gfn, perms, dirty, .. } = near_walk;
        let Some(spte) = self.unasked_leaf(gfn, (perms, dirty), Rules::now::<F>(&self.ctx)) else { return Ok(false) };
        if !spte.present() {
            return Ok(false);
        }
        let spte = self.keep_global(&near_walk, page, spte)?;
        self.set_leaf((page, near), gfn, spte, at)?;
        self.counters.add(Counter::SptePrefetched);
        Ok(true)
    }

    /// What a walk to an address beside that of `walk` would find; `None` if A is not set.
    #[inline]
    fn neighbour<F: GuestFormat>(&self, walk: &Walk, at: Gva) -> Option<Walk> {
        if walk.leaf != Level::L1.number() {
            // Part of a large page, or paging is off.
            return Some(Walk { gfn: walk.gfn.align_down(9).add(at.slot(Level::L1) as u64), ..*walk });
        }
        let step = walk.step(Level::L1)?;
        let raw = F::read(&self.mem, entry_gpa::<F>(step.table(), Level::L1, at))?;
        match F::decode(raw, Level::L1, &self.ctx) {
            GuestPte::Leaf { gfn, perms, accessed: true, dirty, global } => {
                Some(Walk { gfn, perms: perms & step.inherited(), dirty, global, ..*walk })
            }
            _ => None,
        }
    }
}
