//! Micro-guests: small 32-bit multiboot1 kernels in assembly, each of which tests one thing.
//!
//! This library is the host's side: the list of guests ([`GUESTS`]), and [`build_all`], which builds them. The guests
//! themselves are the package's binaries, built only with the feature `guest`; `README.md` says how they are made.

mod build;
mod elf32;
mod list;

pub use build::build_all;
pub use elf32::to_elf32;
pub use list::{GUESTS, Guest, Kind};
