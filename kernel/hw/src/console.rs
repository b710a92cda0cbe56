//! The console on COM1: the guests' bytes, raw, and the hypervisor's own lines.
//!
//! A hypervisor line is `\x1e[gnomon LEVEL] text\n`; the host tool takes the stream apart again. Text of several lines becomes
//! several such lines.

use crate::uart::{COM1, Receive};
use core::fmt::{self, Write};
use log::{Level, LevelFilter, Log, Metadata, Record};

/// Begins a hypervisor line.
const MARK: u8 = 0x1e;

/// Sends one byte of a guest's output.
pub fn write_byte(byte: u8) {
    COM1.send(byte);
}

/// A byte that was typed, if there is one. A byte's arrival raises host interrupt 4.
#[must_use]
pub fn read_byte() -> Option<u8> {
    COM1.receive()
}

/// Waits until all bytes have left the port.
pub fn flush() {
    COM1.flush();
}

/// Prints a hypervisor line whatever the log level is.
pub(crate) fn line(label: &str, text: fmt::Arguments<'_>) {
    let mut lines = Lines { label, open: false };
    // The writer never fails; an error of a Display implementation just ends the line.
    let _ = lines.write_fmt(text);
    lines.end();
}

struct Lines<'a> {
    label: &'a str,
    open: bool,
}

impl Lines<'_> {
    fn begin(&mut self) {
        if !self.open {
            self.open = true;
            COM1.send(MARK);
            b"[gnomon ".iter().chain(self.label.as_bytes()).chain(b"] ").for_each(|&b| COM1.send(b));
        }
    }

    fn end(&mut self) {
        self.begin();
        COM1.send(b'\n');
        self.open = false;
    }
}

impl Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match byte {
                b'\n' => self.end(),
                _ => {
                    self.begin();
                    // What a guest's name or command line contains must not look like the start of another line.
                    COM1.send(if byte == MARK { b'?' } else { byte });
                }
            }
        }
        Ok(())
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let label = match record.level() {
                Level::Error => "error",
                Level::Warn => "warn",
                Level::Info => "info",
                Level::Debug => "debug",
                Level::Trace => "trace",
            };
            line(label, *record.args());
        }
    }

    fn flush(&self) {
        flush();
    }
}

/// Sets up the port and makes it the place of all log lines, from level `info` up until told otherwise.
pub(crate) fn init() {
    static LOGGER: Logger = Logger;
    COM1.init(Receive::Interrupt);
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}
