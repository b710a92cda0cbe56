//! Descriptors that user code may look at without loading them: LAR, LSL, VERR and VERW do not trap in ring 3, and find what is live.
//! Linux, for one, keeps the number of the CPU in the limit of a segment that nobody loads.
//!
//! So before user code runs, what is meant for it becomes live, as far as its page is watched anyway. Left out are those behind the first
//! few of a table, those that are absent, and those whose accessed bit is clear: to make them live would set it.

use gnomon_hw::Table;

use super::pages::selector_of;
use super::{MAX_ENTRIES, MAX_WATCHED};
use crate::vcpu::Descriptor;
use crate::vm::Vm;

/// So many of each table are looked at. An even number: two are read at a time.
const LOOKED_AT: u16 = 64;

impl Vm {
    /// Makes the descriptors for user code live. If the guest may write them at the moment, that is left to the next time.
    #[cold]
    #[inline(never)]
    pub(crate) fn complete_live(&mut self) {
        if self.live.any_open || self.world.is_hardware() {
            return;
        }
        self.live.complete = true;
        for table in [Table::Gdt, Table::Ldt] {
            for index in (0..LOOKED_AT).step_by(2) {
                let Some(address) = self.descriptor_address(table, index) else { break };
                let Some((first, second)) = self.world.fetch_halves(address) else { continue };
                self.complete_entry(table, index, Descriptor(first));
                self.complete_entry(table, index | 1, Descriptor(second));
            }
        }
    }

    fn complete_entry(&mut self, table: Table, index: u16, raw: Descriptor) {
        if !is_for_user(raw) || self.live.entries.iter().any(|entry| entry.index == index && entry.table == table) {
            return;
        }
        let Some(address) = self.descriptor_address(table, index) else { return };
        let is_watched = self.watches_page(address) && self.watches_page(address.wrapping_add(7));
        // Nothing that is live must go for it.
        let has_room = self.live.entries.len() < MAX_ENTRIES / 2 && self.live.watched.len() < MAX_WATCHED / 2;
        if is_watched && has_room {
            // A descriptor that has no live form stays as it is.
            let _ = self.install(selector_of(table, index), raw);
        }
    }
}

/// Present, of level 3, a segment, and accessed.
fn is_for_user(raw: Descriptor) -> bool {
    raw.present() && raw.dpl() == 3 && raw.is_segment() && raw.is_accessed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_accessed_segments_of_level_3_are_for_the_user() {
        assert!(is_for_user(Descriptor(0x00cf_f300_0000_ffff)));
        for other in [0, 0x00cf_f200_0000_ffff, 0x00cf_7300_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_e900_0000_0067] {
            assert!(!is_for_user(Descriptor(other)), "{other:#x}");
        }
    }
}
