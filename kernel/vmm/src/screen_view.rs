//! A guest's text screen on the host's console: looked at now and then, not trapped.

use alloc::string::String;
use alloc::vec;

use crate::console::Console;
use crate::dev::{ConsoleKind, NANOS_PER_SECOND, Nanos, SCREEN_BYTES, Screen};
use crate::memory_map::{TEXT, TEXT_END};
use crate::vm::Vm;
use shadow_mmu::Gpa;

/// Guest time between two looks.
const PERIOD: u64 = NANOS_PER_SECOND / 5;

/// What was shown, and when to look again.
pub(crate) struct ScreenView {
    kind: ConsoleKind,
    screen: Screen,
    next: Nanos,
}

impl ScreenView {
    /// A view that has shown nothing yet.
    pub(crate) fn new(kind: ConsoleKind) -> Self {
        Self { kind, screen: Screen::new(), next: Nanos::new(PERIOD) }
    }

    /// When to look next; `None` if the screen is not shown.
    pub(crate) fn deadline(&self, vm: &Vm) -> Option<Nanos> {
        self.is_shown(vm).then_some(self.next)
    }

    /// Shows what is new, if it is time to look.
    pub(crate) fn poll(&mut self, vm: &Vm, now: Nanos, console: &mut Console) {
        if now >= self.next && self.is_shown(vm) {
            self.next = now.plus(PERIOD);
            self.show(vm, now, console);
        }
    }

    /// Shows the last state.
    pub(crate) fn end(&mut self, vm: &Vm, now: Nanos, console: &mut Console) {
        if self.is_shown(vm) {
            self.show(vm, now, console);
            let mut end = String::new();
            self.screen.close(&mut end);
            console.print(end.bytes(), now);
        }
    }

    fn is_shown(&self, vm: &Vm) -> bool {
        match self.kind {
            ConsoleKind::Serial => false,
            ConsoleKind::Auto => !vm.bus.has_printed(),
            ConsoleKind::Lines | ConsoleKind::Screen => true,
        }
    }

    fn show(&mut self, vm: &Vm, now: Nanos, console: &mut Console) {
        let (first, cursor) = vm.bus.screen_place();
        let mut memory = vec![0; SCREEN_BYTES];
        let start = TEXT + u64::from(first) * 2;
        if start + memory.len() as u64 > TEXT_END {
            return; // the start address is not one of text
        }
        vm.mmu.mem().read(Gpa::new(start), &mut memory);
        let text = match self.kind {
            ConsoleKind::Screen => self.screen.terminal(&memory, usize::from(cursor.wrapping_sub(first))),
            _ => self.screen.lines(&memory),
        };
        console.print(text.bytes(), now);
    }
}
