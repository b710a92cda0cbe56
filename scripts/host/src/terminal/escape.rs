//! The escape key, Ctrl-A, as QEMU has it.

const CTRL_A: u8 = 0x01;

/// What a byte from the terminal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing yet, or an escape that means nothing.
    None,
    /// The guest gets this byte.
    Type(u8),
    /// The machine ends.
    Leave,
    /// The user wants to know the escapes.
    Help,
}

/// Follows the bytes from a terminal.
#[derive(Debug, Default)]
pub(super) struct Escapes {
    escaped: bool,
}

impl Escapes {
    /// What the next byte means.
    pub(super) fn feed(&mut self, byte: u8) -> Action {
        if !std::mem::take(&mut self.escaped) {
            self.escaped = byte == CTRL_A;
            return if self.escaped { Action::None } else { Action::Type(byte) };
        }
        match byte {
            CTRL_A => Action::Type(CTRL_A),
            b'x' | b'X' => Action::Leave,
            b'h' | b'H' | b'?' => Action::Help,
            _ => Action::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(bytes: &[u8]) -> Vec<Action> {
        let mut escapes = Escapes::default();
        bytes.iter().map(|&byte| escapes.feed(byte)).filter(|&action| action != Action::None).collect()
    }

    #[test]
    fn everything_but_the_escape_key_is_the_guests() {
        let all: Vec<u8> = (0..=255).filter(|&byte| byte != CTRL_A).collect();
        let expected: Vec<Action> = all.iter().map(|&byte| Action::Type(byte)).collect();
        assert_eq!(feed(&all), expected);
    }

    #[test]
    fn escapes() {
        assert_eq!(feed(b"\x01x"), [Action::Leave]);
        assert_eq!(feed(b"\x01h\x01?"), [Action::Help, Action::Help]);
        assert_eq!(feed(b"\x01\x01x"), [Action::Type(CTRL_A), Action::Type(b'x')]);
        assert_eq!(feed(b"\x01qx\x01"), [Action::Type(b'x')]);
    }
}
