//! How Gnomon is loaded: from the boot loader's first jump to a [`BootInfo`].
//!
//! - [`multiboot2`] reads what GRUB leaves in memory, [`multiboot1`] what `qemu -kernel` leaves. Both end in one [`BootInfo`], so
//!   nothing above this crate knows which loader ran. Malformed information is a [`BootError`] that names the tag, not a panic.
//! - [`symbols`] is the kernel's own symbol table: made by the host tool after linking, looked up in the kernel's fault reports.
//! - `bare` (feature of the same name, kernel build only) holds the boot headers, the switch to long mode and the memory
//!   routines that compiled code expects.
//!
//! Source: Multiboot2 Specification version 2.0 and Multiboot Specification version 0.6.96, sections "Boot information format".
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(feature = "bare")]
pub mod bare;
mod error;
mod info;
mod list;
pub mod multiboot1;
pub mod multiboot2;
pub mod symbols;
mod text;

pub use error::BootError;
pub use info::{BootInfo, KernelImage, MAX_MODULES, MAX_REGIONS, MemoryKind, MemoryRegion, Module, Range};
pub use list::List;
pub use text::Arena;

/// Where physical address 0 appears in the kernel's address space: the base of PML4 slot 256. The kernel image is linked at
/// this plus its physical address, and the same window is the kernel's direct map of memory.
pub const WINDOW_BASE: u64 = 0xffff_8000_0000_0000;

/// Physical memory the window can show. The boot page tables and the direct map end here; memory above is not used.
pub const WINDOW_SIZE: u64 = 4 << 30;
