//! The i8042 keyboard controller at ports 0x60 and 0x64: enough for a kernel to find it, to find a keyboard behind it that
//! types what is typed at the host's console, and to reset the machine. Behind the second port is a mouse that never moves.

use alloc::collections::VecDeque;

use super::keyboard::Keyboard;
use super::mouse::Mouse;

/// Bytes that may wait in the output buffer and the keyboard; more are dropped.
const QUEUE: usize = 16;

const STATUS_OUTPUT_FULL: u8 = 1 << 0;
const STATUS_SELF_TEST_PASSED: u8 = 1 << 2;
const STATUS_LAST_WAS_COMMAND: u8 = 1 << 3;
const STATUS_UNLOCKED: u8 = 1 << 4;
const STATUS_MOUSE: u8 = 1 << 5;

const CONFIG_INTERRUPT: u8 = 1 << 0;
const CONFIG_MOUSE_INTERRUPT: u8 = 1 << 1;
const CONFIG_KEYBOARD_OFF: u8 = 1 << 4;
const CONFIG_MOUSE_OFF: u8 = 1 << 5;
const CONFIG_TRANSLATE: u8 = 1 << 6;

/// Bit 0 of the output port is the CPU's reset line, active low; bit 1 is A20, here always on.
const OUTPUT_RESET: u8 = 1 << 0;
const OUTPUT_A20: u8 = 1 << 1;
const OUTPUT_INTERRUPT: u8 = 1 << 4;
const OUTPUT_MOUSE_INTERRUPT: u8 = 1 << 5;

/// What the next byte at port 0x60 is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Keyboard,
    Config,
    OutputPort,
    /// Comes back as if this device had sent it.
    Echo(Source),
    Mouse,
}

/// Where a byte in the output buffer is from; the controller's own count as the keyboard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Keyboard,
    Mouse,
}

/// Whether a write asks for a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    None,
    Reset,
}

/// The controller, its keyboard and its mouse.
#[derive(Clone, Debug)]
pub(super) struct I8042 {
    output: VecDeque<(Source, u8)>,
    keyboard: Keyboard,
    mouse: Mouse,
    last: u8,
    config: u8,
    next: Next,
    last_was_command: bool,
}

impl I8042 {
    /// The controller as a BIOS leaves it.
    pub(super) fn new() -> Self {
        let config = CONFIG_INTERRUPT | CONFIG_MOUSE_OFF | CONFIG_TRANSLATE;
        Self {
            output: VecDeque::new(),
            keyboard: Keyboard::new(),
            mouse: Mouse::default(),
            last: 0,
            config,
            next: Next::Keyboard,
            last_was_command: true,
        }
    }

    /// The keyboard's interrupt (IRQ 1): a byte of its waits and may interrupt.
    pub(super) fn interrupt(&self) -> bool {
        self.config & CONFIG_INTERRUPT != 0 && self.waiting() == Some(Source::Keyboard)
    }

    /// The mouse's interrupt (IRQ 12).
    pub(super) fn mouse_interrupt(&self) -> bool {
        self.config & CONFIG_MOUSE_INTERRUPT != 0 && self.waiting() == Some(Source::Mouse)
    }

    /// Whose byte is read next.
    fn waiting(&self) -> Option<Source> {
        self.output.front().map(|&(source, _)| source)
    }

    pub(super) fn read(&mut self, port: u16) -> u8 {
        if port == 0x64 {
            return self.status();
        }
        if let Some((_, byte)) = self.output.pop_front() {
            self.last = byte;
        }
        let last = self.last;
        self.take_typed();
        last
    }

    /// Whether another character can be typed.
    pub(super) fn has_room(&self) -> bool {
        self.keyboard.has_room()
    }

    /// A character was typed.
    pub(super) fn type_character(&mut self, character: u8) {
        self.keyboard.type_character(character);
        self.take_typed();
    }

    /// Takes the characters back whose keys the guest has not seen.
    pub(super) fn take_unread(&mut self) -> impl Iterator<Item = u8> + '_ {
        self.keyboard.take_unread()
    }

    /// Lets the next typed code into the empty output buffer, if the keyboard may send.
    fn take_typed(&mut self) {
        if self.output.is_empty() && self.config & CONFIG_KEYBOARD_OFF == 0 {
            let code = self.keyboard.next_code(self.config & CONFIG_TRANSLATE != 0);
            self.output.extend(code.map(|code| (Source::Keyboard, code)));
        }
    }

    #[must_use]
    pub(super) fn write(&mut self, port: u16, value: u8) -> Pulse {
        self.last_was_command = port == 0x64;
        if port == 0x64 {
            return self.command(value);
        }
        match core::mem::replace(&mut self.next, Next::Keyboard) {
            Next::Keyboard => {
                self.config &= !CONFIG_KEYBOARD_OFF; // a byte for it also switches its clock on
                let answer = self.keyboard.answer(value, self.config & CONFIG_TRANSLATE != 0);
                self.queue(Source::Keyboard, answer);
            }
            Next::Config => self.config = value,
            Next::OutputPort if value & OUTPUT_RESET == 0 => return Pulse::Reset,
            Next::Echo(source) => self.queue(source, [value]),
            Next::Mouse => {
                self.config &= !CONFIG_MOUSE_OFF; // as the keyboard's clock
                let answer = self.mouse.answer(value);
                self.queue(Source::Mouse, answer);
            }
            Next::OutputPort => {}
        }
        self.take_typed();
        Pulse::None
    }

    fn status(&self) -> u8 {
        let full = match self.waiting() {
            None => 0,
            Some(Source::Keyboard) => STATUS_OUTPUT_FULL,
            Some(Source::Mouse) => STATUS_OUTPUT_FULL | STATUS_MOUSE,
        };
        let command = if self.last_was_command { STATUS_LAST_WAS_COMMAND } else { 0 };
        full | command | STATUS_SELF_TEST_PASSED | STATUS_UNLOCKED
    }

    /// A command at port 0x64.
    fn command(&mut self, command: u8) -> Pulse {
        self.next = Next::Keyboard;
        match command {
            0x20 => self.send(&[self.config]),
            0x60 => self.next = Next::Config,
            0xA7 => self.config |= CONFIG_MOUSE_OFF,
            0xA8 => self.config &= !CONFIG_MOUSE_OFF,
            0xA9 | 0xAB => self.send(&[0x00]), // the interface tests find nothing wrong
            0xAA => {
                self.output.clear();
                self.send(&[0x55]);
            }
            0xAD => self.config |= CONFIG_KEYBOARD_OFF,
            0xAE => self.config &= !CONFIG_KEYBOARD_OFF,
            0xC0 => self.send(&[0x80]),
            0xD0 => {
                let interrupt = if self.interrupt() { OUTPUT_INTERRUPT } else { 0 };
                let mouse = if self.mouse_interrupt() { OUTPUT_MOUSE_INTERRUPT } else { 0 };
                self.send(&[OUTPUT_RESET | OUTPUT_A20 | interrupt | mouse]);
            }
            0xD1 => self.next = Next::OutputPort,
            0xD2 => self.next = Next::Echo(Source::Keyboard),
            0xD3 => self.next = Next::Echo(Source::Mouse),
            0xD4 => self.next = Next::Mouse,
            // 0xF0..0xFF pulse the output port's lines whose bit is 0.
            0xF0.. if command & OUTPUT_RESET == 0 => return Pulse::Reset,
            _ => {}
        }
        Pulse::None
    }

    fn send(&mut self, bytes: &[u8]) {
        self.queue(Source::Keyboard, bytes.iter().copied());
    }

    fn queue(&mut self, source: Source, bytes: impl IntoIterator<Item = u8>) {
        let room = QUEUE.saturating_sub(self.output.len());
        self.output.extend(bytes.into_iter().take(room).map(|byte| (source, byte)));
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn answers(controller: &mut I8042) -> Vec<u8> {
        let mut bytes = Vec::new();
        while controller.read(0x64) & 1 != 0 {
            bytes.push(controller.read(0x60));
        }
        bytes
    }

    fn command(controller: &mut I8042, value: u8) -> Vec<u8> {
        assert_eq!(controller.write(0x64, value), Pulse::None);
        answers(controller)
    }

    fn keyboard(controller: &mut I8042, value: u8) -> Vec<u8> {
        assert_eq!(controller.write(0x60, value), Pulse::None);
        answers(controller)
    }

    #[test]
    fn probing_finds_a_controller_and_a_keyboard() {
        let mut controller = I8042::new();
        assert_eq!(controller.read(0x64) & 0x03, 0);
        assert_eq!(command(&mut controller, 0xAA), [0x55]);
        assert_eq!(command(&mut controller, 0xAB), [0x00]);
        assert_eq!(keyboard(&mut controller, 0xFF), [0xFA, 0xAA]);
        assert_eq!(keyboard(&mut controller, 0xF2), [0xFA, 0xAB, 0x41]);
        assert_eq!(keyboard(&mut controller, 0xED), [0xFA]);
        assert_eq!(keyboard(&mut controller, 0x07), [0xFA]);
        assert_eq!(keyboard(&mut controller, 0xF0), [0xFA]);
        assert_eq!(keyboard(&mut controller, 0x00), [0xFA, 0x41]);
        assert_eq!(keyboard(&mut controller, 0xEE), [0xEE]);
        assert_eq!(keyboard(&mut controller, 0x00), [0xFE]);
    }

    fn mouse(controller: &mut I8042, value: u8) -> Vec<u8> {
        command(controller, 0xD4);
        keyboard(controller, value)
    }

    #[test]
    fn behind_the_second_port_is_a_mouse() {
        let mut controller = I8042::new();
        assert_eq!(command(&mut controller, 0xA9), [0x00]);
        command(&mut controller, 0xA8);
        assert_eq!(command(&mut controller, 0x20), [0x41]);
        assert_eq!(mouse(&mut controller, 0xFF), [0xFA, 0xAA, 0x00]);
        assert_eq!(mouse(&mut controller, 0xF3), [0xFA]);
        assert_eq!(mouse(&mut controller, 0xFF), [0xFA]); // the argument, no reset
        assert_eq!(mouse(&mut controller, 0xF4), [0xFA]);
        assert_eq!(keyboard(&mut controller, 0xFF), [0xFA, 0xAA]); // the next byte is the keyboard's again
        command(&mut controller, 0xA7);
        assert_eq!(command(&mut controller, 0x20), [0x61]);
    }

    #[test]
    fn each_device_has_its_interrupt() {
        let mut controller = I8042::new();
        command(&mut controller, 0x60);
        keyboard(&mut controller, 0x43);
        assert_eq!(controller.write(0x64, 0xD3), Pulse::None);
        assert_eq!(controller.write(0x60, 0x5A), Pulse::None);
        assert_eq!(controller.read(0x64) & 0x21, 0x21);
        assert!(controller.mouse_interrupt() && !controller.interrupt());
        assert_eq!(controller.write(0x60, 0xEE), Pulse::None);
        assert_eq!(controller.read(0x60), 0x5A);
        assert_eq!(controller.read(0x64) & 0x21, 0x01);
        assert!(controller.interrupt() && !controller.mouse_interrupt());
    }

    #[test]
    fn the_configuration_is_kept() {
        let mut controller = I8042::new();
        command(&mut controller, 0x60);
        keyboard(&mut controller, 0x30);
        assert_eq!(command(&mut controller, 0x20), [0x30]);
        command(&mut controller, 0xAE);
        assert_eq!(command(&mut controller, 0x20), [0x20]);
    }

    #[test]
    fn interrupts_follow_the_output_buffer() {
        let mut controller = I8042::new();
        assert_eq!(controller.write(0x60, 0xFF), Pulse::None);
        assert!(controller.interrupt());
        controller.read(0x60);
        assert!(controller.interrupt());
        assert_eq!(controller.read(0x60), 0xAA);
        assert!(!controller.interrupt());
        assert_eq!(controller.read(0x60), 0xAA); // an empty buffer repeats its last byte
        command(&mut controller, 0x60);
        keyboard(&mut controller, 0x00);
        assert_eq!(controller.write(0x60, 0xF4), Pulse::None);
        assert!(!controller.interrupt());
    }

    #[test]
    fn reset_by_pulse_and_by_output_port() {
        let mut controller = I8042::new();
        assert_eq!(controller.write(0x64, 0xFE), Pulse::Reset);
        assert_eq!(controller.write(0x64, 0xF0), Pulse::Reset);
        assert_eq!(controller.write(0x64, 0xFF), Pulse::None);
        assert_eq!(command(&mut controller, 0xD0), [0x03]);
        assert_eq!(controller.write(0x64, 0xD1), Pulse::None);
        assert_eq!(controller.write(0x60, 0xDF), Pulse::None); // A20 on
        assert_eq!(controller.write(0x64, 0xD1), Pulse::None);
        assert_eq!(controller.write(0x60, 0xFE), Pulse::Reset);
    }

    #[test]
    fn typed_characters_come_when_the_keyboard_may_send() {
        let mut controller = I8042::new();
        controller.type_character(b'a');
        assert!(controller.interrupt());
        assert_eq!(answers(&mut controller), [0x1E, 0x9E]);
        assert_eq!(keyboard(&mut controller, 0xF5), [0xFA]);
        controller.type_character(b'b');
        assert!(!controller.interrupt());
        assert_eq!(keyboard(&mut controller, 0xF4), [0xFA, 0x30, 0xB0]);
        (0..10_000).for_each(|_| controller.type_character(b'B'));
        assert!(!controller.has_room() && controller.take_unread().count() <= 1024);
        assert_eq!(answers(&mut controller).len() % 4, 0); // no character is cut in two
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut controller = I8042::new();
        for _ in 0..100 {
            assert_eq!(controller.write(0x60, 0xFF), Pulse::None);
        }
        assert_eq!(answers(&mut controller).len(), QUEUE);
    }
}
