//! The ISO image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use super::loaded::segments_only;
use super::{Payload, Protocol, grub_config};
use crate::status::Failed;

/// Where Debian keeps the modules of GRUB for BIOS machines.
pub const GRUB_MODULES: &str = "/usr/lib/grub/i386-pc";
/// The modules that a kernel on a CD needs, beside its protocol's. All others stay out: the image is 0.8 MB instead of 12 MB and
/// boots sooner.
const MODULES: &str = "normal iso9660 biosdisk";

/// Makes an ISO image of `payload` in `folder` and says where it is.
///
/// # Errors
/// If a file cannot be read, a command line cannot be expressed, or GRUB's tools are missing or fail.
pub fn make(payload: &Payload, folder: &Path) -> anyhow::Result<PathBuf> {
    let tree = folder.join("iso");
    let boot = tree.join("boot");
    fs::create_dir_all(boot.join("grub"))?;
    fs::write(boot.join("grub/grub.cfg"), grub_config(payload)?)?;
    let kernel = boot.join("kernel");
    match payload.protocol {
        // Our own kernel keeps its symbols in a segment. Another one may want to be told of its sections.
        Protocol::Gnomon => fs::write(kernel, segments_only(&fs::read(&payload.kernel)?)?)?,
        _ => copy(&payload.kernel, &kernel)?,
    }
    for (index, module) in payload.modules.iter().enumerate() {
        copy(&module.file, &boot.join(format!("m{index}")))?;
    }
    let image = folder.join("boot.iso");
    let loader = if payload.protocol == Protocol::Linux { "linux" } else { "multiboot multiboot2" };
    mkrescue(&tree, &image, loader)?;
    fs::remove_dir_all(&tree)?;
    Ok(image)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
}

fn mkrescue(tree: &Path, image: &Path, loader: &str) -> anyhow::Result<()> {
    if !Path::new(GRUB_MODULES).is_dir() {
        return Err(Failed::tool(format!("{GRUB_MODULES} is missing: install the package grub-pc-bin")));
    }
    let mut command = Command::new("grub-mkrescue");
    command.arg("-o").arg(image).args(["-d", GRUB_MODULES, "--fonts=", "--locales=", "--themes="]);
    command.arg(format!("--install-modules={loader} {MODULES}")).arg(tree).stdin(Stdio::null());
    let output = command.output().map_err(|error| {
        Failed::tool(format!("cannot run grub-mkrescue ({error}): install the packages grub-common and xorriso"))
    })?;
    if output.status.success() && image.is_file() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(Failed::tool(format!("grub-mkrescue failed ({}):\n{}", output.status, last.join("\n"))))
}
