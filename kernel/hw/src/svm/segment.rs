//! Segment registers in the control block.

use super::Svm;
use super::vmcb::Segment;
use crate::virt::{self, SegmentRegister};
use crate::world::SegReg;

/// Accessed 32-bit code and data, present, level 0, 4 KiB granular.
const CODE: u16 = 0xc9b;
const DATA: u16 = 0xc93;
/// A 32-bit TSS.
const TASK: u16 = 0x089;
/// A TSS is busy. AMD-V does not look (APM 2, 15.5.1), but QEMU stops the machine at an event from ring 3 if TR says so.
const BUSY: u16 = 0x002;

impl Svm {
    /// Flat segments with the selectors that boot loaders leave.
    pub(super) fn reset_segments(&mut self) {
        let flat = |selector, access| Segment { selector, access, limit: u32::MAX, base: 0 };
        let vmcb = self.vmcb_mut();
        vmcb.cs = flat(0x08, CODE);
        (vmcb.ds, vmcb.es, vmcb.fs, vmcb.gs, vmcb.ss) =
            (flat(0x10, DATA), flat(0x10, DATA), flat(0x10, DATA), flat(0x10, DATA), flat(0x10, DATA));
        vmcb.tr = Segment { selector: 0, access: TASK, limit: 0x67, base: 0 };
        vmcb.cpl = 0;
    }

    pub(super) fn register(&self, reg: SegReg) -> &Segment {
        let vmcb = self.vmcb();
        match reg {
            SegReg::Es => &vmcb.es,
            SegReg::Cs => &vmcb.cs,
            SegReg::Ss => &vmcb.ss,
            SegReg::Ds => &vmcb.ds,
            SegReg::Fs => &vmcb.fs,
            SegReg::Gs => &vmcb.gs,
        }
    }

    pub(super) fn load_tables(&mut self, gdtr: (u32, u16), idtr: (u32, u16)) {
        let table =
            |(base, limit): (u32, u16)| Segment { base: base.into(), limit: limit.into(), ..Segment::default() };
        let vmcb = self.vmcb_mut();
        (vmcb.gdtr, vmcb.idtr) = (table(gdtr), table(idtr));
    }

    pub(super) fn load_segment(&mut self, register: SegmentRegister, segment: virt::Segment) {
        let vmcb = self.vmcb_mut();
        let place = match register {
            SegmentRegister::Plain(SegReg::Es) => &mut vmcb.es,
            SegmentRegister::Plain(SegReg::Cs) => &mut vmcb.cs,
            SegmentRegister::Plain(SegReg::Ss) => &mut vmcb.ss,
            SegmentRegister::Plain(SegReg::Ds) => &mut vmcb.ds,
            SegmentRegister::Plain(SegReg::Fs) => &mut vmcb.fs,
            SegmentRegister::Plain(SegReg::Gs) => &mut vmcb.gs,
            SegmentRegister::Ldt => &mut vmcb.ldtr,
            SegmentRegister::Task => &mut vmcb.tr,
        };
        let virt::Segment { selector, access, base, limit } = segment;
        *place = Segment { selector, access, limit, base: base.into() };
        match register {
            SegmentRegister::Plain(SegReg::Ss) => vmcb.cpl = segment.dpl(),
            SegmentRegister::Task => {
                vmcb.tr.access &= !BUSY;
                // Another task: what STI or MOV SS held back is due.
                vmcb.interrupt_shadow = 0;
            }
            _ => {}
        }
    }
}

/// A segment register as the monitor sees it.
pub(super) const fn seen(segment: &Segment) -> virt::Segment {
    let Segment { selector, access, limit, base } = *segment;
    virt::Segment { selector, access, base: base as u32, limit }
}
