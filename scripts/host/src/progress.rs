//! What the tool says about its own work, on stderr. Stdout belongs to the guest or to the answer that was asked for.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

static QUIET: AtomicBool = AtomicBool::new(false);

/// Silences [`step`] and [`note`].
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether stderr is a terminal that wants colour.
#[must_use]
pub fn stderr_colour() -> bool {
    std::io::stderr().is_terminal() && colour_wanted()
}

/// Whether stdout is a terminal that wants colour.
#[must_use]
pub fn stdout_colour() -> bool {
    std::io::stdout().is_terminal() && colour_wanted()
}

fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Says something about the tool's own work. A closed stderr is not an error.
pub fn note(text: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        let _ = writeln!(std::io::stderr(), "gnomon: {text}");
    }
}

/// Says what went wrong.
pub fn error(text: &str) {
    let mark = if stderr_colour() { "\x1b[31merror\x1b[0m" } else { "error" };
    let _ = writeln!(std::io::stderr(), "gnomon: {mark}: {text}");
}

/// Runs a step that may take a while: says that it began, and how long it took if that was over a second.
///
/// # Errors
/// Those of the step.
pub fn step<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    note(what);
    let start = Instant::now();
    let result = work()?;
    let seconds = start.elapsed().as_secs_f64();
    if seconds > 1.0 {
        note(&format!("{what}: done in {seconds:.1} s"));
    }
    Ok(result)
}
