//! The user's side of the guest's console: what is typed goes to COM1, raw if it comes from a terminal.

mod escape;

use std::io::{self, IsTerminal as _, Read as _};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::process::getpgrp;
use rustix::termios::{self, OptionalActions, OutputModes, Termios};

use crate::machine::{Input, Typed, Typist};
use escape::{Action, Escapes};

/// Bytes that are read at once.
const PORTION: usize = 4096;

const HELP: &str = "\r\n\
    Ctrl-A X       end the machine\r\n\
    Ctrl-A H       this help\r\n\
    Ctrl-A Ctrl-A  a Ctrl-A for the guest\r\n";

/// Reads stdin for a guest. While this lives a terminal is raw; dropping it puts the terminal back.
#[derive(Debug)]
pub struct Terminal {
    saved: Option<Termios>,
    waits: Option<Waits>,
}

/// Input that waits for the guest's word.
#[derive(Debug)]
struct Waits {
    text: Vec<u8>,
    /// The end of what the guest has printed, shorter than `text`.
    seen: Vec<u8>,
    gate: Arc<Gate>,
}

impl Terminal {
    /// Connects stdin. Input that does not come from a terminal waits until the guest has printed `ready`. A terminal that
    /// another process group uses is left alone.
    ///
    /// # Errors
    /// If the terminal cannot be made raw.
    pub fn connect(ready: Option<&str>) -> io::Result<(Self, Input)> {
        let stdin = io::stdin();
        let (typist, input) = Input::channel();
        if !stdin.is_terminal() {
            let gate = Arc::new(Gate::default());
            let waits =
                ready.map(|text| Waits { text: text.as_bytes().to_vec(), seen: Vec::new(), gate: Arc::clone(&gate) });
            if waits.is_none() {
                gate.open();
            }
            std::thread::spawn(move || {
                gate.wait();
                forward(&typist, |bytes, typist| typist.send(Typed::Bytes(bytes.to_vec())).is_ok());
            });
            return Ok((Self { saved: None, waits }, input));
        }
        if termios::tcgetpgrp(&stdin).ok() != Some(getpgrp()) {
            return Ok((Self { saved: None, waits: None }, Input::none()));
        }
        let saved = termios::tcgetattr(&stdin)?;
        let mut raw = saved.clone();
        raw.make_raw();
        // Guests and the hypervisor's own lines end in a line feed alone.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        std::thread::spawn(move || {
            let mut escapes = Escapes::default();
            forward(&typist, |bytes, typist| bytes.iter().all(|&byte| act(escapes.feed(byte), typist)));
        });
        Ok((Self { saved: Some(saved), waits: None }, input))
    }

    /// Looks at what the guest prints.
    pub fn guest_printed(&mut self, bytes: &[u8]) {
        let Some(waits) = &mut self.waits else { return };
        waits.seen.extend_from_slice(bytes);
        if waits.seen.windows(waits.text.len()).any(|window| window == waits.text) {
            waits.gate.open();
            self.waits = None;
        } else {
            let rest = waits.seen.len().saturating_sub(waits.text.len());
            waits.seen.drain(..rest);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Flush, saved);
        }
    }
}

/// Whether to go on.
fn act(action: Action, typist: &Typist) -> bool {
    match action {
        Action::None => true,
        Action::Type(byte) => typist.send(Typed::Bytes(vec![byte])).is_ok(),
        Action::Leave => typist.send(Typed::Leave).is_ok(),
        Action::Help => {
            eprint!("{HELP}");
            true
        }
    }
}

/// Hands stdin on, portion by portion, until it ends or `send` says that nobody listens.
fn forward(typist: &Typist, mut send: impl FnMut(&[u8], &Typist) -> bool) {
    let mut buffer = [0; PORTION];
    loop {
        match io::stdin().lock().read(&mut buffer) {
            Ok(0) => return,
            Ok(count) if send(&buffer[..count], typist) => {}
            Ok(_) => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Closed until it is opened once.
#[derive(Debug, Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_while(open, |open| !*open));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_waits_for_the_guests_word() {
        let gate = Arc::new(Gate::default());
        let waits = Waits { text: b"$ ".to_vec(), seen: Vec::new(), gate: Arc::clone(&gate) };
        let mut terminal = Terminal { saved: None, waits: Some(waits) };
        terminal.guest_printed(b"booting ... $");
        assert!(!*gate.open.lock().unwrap());
        terminal.guest_printed(b"\n$");
        assert!(!*gate.open.lock().unwrap());
        terminal.guest_printed(b" ");
        assert!(*gate.open.lock().unwrap(), "the word came in two parts");
        gate.wait();
        terminal.guest_printed(b"$ ");
    }
}
