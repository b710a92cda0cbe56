//! Guest memory by linear address, through the live shadow tables, with supervisor rights.

use super::{State, World, resident};
use crate::entry::{gnomon_copy, gnomon_fetch};
use crate::{cpu, fault, frames, gate, phys};
use core::arch::asm;
use shadow_mmu::{Pfn, Spte};

/// An access by linear address faulted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearFault {
    /// The address that faulted; the first one if the range runs past 4 GiB.
    pub address: u32,
    /// The page fault's error code; 0 if the range runs past 4 GiB.
    pub error: u32,
}

impl World {
    /// Copies from the guest's linear address `gva` on into `buf`, with the rights of a supervisor. After `Err`, `buf` holds
    /// nothing useful. A world on second-level tables refuses: the host has no mapping of its linear addresses.
    #[inline]
    pub fn read_linear(&self, gva: u32, buf: &mut [u8]) -> Result<(), LinearFault> {
        let from = in_range(gva, buf.len())?;
        if !cpu::is_active(self.state.as_ptr()) {
            if self.is_hardware() {
                return self.read_by_tables(gva, buf);
            }
            resident::activate(self.state.as_ptr());
        }
        // SAFETY: `buf` is writable for its length. The other side lies below 4 GiB, where only guest memory is mapped; a byte
        // that cannot be read ends the copy by the fixup.
        outcome(unsafe { gnomon_copy(buf.as_mut_ptr(), from, buf.len()) })
    }

    /// The 16 bytes at the guest's linear address `gva`, the first one lowest: what [`read_linear`](Self::read_linear) does, for the
    /// instruction at EIP. `None` if one of them faults.
    #[must_use]
    #[inline]
    pub fn fetch(&self, gva: u32) -> Option<u128> {
        self.fetch_halves(gva).map(|(low, high)| u128::from(high) << 64 | u128::from(low))
    }

    /// The same as two halves.
    #[must_use]
    #[inline]
    pub fn fetch_halves(&self, gva: u32) -> Option<(u64, u64)> {
        if !cpu::is_active(self.state.as_ptr()) || gva > u32::MAX - 15 {
            return self.fetch_otherwise(gva);
        }
        let (low, high): (u64, u64);
        let faulted: u32;
        // SAFETY: the address is below 4 GiB, where only guest memory is mapped; a byte that cannot be read ends it by the fixup.
        // gnomon_fetch uses no stack but for its return address.
        unsafe {
            asm!(
                "call {fetch}",
                fetch = sym gnomon_fetch,
                in("rdi") u64::from(gva),
                out("rax") low, out("rdx") high, out("ecx") faulted,
                options(readonly),
            );
        }
        if faulted == 0 { Some((low, high)) } else { None }
    }

    #[cold]
    #[inline(never)]
    fn fetch_otherwise(&self, gva: u32) -> Option<(u64, u64)> {
        let mut bytes = [0; 16];
        self.read_linear(gva, &mut bytes).ok()?;
        let bytes = u128::from_le_bytes(bytes);
        Some((bytes as u64, (bytes >> 64) as u64))
    }

    /// Copies `bytes` to the guest's linear address `gva` on, with the rights of a supervisor: a read-only page refuses
    /// (CR0.WP is set). After `Err`, the bytes before the faulting address may have been written.
    #[inline]
    pub fn write_linear(&mut self, gva: u32, bytes: &[u8]) -> Result<(), LinearFault> {
        let to = in_range(gva, bytes.len())?;
        if !cpu::is_active(self.state.as_ptr()) {
            if self.is_hardware() {
                return self.write_by_tables(gva, bytes);
            }
            resident::activate(self.state.as_ptr());
        }
        // SAFETY: `bytes` is readable for its length. The other side lies below 4 GiB, where only this guest's memory is mapped,
        // so no host memory is written; a byte that cannot be written ends the copy by the fixup.
        outcome(unsafe { gnomon_copy(to.cast_mut(), bytes.as_ptr(), bytes.len()) })
    }

    /// The host does not run on a hardware world's shadow tables, so it walks them.
    #[inline(never)]
    fn read_by_tables(&self, gva: u32, buf: &mut [u8]) -> Result<(), LinearFault> {
        let place = self.place_by_tables(gva, buf.len(), PRESENT)?;
        // SAFETY: `place` is in a frame of this guest and has room for the length, see `place_by_tables`; `buf` is the host's. The
        // guest does not run meanwhile.
        unsafe { core::ptr::copy_nonoverlapping(place.cast_const(), buf.as_mut_ptr(), buf.len()) };
        Ok(())
    }

    #[inline(never)]
    fn write_by_tables(&mut self, gva: u32, bytes: &[u8]) -> Result<(), LinearFault> {
        let place = self.place_by_tables(gva, bytes.len(), PRESENT | WRITABLE)?;
        // SAFETY: as for `read_by_tables`, the other way round; the leaf lets the guest's kernel write.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        Ok(())
    }

    /// Where the shadow maps `len` bytes at `gva`, if that is one page and its leaf has all bits of `rights`. Other cases go the slow
    /// way.
    #[inline]
    fn place_by_tables(&self, gva: u32, len: usize, rights: u64) -> Result<*mut u8, LinearFault> {
        let refused = LinearFault { address: gva, error: 0 };
        let State { root, vm, .. } = *self.state();
        let offset = (gva & 0xfff) as usize;
        let checked = self.on_shadow && frames::with(|frames| gate::is_root::<gate::Shadow>(frames, vm, root));
        if !checked || len > phys::PAGE_SIZE - offset {
            return Err(refused);
        }
        let mut table = root;
        for shift in [39, 30, 21, 12] {
            let index = (u64::from(gva) >> shift & 511) as usize;
            // SAFETY: `table` is the root that the gate knows, or a table that such a table names, which the gate has seen to; the
            // window shows it, and the index is below 512.
            let raw = unsafe { phys::frame::<u64>(Pfn::new(table)).wrapping_add(index).read_volatile() };
            let leaf = shift == 12 || shift == 21 && raw & LARGE != 0;
            let wanted = if leaf { rights } else { PRESENT };
            if raw & wanted != wanted || raw == Spte::GAP.raw() {
                return Err(refused);
            }
            table = (raw & FRAME) >> 12;
            if leaf {
                table += u64::from(gva) >> 12 & ((1 << (shift - 12)) - 1);
                break;
            }
        }
        // The gate lets leaves, and those of 2 MiB, name this guest's frames only.
        Ok(phys::frame::<u8>(Pfn::new(table)).wrapping_add(offset))
    }
}

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
/// In a table of level 2.
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// Proves that the range ends at or below 4 GiB.
#[inline]
fn in_range(gva: u32, len: usize) -> Result<*const u8, LinearFault> {
    if len as u64 > (1 << 32) - u64::from(gva) {
        return Err(LinearFault { address: gva, error: 0 });
    }
    Ok(core::ptr::without_provenance(gva as usize))
}

#[inline]
fn outcome(faulted: u32) -> Result<(), LinearFault> {
    if faulted == 0 {
        return Ok(());
    }
    let (_, error) = fault::last();
    Err(LinearFault { address: fault::last_address() as u32, error })
}
