//! Guest memory by linear address, through the live shadow tables, with supervisor rights.

use super::{World, resident};
use crate::entry::gnomon_copy;
use crate::{cpu, fault};

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
    /// nothing useful.
    #[inline]
    pub fn read_linear(&self, gva: u32, buf: &mut [u8]) -> Result<(), LinearFault> {
        let from = self.reach(gva, buf.len())?;
        // SAFETY: `buf` is writable for its length. The other side lies below 4 GiB, where only guest memory is mapped; a byte
        // that cannot be read ends the copy by the fixup.
        outcome(unsafe { gnomon_copy(buf.as_mut_ptr(), from, buf.len()) })
    }

    /// Copies `bytes` to the guest's linear address `gva` on, with the rights of a supervisor: a read-only page refuses
    /// (CR0.WP is set). After `Err`, the bytes before the faulting address may have been written.
    #[inline]
    pub fn write_linear(&mut self, gva: u32, bytes: &[u8]) -> Result<(), LinearFault> {
        let to = self.reach(gva, bytes.len())?;
        // SAFETY: `bytes` is readable for its length. The other side lies below 4 GiB, where only this guest's memory is mapped,
        // so no host memory is written; a byte that cannot be written ends the copy by the fixup.
        outcome(unsafe { gnomon_copy(to.cast_mut(), bytes.as_ptr(), bytes.len()) })
    }

    /// Proves that the range ends at or below 4 GiB, and makes the guest's root the live one.
    #[inline]
    fn reach(&self, gva: u32, len: usize) -> Result<*const u8, LinearFault> {
        if len as u64 > (1 << 32) - u64::from(gva) {
            return Err(LinearFault { address: gva, error: 0 });
        }
        let state = self.state.as_ptr();
        if !cpu::is_active(state) {
            if self.is_hardware() {
                // The guest's addresses mean nothing to the host.
                return Err(LinearFault { address: gva, error: 0 });
            }
            resident::activate(state);
        }
        Ok(core::ptr::without_provenance(gva as usize))
    }
}

#[inline]
fn outcome(faulted: u32) -> Result<(), LinearFault> {
    if faulted == 0 {
        return Ok(());
    }
    let (_, error) = fault::last();
    Err(LinearFault { address: fault::last_address() as u32, error })
}
