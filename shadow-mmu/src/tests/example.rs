// Guest memory and shadow tables for the examples in the documentation, which include this file: 16 guest frames, of which any can
// be away, and 32 tables.

use core::cell::{Cell, RefCell};
use shadow_mmu::*;

pub struct Memory {
    pub words: RefCell<Vec<u32>>,
    pub places: Vec<Cell<Option<Pfn>>>,
}

impl Memory {
    pub fn new() -> Self {
        let places = (0..16).map(|n| Cell::new(Some(Pfn::new(0x100 + n)))).collect();
        Self { words: RefCell::new(vec![0; 16 * 1024]), places }
    }

    pub fn put(&self, gpa: u64, word: u32) {
        self.words.borrow_mut()[gpa as usize / 4] = word;
    }
}

impl GuestMem for Memory {
    fn kind(&self, gfn: Gfn) -> GfnKind {
        match self.places.get(gfn.raw() as usize).map(Cell::get) {
            Some(Some(pfn)) => GfnKind::Ram(pfn),
            Some(None) => GfnKind::NotResident,
            None => GfnKind::Hole,
        }
    }

    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        matches!(self.kind(gpa.gfn()), GfnKind::Ram(_)).then(|| self.words.borrow()[gpa.raw() as usize / 4])
    }

    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        Some(u64::from(self.read_u32(gpa)?) | u64::from(self.read_u32(gpa.add(4))?) << 32)
    }

    fn cmpxchg_u32(&self, gpa: Gpa, old: u32, new: u32) -> Result<(), CmpxchgError> {
        match self.read_u32(gpa) {
            None => Err(CmpxchgError::NoMemory),
            Some(now) if now != old => Err(CmpxchgError::Changed),
            Some(_) => Ok(self.put(gpa.raw(), new)),
        }
    }

    fn cmpxchg_u64(&self, gpa: Gpa, old: u64, new: u64) -> Result<(), CmpxchgError> {
        if self.read_u64(gpa).is_some_and(|now| now != old) {
            return Err(CmpxchgError::Changed);
        }
        self.cmpxchg_u32(gpa, old as u32, new as u32)?;
        self.cmpxchg_u32(gpa.add(4), (old >> 32) as u32, (new >> 32) as u32)
    }
}

pub struct Tables(pub Vec<[Spte; 512]>);

impl TableMem for Tables {
    fn load(&self, table: Pfn, index: usize) -> Spte {
        self.0[table.raw() as usize][index]
    }

    fn store(&mut self, table: Pfn, index: usize, spte: Spte) -> Result<(), Refused> {
        self.0[table.raw() as usize][index] = spte;
        Ok(())
    }

    fn clear(&mut self, table: Pfn) {
        self.0[table.raw() as usize] = [Spte::ABSENT; 512];
    }

    fn make_root(&mut self, table: Pfn) -> Result<(), Refused> {
        Ok(self.clear(table))
    }

    fn retire_root(&mut self, table: Pfn) -> Result<(), Refused> {
        Ok(self.clear(table))
    }
}

/// A guest whose directory is frame 1 and whose table, frame 2, maps pages 0 to 15 to the frames of the same numbers.
pub fn paging_guest() -> ShadowMmu<Memory, Tables> {
    let memory = Memory::new();
    memory.put(0x1000, 0x2067);
    (0..16).for_each(|page| memory.put(0x2000 + u64::from(page) * 4, page << 12 | 0x67));
    let config = Config::new((0..32).map(Pfn::new).collect(), 16);
    let mut mmu = ShadowMmu::new(memory, Tables(vec![[Spte::ABSENT; 512]; 32]), (), config).unwrap();
    let controls = Controls { cr0: cr0::PE | cr0::PG | cr0::WP, cr3: 0x1000, ..Controls::default() };
    let _plan = mmu.load_controls(controls, ControlWrite::Reset).unwrap();
    mmu
}

/// The fault that the CPU raises when user code does this and the shadow does not allow it yet.
pub fn user(gva: u64, kind: AccessKind) -> Fault {
    Fault { gva: Gva::new(gva), access: Access { kind, privilege: Privilege::User } }
}
