//! Guest memory and shadow tables as plain arrays, which count how often they are touched.

use std::cell::Cell;

use shadow_mmu::{CmpxchgError, Gfn, GfnKind, Gpa, GuestMem, Pfn, Refused, Spte, TableMem};

/// Guest memory.
#[derive(Debug)]
pub struct Memory {
    words: Vec<Cell<u32>>,
    touches: Cell<u64>,
}

impl Memory {
    /// This many frames of zeros.
    #[must_use]
    pub fn new(frames: u64) -> Self {
        Self { words: vec![Cell::new(0); frames as usize * 1024], touches: Cell::new(0) }
    }

    fn cell(&self, gpa: Gpa) -> Option<&Cell<u32>> {
        self.touches.set(self.touches.get() + 1);
        self.words.get((gpa.raw() / 4) as usize)
    }

    /// Stores a word as the guest does.
    pub fn put(&self, gpa: u64, value: u32) {
        if let Some(cell) = self.words.get((gpa / 4) as usize) {
            cell.set(value);
        }
    }

    /// How often the library has read or changed an entry.
    #[must_use]
    pub fn touches(&self) -> u64 {
        self.touches.get()
    }
}

impl GuestMem for Memory {
    fn kind(&self, gfn: Gfn) -> GfnKind {
        self.touches.set(self.touches.get() + 1);
        let frames = self.words.len() as u64 / 1024;
        if gfn.raw() < frames { GfnKind::Ram(Pfn::new(gfn.raw() + 0x10_0000)) } else { GfnKind::Hole }
    }

    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        self.cell(gpa).map(Cell::get)
    }

    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        Some(u64::from(self.read_u32(gpa)?) | u64::from(self.read_u32(gpa.add(4))?) << 32)
    }

    fn cmpxchg_u32(&self, gpa: Gpa, old: u32, new: u32) -> Result<(), CmpxchgError> {
        let cell = self.cell(gpa).ok_or(CmpxchgError::NoMemory)?;
        if cell.get() != old {
            return Err(CmpxchgError::Changed);
        }
        cell.set(new);
        Ok(())
    }

    fn cmpxchg_u64(&self, gpa: Gpa, old: u64, new: u64) -> Result<(), CmpxchgError> {
        if self.read_u64(gpa) != Some(old) {
            return Err(CmpxchgError::Changed);
        }
        self.cmpxchg_u32(gpa, old as u32, new as u32)?;
        self.cmpxchg_u32(gpa.add(4), (old >> 32) as u32, (new >> 32) as u32)
    }
}

/// Shadow tables.
#[derive(Debug)]
pub struct Tables {
    tables: Vec<[Spte; 512]>,
    touches: Cell<u64>,
}

impl Tables {
    /// This many of them, in the frames 0 and up.
    #[must_use]
    pub fn new(count: u64) -> Self {
        Self { tables: vec![[Spte::ABSENT; 512]; count as usize], touches: Cell::new(0) }
    }

    fn touch(&self) {
        self.touches.set(self.touches.get() + 1);
    }

    /// How often the library has read or changed an entry.
    #[must_use]
    pub fn touches(&self) -> u64 {
        self.touches.get()
    }
}

impl TableMem for Tables {
    fn load(&self, table: Pfn, index: usize) -> Spte {
        self.touch();
        self.tables.get(table.raw() as usize).and_then(|entries| entries.get(index)).copied().unwrap_or_default()
    }

    fn store(&mut self, table: Pfn, index: usize, spte: Spte) -> Result<(), Refused> {
        self.touch();
        let entries = self.tables.get_mut(table.raw() as usize).ok_or(Refused)?;
        *entries.get_mut(index).ok_or(Refused)? = spte;
        Ok(())
    }

    fn clear(&mut self, table: Pfn) {
        if let Some(entries) = self.tables.get_mut(table.raw() as usize) {
            entries.fill(Spte::ABSENT);
        }
    }

    fn make_root(&mut self, table: Pfn) -> Result<(), Refused> {
        self.clear(table);
        Ok(())
    }

    fn retire_root(&mut self, table: Pfn) -> Result<(), Refused> {
        self.clear(table);
        Ok(())
    }
}
