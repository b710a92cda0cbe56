//! The hidden parts of data segment registers, for the time when a world is not in the CPU.
//!
//! A segment register keeps the descriptor it was loaded from, whatever becomes of the table's entry (SDM 3A 3.4.3). The CPU does
//! that by itself while a world is resident, but it has no way to read the hidden part out. So when an entry is replaced that
//! a register was loaded from, the old descriptor is kept here, and the register is loaded from that when the world comes back.
//!
//! The guest may load the register anew meanwhile, natively. The accessed bit tells: a replacement is written without it, and the
//! CPU sets it at the next load. It does not tell which register that was, so the monitor makes no entry live that differs from what a
//! register has kept of it ([`World::keeps_other`](super::World::keeps_other)), and the host's own loads leave the bit as it was.

use super::Table;
use super::segment::{DATA, SegReg, place};

/// Type bit 0 of a code or data descriptor.
const ACCESSED: u64 = 1 << 40;
/// Type bits of a code descriptor.
const READABLE: u64 = 1 << 41;
const CODE: u64 = 1 << 43;

/// For each data segment register, the descriptor it holds although the table has another by now.
#[derive(Clone, Copy, Default)]
pub(crate) struct Hidden([Kept; 6]);

#[derive(Clone, Copy, Default)]
struct Kept {
    /// 0: nothing kept, the table's entry is what the register holds.
    raw: u64,
    selector: u16,
}

impl Hidden {
    /// The entry at `at`, now `old`, is about to become `new`, while the registers hold `selectors`. Gives what to write.
    pub(super) fn replaced(&mut self, selectors: &[u16; 6], at: (Table, u16), old: u64, new: u64) -> u64 {
        let mut kept = false;
        for reg in DATA {
            let selector = selectors[reg as usize];
            if selector & !3 == 0 || place(selector) != at {
                continue;
            }
            if self.of(reg, selector, old).is_none() && old != 0 {
                self.0[reg as usize] = Kept { raw: old, selector };
            }
            kept |= self.0[reg as usize].raw != 0;
        }
        if kept { new & !ACCESSED } else { new }
    }

    /// The descriptor that `reg`, holding `selector`, has instead of the table's entry `now`.
    pub(super) fn of(&self, reg: SegReg, selector: u16, now: u64) -> Option<u64> {
        let kept = &self.0[reg as usize];
        // A code segment that cannot be read is no data segment's, so its accessed bit tells of CS.
        let loadable = now & (CODE | READABLE) != CODE;
        (kept.raw != 0 && kept.selector == selector && (now & ACCESSED == 0 || !loadable)).then_some(kept.raw)
    }

    /// Whether any register of those that hold `selectors` was loaded from the entry at `at`, which is `now`, when that was not `new`.
    pub(super) fn differs(&self, selectors: &[u16; 6], at: (Table, u16), now: u64, new: u64) -> bool {
        let held = DATA.into_iter().map(|reg| (reg, selectors[reg as usize]));
        let mut loaded = held.filter(|(_, selector)| selector & !3 != 0 && place(*selector) == at);
        loaded.any(|(reg, selector)| self.of(reg, selector, now).is_some_and(|kept| (kept ^ new) & !ACCESSED != 0))
    }

    /// Whether nothing was ever kept for `reg` since it was loaded through here.
    #[inline]
    pub(super) fn is_empty(&self, reg: SegReg) -> bool {
        self.0[reg as usize].raw == 0
    }

    /// `reg` was loaded from the tables as they are.
    pub(super) fn loaded(&mut self, reg: SegReg) {
        self.0[reg as usize] = Kept::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: (Table, u16) = (Table::Gdt, 2);
    const SELECTOR: u16 = 0x11;
    /// Two data descriptors, accessed.
    const ONE: u64 = 0x00cf_b300_0000_ffff;
    const TWO: u64 = 0x00cf_b300_1000_ffff;

    fn selectors(ds: u16) -> [u16; 6] {
        let mut all = [0; 6];
        all[SegReg::Ds as usize] = ds;
        all
    }

    #[test]
    fn a_register_keeps_what_the_table_loses() {
        let mut hidden = Hidden::default();
        assert_eq!(hidden.replaced(&selectors(SELECTOR), AT, ONE, 0), 0);
        assert_eq!(hidden.of(SegReg::Ds, SELECTOR, 0), Some(ONE));
        assert_eq!(hidden.of(SegReg::Es, SELECTOR, 0), None);
        assert_eq!(hidden.of(SegReg::Ds, 0x19, 0), None, "another selector by now");
        assert_eq!(hidden.replaced(&selectors(SELECTOR), AT, 0, TWO), TWO & !ACCESSED);
        assert_eq!(hidden.of(SegReg::Ds, SELECTOR, TWO & !ACCESSED), Some(ONE), "not loaded since");
        assert_eq!(hidden.of(SegReg::Ds, SELECTOR, TWO), None, "the CPU loaded the new one");
    }

    #[test]
    fn a_new_load_is_what_the_next_replacement_keeps() {
        let mut hidden = Hidden::default();
        hidden.replaced(&selectors(SELECTOR), AT, ONE, TWO);
        hidden.replaced(&selectors(SELECTOR), AT, TWO & !ACCESSED, 0);
        assert_eq!(hidden.of(SegReg::Ds, SELECTOR, 0), Some(ONE));
        hidden.replaced(&selectors(SELECTOR), AT, 0, TWO);
        hidden.replaced(&selectors(SELECTOR), AT, TWO, 0);
        assert_eq!(hidden.of(SegReg::Ds, SELECTOR, 0), Some(TWO));
        hidden.loaded(SegReg::Ds);
        assert_eq!(hidden.of(SegReg::Ds, SELECTOR, 0), None);
    }

    #[test]
    fn a_register_may_hold_what_the_table_said_before() {
        let mut hidden = Hidden::default();
        assert!(!hidden.differs(&selectors(SELECTOR), AT, 0, ONE), "nothing is kept");
        hidden.replaced(&selectors(SELECTOR), AT, ONE, 0);
        assert!(!hidden.differs(&selectors(SELECTOR), AT, 0, ONE & !ACCESSED), "the same again");
        assert!(hidden.differs(&selectors(SELECTOR), AT, 0, TWO));
        assert!(!hidden.differs(&selectors(0x19), AT, 0, TWO), "another selector by now");
        hidden.loaded(SegReg::Ds);
        assert!(!hidden.differs(&selectors(SELECTOR), AT, 0, TWO));
    }

    #[test]
    fn other_entries_and_null_selectors_keep_nothing() {
        let mut hidden = Hidden::default();
        assert_eq!(hidden.replaced(&selectors(SELECTOR), (Table::Ldt, 2), ONE, TWO), TWO);
        assert_eq!(hidden.replaced(&selectors(SELECTOR), (Table::Gdt, 3), ONE, TWO), TWO);
        assert_eq!(hidden.replaced(&selectors(1), (Table::Gdt, 0), ONE, TWO), TWO);
        assert_eq!(hidden.of(SegReg::Ds, SELECTOR, 0), None);
    }
}
