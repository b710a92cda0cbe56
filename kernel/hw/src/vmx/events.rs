//! Events into the guest, and those that an exit has cut short.

use super::Vmx;
use super::vmcs::{control, field, read, write};
use crate::virt::{EventKind, Injection};

const VALID: u64 = 1 << 31;
const HAS_ERROR: u64 = 1 << 11;

impl Vmx {
    pub(super) fn put_event(&mut self, event: Injection) {
        let kind = match event.kind {
            EventKind::External => 0,
            EventKind::Nmi => 2,
            EventKind::Exception => 3,
            EventKind::Software => 4,
        };
        let error = if event.error.is_some() { HAS_ERROR } else { 0 };
        // SAFETY: this VMCS is current; the CPU delivers any event by the guest's own IDT, and refuses what is none.
        unsafe {
            write(field::ENTRY_ERROR, event.error.unwrap_or(0).into());
            write(field::ENTRY_EVENT, u64::from(event.vector) | kind << 8 | error | VALID);
        }
    }

    /// Changes which instructions and windows make the guest exit.
    pub(super) fn set_cpu_controls(&mut self, controls: u32) {
        if self.cpu_controls != controls {
            self.cpu_controls = controls;
            // SAFETY: this VMCS is current; callers only change the windows' bits.
            unsafe { write(field::CPU_CONTROLS, controls.into()) };
        }
    }

    /// A window that was asked for is open.
    pub(super) fn window_open(&mut self) {
        self.set_cpu_controls(self.cpu_controls & !(control::WINDOW | control::NMI_WINDOW));
    }
}

/// The event whose delivery the last exit cut short.
#[inline]
pub(super) fn interrupted() -> Option<Injection> {
    let raw = read(field::VECTORING);
    if raw & VALID == 0 {
        return None;
    }
    let kind = match raw >> 8 & 7 {
        0 => EventKind::External,
        2 => EventKind::Nmi,
        3 => EventKind::Exception,
        // INT n, INT1, INT3, INTO.
        _ => EventKind::Software,
    };
    let error = (raw & HAS_ERROR != 0).then(|| read(field::VECTORING_ERROR) as u32);
    Some(Injection { kind, vector: raw as u8, error })
}
