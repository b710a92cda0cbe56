//! Guest memory and table memory as plain arrays.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;

use crate::{CmpxchgError, Gfn, GfnKind, Gpa, GuestMem, Pfn, Refused, Spte, TableMem, WINDOW as WINDOW_SLOTS};

/// Frames of RAM; then one of ROM, one of a device, and nothing.
pub(super) const RAM: u64 = 32;
pub(super) const ROM: u64 = RAM;
pub(super) const MMIO: u64 = RAM + 1;
pub(super) const HOLE: u64 = RAM + 2;
/// Then RAM again, which lies in the host as in the guest: a large leaf can map it.
pub(super) const BLOCK: Range<u64> = 0x200..0x400;
pub(super) const GUEST_FRAMES: u64 = BLOCK.end;
/// Where it lies.
const BLOCK_PLACE: u64 = 0x8000;

/// Scatters guest frames over the host: never contiguous, never where the guest thinks. But for the block.
pub(super) fn pfn_of(gfn: u64) -> Pfn {
    Pfn::new(if BLOCK.contains(&gfn) { BLOCK_PLACE + (gfn - BLOCK.start) } else { 0x4000 + gfn * 37 % 127 * 3 })
}

pub(super) fn gfn_of(pfn: Pfn) -> Option<u64> {
    (0..=ROM).chain(BLOCK).find(|&gfn| pfn_of(gfn) == pfn)
}

pub(super) fn is_ram(frame: u64) -> bool {
    frame < RAM || BLOCK.contains(&frame)
}

/// Guest memory, in aligned 32-bit words.
#[derive(Debug)]
pub(super) struct Memory {
    words: Vec<Cell<u32>>,
    /// Those of the block that are not 0.
    block: RefCell<BTreeMap<u64, u32>>,
    /// A frame that is not resident.
    pub(super) absent: Cell<Option<Gfn>>,
    /// Another CPU stores this word there just before the next compare-exchange.
    pub(super) race: Cell<Option<(u64, u32)>>,
}

impl Memory {
    pub(super) fn new() -> Self {
        let words = vec![Cell::new(0); (ROM as usize + 1) * 1024];
        Self { words, block: RefCell::default(), absent: Cell::new(None), race: Cell::new(None) }
    }

    fn get(&self, gpa: Gpa) -> Option<u32> {
        if BLOCK.contains(&gpa.gfn().raw()) {
            return Some(self.block.borrow().get(&(gpa.raw() / 4)).copied().unwrap_or(0));
        }
        self.words.get(usize::try_from(gpa.raw() / 4).ok()?).map(Cell::get)
    }

    fn set(&self, gpa: Gpa, word: u32) {
        if BLOCK.contains(&gpa.gfn().raw()) {
            // Only what is not 0 is kept, so that equal memories are equal maps.
            match word {
                0 => self.block.borrow_mut().remove(&(gpa.raw() / 4)),
                _ => self.block.borrow_mut().insert(gpa.raw() / 4, word),
            };
        } else {
            self.words[gpa.raw() as usize / 4].set(word);
        }
    }

    fn let_others_go_first(&self) {
        if let Some((at, word)) = self.race.take() {
            self.store(Gpa::new(at), &word.to_le_bytes());
        }
    }

    pub(super) fn word(&self, gpa: u64) -> u32 {
        self.get(Gpa::new(gpa)).unwrap_or(0)
    }

    /// Stores bytes as a device or an emulator would; ROM keeps what it has.
    pub(super) fn store(&self, gpa: Gpa, bytes: &[u8]) {
        for (n, &byte) in bytes.iter().enumerate() {
            let at = gpa.add(n as u64);
            if is_ram(at.gfn().raw()) {
                let shift = at.raw() % 4 * 8;
                self.set(at, self.word(at.raw()) & !(0xff << shift) | u32::from(byte) << shift);
            }
        }
    }

    pub(super) fn first_difference(&self, other: &Self) -> Option<(usize, u32, u32)> {
        let pairs = self.words.iter().zip(&other.words).enumerate();
        let low = pairs.map(|(n, (a, b))| (n * 4, a.get(), b.get())).find(|(_, a, b)| a != b);
        low.or_else(|| {
            let (ours, theirs) = (self.block.borrow(), other.block.borrow());
            let at = ours.keys().chain(theirs.keys()).find(|at| ours.get(at) != theirs.get(at))?;
            Some((*at as usize * 4, self.word(at * 4), other.word(at * 4)))
        })
    }
}

impl GuestMem for Memory {
    fn kind(&self, gfn: Gfn) -> GfnKind {
        match gfn.raw() {
            _ if self.absent.get() == Some(gfn) => GfnKind::NotResident,
            n if is_ram(n) => GfnKind::Ram(pfn_of(n)),
            ROM => GfnKind::Rom(pfn_of(ROM)),
            MMIO => GfnKind::Mmio,
            _ => GfnKind::Hole,
        }
    }

    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        self.get(gpa)
    }

    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        Some(u64::from(self.read_u32(gpa)?) | u64::from(self.read_u32(gpa.add(4))?) << 32)
    }

    fn cmpxchg_u32(&self, gpa: Gpa, old: u32, new: u32) -> Result<(), CmpxchgError> {
        self.let_others_go_first();
        if !is_ram(gpa.gfn().raw()) {
            return Err(CmpxchgError::NoMemory);
        }
        if self.word(gpa.raw()) != old {
            return Err(CmpxchgError::Changed);
        }
        self.set(gpa, new);
        Ok(())
    }

    fn cmpxchg_u64(&self, gpa: Gpa, old: u64, new: u64) -> Result<(), CmpxchgError> {
        self.let_others_go_first();
        if !is_ram(gpa.gfn().raw()) {
            return Err(CmpxchgError::NoMemory);
        }
        if self.read_u64(gpa) != Some(old) {
            return Err(CmpxchgError::Changed);
        }
        self.set(gpa, new as u32);
        self.set(gpa.add(4), (new >> 32) as u32);
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
        // Bit 7 makes an entry large in tables that name tables; there is no other use for it here.
        let frames = if spte.is_large() { 512 } else { 1 };
        let own = (0..frames).all(|n| gfn_of(Pfn::new(spte.pfn().raw() + n)).is_some());
        let foreign = spte.present() && !own && (spte.is_large() || self.place(spte.pfn()).is_none());
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
