//! Guest output on the host's console: raw for a single guest, line by line with the guest's name for several.
//!
//! Of several guests each gets whole lines. A line that is not complete, such as a prompt, is shown when its guest has been quiet for
//! a while; then that guest goes on in it, until another one prints.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;

use gnomon_hw::console;

use crate::dev::Nanos;

/// Longest line that is held back before it is printed in parts.
const LONGEST_LINE: usize = 256;
/// An unfinished line is held back for so long after its last byte, in nanoseconds.
const PATIENCE: u64 = 50_000_000;

/// What the guests have in common: whose unfinished line the host's console shows, by a guest's number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Rc<Cell<Option<usize>>>);

/// One guest's way to the host's console.
pub(crate) struct Console {
    /// The guest's number and name, if there are several.
    named: Option<(usize, String)>,
    shared: Shared,
    line: Vec<u8>,
    /// When the line that is held back is to be shown.
    due: Option<Nanos>,
}

impl Console {
    /// A console that prints raw bytes, or lines that begin with `name| `.
    #[must_use]
    pub(crate) fn new(named: Option<(usize, &str)>, shared: &Shared) -> Self {
        Self {
            named: named.map(|(number, name)| (number, name.into())),
            shared: shared.clone(),
            line: Vec::with_capacity(LONGEST_LINE),
            due: None,
        }
    }

    /// Prints what the guest wrote by now.
    #[inline]
    pub(crate) fn print(&mut self, bytes: impl Iterator<Item = u8>, now: Nanos) {
        if self.named.is_none() {
            bytes.for_each(console::write_byte);
        } else {
            self.print_lines(bytes, now);
        }
    }

    #[inline(never)]
    fn print_lines(&mut self, bytes: impl Iterator<Item = u8>, now: Nanos) {
        for byte in bytes {
            self.line.push(byte);
            self.due = Some(now.plus(PATIENCE));
            if byte == b'\n' || self.line.len() >= LONGEST_LINE {
                self.show();
            }
        }
        if self.due.is_some_and(|due| due <= now) || self.has_open_line() {
            self.show();
        }
    }

    /// When [`Console::print`] has something to do though the guest prints nothing.
    #[inline]
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.due
    }

    /// Ends a line that has no end yet.
    pub(crate) fn finish(&mut self) {
        self.show();
        if self.has_open_line() {
            console::write_byte(b'\n');
            self.shared.0.set(None);
        }
    }

    fn has_open_line(&self) -> bool {
        self.named.as_ref().is_some_and(|(number, _)| self.shared.0.get() == Some(*number))
    }

    /// Shows what is held back.
    fn show(&mut self) {
        self.due = None;
        let Some((number, name)) = &self.named else { return };
        let Some(&last) = self.line.last() else { return };
        if self.shared.0.get() != Some(*number) {
            if self.shared.0.get().is_some() {
                console::write_byte(b'\n');
            }
            name.as_bytes().iter().chain(b"| ").for_each(|&byte| console::write_byte(byte));
        }
        self.line.iter().for_each(|&byte| console::write_byte(byte));
        self.line.clear();
        self.shared.0.set((last != b'\n').then_some(*number));
    }
}
