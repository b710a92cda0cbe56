//! Guest output on the host's console: raw for a single guest, line by line with the guest's name for several.

use alloc::string::String;
use alloc::vec::Vec;
use gnomon_hw::console;

/// Longest line that is held back before it is printed in parts.
const LONGEST_LINE: usize = 256;

/// One guest's way to the host's console.
pub(crate) struct Console {
    prefix: Option<String>,
    line: Vec<u8>,
}

impl Console {
    /// A console that prints raw bytes, or lines that begin with `name| `.
    #[must_use]
    pub(crate) fn new(name: Option<&str>) -> Self {
        Self { prefix: name.map(String::from), line: Vec::with_capacity(LONGEST_LINE) }
    }

    /// Prints what the guest wrote.
    pub(crate) fn print(&mut self, bytes: impl Iterator<Item = u8>) {
        for byte in bytes {
            if self.prefix.is_none() {
                console::write_byte(byte);
                continue;
            }
            self.line.push(byte);
            if byte == b'\n' || self.line.len() >= LONGEST_LINE {
                self.flush();
            }
        }
    }

    /// Prints a line that has no end yet.
    pub(crate) fn flush(&mut self) {
        let Some(prefix) = &self.prefix else { return };
        if self.line.is_empty() {
            return;
        }
        for &byte in prefix.as_bytes().iter().chain(b"| ").chain(&self.line) {
            console::write_byte(byte);
        }
        if self.line.last() != Some(&b'\n') {
            console::write_byte(b'\n');
        }
        self.line.clear();
    }
}
