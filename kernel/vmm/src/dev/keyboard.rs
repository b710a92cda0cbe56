//! A PS/2 keyboard that types what is typed at the host's console (IBM PS/2 Hardware Interface Technical Reference, keyboard commands).
//!
//! It sends scan code set 2 unless told otherwise, which the controller translates to set 1 unless told otherwise.

use alloc::collections::VecDeque;

use super::mouse::{Answer, answer};
use super::scancodes;

/// Typed characters that may wait for the guest.
const TYPED: usize = 1024;

const ACKNOWLEDGE: u8 = 0xFA;
const RESEND: u8 = 0xFE;
const SELF_TEST_PASSED: u8 = 0xAA;
const DEFAULT_SET: u8 = 2;

/// Commands with an argument: the lamps, the scan code set, the rate.
const LAMPS: u8 = 0xED;
const SCAN_CODE_SET: u8 = 0xF0;
const RATE: u8 = 0xF3;

/// The keyboard. `translates` is always the controller's mode.
#[derive(Clone, Debug)]
pub(super) struct Keyboard {
    /// Typed characters whose keys were not pressed yet.
    typed: VecDeque<u8>,
    /// What is left to be sent of the character before them.
    codes: VecDeque<u8>,
    /// It sends what is typed.
    scanning: bool,
    set: u8,
    /// The command whose argument comes next.
    command: Option<u8>,
}

impl Keyboard {
    pub(super) fn new() -> Self {
        Self { typed: VecDeque::new(), codes: VecDeque::new(), scanning: true, set: DEFAULT_SET, command: None }
    }

    /// Whether another character can be typed.
    pub(super) fn has_room(&self) -> bool {
        self.typed.len() < TYPED
    }

    /// A character was typed.
    pub(super) fn type_character(&mut self, character: u8) {
        if self.has_room() {
            self.typed.push_back(character);
        }
    }

    /// Takes the characters back whose keys the guest has not seen.
    pub(super) fn take_unread(&mut self) -> impl Iterator<Item = u8> + '_ {
        self.typed.drain(..)
    }

    /// The next byte of what is typed.
    pub(super) fn next_code(&mut self, translates: bool) -> Option<u8> {
        if !self.scanning {
            return None;
        }
        // Characters that no key makes are passed over.
        while self.codes.is_empty() {
            let codes = scancodes::typed(self.typed.pop_front()?);
            if translates || self.set == 1 {
                self.codes.extend(codes);
            } else {
                self.codes.extend(codes.flat_map(scancodes::in_set_2));
            }
        }
        self.codes.pop_front()
    }

    /// Takes a byte and gives the answer.
    pub(super) fn answer(&mut self, byte: u8, translates: bool) -> Answer {
        if let Some(command) = self.command.take() {
            return self.argument(command, byte, translates);
        }
        match byte {
            LAMPS | SCAN_CODE_SET | RATE => self.command = Some(byte),
            0xEE => return answer(0xEE, []),
            // The identification is translated like a scan code.
            0xF2 => return answer(ACKNOWLEDGE, [0xAB, if translates { 0x41 } else { 0x83 }]),
            0xF4 | 0xF7..=0xFA => self.scanning = true,
            0xF5 => self.scanning = false,
            0xF6 => (self.scanning, self.set) = (true, DEFAULT_SET),
            0xFF => {
                (self.scanning, self.set) = (true, DEFAULT_SET);
                return answer(ACKNOWLEDGE, [SELF_TEST_PASSED]);
            }
            _ => return answer(RESEND, []),
        }
        answer(ACKNOWLEDGE, [])
    }

    fn argument(&mut self, command: u8, argument: u8, translates: bool) -> Answer {
        match (command, argument) {
            (SCAN_CODE_SET, 0) => {
                let set = match (self.set, translates) {
                    (1, true) => 0x43,
                    (2, true) => 0x41,
                    (_, true) => 0x3F,
                    (set, false) => set,
                };
                return answer(ACKNOWLEDGE, [set]);
            }
            (SCAN_CODE_SET, 1..=3) => self.set = argument,
            (SCAN_CODE_SET, _) => return answer(RESEND, []),
            _ => {}
        }
        answer(ACKNOWLEDGE, [])
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn answered(keyboard: &mut Keyboard, byte: u8, translates: bool) -> Vec<u8> {
        keyboard.answer(byte, translates).collect()
    }

    fn typed(keyboard: &mut Keyboard, text: &str, translates: bool) -> Vec<u8> {
        text.bytes().for_each(|byte| keyboard.type_character(byte));
        core::iter::from_fn(|| keyboard.next_code(translates)).collect()
    }

    #[test]
    fn the_set_can_be_asked_for_and_chosen() {
        let mut keyboard = Keyboard::new();
        let ask = |keyboard: &mut Keyboard, translates| {
            assert_eq!(answered(keyboard, SCAN_CODE_SET, translates), [0xFA]);
            answered(keyboard, 0, translates)
        };
        assert_eq!((ask(&mut keyboard, true), ask(&mut keyboard, false)), ([0xFA, 0x41].into(), [0xFA, 2].into()));
        answered(&mut keyboard, SCAN_CODE_SET, true);
        assert_eq!(answered(&mut keyboard, 1, true), [0xFA]);
        assert_eq!((ask(&mut keyboard, true), ask(&mut keyboard, false)), ([0xFA, 0x43].into(), [0xFA, 1].into()));
        answered(&mut keyboard, SCAN_CODE_SET, true);
        assert_eq!(answered(&mut keyboard, 4, true), [RESEND]);
        assert_eq!(answered(&mut keyboard, 0xFF, true), [0xFA, 0xAA]);
        assert_eq!(ask(&mut keyboard, false), [0xFA, 2]);
    }

    #[test]
    fn without_translation_the_codes_are_those_of_the_set() {
        let mut keyboard = Keyboard::new();
        assert_eq!(typed(&mut keyboard, "a", true), [0x1E, 0x9E]);
        assert_eq!(typed(&mut keyboard, "A\n", false), [0x12, 0x1C, 0xF0, 0x1C, 0xF0, 0x12, 0x5A, 0xF0, 0x5A]);
        answered(&mut keyboard, SCAN_CODE_SET, false);
        answered(&mut keyboard, 1, false);
        assert_eq!(typed(&mut keyboard, "a", false), [0x1E, 0x9E]);
        answered(&mut keyboard, 0xF5, false);
        assert!(typed(&mut keyboard, "a", false).is_empty());
        answered(&mut keyboard, 0xF4, false);
        assert_eq!(typed(&mut keyboard, "", false), [0x1E, 0x9E]);
    }
}
