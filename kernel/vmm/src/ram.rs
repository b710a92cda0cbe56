//! Guest-physical memory: which host frame stands behind each guest frame. The only place that turns a [`Gfn`] into a [`Pfn`].

use alloc::vec::Vec;
use core::fmt;
use gnomon_hw::frames::{self, Owner, VmId};
use gnomon_hw::phys::GuestWindow;
use shadow_mmu::{CmpxchgError, FRAME_BYTES, Gfn, GfnKind, Gpa, GuestMem, Pfn};

use crate::memory_map::{self, Backing};

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// Pages that one large entry maps.
const BLOCK: u64 = 512;

/// The memory of one VM: guest frames 0..n, each with a host frame that lies anywhere, or with nothing ([`memory_map`]).
pub(crate) struct GuestRam {
    frames: Vec<GfnKind>,
    window: GuestWindow,
    blocks: u64,
}

/// The host has too few frames for a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutOfMemory {
    /// Frames wanted.
    pub wanted: u64,
    /// Frames that could be had.
    pub had: u64,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "needs {} KiB of host memory, {} KiB are free", self.wanted * 4, self.had * 4)
    }
}

impl GuestRam {
    /// Takes `bytes` of memory, rounded up to pages, from frames scattered over the host's memory, all zero. With `huge` each 2 MiB that are
    /// RAM throughout lie in one piece, as long as the host has such.
    ///
    /// # Errors
    /// [`OutOfMemory`]; what was taken is given back when the VM's frames are released.
    pub(crate) fn new(vm: VmId, bytes: u64, huge: bool) -> Result<Self, OutOfMemory> {
        let wanted = bytes.div_ceil(PAGE);
        let mut ram = Self { frames: Vec::with_capacity(wanted as usize), window: GuestWindow::new(vm), blocks: 0 };
        while ram.frame_count() < wanted {
            let had = ram.frame_count();
            let backing = |frame: u64| memory_map::backing(frame * PAGE, wanted * PAGE);
            let whole = || had.is_multiple_of(BLOCK) && (had..had + BLOCK).all(|frame| backing(frame) == Backing::Ram);
            if huge
                && whole()
                && let Some(first) = frames::alloc_block(Owner::Guest(vm))
            {
                ram.blocks += 1;
                for n in 0..BLOCK {
                    ram.add(Pfn::new(first.raw() + n), GfnKind::Ram).ok_or(OutOfMemory { wanted, had })?;
                }
                continue;
            }
            let kind = match backing(had) {
                Backing::None => {
                    ram.frames.push(GfnKind::Hole);
                    continue;
                }
                Backing::Rom => GfnKind::Rom,
                Backing::Ram => GfnKind::Ram,
            };
            // Scattered ones would leave nothing in one piece.
            let frame = if huge { frames::alloc(Owner::Guest(vm)) } else { frames::alloc_scattered(Owner::Guest(vm)) };
            let added = frame.and_then(|pfn| ram.add(pfn, kind));
            added.ok_or(OutOfMemory { wanted, had })?;
        }
        Ok(ram)
    }

    /// Puts a frame, zeroed, behind the next guest frame.
    fn add(&mut self, pfn: Pfn, kind: fn(Pfn) -> GfnKind) -> Option<()> {
        self.window.zero(pfn).ok()?;
        self.frames.push(kind(pfn));
        Some(())
    }

    /// How many times 2 MiB lie in one piece on purpose.
    #[must_use]
    pub(crate) const fn block_count(&self) -> u64 {
        self.blocks
    }

    /// Number of guest frames, those without memory included.
    #[must_use]
    pub(crate) fn frame_count(&self) -> u64 {
        self.frames.len() as u64
    }

    /// What stands behind an address.
    #[inline]
    pub(crate) fn kind_at(&self, gpa: Gpa) -> GfnKind {
        self.frames.get((gpa.raw() / PAGE) as usize).copied().unwrap_or(GfnKind::Hole)
    }

    #[inline]
    fn place(&self, gpa: Gpa) -> Option<(Pfn, usize)> {
        match self.kind_at(gpa) {
            GfnKind::Ram(pfn) | GfnKind::Rom(pfn) => Some((pfn, (gpa.raw() % PAGE) as usize)),
            GfnKind::NotResident | GfnKind::Mmio | GfnKind::Hole => None,
        }
    }

    /// The frame of RAM, which the guest can write.
    #[inline]
    fn writable(&self, gpa: Gpa) -> Option<(Pfn, usize)> {
        self.place(gpa).filter(|_| matches!(self.kind_at(gpa), GfnKind::Ram(_)))
    }

    /// Reads bytes; what lies outside memory reads as all ones, as an empty bus does.
    pub(crate) fn read(&self, gpa: Gpa, bytes: &mut [u8]) {
        self.chunks(gpa, bytes.len(), |ram, at, range| {
            let Some(part) = bytes.get_mut(range) else { return };
            let done = ram.place(at).is_some_and(|(pfn, offset)| ram.window.copy_out(pfn, offset, part).is_ok());
            if !done {
                part.fill(0xff);
            }
        });
    }

    /// Writes bytes, to ROM as well; what lies outside memory is dropped. Does not look at tracking: see [`crate::vm::Vm::write_physical`].
    pub(crate) fn write(&self, gpa: Gpa, bytes: &[u8]) {
        self.chunks(gpa, bytes.len(), |ram, at, range| {
            if let (Some((pfn, offset)), Some(part)) = (ram.place(at), bytes.get(range)) {
                // A foreign frame cannot stand in our list; if it did, dropping the write is the safe answer.
                let _ = ram.window.copy_in(pfn, offset, part);
            }
        });
    }

    /// Splits a range at page borders.
    fn chunks(&self, gpa: Gpa, len: usize, mut each: impl FnMut(&Self, Gpa, core::ops::Range<usize>)) {
        let mut done = 0;
        while done < len {
            let at = Gpa::new(gpa.raw().wrapping_add(done as u64));
            let room = (PAGE - at.raw() % PAGE) as usize;
            let next = len.min(done.saturating_add(room));
            each(self, at, done..next);
            done = next;
        }
    }
}

impl GuestMem for GuestRam {
    #[inline]
    fn kind(&self, gfn: Gfn) -> GfnKind {
        self.frames.get(gfn.raw() as usize).copied().unwrap_or(GfnKind::Hole)
    }

    #[inline]
    fn read_u32(&self, gpa: Gpa) -> Option<u32> {
        let (pfn, offset) = self.place(gpa)?;
        self.window.load_u32(pfn, offset).ok()
    }

    #[inline]
    fn read_u64(&self, gpa: Gpa) -> Option<u64> {
        let (pfn, offset) = self.place(gpa)?;
        self.window.load_u64(pfn, offset).ok()
    }

    fn read_frame(&self, gfn: Gfn, bytes: &mut [u8; FRAME_BYTES]) -> bool {
        self.place(gfn.base()).is_some_and(|(pfn, _)| self.window.copy_frame(pfn, bytes).is_ok())
    }

    fn cmpxchg_u32(&self, gpa: Gpa, old: u32, new: u32) -> Result<(), CmpxchgError> {
        let (pfn, offset) = self.writable(gpa).ok_or(CmpxchgError::NoMemory)?;
        match self.window.cmpxchg_u32(pfn, offset, old, new) {
            Ok(swapped) => swapped.map_err(|_| CmpxchgError::Changed),
            Err(_) => Err(CmpxchgError::NoMemory),
        }
    }

    fn cmpxchg_u64(&self, gpa: Gpa, old: u64, new: u64) -> Result<(), CmpxchgError> {
        let (pfn, offset) = self.writable(gpa).ok_or(CmpxchgError::NoMemory)?;
        match self.window.cmpxchg_u64(pfn, offset, old, new) {
            Ok(swapped) => swapped.map_err(|_| CmpxchgError::Changed),
            Err(_) => Err(CmpxchgError::NoMemory),
        }
    }
}
