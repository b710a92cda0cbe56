//! The last gate of paging: shadow and second-level tables in real frames. Every store is checked by the rules in `gate` against the owners of
//! the frames, so that a bug in safe code cannot map the host's or another guest's memory.

use crate::frames::{self, VmId};
use crate::gate::Kind;
use crate::{cpu, features, gate, paging, phys};
use core::marker::PhantomData;
use shadow_mmu::{Pfn, Refused, Spte, TableMem};

pub use crate::gate::{Nested, Shadow};

/// The tables of one machine that are of one kind.
#[derive(Debug)]
pub struct Tables<K> {
    vm: VmId,
    kind: PhantomData<K>,
}

/// The shadow tables of one machine: frames that belong to `Table(vm)`.
pub type HostTables = Tables<Shadow>;
/// The second-level tables of one machine: frames that belong to `Nested(vm)`.
pub type NestedTables = Tables<Nested>;

impl<K> Tables<K> {
    /// The tables of `vm`.
    #[must_use]
    pub const fn new(vm: VmId) -> Self {
        Self { vm, kind: PhantomData }
    }
}

#[allow(private_bounds, reason = "the two kinds are all there are")]
impl<K: Kind> Tables<K> {
    fn is_mine(&self, table: Pfn) -> bool {
        frames::with(|frames| gate::is_table::<K>(frames, self.vm, table.raw()))
    }

    /// Zeroes all entries but the window of a root, and takes them off the counts.
    fn zero(&self, table: Pfn) {
        let root = frames::with(|frames| gate::is_root::<K>(frames, self.vm, table.raw()));
        for index in (0..gate::ENTRIES).filter(|index| !(root && K::WINDOW.contains(index))) {
            let raw = load(table, index);
            if raw != 0 {
                frames::with(|frames| gate::dropped::<K>(frames, table.raw(), raw));
                store(table, index, 0);
            }
        }
    }
}

#[allow(private_bounds, reason = "the two kinds are all there are")]
impl<K: Kind> TableMem for Tables<K> {
    #[inline]
    fn load(&self, table: Pfn, index: usize) -> Spte {
        if index < gate::ENTRIES && self.is_mine(table) { Spte::from_raw(load(table, index)) } else { Spte::ABSENT }
    }

    #[inline]
    fn store(&mut self, table: Pfn, index: usize, spte: Spte) -> Result<(), Refused> {
        if spte.is_gap() && !features::reserves_address_bits() {
            return Err(Refused);
        }
        frames::with(|frames| {
            let old = || load(table, index);
            gate::store::<K>(frames, self.vm, (table.raw(), index), old, spte.raw(), is_empty)
        })?;
        store(table, index, spte.raw());
        Ok(())
    }

    #[inline]
    fn take(&mut self, table: Pfn, index: usize) -> Result<Spte, Refused> {
        let mut was = 0;
        frames::with(|frames| {
            let old = || {
                was = load(table, index);
                was
            };
            gate::store::<K>(frames, self.vm, (table.raw(), index), old, 0, is_empty)
        })?;
        store(table, index, 0);
        Ok(Spte::from_raw(was))
    }

    fn clear(&mut self, table: Pfn) {
        if self.is_mine(table) {
            self.zero(table);
            frames::with(|frames| gate::cleared(frames, table.raw()));
        }
    }

    fn make_root(&mut self, table: Pfn) -> Result<(), Refused> {
        frames::with(|frames| gate::can_be_root::<K>(frames, self.vm, table.raw()))?;
        self.clear(table);
        // I11: the hypervisor's window is in the root before the root can be loaded.
        for index in K::WINDOW {
            store(table, index, paging::window_entry(index));
        }
        frames::with(|frames| gate::set_level(frames, table.raw(), gate::ROOT));
        Ok(())
    }

    fn retire_root(&mut self, table: Pfn) -> Result<(), Refused> {
        if !frames::with(|frames| gate::is_root::<K>(frames, self.vm, table.raw())) {
            return Err(Refused);
        }
        // The CPU must not stand on a root whose window goes away.
        cpu::leave_root(table);
        self.zero(table);
        for index in K::WINDOW {
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
