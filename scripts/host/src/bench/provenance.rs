//! What was measured, and with what: without it, figures are worth little.

use std::process::{Command, Stdio};

use super::results::{Source, Tools};
use crate::machine::{BOCHS_CPU, QEMU, QEMU_CPU};
use crate::workspace;

/// The state of the sources.
pub(super) fn source() -> Source {
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"]);
    let status = output("git", &["status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench", ":!docs"]);
    let changed = commit.is_none() || status.is_none_or(|status| !status.trim().is_empty());
    Source { commit: commit.map_or_else(|| "unknown".into(), |text| text.trim().to_owned()), changed }
}

/// The versions of the tools.
pub(super) fn tools() -> Tools {
    Tools {
        qemu: line(QEMU, &["--version"], "version"),
        qemu_cpu: QEMU_CPU.into(),
        bochs: line("bochs", &["--help"], "Bochs x86 Emulator"),
        bochs_cpu: BOCHS_CPU.into(),
        rustc: line("rustc", &["--version"], "rustc"),
        host: host(),
    }
}

/// The CPU's own name and how many of them there are.
fn host() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{}, {cores} cores", name.map_or("unknown CPU", |(_, name)| name.trim()))
}

/// The line with this in it, of what a program says.
fn line(program: &str, arguments: &[&str], part: &str) -> String {
    let said = output(program, arguments).unwrap_or_default();
    said.lines().find(|line| line.contains(part)).unwrap_or("unknown").trim().to_owned()
}

/// What a program says, on either stream; nothing if it fails to start.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(workspace::root()).stdin(Stdio::null()).output().ok()?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Some(text)
}
