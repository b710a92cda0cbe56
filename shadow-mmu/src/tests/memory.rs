//! Guest memory and table memory as plain arrays.

use std::cell::Cell;

use crate::{CmpxchgError, Gfn, GfnKind, Gpa, GuestMem, Pfn, Refused, Spte, TableMem, WINDOW as WINDOW_SLOTS};

/// Frames of RAM; then one of ROM, one of a device, and nothing.
pub(super) const RAM: u64 = 32;
pub(super) const ROM: u64 = RAM;
pub(super) const MMIO: u64 = RAM + 1;
pub(super) const HOLE: u64 = RAM + 2;
pub(super) const GUEST_FRAMES: u64 = RAM + 3;

/// Scatters guest frames over the host: never contiguous, never where the guest thinks.
pub(super) fn pfn_of(gfn: u64) -> Pfn {
    Pfn::new(0x4000 + gfn * 37 % 127 * 3)
}

pub(super) fn gfn_of(pfn: Pfn) -> Option<u64> {
    (0..=ROM).find(|&gfn| pfn_of(gfn) == pfn)
}

/// Guest memory, one cell for each aligned 32-bit word.
#[derive(Debug)]
pub(super) struct Memory {
    words: Vec<Cell<u32>>,
    /// A frame that is not resident.
    pub(super) absent: Cell<Option<Gfn>>,
    /// Another CPU stores this word there just before the next compare-exchange.
    pub(super) race: Cell<Option<(u64, u32)>>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { words: vec![Cell::new(0); (ROM as usize + 1) * 1024], absent: Cell::new(None), race: Cell::new(None) }
    }

    fn cell(&self, gpa: Gpa) -> Option<&Cell<u32>> {
        self.words.get(usize::try_from(gpa.raw() / 4).ok()?)
    }

    fn let_others_go_first(&self) {
        if let Some((at, word)) = self.race.take() {
            self.store(Gpa::new(at), &word.to_le_bytes());
        }
    }

    pub(super) fn word(&self, gpa: u64) -> u32 {
        self.cell(Gpa::new(gpa)).map_or(0, Cell::get)
    }

    /// Stores bytes as a device or an emulator would; ROM keeps what it has.
    pub(super) fn store(&self, gpa: Gpa, bytes: &[u8]) {
        for (n, &byte) in bytes.iter().enumerate() {
            let at = gpa.add(n as u64);
            if at.gfn().raw() < RAM
                && let Some(cell) = self.cell(at)
            {
                let shift = at.raw() % 4 * 8;
                cell.set(cell.get() & !(0xff << shift) | u32::from(byte) << shift);
            }
        }
    }

    pub(super) fn first_difference(&self, other: &Self) -> Option<(usize, u32, u32)> {
        let pairs = self.words.iter().zip(&other.words).enumerate();
        pairs.map(|(n, (a, b))| (n * 4, a.get(), b.get())).find(|(_, a, b)| a != b)
    }
}

impl GuestMem for Memory {
    fn kind(&self, gfn: Gfn) -> GfnKind {
        match gfn.raw() {
            _ if self.absent.get() == Some(gfn) => GfnKind::NotResident,
            n if n < RAM => GfnKind::Ram(pfn_of(n)),
            ROM => GfnKind::Rom(pfn_of(ROM)),
            MMIO => GfnKind::Mmio,
            _ => GfnKind::Hole,
        }
    }

    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        self.cell(gpa).map(Cell::get)
    }

    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        Some(u64::from(self.read_u32(gpa)?) | u64::from(self.read_u32(gpa.add(4))?) << 32)
    }

    fn cmpxchg_u32(&self, gpa: Gpa, old: u32, new: u32) -> Result<(), CmpxchgError> {
        self.let_others_go_first();
        if gpa.gfn().raw() >= RAM {
            return Err(CmpxchgError::NoMemory);
        }
        let cell = self.cell(gpa).ok_or(CmpxchgError::NoMemory)?;
        if cell.get() != old {
            return Err(CmpxchgError::Changed);
        }
        cell.set(new);
        Ok(())
    }

    fn cmpxchg_u64(&self, gpa: Gpa, old: u64, new: u64) -> Result<(), CmpxchgError> {
        self.let_others_go_first();
        if gpa.gfn().raw() >= RAM {
            return Err(CmpxchgError::NoMemory);
        }
        let (Some(low), Some(high)) = (self.cell(gpa), self.cell(gpa.add(4))) else {
            return Err(CmpxchgError::NoMemory);
        };
        if (low.get(), high.get()) != (old as u32, (old >> 32) as u32) {
            return Err(CmpxchgError::Changed);
        }
        low.set(new as u32);
        high.set((new >> 32) as u32);
        Ok(())
    }
}

/// The last gate of the test machine.
#[derive(Debug)]
pub(super) struct Tables {
    tables: Vec<(Box<[Spte; 512]>, bool)>,
}

/// What the hypervisor's window looks like in a root.
pub(super) const WINDOW: Spte = Spte::from_raw(0x7777_0003);

const FIRST_TABLE: u64 = 0x100;

pub(super) fn table_frames(count: u64) -> Vec<Pfn> {
    (0..count).map(|n| Pfn::new(FIRST_TABLE + n * 5)).collect()
}

impl Tables {
    pub(super) fn new(frames: &[Pfn]) -> Self {
        // Dirty at first: the library must clear what it gets.
        let dirty = Box::new([Spte::from_raw(0xdead_b001); 512]);
        Self { tables: frames.iter().map(|_| (dirty.clone(), false)).collect() }
    }

    fn place(&self, table: Pfn) -> Option<usize> {
        let n = table.raw().checked_sub(FIRST_TABLE)?;
        (n % 5 == 0 && n / 5 < self.tables.len() as u64).then_some(n as usize / 5)
    }

    fn table(&mut self, table: Pfn) -> Result<&mut (Box<[Spte; 512]>, bool), Refused> {
        let place = self.place(table).ok_or(Refused)?;
        Ok(&mut self.tables[place])
    }

    pub(super) fn poke(&mut self, table: Pfn, index: usize, spte: Spte) {
        self.table(table).expect("a table").0[index] = spte;
    }
}

impl TableMem for Tables {
    fn load(&self, table: Pfn, index: usize) -> Spte {
        self.tables[self.place(table).expect("a table")].0[index]
    }

    fn store(&mut self, table: Pfn, index: usize, spte: Spte) -> Result<(), Refused> {
        let foreign = spte.present() && gfn_of(spte.pfn()).is_none() && self.place(spte.pfn()).is_none();
        let (entries, root) = self.table(table)?;
        if foreign || (*root && WINDOW_SLOTS.contains(&index)) {
            return Err(Refused);
        }
        entries[index] = spte;
        Ok(())
    }

    fn clear(&mut self, table: Pfn) {
        let (entries, root) = self.table(table).expect("a table");
        for (index, entry) in entries.iter_mut().enumerate() {
            if !*root || !WINDOW_SLOTS.contains(&index) {
                *entry = Spte::ABSENT;
            }
        }
    }

    fn make_root(&mut self, table: Pfn) -> Result<(), Refused> {
        let (entries, root) = self.table(table)?;
        entries.fill(Spte::ABSENT);
        entries[WINDOW_SLOTS].fill(WINDOW);
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
