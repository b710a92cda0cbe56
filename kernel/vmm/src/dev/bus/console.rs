//! The guest's console: what it prints, and where typed bytes go.

use super::Bus;
use super::lines::IRQ_KEYBOARD;

/// Accesses of the keyboard controller that are no mere probing.
const POLLS: u64 = 16;

/// What is the guest's console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleKind {
    /// The text screen and the keyboard, until the guest prints to a serial or debug port: from then on that is it.
    Auto,
    /// The serial port.
    Serial,
    /// The text screen, as lines, and the keyboard.
    Lines,
    /// The text screen, drawn on a terminal, and the keyboard.
    Screen,
}

impl Bus {
    /// Chooses the console.
    #[must_use]
    pub fn with_console(mut self, kind: ConsoleKind) -> Self {
        self.console_kind = kind;
        self
    }

    /// Whether the guest ever printed to COM1 or port 0xE9.
    #[must_use]
    pub fn has_printed(&self) -> bool {
        self.console.was_used()
    }

    /// The first cell of the text memory that is seen, and the cursor's cell.
    #[must_use]
    pub fn screen_place(&self) -> (u16, u16) {
        self.crtc.place()
    }

    fn types_on_keyboard(&self) -> bool {
        match self.console_kind {
            ConsoleKind::Auto => !self.has_printed(),
            ConsoleKind::Serial => false,
            ConsoleKind::Lines | ConsoleKind::Screen => true,
        }
    }

    /// Whether the guest has shown that it looks at its keyboard: by its interrupt, or by polling.
    fn reads_keyboard(&self) -> bool {
        let by_interrupt = self.pic.is_opened(IRQ_KEYBOARD) || self.io_apic.is_open(IRQ_KEYBOARD);
        by_interrupt || self.counts.keyboard() >= POLLS
    }

    /// Whether [`Self::console_input`] takes another byte now. Until then it must wait at the host: so nothing is lost that is
    /// typed faster than the guest reads, or before it is known where the guest reads.
    #[must_use]
    pub fn accepts_input(&self) -> bool {
        if !self.types_on_keyboard() {
            return self.com1.has_room();
        }
        self.keyboard.has_room() && (self.console_kind != ConsoleKind::Auto || self.reads_keyboard())
    }

    /// A byte typed at the console: it comes in at COM1, at the line's speed, or as keys of the keyboard.
    pub fn console_input(&mut self, byte: u8) {
        if self.types_on_keyboard() {
            self.keyboard.type_character(byte);
            self.drive_keyboard();
            self.find_due();
        } else {
            self.com1.type_byte(byte, self.now);
            self.drive_com1();
        }
    }

    /// Takes the typed bytes back that the guest has not read: it has ended, and another reads on.
    pub fn take_unread_input(&mut self) -> impl Iterator<Item = u8> + '_ {
        self.com1.take_unread().chain(self.keyboard.take_unread())
    }

    /// Takes the bytes the guest has printed (COM1 and port 0xE9, in their order).
    #[inline]
    pub fn console_output(&mut self) -> impl Iterator<Item = u8> + '_ {
        self.console.drain()
    }

    /// Whether [`Self::console_output`] has bytes.
    #[must_use]
    #[inline]
    pub fn has_console_output(&self) -> bool {
        !self.console.is_empty()
    }

    /// How many printed bytes were lost because nobody took them in time.
    #[must_use]
    pub fn console_lost(&self) -> u64 {
        self.console.lost()
    }
}
