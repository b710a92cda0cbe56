//! Instruction breakpoints of the guest's kernel: the instructions there stay hidden, so that each is reached by INT3.

use shadow_mmu::Gva;

use super::view::Span;
use super::{OFFSET, Undo};
use crate::vm::Vm;

impl Vm {
    /// Hides the instructions at the guest's breakpoints that are discovered; the others trap anyway. One that a breakpoint has left is
    /// stepped over from then on, until its page is discovered anew.
    pub(crate) fn hide_breakpoints(&mut self) {
        if !(self.armed && self.code.is_on()) {
            return;
        }
        let debug = self.vcpu.debug;
        for gva in debug.code_addresses() {
            let found = self.mmu.code_page(Gva::new(gva.into())).and_then(|code| self.code.find(code));
            if let Some(at) = found {
                self.hide_at(at, (gva & OFFSET) as usize);
            }
        }
    }

    fn hide_at(&mut self, at: usize, offset: usize) {
        self.undo_patches(at, Undo::Breakpoint, |patch| patch.span.first <= offset && offset < patch.span.end);
        let Some(view) = self.code.views.get_mut(at) else { return };
        if view.hide(offset) {
            let span = view.settle(Span::new(offset, offset.saturating_add(1)));
            self.show(at, span);
        }
    }
}
