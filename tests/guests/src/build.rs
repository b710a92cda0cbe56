//! Builds the guests with cargo.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::{GUESTS, Guest, to_elf32};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Packages with guests in them.
const PACKAGES: [&str; 2] = ["gnomon-guests", "gnomon-demo"];

/// Builds every guest and writes `NAME.elf`, a 32-bit multiboot1 kernel, into `out_dir`; cargo's own files go into
/// `out_dir/cargo`. Files that are already right are left alone. `workspace` is the repository's root.
///
/// # Errors
/// When cargo fails (its messages have gone to stderr), or a file cannot be read, converted or written.
pub fn build_all(workspace: &Path, out_dir: &Path) -> Result<Vec<(&'static Guest, PathBuf)>> {
    fs::create_dir_all(out_dir).with_context(|| format!("cannot make {}", out_dir.display()))?;
    let target_dir = out_dir.join("cargo");
    run_cargo(workspace, &target_dir)?;
    let built = target_dir.join(TARGET).join("guest");
    GUESTS.iter().map(|guest| Ok((guest, convert(&built, out_dir, guest.name)?))).collect()
}

fn run_cargo(workspace: &Path, target_dir: &Path) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(workspace).args(["build", "--quiet", "--bins", "--features", "guest", "--profile", "guest"]);
    command.args(["--config", ".cargo/guests.toml", "--target", TARGET]).arg("--target-dir").arg(target_dir);
    for package in PACKAGES {
        command.args(["-p", package]);
    }
    // Flags from the environment, even empty ones, would replace those of the configuration file.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = command.status().context("cannot start cargo")?;
    ensure!(status.success(), "cargo could not build the guests ({status})");
    Ok(())
}

fn convert(built: &Path, out_dir: &Path, name: &str) -> Result<PathBuf> {
    let (from, to) = (built.join(name), out_dir.join(format!("{name}.elf")));
    let elf64 = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
    let elf32 = to_elf32(&elf64).with_context(|| format!("{name} is not fit to be a guest"))?;
    if fs::read(&to).ok().as_deref() != Some(elf32.as_slice()) {
        fs::write(&to, elf32).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(to)
}
