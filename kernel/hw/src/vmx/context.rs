//! EIP, ESP and EFLAGS between a world's context and the VMCS, at each transition. The other general registers are the stub's.

use super::Vmx;
use super::vmcs::{field, read, write};
use crate::entry::GuestContext;

impl Vmx {
    #[inline]
    pub(super) fn load(&mut self, context: &GuestContext) {
        let [rip, ..] = self.known;
        if rip != context.rip {
            // An instruction was emulated, so what STI or MOV SS held back is due.
            self.end_interrupt_shadow();
        }
        let wanted = [context.rip & 0xffff_ffff, context.rsp & 0xffff_ffff, context.rflags & 0x3f_7fd5 | 2];
        let fields = [field::GUEST_RIP, field::GUEST_RSP, field::GUEST_RFLAGS];
        for ((field, wanted), known) in fields.into_iter().zip(wanted).zip(&mut self.known) {
            if wanted != *known {
                // SAFETY: this VMCS is current; any value of these fields is the guest's affair, the reserved flags are right.
                unsafe { write(field, wanted) };
                *known = wanted;
            }
        }
    }

    #[inline]
    pub(super) fn end_interrupt_shadow(&self) {
        let state = read(field::INTERRUPTIBILITY);
        if state & 3 != 0 {
            // SAFETY: this VMCS is current; the field says less than before.
            unsafe { write(field::INTERRUPTIBILITY, state & !3) };
        }
    }

    #[inline]
    pub(super) fn save(&mut self, context: &mut GuestContext) {
        self.injecting = false;
        context.rip = read(field::GUEST_RIP);
        context.rsp = read(field::GUEST_RSP);
        context.rflags = read(field::GUEST_RFLAGS);
        context.cs = read(field::GUEST_CS);
        context.ss = read(field::GUEST_SS);
        self.known = [context.rip, context.rsp, context.rflags];
    }
}
