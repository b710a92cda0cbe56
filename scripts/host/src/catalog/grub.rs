//! GRUB as a guest: built for coreboot it needs no BIOS, and is a multiboot kernel.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::status::Failed;

/// Debian's package with the modules.
pub(super) const PACKAGE: &str = "grub-coreboot-bin";
/// Their folder in it.
pub(super) const MODULES: &str = "./usr/lib/grub/i386-coreboot";
/// What its shell prints.
pub(super) const PROMPT: &str = "grub> ";

/// Built into the image: disks, file systems and archives, and ways to boot.
const BUILT_IN: &str = "serial terminal normal minicmd configfile test sleep echo ls cat search ata pata part_msdos part_gpt ext2 fat \
    iso9660 newc tar linux multiboot multiboot2 lsmmap lspci cpuid halt reboot";

/// The console is the serial port. The disk's own configuration follows, if there is one, or the shell.
const CONFIGURATION: &str = "\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
";

/// Makes the image `kernel` from the modules that were unpacked below `folder`, which then go.
///
/// # Errors
/// If `grub-mkimage` is missing or fails.
pub(super) fn make(folder: &Path, kernel: &Path) -> anyhow::Result<()> {
    let modules = folder.join(MODULES);
    let configuration = folder.join("early.cfg");
    fs::write(&configuration, CONFIGURATION)?;
    let mut command = Command::new("grub-mkimage");
    command.args(["--format", "i386-coreboot", "--prefix", "(ata0)/boot/grub", "--directory"]).arg(&modules);
    command.arg("--config").arg(&configuration).arg("--output").arg(kernel);
    command.args(BUILT_IN.split_ascii_whitespace()).stdin(Stdio::null());
    let output = command.output().map_err(|error| Failed::tool(format!("cannot run grub-mkimage: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failed::tool(format!("grub-mkimage failed: {}", said.trim())));
    }
    fs::remove_dir_all(folder.join("usr"))?;
    fs::remove_file(configuration)?;
    Ok(())
}
