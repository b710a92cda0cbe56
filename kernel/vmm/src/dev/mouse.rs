//! A PS/2 mouse that never moves: kernels that reset the mouse and wait for its answer get one (IBM PS/2 Hardware Interface
//! Technical Reference, mouse commands).

use core::array::IntoIter;
use core::iter::Take;

const ACKNOWLEDGE: u8 = 0xFA;
const RESEND: u8 = 0xFE;
const SELF_TEST_PASSED: u8 = 0xAA;
/// The identification of a mouse with two or three buttons and no wheel.
const IDENTITY: u8 = 0;
/// The first byte of a packet: no button, no movement; this bit is always set.
const STILL: u8 = 1 << 3;

const STATUS_REPORTING: u8 = 1 << 5;
const RESOLUTION: u8 = 2;
const RATE: u8 = 100;

/// What the mouse sends back.
pub(super) type Answer = Take<IntoIter<u8, 4>>;

/// What the next byte means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Command,
    /// The argument of "set sample rate" or "set resolution", which change nothing for a mouse at rest.
    Rate,
    Resolution,
}

/// The mouse.
#[derive(Clone, Debug)]
pub(super) struct Mouse {
    next: Next,
    reporting: bool,
    rate: u8,
    resolution: u8,
}

impl Default for Mouse {
    fn default() -> Self {
        Self { next: Next::Command, reporting: false, rate: RATE, resolution: RESOLUTION }
    }
}

impl Mouse {
    /// Takes a byte and gives the answer.
    pub(super) fn answer(&mut self, byte: u8) -> Answer {
        match core::mem::take(&mut self.next) {
            Next::Command => self.command(byte),
            Next::Rate => {
                self.rate = byte;
                acknowledged([])
            }
            Next::Resolution => {
                self.resolution = byte;
                acknowledged([])
            }
        }
    }

    fn command(&mut self, command: u8) -> Answer {
        match command {
            0xE8 => self.next = Next::Resolution,
            0xF3 => self.next = Next::Rate,
            0xF4 => self.reporting = true,
            0xF5 => self.reporting = false,
            0xF6 => *self = Self::default(),
            0xE6 | 0xE7 | 0xEA | 0xF0 => {} // scaling and modes
            0xE9 => {
                let reporting = if self.reporting { STATUS_REPORTING } else { 0 };
                return acknowledged([reporting, self.resolution, self.rate]);
            }
            0xEB => return acknowledged([STILL, 0, 0]),
            0xF2 => return acknowledged([IDENTITY]),
            0xFF => {
                *self = Self::default();
                return acknowledged([SELF_TEST_PASSED, IDENTITY]);
            }
            _ => return answer(RESEND, []),
        }
        acknowledged([])
    }
}

fn acknowledged<const N: usize>(rest: [u8; N]) -> Answer {
    answer(ACKNOWLEDGE, rest)
}

pub(super) fn answer<const N: usize>(first: u8, rest: [u8; N]) -> Answer {
    let mut bytes = [first, 0, 0, 0];
    for (place, byte) in bytes.iter_mut().skip(1).zip(rest) {
        *place = byte;
    }
    bytes.into_iter().take(1 + N)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn answered(mouse: &mut Mouse, byte: u8) -> Vec<u8> {
        mouse.answer(byte).collect()
    }

    #[test]
    fn it_tells_what_was_set() {
        let mut mouse = Mouse::default();
        assert_eq!(answered(&mut mouse, 0xF3), [0xFA]);
        assert_eq!(answered(&mut mouse, 40), [0xFA]);
        assert_eq!(answered(&mut mouse, 0xE8), [0xFA]);
        assert_eq!(answered(&mut mouse, 3), [0xFA]);
        assert_eq!(answered(&mut mouse, 0xF4), [0xFA]);
        assert_eq!(answered(&mut mouse, 0xE9), [0xFA, 0x20, 3, 40]);
        assert_eq!(answered(&mut mouse, 0xFF), [0xFA, 0xAA, 0]);
        assert_eq!(answered(&mut mouse, 0xE9), [0xFA, 0, 2, 100]);
        assert_eq!(answered(&mut mouse, 0xEB), [0xFA, 8, 0, 0]);
        assert_eq!(answered(&mut mouse, 0x01), [0xFE]);
    }
}
