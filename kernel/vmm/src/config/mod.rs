//! Command lines: the kernel's own ([`parse_kernel`]) and those of the boot modules ([`parse_guests`]).
//!
//! Every refusal is one line that names the word and what was expected.

mod description;
mod error;
mod guest;
mod kernel;
mod words;

pub use description::{GuestConfig, GuestModule, ImageFormat, MmuMode, TimeMode};
pub use error::ConfigError;
pub use guest::parse_guests;
pub use kernel::{Backend, KernelConfig, Switch, parse_kernel};
