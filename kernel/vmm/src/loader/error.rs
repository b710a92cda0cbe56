//! Why an image cannot be loaded.

use core::fmt;

/// Why an image cannot be loaded; its `Display` is one line that names what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// Nothing is built yet.
    Signatures,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the loader is not built yet")
    }
}

impl core::error::Error for LoadError {}
