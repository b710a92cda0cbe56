//! The ports by which test kernels end themselves: 0xF4 (QEMU's isa-debug-exit) and 0x8900 (Bochs: "Shutdown", byte by
//! byte).

/// QEMU's isa-debug-exit.
pub(super) const EXIT_PORT: u16 = 0xF4;
/// Bochs' unmapped device.
pub(super) const SHUTDOWN_PORT: u16 = 0x8900;

const WORD: &[u8] = b"Shutdown";

/// How much of "Shutdown" was written so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ShutdownWord {
    matched: usize,
}

impl ShutdownWord {
    /// Takes the next byte; true when it ends the word.
    pub(super) fn write(&mut self, byte: u8) -> bool {
        // No other letter of the word is an S, so a wrong byte can at most begin it anew.
        let expected = WORD.get(self.matched) == Some(&byte);
        self.matched = if expected { self.matched.wrapping_add(1) } else { usize::from(WORD.first() == Some(&byte)) };
        if self.matched < WORD.len() {
            return false;
        }
        self.matched = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_word_counts() {
        let mut word = ShutdownWord::default();
        let ends = |word: &mut ShutdownWord, text: &str| text.bytes().filter(|byte| word.write(*byte)).count();
        assert_eq!(ends(&mut word, "shutdown Shut down ShutShutdow"), 0);
        assert_eq!(ends(&mut word, "n"), 1);
        assert_eq!(ends(&mut word, "SShutdownShutdown"), 2);
    }
}
