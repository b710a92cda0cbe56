//! Large leaves, and the blocks that they map: I1 to I4, I6, I13, I14, I16.

use super::{Audit, Violation, check};
use crate::addr::{Gfn, Level};
use crate::event::Observer;
use crate::huge::{BLOCK_FRAMES, Block, block_of};
use crate::links::{NIL, page_of, slot_of};
use crate::mem::{GfnKind, GuestMem, TableMem};
use crate::mmu::ShadowMmu;
use crate::pool::Page;
use crate::pte::Spte;

impl<G: GuestMem, T: TableMem, O: Observer> ShadowMmu<G, T, O> {
    /// An entry whose node names the block from frame `first` on. The frames of that block are looked at by `audit_blocks`.
    pub(super) fn audit_large(&self, (page, slot): (&Page, usize), spte: Spte, first: Gfn) -> Audit {
        let role = page.key.role;
        check(spte.is_large() && role.level() == Level::L2, Violation::LargeMisplaced)?;
        check(self.policy.huge, Violation::LargeUnwanted)?;
        check(spte.pfn().raw().is_multiple_of(BLOCK_FRAMES), Violation::LargeMisaligned)?;
        check(self.mem.kind(first) == GfnKind::Ram(spte.pfn()), Violation::LargeElsewhere)?;
        if role.is_place() {
            let dropped = self.policy.keeps_global() && !spte.is_kept();
            return check(!dropped || page.local, Violation::LargeUnlisted);
        }
        self.audit_rights((page, slot), (spte, spte.pfn()), first, None)
    }

    /// Every large leaf is in the reverse map of its block, and a block with one, or that counts as clear, is.
    pub(super) fn audit_blocks(&self, mut leaves: usize) -> Audit {
        for (first, block) in self.blocks.iter() {
            for node in self.links.iter(block.rmap) {
                let page = self.pool.get(page_of(node))?;
                let maps = page.live
                    && page.has(slot_of(node))
                    && page.key.role.level() == Level::L2
                    && block_of(self.links.target(node)?) == Some(first);
                check(maps, Violation::BlockForeign).map_err(|e| e.of(first))?;
                leaves = leaves.wrapping_sub(1);
            }
            self.audit_block(first, block).map_err(|e| e.of(first))?;
        }
        check(leaves == 0, Violation::BlockLacks)
    }

    fn audit_block(&self, first: Gfn, block: &Block) -> Audit {
        check(block.clear || block.rmap == NIL, Violation::BlockNotClear)?;
        if !block.clear {
            return Ok(());
        }
        let GfnKind::Ram(base) = self.mem.kind(first) else {
            return check(false, Violation::BlockInPieces);
        };
        let kinds = || (0..BLOCK_FRAMES).map(|n| (n, self.mem.kind(first.add(n))));
        check(kinds().all(|(_, kind)| kind != GfnKind::NotResident), Violation::BlockAway)?;
        check(kinds().all(|(n, kind)| kind == GfnKind::Ram(base.add(n))), Violation::BlockInPieces)?;
        for n in 0..BLOCK_FRAMES {
            let frame = self.frames.get(first.add(n))?;
            check(frame.tables == 0 && frame.watches == 0, Violation::BlockTracked)?;
            check(frame.uses.is_all(), Violation::BlockUnused)?;
        }
        Ok(())
    }
}
