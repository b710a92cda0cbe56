//! The last gate of paging: shadow tables in real frames. Every store is checked by the rules in `gate` against the owners of
//! the frames, so that a bug in safe code cannot map the host's or another guest's memory.

use crate::frames::{self, VmId};
use crate::{cpu, gate, paging, phys};
use shadow_mmu::{Pfn, Refused, Spte, TableMem};

/// The shadow tables of one machine.
#[derive(Debug)]
pub struct HostTables {
    vm: VmId,
}

impl HostTables {
    /// The tables made of the frames that belong to `Table(vm)`.
    #[must_use]
    pub const fn new(vm: VmId) -> Self {
        Self { vm }
    }

    fn entries(&self, table: Pfn) -> Option<usize> {
        frames::with(|frames| gate::usable_entries(frames, self.vm, table.raw()))
    }

    /// Zeroes the entries below `count` and takes them off the counts.
    fn zero(&self, table: Pfn, count: usize) {
        for index in 0..count {
            let raw = load(table, index);
            if raw != 0 {
                // Entries of the window are not counted; they lie above the entries of a root that `count` covers.
                frames::with(|frames| gate::dropped(frames, raw));
                store(table, index, 0);
            }
        }
    }
}

impl TableMem for HostTables {
    #[inline]
    fn load(&self, table: Pfn, index: usize) -> Spte {
        match self.entries(table) {
            Some(_) if index < gate::ENTRIES => Spte::from_raw(load(table, index)),
            _ => Spte::ABSENT,
        }
    }

    #[inline]
    fn store(&mut self, table: Pfn, index: usize, spte: Spte) -> Result<(), Refused> {
        frames::with(|frames| {
            // The old entry may be read before the check only where there is one; the gate refuses the rest.
            let exists = index < gate::ENTRIES && gate::is_table(frames, self.vm, table.raw());
            let old = if exists { load(table, index) } else { 0 };
            gate::store(frames, self.vm, (table.raw(), index), old, spte.raw(), is_empty)
        })?;
        store(table, index, spte.raw());
        Ok(())
    }

    fn clear(&mut self, table: Pfn) {
        if let Some(count) = self.entries(table) {
            self.zero(table, count);
            frames::with(|frames| gate::cleared(frames, table.raw()));
        }
    }

    fn make_root(&mut self, table: Pfn) -> Result<(), Refused> {
        frames::with(|frames| gate::can_be_root(frames, self.vm, table.raw()))?;
        self.clear(table);
        // I11: the hypervisor's window is in the root before the root can be loaded.
        for index in gate::WINDOW_ENTRY..gate::ENTRIES {
            store(table, index, paging::window_entry(index));
        }
        frames::with(|frames| gate::set_level(frames, table.raw(), gate::ROOT));
        Ok(())
    }

    fn retire_root(&mut self, table: Pfn) -> Result<(), Refused> {
        if !frames::with(|frames| gate::is_root(frames, self.vm, table.raw())) {
            return Err(Refused);
        }
        // The CPU must not stand on a root whose window goes away.
        cpu::leave_root(table);
        self.zero(table, gate::WINDOW_ENTRY);
        for index in gate::WINDOW_ENTRY..gate::ENTRIES {
            store(table, index, 0);
        }
        frames::with(|frames| gate::set_level(frames, table.raw(), 0));
        Ok(())
    }
}

fn is_empty(table: u64) -> bool {
    (0..gate::ENTRIES).all(|index| load(Pfn::new(table), index) == 0)
}

#[inline]
fn entry(table: Pfn, index: usize) -> *mut u64 {
    debug_assert!(index < gate::ENTRIES);
    phys::frame::<u64>(table).wrapping_add(index)
}

#[inline]
fn load(table: Pfn, index: usize) -> u64 {
    // SAFETY: callers checked that `table` is a frame of memory and `index` below 512; the window shows it.
    unsafe { entry(table, index).read_volatile() }
}

#[inline]
fn store(table: Pfn, index: usize, raw: u64) {
    // SAFETY: as for `load`, and callers checked the entry by the gate, or write zero or the window's own entry.
    unsafe { entry(table, index).write_volatile(raw) };
}
