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

/// The image that `name` means: a file, or else a guest that comes with Gnomon (which is built if need be).
///
/// # Errors
/// If it is neither.
pub fn find_image(name: &str) -> anyhow::Result<PathBuf> {
    let known = gnomon_guests::GUESTS.iter().any(|guest| guest.name == name);
    if !known || std::path::Path::new(name).is_file() {
        return crate::guest::existing(name)
            .map_err(|error| error.context("no such guest (`gnomon guests` lists those that come with Gnomon)"));
    }
    let built = guests()?.into_iter().find(|(guest, _)| guest.name == name);
    built.map(|(_, path)| path).ok_or_else(|| Failed::tool(format!("guest {name} was not built")))
}
