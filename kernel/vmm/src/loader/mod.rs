//! Loading a guest's image into its memory (signatures; the formats follow).

mod error;

pub use error::LoadError;

use crate::config::GuestConfig;
use shadow_mmu::Gpa;

/// An access outside the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideMemory;

/// The guest's memory, for the loader. Addresses are guest-physical; it starts out zeroed.
pub trait GuestWriter {
    /// Copies `bytes` to `gpa`.
    ///
    /// # Errors
    /// [`OutsideMemory`] if any byte would fall where the guest has no RAM.
    fn write(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), OutsideMemory>;
}

/// The registers a guest starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Guest-physical address of the first instruction.
    pub eip: u32,
    /// EAX: the multiboot magic number, or 0 for a flat image.
    pub eax: u32,
    /// EBX: guest-physical address of the multiboot information, or 0 for a flat image.
    pub ebx: u32,
}

/// Loads `image` and `modules` (bytes and command line each) into the guest's memory.
///
/// # Errors
/// A [`LoadError`] that says in one line why the image cannot be loaded.
pub fn load(
    _image: &[u8],
    _modules: &[(&[u8], &str)],
    _guest: &GuestConfig,
    _mem: &mut impl GuestWriter,
) -> Result<Entry, LoadError> {
    Err(LoadError::Signatures)
}
