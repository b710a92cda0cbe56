//! The guest's descriptor tables and their live images.
//!
//! The CPU runs the guest on *live* tables owned by `gnomon-hw`. An entry of the guest's GDT or LDT is installed there when a load
//! of it first faults: privilege level 0 becomes 1, code loses L, system descriptors never go in. From then on loads are native.
//! The page that holds the entry is watched like a page table. The first write to it *opens* the page: the guest may write freely,
//! and its entries are suspended. The next load that misses a suspended entry, or the next event or return, closes the page again
//! and compares. So a kernel that keeps data beside its GDT pays two exits for a change of habit, not one for every write.
//!
//! Two rules keep it exact:
//! * While the guest kernel runs, entries that lead to user code are live but not present, so that every return to user mode traps.
//! * The CPU reloads CS and SS from the live table at each entry. When the entry they came from goes away, they move to a *cache
//!   slot* that holds what was loaded, as the hidden part of a segment register does (SDM 3A 3.4.3).

mod complete;
mod flat;
mod hardware;
mod known;
mod loaded;
mod pages;

use alloc::vec::Vec;
use gnomon_hw::{SegReg, Table, World};
use shadow_mmu::{Gfn, Privilege};

use crate::trap::Emulated;
use crate::vcpu::{Descriptor, Selector};
use crate::vm::Vm;

/// Entries that can be live at a time, and pages watched for them: what a guest can make the host remember is bounded, and the
/// room is taken when the VM is built.
const MAX_ENTRIES: usize = 256;
const MAX_WATCHED: usize = 64;

/// What is installed in the live tables, and which frames are watched for it.
pub(crate) struct LiveTables {
    entries: Vec<Entry>,
    watched: Vec<Watched>,
    /// Whether any watched page is open.
    any_open: bool,
    /// Whether what user code may look at is live, see `complete.rs`.
    complete: bool,
    /// Whether user code descriptors are present: true while the guest's user code runs.
    user_open: bool,
    /// Visible CS and SS while the real ones name cache slots.
    cached: [Option<Cached>; 2],
    /// Segment registers known to be flat.
    flat: flat::Flat,
}

impl LiveTables {
    /// Nothing live, and room for all there can be.
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::with_capacity(MAX_ENTRIES),
            watched: Vec::with_capacity(MAX_WATCHED),
            any_open: false,
            complete: false,
            user_open: false,
            cached: [None; 2],
            flat: flat::Flat::NONE,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    table: Table,
    index: u16,
    live: Descriptor,
    leads_to_user: bool,
    /// Taken out of the live table while its page is open.
    suspended: bool,
}

#[derive(Clone, Copy)]
struct Watched {
    page: u32,
    gfn: Gfn,
    /// The guest may write the page at the moment.
    open: bool,
}

#[derive(Clone, Copy)]
struct Cached {
    visible: Selector,
    slot: Selector,
}

/// What looking up a selector's live entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// The live entry changed: the load that faulted may be tried again.
    Changed,
    /// Nothing to change: the fault is the guest's, or the instruction needs emulation.
    Same,
}

const fn table_of(selector: Selector) -> Table {
    if selector.is_local() { Table::Ldt } else { Table::Gdt }
}

/// Entries of a live table that are the guest's.
const fn guest_entries(table: Table) -> u16 {
    match table {
        Table::Gdt => World::GDT_GUEST_ENTRIES,
        Table::Ldt => World::LDT_ENTRIES,
    }
}

const fn cache_index(reg: SegReg) -> usize {
    matches!(reg, SegReg::Ss) as usize
}

impl Vm {
    /// Linear address of a selector's descriptor in the guest's tables, or `None` if it lies beyond the limit.
    fn descriptor_address(&self, table: Table, index: u16) -> Option<u32> {
        let offset = u32::from(index) * 8;
        let (base, limit) = match table {
            Table::Gdt => (self.vcpu.gdtr.base, u32::from(self.vcpu.gdtr.limit)),
            Table::Ldt if self.vcpu.ldtr.usable => (self.vcpu.ldtr.base, self.vcpu.ldtr.limit),
            Table::Ldt => return None,
        };
        (offset + 7 <= limit).then(|| base.wrapping_add(offset))
    }

    /// The descriptor that a selector names in the guest's tables; `None` if null or beyond the limit.
    ///
    /// # Errors
    /// A page fault on the table.
    pub(crate) fn read_descriptor(&mut self, selector: Selector) -> Emulated<Option<Descriptor>> {
        if selector.is_null() {
            return Ok(None);
        }
        let Some(address) = self.descriptor_address(table_of(selector), selector.index()) else { return Ok(None) };
        Ok(Some(Descriptor(self.read_u64(address, Privilege::Supervisor)?)))
    }

    /// Writes the high half of a descriptor back (accessed and busy bits).
    pub(crate) fn write_descriptor_type(&mut self, selector: Selector, descriptor: Descriptor) -> Emulated<()> {
        let Some(address) = self.descriptor_address(table_of(selector), selector.index()) else { return Ok(()) };
        let type_byte = (descriptor.0 >> 40) as u8;
        self.write_linear(address.wrapping_add(5), &[type_byte], Privilege::Supervisor)
    }

    /// Whether the live table has an entry for this selector.
    #[must_use]
    pub(crate) fn is_live(&self, selector: Selector) -> bool {
        let (table, index) = (table_of(selector), selector.index());
        self.live.entries.iter().any(|entry| entry.index == index && entry.table == table && !entry.suspended)
    }

    /// Brings the live entry of a selector in line with the guest's table.
    ///
    /// # Errors
    /// A page fault on the table.
    pub(crate) fn sync_selector(&mut self, selector: Selector) -> Emulated<Sync> {
        if self.settle_descriptors() && self.is_live(selector) {
            return Ok(Sync::Changed);
        }
        match self.read_descriptor(selector)? {
            Some(raw) => self.install(selector, raw),
            None => Ok(Sync::Same),
        }
    }

    /// Installs the descriptor that the guest's table holds for a selector.
    fn install(&mut self, selector: Selector, raw: Descriptor) -> Emulated<Sync> {
        let (table, index) = (table_of(selector), selector.index());
        let Some(live) = raw.to_live() else { return Ok(Sync::Same) };
        if !raw.present() || index >= guest_entries(table) {
            return Ok(Sync::Same);
        }
        let known = self.live.entries.iter().position(|e| e.index == index && e.table == table && e.live == live);
        if let Some(known) = known {
            return Ok(self.resume_entry(known));
        }
        if self.live.entries.len() >= MAX_ENTRIES || self.live.watched.len() + 2 > MAX_WATCHED {
            self.make_room();
            // What makes room may have installed this very entry.
            return self.install(selector, raw);
        }
        if !raw.is_accessed() {
            self.write_descriptor_type(selector, raw.accessed())?;
        }
        self.remove_entry(table, index);
        self.watch_descriptor(table, index);
        self.live.entries.push(Entry { table, index, live, leads_to_user: raw.leads_to_user(), suspended: true });
        Ok(self.resume_entry(self.live.entries.len().saturating_sub(1)))
    }

    /// Makes a suspended entry live that is what the guest's table says. While a data segment register holds what the table said before,
    /// it stays suspended: by the selector nobody could tell afterwards which register was loaded anew.
    fn resume_entry(&mut self, at: usize) -> Sync {
        match self.live.entries.get_mut(at) {
            Some(entry) if entry.suspended && !self.world.keeps_other((entry.table, entry.index), entry.live.0) => {
                entry.suspended = false;
                let entry = *entry;
                self.put_live(entry);
                Sync::Changed
            }
            _ => Sync::Same,
        }
    }

    fn put_live(&mut self, entry: Entry) {
        self.forget_flat();
        self.show_live(entry);
    }

    /// Puts an entry as it must look on the present privilege level. The gate refuses only what `to_live` never makes; a refusal leaves
    /// the entry as it was.
    fn show_live(&mut self, entry: Entry) {
        if entry.suspended {
            return;
        }
        let raw = match (entry.leads_to_user, self.live.user_open) {
            (true, false) => entry.live.hidden(),
            (true, true) => entry.live,
            (false, _) => self.code.windowed(entry.live),
        };
        let _ = self.world.set_descriptor(entry.table, entry.index, raw.0);
    }

    fn clear_live(&mut self, table: Table, index: u16) {
        self.forget_flat();
        let _ = self.world.set_descriptor(table, index, 0);
    }

    /// Takes an entry out of the live tables; registers that hold it keep what they have.
    fn remove_entry(&mut self, table: Table, index: u16) {
        let Some(at) = self.live.entries.iter().position(|e| e.table == table && e.index == index) else { return };
        let entry = self.live.entries.swap_remove(at);
        self.cache_if_loaded(SegReg::Cs, entry);
        self.cache_if_loaded(SegReg::Ss, entry);
        self.clear_live(table, index);
    }

    /// Shows user code descriptors to the CPU, or hides them: called when the virtual privilege level changes. Of shadow code no return
    /// runs unseen, so there they stay.
    #[inline]
    pub(crate) fn open_user(&mut self, open: bool) {
        if open && !self.live.complete {
            self.complete_live();
        }
        let open = open || self.code.is_on();
        if self.live.user_open == open {
            return;
        }
        self.change_user(open);
    }

    #[inline(never)] // out of the way of guests on shadow code
    fn change_user(&mut self, open: bool) {
        self.live.user_open = open;
        for at in 0..self.live.entries.len() {
            if let Some(&entry) = self.live.entries.get(at)
                && entry.leads_to_user
            {
                self.show_live(entry);
            }
        }
    }
}
