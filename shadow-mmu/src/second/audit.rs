//! Checks the whole tree. Slow, reads only.

use crate::addr::{Gfn, Level};
use crate::audit::{AuditError, Violation};
use crate::mem::{GfnKind, GuestMem, TableMem};
use crate::second::arena::{self, Table, frames_shift};
use crate::second::{SecondFormat, SecondLeaf, SecondLevel, SecondPte};

type Audit = Result<(), AuditError>;

impl<F: SecondFormat, T: TableMem> SecondLevel<F, T> {
    /// Checks every entry of every table against the guest's memory, and the bookkeeping against the entries.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn audit<G: GuestMem>(&self, mem: &G) -> Result<(), AuditError> {
        let mut live = 0usize;
        for (index, table) in self.arena.iter() {
            let Some(level) = table.level else { continue };
            live = live.saturating_add(1);
            let first = Gfn::new(table.region << frames_shift(level));
            check(self.arena.find(first, level) == Some(index), Violation::SecondLost, index)?;
            check((level == Level::L4) == (index == self.root), Violation::SecondRoots, index)?;
            self.audit_table(mem, index, (table, level), first)?;
            if let Some(upper) = Level::from_number(level.number().wrapping_add(1)).filter(|_| level != Level::L4) {
                let parent = self.arena.find(first, upper).ok_or_else(|| error(Violation::SecondOrphan, index))?;
                let entry = F::decode(self.entry((parent, arena::slot(first, upper)))?, upper);
                check(entry == SecondPte::Table(table.pfn), Violation::SecondUnnamed, index)?;
            }
        }
        let total = self.arena.iter().count();
        check(live.saturating_add(self.arena.free_count()) == total, Violation::SecondPool, 0)
    }

    fn audit_table<G: GuestMem>(&self, mem: &G, index: u32, (table, level): (&Table, Level), first: Gfn) -> Audit {
        let (mut children, mut leaves) = (0u16, 0u16);
        for slot in 0..512usize {
            let gfn = first.add((slot as u64) << frames_shift(level).wrapping_sub(9));
            match F::decode(self.entry((index, slot))?, level) {
                SecondPte::Absent => {}
                SecondPte::Malformed => return Err(error(Violation::SecondMalformed, index)),
                SecondPte::Table(_) => {
                    children = children.saturating_add(1);
                    let below = level.down().and_then(|below| self.arena.find(gfn, below));
                    check(below.is_some(), Violation::SecondNowhere, index)?;
                }
                SecondPte::Leaf(leaf) => {
                    leaves = leaves.saturating_add(1);
                    let frames = if level == Level::L1 { 1 } else { 512 };
                    for n in 0..frames {
                        self.audit_leaf(mem, gfn.add(n), SecondLeaf { pfn: leaf.pfn.add(n), ..leaf }, index)?;
                    }
                }
            }
        }
        check((children, leaves) == (table.children, table.leaves), Violation::SecondMiscounted, index)
    }

    fn audit_leaf<G: GuestMem>(&self, mem: &G, gfn: Gfn, leaf: SecondLeaf, index: u32) -> Audit {
        let state = self.state(gfn).ok_or_else(|| error(Violation::SecondBeyond, index))?;
        let rom = match mem.kind(gfn) {
            GfnKind::Ram(pfn) if pfn == leaf.pfn => false,
            GfnKind::Rom(pfn) if pfn == leaf.pfn => true,
            _ => return Err(error(Violation::SecondForeign, index)),
        };
        check(!(rom && leaf.writable), Violation::SecondRom, index)?;
        check(state.watches == 0 || !leaf.writable, Violation::SecondWatched, index)?;
        check(leaf.writable || !leaf.dirty, Violation::SecondDirty, index)
    }
}

fn error(violation: Violation, table: u32) -> AuditError {
    AuditError { invariant: violation.invariant(), violation, gfn: None, entry: Some((table, 0)) }
}

fn check(holds: bool, violation: Violation, table: u32) -> Audit {
    if holds { Ok(()) } else { Err(error(violation, table)) }
}
