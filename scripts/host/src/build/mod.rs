//! Builds what is booted: the kernel, gated and with its symbols, and the guests.

pub mod gate;
mod kernel;

pub use kernel::kernel;

use std::path::PathBuf;

use gnomon_guests::Guest;

use crate::status::Failed;
use crate::workspace;

/// Builds every guest that comes with Gnomon.
///
/// # Errors
/// If cargo or the conversion fails.
pub fn guests() -> anyhow::Result<Vec<(&'static Guest, PathBuf)>> {
    let folder = workspace::host_target().join("guests");
    if !folder.exists() {
        crate::progress::note("building the guests");
    }
    gnomon_guests::build_all(&workspace::root(), &folder)
        .map_err(|error| Failed::tool(format!("building the guests failed: {error:#}")))
}
