//! Checks the whole tree. Slow, reads only.

use crate::addr::{Gfn, Level};
use crate::audit::AuditError;
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
            check(self.arena.find(first, level) == Some(index), 9, "a table is not found at its place", index)?;
            check((level == Level::L4) == (index == self.root), 8, "not one root", index)?;
            self.audit_table(mem, index, (table, level), first)?;
            if let Some(upper) = Level::from_number(level.number().wrapping_add(1)).filter(|_| level != Level::L4) {
                let parent =
                    self.arena.find(first, upper).ok_or_else(|| error(7, "a table without a parent", index))?;
                let entry = F::decode(self.entry((parent, arena::slot(first, upper)))?, upper);
                check(entry == SecondPte::Table(table.pfn), 7, "its parent does not name it", index)?;
            }
        }
        let total = self.arena.iter().count();
        check(live.saturating_add(self.arena.free_count()) == total, 12, "the pool lost a table", 0)
    }

    fn audit_table<G: GuestMem>(&self, mem: &G, index: u32, (table, level): (&Table, Level), first: Gfn) -> Audit {
        let (mut children, mut leaves) = (0u16, 0u16);
        for slot in 0..512usize {
            let gfn = first.add((slot as u64) << frames_shift(level).wrapping_sub(9));
            match F::decode(self.entry((index, slot))?, level) {
                SecondPte::Absent => {}
                SecondPte::Malformed => return Err(error(2, "an entry that the CPU refuses", index)),
                SecondPte::Table(_) => {
                    children = children.saturating_add(1);
                    let below = level.down().and_then(|below| self.arena.find(gfn, below));
                    check(below.is_some(), 7, "a link to no table", index)?;
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
        check((children, leaves) == (table.children, table.leaves), 7, "entries are miscounted", index)
    }

    fn audit_leaf<G: GuestMem>(&self, mem: &G, gfn: Gfn, leaf: SecondLeaf, index: u32) -> Audit {
        let state = self.state(gfn).ok_or_else(|| error(1, "a leaf beyond the guest's frames", index))?;
        let rom = match mem.kind(gfn) {
            GfnKind::Ram(pfn) if pfn == leaf.pfn => false,
            GfnKind::Rom(pfn) if pfn == leaf.pfn => true,
            _ => return Err(error(1, "a leaf maps something else than the guest's memory", index)),
        };
        check(!(rom && leaf.writable), 2, "a leaf lets ROM be written", index)?;
        check(state.watches == 0 || !leaf.writable, 4, "a watched frame is writable", index)?;
        check(leaf.writable || !leaf.dirty, 3, "a read-only leaf is dirty", index)
    }
}

fn error(invariant: u8, what: &'static str, table: u32) -> AuditError {
    AuditError { invariant, what, gfn: None, entry: Some((table, 0)) }
}

fn check(holds: bool, invariant: u8, what: &'static str, table: u32) -> Audit {
    if holds { Ok(()) } else { Err(error(invariant, what, table)) }
}
