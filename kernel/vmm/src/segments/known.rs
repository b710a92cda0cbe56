//! Descriptors that need not be read: a live entry is what the guest's table says (invariant K6), unless a page of descriptors is
//! open for writes.

use gnomon_hw::SegReg;

use super::loaded::set_real_selector;
use super::table_of;
use crate::vcpu::{Descriptor, Selector};
use crate::vm::Vm;

impl Vm {
    /// What the guest's table holds for a selector, but for its accessed bit, which is set, and L, which is not. `None`: it must be
    /// read.
    #[inline]
    pub(crate) fn known_descriptor(&self, selector: Selector) -> Option<Descriptor> {
        if self.live.any_open {
            return None;
        }
        let (table, index) = (table_of(selector), selector.index());
        let entry = self.live.entries.iter().find(|entry| entry.index == index && entry.table == table)?;
        Some(entry.live.to_guest())
    }

    /// Loads CS or SS with a known descriptor of privilege level `cpl`, 0 or 3; the CPU finds it in the live table.
    #[inline]
    pub(crate) fn load_known(&mut self, reg: SegReg, selector: Selector, cpl: u8) {
        set_real_selector(&mut self.world, reg, selector.with_rpl(if cpl == 0 { 1 } else { 3 }));
    }
}
