//! The few VGA registers that text-mode kernels touch: the CRT controller's index and data ports (cursor place, start
//! address) and input status 1 (retrace). The text memory at 0xB8000 is not a matter of ports.

use super::time::Nanos;

/// Registers of a CRT controller in 80x25 text mode, as a VGA BIOS programs them, with the cursor at the top.
const TEXT_MODE: [u8; 25] = [
    0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0x00, 0x00, 0x00, 0x00, 0x9C, 0x8E, 0x8F,
    0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF,
];

/// One frame and one line of 720x400 text at 70 Hz, in nanoseconds, and what is seen of them.
const FRAME: u64 = 14_268_000;
const FRAME_VISIBLE: u64 = 12_710_000;
const LINE: u64 = 31_777;
const LINE_VISIBLE: u64 = 25_422;

const DISPLAY_DISABLED: u8 = 1 << 0;
const VERTICAL_RETRACE: u8 = 1 << 3;

/// The CRT controller of a colour text mode.
#[derive(Clone, Debug)]
pub(super) struct Crtc {
    index: u8,
    registers: [u8; 25],
}

impl Crtc {
    /// The controller as a BIOS leaves it.
    pub(super) fn new() -> Self {
        Self { index: 0, registers: TEXT_MODE }
    }

    /// The first cell of the text memory that is seen, and the cursor's cell.
    pub(super) fn place(&self) -> (u16, u16) {
        let [.., start_high, start_low, cursor_high, cursor_low, _, _, _, _, _, _, _, _, _] = self.registers;
        (u16::from_be_bytes([start_high, start_low]), u16::from_be_bytes([cursor_high, cursor_low]))
    }

    pub(super) fn read(&self, port: u16, now: Nanos) -> u8 {
        match port {
            0x3D4 => self.index,
            0x3D5 => self.registers.get(usize::from(self.index)).copied().unwrap_or(0),
            _ => status(now),
        }
    }

    pub(super) fn write(&mut self, port: u16, value: u8) {
        match port {
            0x3D4 => self.index = value & 0x1F,
            0x3D5 => {
                if let Some(register) = self.registers.get_mut(usize::from(self.index)) {
                    *register = value;
                }
            }
            _ => {}
        }
    }
}

/// Input status 1: waiting for either edge of the retrace ends.
fn status(now: Nanos) -> u8 {
    let (in_frame, in_line) = (now.raw() % FRAME, now.raw() % LINE);
    if in_frame >= FRAME_VISIBLE {
        VERTICAL_RETRACE | DISPLAY_DISABLED
    } else if in_line >= LINE_VISIBLE {
        DISPLAY_DISABLED
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_place_is_kept() {
        let mut crtc = Crtc::new();
        for (index, value) in [(14, 0x03), (15, 0xC0)] {
            crtc.write(0x3D4, index);
            assert_eq!(crtc.read(0x3D5, Nanos::ZERO), 0);
            crtc.write(0x3D5, value);
            assert_eq!(crtc.read(0x3D5, Nanos::ZERO), value);
        }
        assert_eq!(crtc.place(), (0, 0x03C0));
        crtc.write(0x3D4, 0x1F);
        crtc.write(0x3D5, 0xFF);
        assert_eq!(crtc.read(0x3D5, Nanos::ZERO), 0);
    }

    #[test]
    fn retraces_come_and_go() {
        let crtc = Crtc::new();
        assert_eq!(crtc.read(0x3DA, Nanos::ZERO), 0);
        assert_eq!(crtc.read(0x3DA, Nanos::new(LINE_VISIBLE)), DISPLAY_DISABLED);
        assert_eq!(crtc.read(0x3DA, Nanos::new(FRAME - 1)), VERTICAL_RETRACE | DISPLAY_DISABLED);
    }
}
