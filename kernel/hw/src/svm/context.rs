//! EAX, EIP, ESP and EFLAGS between a world's context and the control block, at each transition. The other general registers are the stub's.

use super::Svm;
use crate::entry::GuestContext;

impl Svm {
    #[inline]
    pub(super) fn load(&mut self, context: &GuestContext) {
        let vmcb = self.vmcb_mut();
        let [rax, ..] = context.gpr;
        vmcb.rax = rax;
        let rip = context.rip & 0xffff_ffff;
        if vmcb.rip != rip {
            // An instruction was emulated, so what STI or MOV SS held back is due.
            (vmcb.rip, vmcb.interrupt_shadow) = (rip, 0);
        }
        vmcb.rsp = context.rsp & 0xffff_ffff;
        vmcb.rflags = context.rflags & 0x3f_7fd5 | 2;
    }

    #[inline]
    pub(super) fn save(&mut self, context: &mut GuestContext) {
        let exceptions = self.exceptions;
        let vmcb = self.vmcb_mut();
        vmcb.tlb_control = 0;
        vmcb.inject = 0;
        vmcb.intercept_exceptions = exceptions;
        context.gpr[0] = vmcb.rax;
        context.rip = vmcb.rip;
        context.rsp = vmcb.rsp;
        context.rflags = vmcb.rflags;
        context.cs = vmcb.cs.selector.into();
        context.ss = vmcb.ss.selector.into();
    }
}
