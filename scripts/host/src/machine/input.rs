//! What is typed at COM1 of a machine.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How many messages may wait. The sender then waits as well, so that input of any length needs no memory.
const WAITING: usize = 16;

/// One thing that was typed.
#[derive(Debug)]
pub enum Typed {
    /// Bytes for the guest.
    Bytes(Vec<u8>),
    /// The wish to end the machine.
    Leave,
}

/// The end of the channel for whoever types.
pub type Typist = SyncSender<Typed>;

/// The source of a machine's input.
#[derive(Debug)]
pub struct Input(Option<Receiver<Typed>>);

impl Input {
    /// Nobody types.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Somebody types.
    #[must_use]
    pub fn channel() -> (Typist, Self) {
        let (typist, receiver) = sync_channel(WAITING);
        (typist, Self(Some(receiver)))
    }

    /// Whether somebody may type.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Hands bytes on to the emulator as they come, in a thread of its own. The flag says that [`Typed::Leave`] came.
    pub(super) fn type_at(self, mut line: Box<dyn Write + Send>) -> Arc<AtomicBool> {
        let left = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&left);
        if let Some(receiver) = self.0 {
            std::thread::spawn(move || {
                for typed in receiver {
                    match typed {
                        // The emulator has ended: whoever watches it will know.
                        Typed::Bytes(bytes) if line.write_all(&bytes).and_then(|()| line.flush()).is_err() => return,
                        Typed::Bytes(_) => {}
                        Typed::Leave => flag.store(true, Ordering::Relaxed),
                    }
                }
            });
        }
        left
    }
}
