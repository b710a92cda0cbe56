//! An emulator process that cannot outlive its owner.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

/// A running emulator, killed when this is dropped.
#[derive(Debug)]
pub struct Child(std::process::Child);

impl Child {
    /// Starts it.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn(command: &mut Command) -> std::io::Result<Self> {
        command.spawn().map(Self)
    }

    /// Its stdin, if that is a pipe: a line that takes nothing if not.
    pub(super) fn take_stdin(&mut self) -> Box<dyn std::io::Write + Send> {
        match self.0.stdin.take() {
            Some(stdin) => Box::new(stdin),
            None => Box::new(std::io::sink()),
        }
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn try_wait(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Kills it with SIGKILL (Bochs ignores SIGTERM) and waits until it is gone. Killing one that has ended does nothing.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command for an emulator: no stdin; its own process group, so that a Ctrl-C reaches only us and we end it in order; and,
/// through `setpriv`, a kernel-side promise that it is killed when we are.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = if has_setpriv() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.stdin(Stdio::null()).process_group(0);
    command
}

fn has_setpriv() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let mut probe = Command::new("setpriv");
        probe.args(["--pdeathsig", "KILL", "--", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    })
}
