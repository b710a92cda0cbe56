//! Exit codes of the tool, and the error type that carries one.

use std::fmt;
use std::process::ExitCode;

/// What a command's end means to a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Every guest ended with status 0; the test or check passed.
    Ok,
    /// A guest ended with another status or was stopped; a test failed.
    Guest,
    /// Wrong arguments, guest description, command line or image.
    Usage,
    /// The hypervisor itself faulted or panicked.
    Host,
    /// The time limit passed.
    Timeout,
    /// An emulator or another tool is missing or failed, or the build failed.
    Tool,
    /// Interrupted by a signal.
    Interrupted,
    /// What QEMU's isa-debug-exit makes of a guest's status (`run --qemu-exit`).
    Qemu(u8),
}

impl Status {
    /// What QEMU ends with when a guest writes `value` to its isa-debug-exit device.
    #[must_use]
    pub const fn of_debug_exit(value: u32) -> Self {
        Self::Qemu((value << 1 | 1) as u8)
    }

    const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Guest => 1,
            Self::Usage => 2,
            Self::Host => 3,
            Self::Timeout => 4,
            Self::Tool => 5,
            Self::Interrupted => 130,
            Self::Qemu(code) => code,
        }
    }
}

/// The table of exit codes shown by `--help`.
pub const EXIT_CODES: &str = "Exit codes:
  0    every guest ended with status 0
  1    a guest ended with another status, or was stopped with a report; a test failed
  2    wrong arguments, guest description or image
  3    the hypervisor faulted
  4    the time limit passed
  5    an emulator or tool is missing or failed, or the build failed
  130  interrupted (no emulator is left behind)
With `run --qemu-exit` a guest that ends itself by port 0xF4 ends the tool as it would end QEMU: with twice its status, plus 1.";

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.code())
    }
}

/// An error that knows its exit code.
#[derive(Debug)]
pub struct Failed {
    /// The exit code.
    pub status: Status,
    message: String,
}

impl Failed {
    /// What went wrong, with the exit code that says so.
    pub fn with(status: Status, message: impl Into<String>) -> anyhow::Error {
        Self { status, message: message.into() }.into()
    }

    /// A wrong argument, description or image.
    pub fn usage(message: impl Into<String>) -> anyhow::Error {
        Self { status: Status::Usage, message: message.into() }.into()
    }

    /// A tool that is missing or did not do its work.
    pub fn tool(message: impl Into<String>) -> anyhow::Error {
        Self { status: Status::Tool, message: message.into() }.into()
    }

    /// The user or a script asked to stop.
    pub fn interrupted() -> anyhow::Error {
        Self { status: Status::Interrupted, message: "interrupted".into() }.into()
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failed {}

/// The exit code of an error; [`Status::Tool`] if it does not say.
#[must_use]
pub fn of_error(error: &anyhow::Error) -> Status {
    error.downcast_ref::<Failed>().map_or(Status::Tool, |failed| failed.status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn context_keeps_the_code() {
        let error = Err::<(), _>(Failed::usage("bad")).context("outer").context("more").unwrap_err();
        assert_eq!(of_error(&error), Status::Usage);
        assert_eq!(of_error(&anyhow::anyhow!("plain")), Status::Tool);
    }
}
