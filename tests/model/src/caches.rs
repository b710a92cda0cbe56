//! What the guest's own CPU may still believe: every translation, and every part of a walk, that its TLB and its paging-structure
//! caches may hold (SDM 4.10). A cache that keeps all that it may and drops only what it must.

use std::collections::{HashMap, HashSet};

use crate::ram::Ram;
use crate::reference::{Entry, Load, PAE, PG, PGE, Regs, Rights, SMEP, What, Who};

/// A translation as a TLB may keep it (SDM 4.10.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Leaf {
    frame: u64,
    rights: Rights,
    dirty: bool,
    global: bool,
    key: u8,
    large: u32,
}

/// A table that a walk may begin in (SDM 4.10.3.1).
type Table = (u64, Rights);

/// All of it.
#[derive(Debug, Default)]
pub struct Caches {
    leaves: HashMap<u64, HashSet<Leaf>>,
    tables: HashMap<(u32, u64), HashSet<Table>>,
}

impl Caches {
    /// Adds what the CPU may cache of `pages`' translations now.
    pub fn observe(&mut self, ram: &Ram, regs: &Regs, pages: &[u64]) {
        for &page in pages {
            let Some(top) = regs.top(page) else { continue };
            let mut tables: Vec<Table> = vec![(top, Rights::ALL)];
            for &shift in regs.levels() {
                let known = self.tables.entry((shift, page >> shift)).or_default();
                for (table, above) in tables {
                    // Only an entry with A set may be cached (SDM 4.10.2.3).
                    let Some(raw) = regs.read(ram, regs.entry_at(table, page, shift)) else { continue };
                    if raw & 0x20 == 0 {
                        continue;
                    }
                    match regs.decode(raw, shift) {
                        Entry::Absent | Entry::Reserved => {}
                        Entry::Table(next, own) => {
                            known.insert((next, above.and(own)));
                        }
                        Entry::Page(found) => {
                            let frame = (found.base + (page & ((1 << found.shift) - 1))) >> 12;
                            let (rights, large) = (above.and(found.rights), found.shift);
                            let (dirty, global, key) = (found.dirty, found.global, found.key);
                            let leaf = Leaf { frame, rights, dirty, global, key, large };
                            self.leaves.entry(page >> 12).or_default().insert(leaf);
                        }
                    }
                }
                tables = known.iter().copied().collect();
            }
        }
    }

    /// May the CPU let an access to `va` go to `frame` without a walk?
    #[must_use]
    pub fn permit(&self, regs: &Regs, va: u64, what: What, who: Who, frame: u64) -> bool {
        self.leaves.get(&(va >> 12)).into_iter().flatten().any(|leaf| {
            leaf.frame == frame
                && !regs.forbids(leaf.rights, what, who)
                && !regs.key_forbids(leaf.rights, leaf.key, what, who)
                && (what != What::Write || leaf.dirty)
        })
    }

    /// INVLPG (SDM 4.10.4.1): all of the page, however large, and every table.
    pub fn invlpg(&mut self, va: u64) {
        self.tables.clear();
        for (&page, leaves) in &mut self.leaves {
            leaves.retain(|leaf| (page << 12) >> leaf.large != va >> leaf.large);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.leaves.clear();
        self.tables.clear();
    }

    /// A load of control registers (SDM 4.10.4.1).
    pub fn load(&mut self, old: &Regs, new: &Regs, load: Load) {
        let all = match load {
            Load::Cr0 => old.cr0 & PG != new.cr0 & PG,
            Load::Cr4 => (old.cr4 ^ new.cr4) & (PGE | PAE) != 0 || new.cr4 & !old.cr4 & SMEP != 0,
            Load::Cr3 | Load::Efer | Load::Pkru => false,
        };
        if all {
            self.clear();
        } else if load == Load::Cr3 {
            let keeps = new.cr4 & PGE != 0;
            self.tables.clear();
            for leaves in self.leaves.values_mut() {
                leaves.retain(|leaf| keeps && leaf.global);
            }
        }
    }
}
