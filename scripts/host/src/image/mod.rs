//! What is booted, and the ISO image that GRUB boots it from.

mod grub;
mod iso;

pub use grub::config as grub_config;
pub use iso::{GRUB_MODULES, make};

use std::path::PathBuf;

use crate::guest::{BootModule, Guest};

/// The multiboot protocol by which GRUB loads the kernel. (QEMU's own loader only knows the first.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Guests, when they are booted bare.
    Multiboot1,
    /// Gnomon.
    Multiboot2,
}

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
}

impl Payload {
    /// Gnomon with guests.
    #[must_use]
    pub fn gnomon(kernel: PathBuf, command_line: String, guests: &[Guest]) -> Self {
        let modules = guests.iter().flat_map(Guest::boot_modules).collect();
        Self { protocol: Protocol::Multiboot2, kernel, command_line, modules }
    }

    /// A guest alone.
    #[must_use]
    pub fn bare(guest: &Guest) -> Self {
        let modules = guest.modules.iter();
        let modules =
            modules.map(|(file, arguments)| BootModule { file: file.clone(), command_line: arguments.clone() });
        Self {
            protocol: Protocol::Multiboot1,
            kernel: guest.kernel.clone(),
            command_line: guest.arguments.clone(),
            modules: modules.collect(),
        }
    }
}
