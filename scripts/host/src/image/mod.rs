//! What is booted, and the ISO image that GRUB boots it from.

mod grub;
mod iso;
mod loaded;
mod protocol;

pub use grub::config as grub_config;
pub use iso::{GRUB_MODULES, make};
pub use protocol::{Protocol, protocol_of};

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::guest::{BootModule, Disk, Guest};

/// A kernel with its modules, ready to be booted.
#[derive(Clone, Debug)]
pub struct Payload {
    /// How GRUB loads it.
    pub protocol: Protocol,
    /// The ELF file.
    pub kernel: PathBuf,
    /// Its command line, without the path that boot loaders may put in front.
    pub command_line: String,
    /// Its modules, in order.
    pub modules: Vec<BootModule>,
    /// The machine's disks, in order.
    pub disks: Vec<Disk>,
}

impl Payload {
    /// Gnomon with guests.
    #[must_use]
    pub fn gnomon(kernel: PathBuf, command_line: String, guests: &[Guest]) -> Self {
        let modules = guests.iter().flat_map(Guest::boot_modules).collect();
        Self { protocol: Protocol::Gnomon, kernel, command_line, modules, disks: Vec::new() }
    }

    /// A guest alone, by the protocol that its image shows.
    ///
    /// # Errors
    /// If its image cannot be read.
    pub fn bare(guest: &Guest) -> anyhow::Result<Self> {
        let modules = guest.modules.iter();
        let modules =
            modules.map(|(file, arguments)| BootModule { file: file.clone(), command_line: arguments.clone() });
        Ok(Self {
            protocol: protocol_of(&guest.kernel)?,
            kernel: guest.kernel.clone(),
            command_line: guest.arguments.clone(),
            modules: modules.collect(),
            disks: guest.disks.clone(),
        })
    }
}

/// Appends the files of `modules` to one another in `file`, each at a multiple of 4, as boot loaders do with several initrds.
///
/// # Errors
/// If a file cannot be read or written.
pub fn concatenate(modules: &[BootModule], file: &Path) -> anyhow::Result<()> {
    let mut all = fs::File::create(file)?;
    for module in modules {
        let mut part = fs::File::open(&module.file).with_context(|| module.file.display().to_string())?;
        let bytes = io::copy(&mut part, &mut all)?;
        all.write_all(&[0; 3][..(bytes.next_multiple_of(4) - bytes) as usize])?;
    }
    Ok(())
}
