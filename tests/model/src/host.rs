//! The host below the library: guest memory scattered over host frames, some of it away, and frames for shadow tables.

use std::cell::{Cell, RefCell};

use shadow_mmu::{CmpxchgError, Gfn, GfnKind, Gpa, GuestMem, Pfn, Refused, Spte, TableMem};

use crate::ram::{BLOCK, MMIO, RAM, ROM, Ram};

/// Guest memory as the library sees it.
#[derive(Debug)]
pub struct Memory {
    /// The bytes.
    pub ram: Ram,
    /// Where each frame is, if it is resident: those of low memory, then those of the block.
    places: Vec<Cell<Option<u64>>>,
    /// Host frames that no guest frame has now, the one that rested longest first.
    spare: RefCell<Vec<u64>>,
    /// How often a frame of the block came back.
    returns: Cell<u64>,
}

/// Host frames for guest memory begin here, and are never neighbours. But for the block.
const FIRST_PLACE: u64 = 0x4000;
/// The block lies here in one piece at first, so that one entry can map it.
const BLOCK_PLACE: u64 = 0x8000;
/// Frames with memory below the block.
const LOW_MEMORY: u64 = ROM + 1;

/// The place of a frame in the list.
fn index_of(gfn: u64) -> usize {
    match gfn {
        0..LOW_MEMORY => gfn as usize,
        _ if BLOCK.contains(&gfn) => (LOW_MEMORY + gfn - BLOCK.start) as usize,
        _ => usize::MAX,
    }
}

impl Default for Memory {
    fn default() -> Self {
        let mut pfns: Vec<u64> = (0..RAM + 9).map(|n| FIRST_PLACE + n * 37 % 127 * 3).collect();
        let spare = pfns.split_off(RAM as usize + 1);
        pfns.extend(BLOCK_PLACE..BLOCK_PLACE + (BLOCK.end - BLOCK.start));
        let places = pfns.into_iter().map(|pfn| Cell::new(Some(pfn))).collect();
        Self { ram: Ram::default(), places, spare: RefCell::new(spare), returns: Cell::new(0) }
    }
}

impl Memory {
    /// The guest frame that lies in a host frame now.
    #[must_use]
    pub fn gfn_at(&self, pfn: Pfn) -> Option<u64> {
        let home = pfn.raw().wrapping_sub(BLOCK_PLACE).wrapping_add(BLOCK.start);
        if BLOCK.contains(&home) && self.places[index_of(home)].get() == Some(pfn.raw()) {
            return Some(home);
        }
        let found = self.places.iter().position(|place| place.get() == Some(pfn.raw()))? as u64;
        Some(if found < LOW_MEMORY { found } else { found - LOW_MEMORY + BLOCK.start })
    }

    /// Is a frame in host memory?
    #[must_use]
    pub fn is_resident(&self, gfn: u64) -> bool {
        self.places.get(index_of(gfn)).is_none_or(|place| place.get().is_some())
    }

    /// The frame leaves host memory. Its bytes are kept, but nobody can get at them.
    pub fn page_out(&self, gfn: u64) {
        if let Some(pfn) = self.places.get(index_of(gfn)).and_then(|place| place.replace(None)) {
            self.spare.borrow_mut().push(pfn);
        }
    }

    /// The frame comes back, in another place than before; one of the block now and then where it was.
    pub fn page_in(&self, gfn: u64) {
        if let Some(place) = self.places.get(index_of(gfn))
            && place.get().is_none()
            && !self.spare.borrow().is_empty()
        {
            let mut spare = self.spare.borrow_mut();
            let home = spare.iter().position(|&pfn| BLOCK.contains(&gfn) && pfn == BLOCK_PLACE + gfn - BLOCK.start);
            self.returns.set(self.returns.get() + 1);
            let at = home.filter(|_| !self.returns.get().is_multiple_of(3)).unwrap_or(0);
            place.set(Some(spare.remove(at)));
        }
    }

    /// How many frames can be away at once: there is always a spare one to come back to.
    #[must_use]
    pub fn resident(&self) -> usize {
        self.places.iter().filter(|place| place.get().is_some()).count()
    }

    fn usable(&self, gpa: Gpa) -> bool {
        self.is_resident(gpa.gfn().raw())
    }

    fn cmpxchg(&self, gpa: Gpa, size: u64, old: u64, new: u64) -> Result<(), CmpxchgError> {
        if !self.usable(gpa) || !self.ram.is_ram(gpa.raw()) {
            return Err(CmpxchgError::NoMemory);
        }
        if self.ram.read(gpa.raw(), size) != Some(old) {
            return Err(CmpxchgError::Changed);
        }
        self.ram.write(gpa.raw(), &new.to_le_bytes()[..size as usize]);
        Ok(())
    }
}

impl GuestMem for Memory {
    fn kind(&self, gfn: Gfn) -> GfnKind {
        let gfn = gfn.raw();
        match self.places.get(index_of(gfn)).map(Cell::get) {
            _ if gfn == MMIO => GfnKind::Mmio,
            Some(None) => GfnKind::NotResident,
            Some(Some(pfn)) if gfn == ROM => GfnKind::Rom(Pfn::new(pfn)),
            Some(Some(pfn)) => GfnKind::Ram(Pfn::new(pfn)),
            None => GfnKind::Hole,
        }
    }

    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        self.usable(gpa).then(|| self.ram.read(gpa.raw(), 4)).flatten().map(|entry| entry as u32)
    }

    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        self.usable(gpa).then(|| self.ram.read(gpa.raw(), 8)).flatten()
    }

    fn cmpxchg_u32(&self, gpa: Gpa, old: u32, new: u32) -> Result<(), CmpxchgError> {
        self.cmpxchg(gpa, 4, old.into(), new.into())
    }

    fn cmpxchg_u64(&self, gpa: Gpa, old: u64, new: u64) -> Result<(), CmpxchgError> {
        self.cmpxchg(gpa, 8, old, new)
    }
}

/// Frames for shadow tables, each with the mark that it is a root. A last gate of its own: it refuses what no kernel would allow.
#[derive(Debug)]
pub struct Tables(Vec<(Box<[Spte; 512]>, bool)>);

/// What the hypervisor's window looks like in a root.
const WINDOW_ENTRY: Spte = Spte::from_raw(0x7777_0003);
/// PML4 entries of the hypervisor's window.
const WINDOW: core::ops::Range<usize> = shadow_mmu::WINDOW;

const FIRST_TABLE: u64 = 0x100;

impl Tables {
    /// Frames for a pool.
    #[must_use]
    pub fn frames(count: u64) -> Vec<Pfn> {
        (0..count).map(|n| Pfn::new(FIRST_TABLE + n * 5)).collect()
    }

    /// The memory of those frames, full of dirt.
    #[must_use]
    pub fn new(count: u64) -> Self {
        let dirt = Box::new([Spte::from_raw(0xdead_b001); 512]);
        Self((0..count).map(|_| (dirt.clone(), false)).collect())
    }

    fn place(&self, table: Pfn) -> Option<usize> {
        let n = table.raw().checked_sub(FIRST_TABLE)?;
        (n % 5 == 0 && n / 5 < self.0.len() as u64).then_some(n as usize / 5)
    }

    fn table(&mut self, table: Pfn) -> Result<&mut (Box<[Spte; 512]>, bool), Refused> {
        let place = self.place(table).ok_or(Refused)?;
        Ok(&mut self.0[place])
    }
}

impl TableMem for Tables {
    fn load(&self, table: Pfn, index: usize) -> Spte {
        self.0[self.place(table).expect("a table's frame")].0[index]
    }

    fn store(&mut self, table: Pfn, index: usize, spte: Spte) -> Result<(), Refused> {
        let to = spte.pfn();
        let named = !spte.is_large() && self.place(to).is_some();
        let foreign = spte.present() && to.raw() < FIRST_PLACE && !named;
        let foreign = foreign || spte.is_large() && !to.raw().is_multiple_of(512);
        let (entries, root) = self.table(table)?;
        if foreign || *root && WINDOW.contains(&index) {
            return Err(Refused);
        }
        entries[index] = spte;
        Ok(())
    }

    fn clear(&mut self, table: Pfn) {
        let (entries, root) = self.table(table).expect("a table's frame");
        for (index, entry) in entries.iter_mut().enumerate() {
            if !(*root && WINDOW.contains(&index)) {
                *entry = Spte::ABSENT;
            }
        }
    }

    fn make_root(&mut self, table: Pfn) -> Result<(), Refused> {
        let (entries, root) = self.table(table)?;
        entries.fill(Spte::ABSENT);
        entries[WINDOW].fill(WINDOW_ENTRY);
        *root = true;
        Ok(())
    }

    fn retire_root(&mut self, table: Pfn) -> Result<(), Refused> {
        let (entries, root) = self.table(table)?;
        entries.fill(Spte::ABSENT);
        *root = false;
        Ok(())
    }
}
