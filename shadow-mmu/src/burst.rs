//! What many changes at once tell: caches of roots that are too many, and tables that are written as a whole. Each heuristic is a
//! switch of [`Policy`]. A wrong guess costs faults, never more.

use crate::addr::{Gfn, Level};
use crate::counters::Counter;
use crate::event::Observer;
use crate::links::NIL;
use crate::mem::{GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::policy::Policy;
use crate::pool::PageId;
use crate::stop::Trouble;
use crate::view::View;

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// Counts a write to a followed table, and gives up its shadow if a burst of them says that following does not pay.
    #[cold]
    pub(crate) fn count_burst(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        let frame = self.frames.get_mut(gfn)?;
        if frame.tables == 0 {
            return Ok(());
        }
        let upper = frame.upper != 0;
        frame.burst = if upper || self.took_right { frame.burst.saturating_add(1) } else { 0 };
        let limit = if upper { self.policy.flood } else { self.policy.teardown };
        if limit == 0 || frame.burst < limit {
            return Ok(());
        }
        frame.burst = 0;
        self.counters.add(if upper { Counter::TableFlooded } else { Counter::TableTornDown });
        self.give_up_tables(gfn)
    }

    /// The current roots were loaded: notes that, and gives up those that were not for longest. Cost does not grow with the number of
    /// roots, unless one is new.
    #[inline]
    pub(crate) fn bound_roots(&mut self) -> Result<(), Trouble> {
        if self.policy.root_cache == Policy::ALL_ROOTS { Ok(()) } else { self.drop_old_roots() }
    }

    #[cold]
    fn drop_old_roots(&mut self) -> Result<(), Trouble> {
        self.loads = self.loads.wrapping_add(1);
        for index in self.pinned() {
            if index != NIL {
                self.note_load(index)?;
            }
        }
        // What is pinned was loaded last, so it is never among those that go: the bound is exact.
        while self.roots.len() > self.policy.most_roots(View::all(&self.ctx).len()) {
            let age = |id: &PageId| self.pool.checked(*id).map_or(u32::MAX, |page| self.loads.wrapping_sub(page.stamp));
            let oldest = self.roots.iter().enumerate().max_by_key(|(_, id)| age(id)).map(|(place, _)| place);
            let Some(id) = oldest.map(|place| self.roots.swap_remove(place)) else { break };
            if self.pool.checked(id).is_some() {
                self.counters.add(Counter::RootDropped);
                self.drop_root(id.index)?;
            }
        }
        Ok(())
    }

    /// Stamps a root with the present load. One that is new enters the list, and those that were evicted leave it.
    fn note_load(&mut self, index: u32) -> Result<(), Trouble> {
        let id = self.pool.id(index)?;
        let page = self.pool.get_mut(index)?;
        let is_known = core::mem::replace(&mut page.stamp, self.loads.max(1)) != 0;
        if !is_known {
            let pool = &self.pool;
            self.roots.retain(|&id| pool.checked(id).is_some());
            self.roots.push(id);
        }
        Ok(())
    }

    /// Gives up a root, and the pages below it that nothing else names, down to the directories. Those that hold leaves stay: others
    /// may share them, and who links one next has it filled.
    fn drop_root(&mut self, root: u32) -> Result<(), Trouble> {
        let mut way = [root, NIL, NIL, NIL, NIL];
        let mut depth = 0usize;
        while let Some(&page) = way.get(depth) {
            if let Some(slot) = self.pool.get(page)?.first_present()
                && self.pool.get(page)?.key.role.level() != Level::L2
            {
                let child = self.child(page, slot)?.unwrap_or(NIL);
                self.zap(page, slot)?;
                if child != NIL && self.pool.get(child)?.parents == NIL {
                    depth = depth.wrapping_add(1);
                    if let Some(place) = way.get_mut(depth) {
                        *place = child;
                    }
                }
                continue;
            }
            self.zap_page(page)?;
            let Some(above) = depth.checked_sub(1) else { break };
            depth = above;
        }
        Ok(())
    }
}
