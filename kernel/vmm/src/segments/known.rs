//! Descriptors that need not be read: a live entry is what the guest's table says (invariant K6), unless a page of descriptors is
//! open for writes.

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
        let entry =
            self.live.entries.iter().find(|entry| entry.index == index && entry.table == table && !entry.suspended)?;
        Some(entry.live.to_guest())
    }
}
