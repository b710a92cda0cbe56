//! How a CPU reads second-level tables, written from the manuals and without the library's decoders.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::{AccessKind, Pfn, Spte};

/// What an access to a guest-physical address ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// Host frame, and whether writes pass.
    Page(u64, bool),
    /// EPT violation, nested page fault.
    Violation,
}

/// A format as a CPU knows it.
pub(super) trait Walker {
    /// Panics if the CPU would report a misconfiguration or a reserved bit. Sets A and D like the CPU if the entry is used.
    fn step(raw: u64, level: u8, write: bool) -> Step;
    fn set(raw: u64, write: bool, leaf: bool) -> u64;
}

pub(super) enum Step {
    Absent,
    Next(u64),
    Leaf(u64, bool),
}

const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// SDM 3C: EPT misconfigurations are W without R, X without R here (execute-only is optional), a reserved memory type, and
/// reserved bits: 7:3 of an entry that names a table, 20:12 of a 2 MiB leaf.
impl Walker for crate::second::Ept {
    fn step(raw: u64, level: u8, _: bool) -> Step {
        if raw & 7 == 0 {
            return Step::Absent;
        }
        assert!(raw & 1 != 0, "not readable: {raw:#x}");
        assert_eq!(raw >> 52, 0);
        if level > 1 && raw & 0x80 == 0 {
            assert_eq!(raw & 0xf8, 0, "reserved bits in a link: {raw:#x}");
            assert_eq!(raw & 7, 7);
            return Step::Next((raw & FRAME) >> 12);
        }
        assert!(level < 3, "a leaf too high");
        assert_eq!(raw >> 3 & 7, 6, "write-back");
        assert!(level == 1 || raw >> 12 & 511 == 0, "misaligned: {raw:#x}");
        Step::Leaf((raw & FRAME) >> 12, raw & 2 != 0)
    }

    fn set(raw: u64, write: bool, leaf: bool) -> u64 {
        raw | 1 << 8 | if write && leaf { 1 << 9 } else { 0 }
    }
}

/// APM 2, 15.25.5: a nested access counts as the user's.
impl Walker for crate::second::Npt {
    fn step(raw: u64, level: u8, _: bool) -> Step {
        if raw & 1 == 0 {
            return Step::Absent;
        }
        assert!(raw & 4 != 0, "not the user's: {raw:#x}");
        assert_eq!(raw >> 52, 0, "NX or a protection key: {raw:#x}");
        assert_eq!(raw & 0x18, 0, "not write-back: {raw:#x}");
        if level > 1 && raw & 0x80 == 0 {
            assert!(raw & 2 != 0);
            return Step::Next((raw & FRAME) >> 12);
        }
        assert!(level < 3, "a leaf too high");
        assert!(level == 1 || raw >> 12 & 511 == 0, "misaligned: {raw:#x}");
        assert!(level > 1 || raw & 0x80 == 0, "PAT bit: {raw:#x}");
        Step::Leaf((raw & FRAME) >> 12, raw & 2 != 0)
    }

    fn set(raw: u64, write: bool, leaf: bool) -> u64 {
        raw | 1 << 5 | if write && leaf { 1 << 6 } else { 0 }
    }
}

/// A cached translation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cached {
    pub(super) gfn: u64,
    pub(super) pfn: u64,
    pub(super) writable: bool,
    pub(super) dirty: bool,
}

/// A CPU that remembers everything it walked until it is told to forget everything.
#[derive(Debug, Default)]
pub(super) struct Cpu {
    pub(super) tlb: RefCell<Vec<Cached>>,
    /// Tables below the root, by level and region, as the paging-structure caches may keep them.
    tables: RefCell<HashMap<(u8, u64), Pfn>>,
}

/// Which region of its level the table is for that an address goes through.
fn region(gfn: u64, level: u8) -> u64 {
    gfn >> (9 * u32::from(level))
}

impl Cpu {
    pub(super) fn flush(&self) {
        self.tlb.borrow_mut().clear();
        self.tables.borrow_mut().clear();
    }

    /// One access, first by the TLB, then by a walk with `load` and `store`.
    pub(super) fn access<W: Walker>(
        &self,
        gfn: u64,
        kind: AccessKind,
        root: Pfn,
        tables: &RefCell<super::machine::Store>,
    ) -> Walked {
        let write = kind == AccessKind::Write;
        let cached = self.tlb.borrow().iter().rev().find(|c| c.gfn == gfn).copied();
        if let Some(cached) = cached.filter(|c| !write || (c.writable && c.dirty)) {
            return Walked::Page(cached.pfn, cached.writable);
        }
        let walked = self.walk::<W>((gfn, write), root, tables);
        if walked == Walked::Violation {
            // It drops what was used for the address (SDM 3C 28.3.3.1, of EPT violations).
            self.tables.borrow_mut().retain(|&(level, other), _| other != region(gfn, level));
        }
        walked
    }

    fn walk<W: Walker>(&self, (gfn, write): (u64, bool), root: Pfn, tables: &RefCell<super::machine::Store>) -> Walked {
        let known = |level| Some((*self.tables.borrow().get(&(level, region(gfn, level)))?, level));
        let (mut table, mut level) = (1..4).find_map(known).unwrap_or((root, 4));
        loop {
            let slot = (gfn >> (9 * (u32::from(level) - 1)) & 511) as usize;
            let raw = tables.borrow().load(table, slot).raw();
            let (leaf, pass) = match W::step(raw, level, write) {
                Step::Absent => return Walked::Violation,
                Step::Next(_) => (None, true),
                Step::Leaf(pfn, writable) => (Some((pfn, writable)), !write || writable),
            };
            if !pass {
                return Walked::Violation;
            }
            tables.borrow_mut().poke(table, slot, Spte::from_raw(W::set(raw, write, leaf.is_some())));
            match (W::step(raw, level, write), leaf) {
                (_, Some((pfn, writable))) => {
                    let pfn = if level == 2 { pfn + (gfn & 511) } else { pfn };
                    self.tlb.borrow_mut().push(Cached { gfn, pfn, writable, dirty: write });
                    return Walked::Page(pfn, writable);
                }
                (Step::Next(next), None) => {
                    (table, level) = (Pfn::new(next), level - 1);
                    self.tables.borrow_mut().insert((level, region(gfn, level)), table);
                }
                _ => return Walked::Violation,
            }
        }
    }
}
