//! The kernel: built by cargo with its own flags, disassembled and judged by the gate, given its symbol table.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::gate;
use crate::progress;
use crate::status::Failed;
use crate::workspace;

/// The target triple; stock Rust's own, so that nothing but the usual toolchain is needed.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the kernel if something changed, and returns the bootable file. A file that has passed the gate once is not
/// looked at again.
///
/// # Errors
/// If cargo fails or the machine code breaks a rule; the message lists the places.
pub fn kernel() -> anyhow::Result<PathBuf> {
    let target = workspace::kernel_target();
    let built = target.join(TARGET).join("kernel/gnomon-kernel");
    compile(&target, built.exists())?;
    let mut elf = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let folder = target.join("gated");
    let finished = folder.join(format!("gnomon-kernel-{:016x}", key(&elf)));
    if finished.exists() {
        return Ok(finished);
    }
    progress::step("checking the kernel's machine code", || judge(&elf))?;
    gnomon_boot::symbols::embed(&mut elf)
        .map_err(|error| Failed::tool(format!("cannot put the symbol table into the kernel: {error}")))?;
    publish(&folder, &finished, &elf)?;
    Ok(finished)
}

/// Cargo prints its progress when there is much to do, and only errors otherwise.
fn compile(target: &Path, again: bool) -> anyhow::Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "-p", "gnomon-kernel", "--features", "bare", "--profile", "kernel"]);
    cargo.args(["--config", ".cargo/kernel.toml", "--target", TARGET, "--target-dir"]).arg(target);
    if again {
        cargo.arg("--quiet");
    } else {
        progress::note("building the kernel (half a minute the first time)");
    }
    let status = cargo.status().map_err(|error| Failed::tool(format!("cannot run cargo: {error}")))?;
    match status.success() {
        true => Ok(()),
        false if crate::interrupt::pending() => Err(Failed::interrupted()),
        false => Err(Failed::tool("the kernel does not build (cargo's messages are above)")),
    }
}

fn judge(elf: &[u8]) -> anyhow::Result<()> {
    let findings = gate::check(elf)?;
    if findings.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = findings.iter().take(20).map(|finding| format!("  {finding}")).collect();
    let rest = findings.len().saturating_sub(shown.len());
    let more = if rest > 0 { format!("\n  and {rest} more") } else { String::new() };
    let rule = "no SSE, MMX or x87 instruction may be in the kernel, and no access below RSP";
    Err(Failed::tool(format!("the kernel's machine code breaks a rule ({rule}):\n{}{more}", shown.join("\n"))))
}

/// Identifies a kernel and the gate that judged it.
fn key(elf: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    elf.hash(&mut hasher);
    gate::SOURCE.hash(&mut hasher);
    hasher.finish()
}

/// Older kernels go, except recent ones that a parallel run may be booting.
fn publish(folder: &Path, finished: &Path, elf: &[u8]) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)?.flatten() {
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age.as_secs() > 3600) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let part = folder.join(format!("part-{}", std::process::id()));
    fs::write(&part, elf).and_then(|()| fs::rename(&part, finished)).context("cannot write the kernel")
}
