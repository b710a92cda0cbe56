//! Where the sources are, where build output goes, and how cargo is called.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the workspace: `GNOMON_ROOT`, which the entry script sets, or where the tool was built.
#[must_use]
pub fn root() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root = std::env::var_os("GNOMON_ROOT").map_or_else(built, PathBuf::from);
    root.canonicalize().unwrap_or(root)
}

/// The folder of the kernel's build output. A `CARGO_TARGET_DIR` in the environment moves it along.
#[must_use]
pub fn kernel_target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target-kernel"), |dir| Path::new(&dir).join("kernel"))
}

/// The folder of the host's build output.
#[must_use]
pub fn host_target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A cargo command in the workspace's root, free of flags in the environment: a `RUSTFLAGS` there, even an empty one, would
/// override the kernel's own.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root());
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    command
}
