//! The hypervisor's own command line: `log=info trace=off summary=on marks=off timeslice=10`.

use alloc::string::{String, ToString};

use log::LevelFilter;

use super::error::ConfigError;
use super::words::{Line, Word, number};

const PLACE: &str = "kernel command line";
const WORDS: &str = "log=, trace=, summary=, marks=, timeslice= or backend=";
const LEVELS: &str = "off, error, warn, info, debug or trace";
const SWITCH: &str = "on or off";
const BACKEND: &str = "depriv, vmx or svm";
const TIMESLICE: &str = "a number of milliseconds from 1 to 1000";

/// A thing that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It happens.
    On,
    /// It does not.
    Off,
}

impl Switch {
    /// Whether it is on.
    #[must_use]
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

/// Who runs the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Rings 1 and 3 on shadow tables: needs nothing of the CPU.
    Depriv,
    /// VT-x.
    Vmx,
    /// AMD-V.
    Svm,
}

/// What the hypervisor's command line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelConfig {
    /// The least important log line still printed (`log=`, default info).
    pub log: LevelFilter,
    /// Whether trace records are drained to COM2 (`trace=`, default off: the ring only).
    pub trace: Switch,
    /// Whether the counters are printed at the end (`summary=`, default on).
    pub summary: Switch,
    /// Whether a guest's marks are answered with the exits between them (`marks=`, default off; see `marks.rs`).
    pub marks: Switch,
    /// How long a guest runs before the next one has its turn, in milliseconds (`timeslice=`, default 10).
    pub timeslice_ms: u32,
    /// Who runs the guests (`backend=`, default depriv).
    pub backend: Backend,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            log: LevelFilter::Info,
            trace: Switch::Off,
            summary: Switch::On,
            marks: Switch::Off,
            timeslice_ms: 10,
            backend: Backend::Depriv,
        }
    }
}

/// Reads the hypervisor's command line. A first word without `=` is a path that the boot loader put there.
///
/// # Errors
/// A [`ConfigError`] for an unknown or repeated word or a value that cannot be used.
pub fn parse_kernel(line: &str) -> Result<KernelConfig, ConfigError> {
    let (mut log, mut trace, mut summary) = (None, None, None);
    let (mut marks, mut timeslice, mut chosen) = (None, None, None);
    let line = Line::new(line);
    if !line.rest.is_empty() {
        let problem = "`--` has no meaning here: expected it in a module's command line only";
        return Err(ConfigError::Combination { place: PLACE.to_string(), problem });
    }
    for word in line.words() {
        match (word.key, word.value) {
            ("log", Some(value)) => set(&mut log, "log", level(value), value, LEVELS)?,
            ("trace", Some(value)) => set(&mut trace, "trace", parse_switch(value), value, SWITCH)?,
            ("summary", Some(value)) => set(&mut summary, "summary", parse_switch(value), value, SWITCH)?,
            ("marks", Some(value)) => set(&mut marks, "marks", parse_switch(value), value, SWITCH)?,
            ("timeslice", Some(value)) => set(&mut timeslice, "timeslice", millis(value), value, TIMESLICE)?,
            ("backend", Some(value)) => set(&mut chosen, "backend", backend(value), value, BACKEND)?,
            _ => return Err(unknown(word)),
        }
    }
    let default = KernelConfig::default();
    Ok(KernelConfig {
        log: log.unwrap_or(default.log),
        trace: trace.unwrap_or(default.trace),
        summary: summary.unwrap_or(default.summary),
        marks: marks.unwrap_or(default.marks),
        timeslice_ms: timeslice.unwrap_or(default.timeslice_ms),
        backend: chosen.unwrap_or(default.backend),
    })
}

/// Stores what was read for `key`, once.
fn set<T>(
    slot: &mut Option<T>,
    key: &'static str,
    read: Option<T>,
    value: &str,
    expected: &'static str,
) -> Result<(), ConfigError> {
    let place = || PLACE.to_string();
    if slot.is_some() {
        return Err(ConfigError::Repeated { place: place(), key });
    }
    *slot = read;
    match slot {
        Some(_) => Ok(()),
        None => Err(ConfigError::BadValue { place: place(), key, value: String::from(value), expected }),
    }
}

fn unknown(word: Word<'_>) -> ConfigError {
    ConfigError::UnknownWord { place: PLACE.to_string(), word: String::from(word.text), expected: WORDS }
}

fn level(value: &str) -> Option<LevelFilter> {
    let known = value.bytes().all(|byte| byte.is_ascii_lowercase());
    known.then(|| value.parse().ok()).flatten()
}

pub(super) fn parse_switch(value: &str) -> Option<Switch> {
    match value {
        "on" => Some(Switch::On),
        "off" => Some(Switch::Off),
        _ => None,
    }
}

fn backend(value: &str) -> Option<Backend> {
    match value {
        "depriv" => Some(Backend::Depriv),
        "vmx" => Some(Backend::Vmx),
        "svm" => Some(Backend::Svm),
        _ => None,
    }
}

fn millis(value: &str) -> Option<u32> {
    number(value).and_then(|ms| u32::try_from(ms).ok()).filter(|ms| (1..=1000).contains(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        parse_kernel(line).map_or_else(|error| error.to_string(), |config| alloc::format!("accepted: {config:?}"))
    }

    #[test]
    fn an_empty_line_gives_the_defaults() {
        assert_eq!(parse_kernel(""), Ok(KernelConfig::default()));
        assert_eq!(parse_kernel("  /boot/gnomon  "), Ok(KernelConfig::default()));
    }

    #[test]
    fn every_word_is_understood() {
        let config = parse_kernel("/boot/gnomon log=debug trace=on summary=off marks=on timeslice=25 backend=svm");
        let expected = KernelConfig {
            log: LevelFilter::Debug,
            trace: Switch::On,
            summary: Switch::Off,
            marks: Switch::On,
            timeslice_ms: 25,
            backend: Backend::Svm,
        };
        assert_eq!(config, Ok(expected));
        assert_eq!(parse_kernel("log=off").map(|config| config.log), Ok(LevelFilter::Off));
    }

    #[test]
    fn refusals_name_what_was_expected() {
        assert_eq!(
            refusal("log=loud"),
            "kernel command line: log=loud cannot be used: expected off, error, warn, info, debug or trace"
        );
        assert_eq!(refusal("log=INFO"), refusal("log=loud").replace("loud", "INFO"));
        assert_eq!(
            refusal("speed=3"),
            "kernel command line: unknown word `speed=3`: expected log=, trace=, summary=, marks=, timeslice= or backend="
        );
        assert_eq!(
            refusal("gnomon fast"),
            "kernel command line: unknown word `fast`: expected log=, trace=, summary=, marks=, timeslice= or backend="
        );
        assert_eq!(
            refusal("timeslice=0"),
            "kernel command line: timeslice=0 cannot be used: expected a number of milliseconds from 1 to 1000"
        );
        assert_eq!(refusal("trace=on trace=off"), "kernel command line: trace= is given twice: expected it once");
        assert!(refusal("log=info -- x").contains("`--` has no meaning here"));
    }
}
