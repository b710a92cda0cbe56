//! The two traits through which the library reaches the world.
//!
//! `GuestMem` is guest memory as the CPU's page walker would see it; `TableMem` holds the shadow tables. Both are mocked in the
//! tests. Neither hands out references: the guest, another CPU or the MMU may change that memory at any time.

use crate::addr::{Gfn, Gpa, PAGE_SIZE, Pfn};
use crate::pte::Spte;

/// Bytes of a frame.
pub const FRAME_BYTES: usize = PAGE_SIZE as usize;

/// What stands behind a guest frame number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GfnKind {
    /// Memory of this VM.
    Ram(Pfn),
    /// Memory of this VM that the guest cannot write.
    Rom(Pfn),
    /// Memory of this VM that has no host frame now: the host has taken it, see [`ShadowMmu::take_frame`]. Reads of entries in it
    /// give `None`, writes [`CmpxchgError::NoMemory`].
    ///
    /// [`ShadowMmu::take_frame`]: crate::ShadowMmu::take_frame
    NotResident,
    /// A device.
    Mmio,
    /// Nothing.
    Hole,
}

/// The frame of the host behind a guest frame, and whether it is read-only memory.
#[inline]
pub(crate) fn backing(kind: GfnKind) -> Option<(Pfn, bool)> {
    match kind {
        GfnKind::Ram(pfn) => Some((pfn, false)),
        GfnKind::Rom(pfn) => Some((pfn, true)),
        GfnKind::NotResident | GfnKind::Mmio | GfnKind::Hole => None,
    }
}

/// Why a compare-exchange of a guest entry did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmpxchgError {
    /// Somebody changed the entry meanwhile.
    Changed,
    /// No writable memory there.
    NoMemory,
}

/// Guest-physical memory of one VM.
///
/// Entry addresses are naturally aligned, so an access never crosses a frame border.
pub trait GuestMem {
    /// What stands behind a frame. Must be constant while the frame may be mapped, that is, until
    /// [`take_frame`](crate::ShadowMmu::take_frame); frame `n` of RAM or ROM must be below
    /// [`Config::guest_frames`](crate::Config::guest_frames), anything above it counts as a hole.
    fn kind(&self, gfn: Gfn) -> GfnKind;

    /// Reads a 4-byte entry; `None` if there is no memory.
    fn read_u32(&self, gpa: Gpa) -> Option<u32>;

    /// Reads an 8-byte entry; `None` if there is no memory.
    fn read_u64(&self, gpa: Gpa) -> Option<u64>;

    /// Copies a whole frame; says whether there is memory. Worth an own implementation where memory can be copied faster.
    fn read_frame(&self, gfn: Gfn, bytes: &mut [u8; FRAME_BYTES]) -> bool {
        bytes.chunks_exact_mut(8).zip((0..PAGE_SIZE).step_by(8)).all(|(chunk, offset)| {
            let word = self.read_u64(gfn.base().add(offset));
            chunk.copy_from_slice(&word.unwrap_or(0).to_le_bytes());
            word.is_some()
        })
    }

    /// Replaces a 4-byte entry if it still is `old`.
    ///
    /// # Errors
    /// [`CmpxchgError::Changed`] if it is not, [`CmpxchgError::NoMemory`] if there is no RAM.
    fn cmpxchg_u32(&self, gpa: Gpa, old: u32, new: u32) -> Result<(), CmpxchgError>;

    /// Replaces an 8-byte entry if it still is `old`.
    ///
    /// # Errors
    /// [`CmpxchgError::Changed`] if it is not, [`CmpxchgError::NoMemory`] if there is no RAM.
    fn cmpxchg_u64(&self, gpa: Gpa, old: u64, new: u64) -> Result<(), CmpxchgError>;
}

/// The last gate refused to store an entry or to make a root: a frame does not belong to this VM. Always a bug of this library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// The frames that hold shadow tables.
///
/// The same trait holds second-level tables ([`second`](crate::second)), which have no hypervisor's window.
///
/// Implemented by the kernel as the *last gate*: it looks up the owner of each frame it is asked to map and refuses foreign
/// ones, so that a bug in here cannot map host memory or another guest's.
pub trait TableMem {
    /// Reads entry `index` (0..512) of a table.
    fn load(&self, table: Pfn, index: usize) -> Spte;

    /// Writes entry `index` (0..512) of a table.
    ///
    /// # Errors
    /// [`Refused`] if the entry would map a foreign frame, or if it lies in the hypervisor's window of a root.
    fn store(&mut self, table: Pfn, index: usize, spte: Spte) -> Result<(), Refused>;

    /// Makes entry `index` (0..512) of a table 0, and gives what it was. Worth an own implementation where a table is looked up.
    ///
    /// # Errors
    /// As [`store`](Self::store).
    fn take(&mut self, table: Pfn, index: usize) -> Result<Spte, Refused> {
        let old = self.load(table, index);
        self.store(table, index, Spte::ABSENT)?;
        Ok(old)
    }

    /// Makes all entries of a table 0. In a root the hypervisor's window stays.
    fn clear(&mut self, table: Pfn);

    /// Zeroes a table frame and installs the hypervisor's [window](crate::WINDOW) in it: it may be loaded into CR3. I11.
    ///
    /// # Errors
    /// [`Refused`] if the frame is no table frame of this VM.
    fn make_root(&mut self, table: Pfn) -> Result<(), Refused>;

    /// Takes the hypervisor's window out of a former root and zeroes it: an ordinary, empty table frame again.
    ///
    /// # Errors
    /// [`Refused`] if the frame is no table frame of this VM.
    fn retire_root(&mut self, table: Pfn) -> Result<(), Refused>;
}
