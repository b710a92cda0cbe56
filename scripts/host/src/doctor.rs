//! `gnomon doctor`: what is missing or wrong on this machine.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::image::GRUB_MODULES;
use crate::machine::{BOCHS_CPU, QEMU, QEMU_CPU, ROM_FILES};
use crate::status::Status;
use crate::workspace;

/// One finding.
struct Check {
    what: &'static str,
    /// What it is for.
    why: &'static str,
    /// What was found, or what to do about it.
    result: Result<String, String>,
    /// Whether Gnomon works without it.
    optional: bool,
}

fn check(what: &'static str, why: &'static str, result: Result<String, String>) -> Check {
    Check { what, why, result, optional: false }
}

/// `gnomon doctor`.
///
/// # Errors
/// Those of stdout.
pub fn run() -> anyhow::Result<Status> {
    let checks = all();
    let mut out = io::stdout().lock();
    let mut wrong = 0;
    for Check { what, why, result, optional } in &checks {
        match result {
            Ok(found) => writeln!(out, "ok       {what}: {found}")?,
            Err(advice) if *optional => writeln!(out, "note     {what} ({why}): {advice}")?,
            Err(advice) => {
                wrong += 1;
                writeln!(out, "MISSING  {what} ({why}): {advice}")?;
            }
        }
    }
    if wrong == 0 {
        writeln!(out, "Everything that Gnomon needs is here.")?;
        return Ok(Status::Ok);
    }
    writeln!(out, "{wrong} of {} checks failed. `scripts/gnomon demo` installs what Debian has.", checks.len())?;
    Ok(Status::Tool)
}

fn all() -> Vec<Check> {
    vec![
        check("cargo", "builds everything", version("cargo", "--version", "install rustup, https://rustup.rs")),
        check("rust toolchain", "the kernel's flags need this very version", toolchain()),
        check("rustfmt and clippy", "used by gnomon test", components()),
        check("cc", "links", version("cc", "--version", &package("gcc libc6-dev"))),
        check("QEMU", "runs Gnomon", version(QEMU, "--version", &package("qemu-system-x86"))),
        check("QEMU's CPU model", "the default of --cpu", model(QEMU, &["-cpu", "help"], QEMU_CPU)),
        check("Bochs", "runs Gnomon, and judges it more strictly", bochs()),
        check("Bochs' CPU model", "the default of --cpu", model("bochs", &["--help", "cpu"], BOCHS_CPU)),
        check("Bochs' terminal display", "runs it without a window", bochs_display()),
        check("BIOS for Bochs", "the machine's firmware", files(&ROM_FILES, "seabios")),
        check("grub-mkrescue", "makes boot images", version("grub-mkrescue", "--version", &package("grub-common"))),
        check("GRUB for BIOS machines", "boots the images", files(&[GRUB_MODULES], "grub-pc-bin")),
        check("xorriso", "writes the images", version("xorriso", "-version", &package("xorriso"))),
        Check {
            what: "setpriv",
            why: "kills emulators even if this tool is killed",
            result: version("setpriv", "--version", &package("util-linux")),
            optional: true,
        },
        check("temporary files", "boot images and serial output go there", temporary()),
    ]
}

fn package(names: &str) -> String {
    format!("apt-get install {names}")
}

/// The first line that says a number, of what a program says about itself.
fn version(program: &str, argument: &str, advice: &str) -> Result<String, String> {
    let said = output(program, &[argument]).ok_or_else(|| advice.to_owned())?;
    let line = said.lines().find(|line| line.chars().any(|c| c.is_ascii_digit()));
    Ok(line.unwrap_or("there").trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(workspace::root()).stdin(Stdio::null()).output().ok()?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Some(text)
}

/// The version that `rust-toolchain.toml` pins, against the one that runs here.
fn toolchain() -> Result<String, String> {
    let file = std::fs::read_to_string(workspace::root().join("rust-toolchain.toml")).unwrap_or_default();
    let pinned = file.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap_or_default().trim_matches('"');
    let found = version("rustc", "--version", &format!("rustup toolchain install {pinned}"))?;
    if found.contains(pinned) { Ok(found) } else { Err(format!("found {found}, expected {pinned}: install rustup")) }
}

fn components() -> Result<String, String> {
    let advice = "rustup component add rustfmt clippy";
    for name in ["fmt", "clippy"] {
        let said = output("cargo", &[name, "--version"]).unwrap_or_default();
        if !said.contains(&format!("rust{name}")) && !said.starts_with(name) {
            return Err(advice.into());
        }
    }
    Ok("there".into())
}

fn model(program: &str, arguments: &[&str], wanted: &str) -> Result<String, String> {
    let list = output(program, arguments).ok_or("the emulator is missing")?;
    let found = list.split_ascii_whitespace().any(|word| word == wanted);
    if found { Ok(wanted.into()) } else { Err(format!("this version has no `{wanted}`: give another one with --cpu")) }
}

fn bochs() -> Result<String, String> {
    let said = output("bochs", &["--help"]).ok_or_else(|| package("bochs"))?;
    let line = said.lines().find(|line| line.contains("Bochs x86 Emulator"));
    Ok(line.unwrap_or("there").trim().to_owned())
}

fn bochs_display() -> Result<String, String> {
    let folders = ["/usr/lib/bochs/plugins", "/usr/lib/x86_64-linux-gnu/bochs/plugins", "/usr/local/lib/bochs/plugins"];
    let found = folders.iter().map(|folder| Path::new(folder).join("libbx_term_gui.so")).find(|path| path.exists());
    found.map(|path| path.display().to_string()).ok_or_else(|| package("bochs-term"))
}

fn files(paths: &[&str], from: &str) -> Result<String, String> {
    match paths.iter().find(|path| !Path::new(path).exists()) {
        Some(missing) => Err(format!("{missing} is missing: {}", package(from))),
        None => Ok(paths.join(", ")),
    }
}

fn temporary() -> Result<String, String> {
    let folder = std::env::temp_dir();
    let attempt = tempfile::tempdir().map_err(|error| format!("cannot write to {}: {error}", folder.display()));
    attempt.map(|_| folder.display().to_string())
}
