//! Segment registers of hardware guests, which hold what the guest's own tables say. The CPU loads them itself, but for task switches.

use gnomon_hw::SegReg;
use gnomon_hw::virt::{Segment, SegmentRegister};

use crate::emul::flat;
use crate::trap::Emulated;
use crate::v86::Segments;
use crate::vcpu::{Descriptor, Selector, SystemSegment, TableRegister, flags};
use crate::vm::Vm;

/// The segment registers, in the order of a TSS.
const ALL: [SegReg; 6] = [SegReg::Es, SegReg::Cs, SegReg::Ss, SegReg::Ds, SegReg::Fs, SegReg::Gs];

/// Type of a 32-bit TSS, and what sets a busy one apart. QEMU's AMD-V shows TR without it.
const WIDE_TSS: u16 = 0x9;
const BUSY: u16 = 0x2;

impl Vm {
    /// Loads a register with a checked descriptor of the guest's tables, which learns that it was used.
    #[cold] // Out of the way of deprivileged guests.
    pub(crate) fn load_into_cpu(&mut self, reg: SegReg, selector: Selector, raw: Descriptor) -> Emulated<()> {
        if raw.is_segment() && !raw.is_accessed() {
            self.write_descriptor_type(selector, raw.accessed())?;
        }
        self.put_into_cpu(reg, selector, raw);
        Ok(())
    }

    /// Loads a register with a descriptor whatever the guest's tables hold; one that is all 0 leaves it without a segment.
    #[cold] // Out of the way of deprivileged guests.
    fn put_into_cpu(&mut self, reg: SegReg, selector: Selector, raw: Descriptor) {
        // VT-x enters a guest only with accessed segments.
        let raw = if raw.is_segment() { raw.accessed() } else { raw };
        self.world.set_segment(SegmentRegister::Plain(reg), Segment::of(selector.0, raw.0));
    }

    /// Flat CS and SS: where a new task begins.
    #[cold] // Out of the way of deprivileged guests.
    pub(crate) fn put_flat_into_cpu(&mut self, code: Selector, stack: Selector, cpl: u8) {
        let (code_segment, stack_segment) = flat(cpl);
        self.put_into_cpu(SegReg::Ss, stack.with_rpl(cpl), stack_segment);
        self.put_into_cpu(SegReg::Cs, code.with_rpl(cpl), code_segment);
    }

    /// Virtual-8086 mode, which the CPU runs itself.
    #[cold] // Out of the way of deprivileged guests.
    pub(crate) fn load_v86(&mut self, segments: Segments) {
        for reg in ALL {
            self.world.set_segment(SegmentRegister::Plain(reg), Segment::real_mode(segments.get(reg)));
        }
        self.world.context_mut().rflags |= u64::from(flags::VM);
        self.note_v86();
    }

    /// A task in virtual-8086 mode is about to be left: what its segment registers hold, as a TSS gets it.
    #[cold] // Out of the way of deprivileged guests.
    pub(crate) fn keep_v86(&mut self) {
        // Of CS, `note_v86` has changed what is kept here.
        let (code, _) = self.world.hardware_code();
        let number = |reg| if reg == SegReg::Cs { (code >> 4) as u16 } else { self.world.segment(reg) };
        self.vcpu.v86 = Segments(ALL.map(number));
        self.vcpu.system_flags |= flags::VM;
    }

    /// The CPU is in virtual-8086 mode: it is at privilege level 3, which its CS does not say. Nobody reads CS there.
    pub(crate) fn note_v86(&mut self) {
        self.world.context_mut().cs |= 3;
    }

    /// Brings `vcpu` in line with GDTR, IDTR, LDTR and TR.
    #[cold] // Out of the way of deprivileged guests.
    pub(crate) fn read_descriptor_tables(&mut self) {
        let tables = self.world.descriptor_tables();
        let register = |(base, limit)| TableRegister { base, limit };
        (self.vcpu.gdtr, self.vcpu.idtr) = (register(tables.gdtr), register(tables.idtr));
        self.vcpu.ldtr = system_segment(tables.ldtr, tables.ldtr.present());
        // The CPU always has a TSS, if only the one of reset.
        self.vcpu.tr = system_segment(tables.tr, tables.tr.selector != 0);
        self.vcpu.tss_wide = tables.tr.access & 0xf & !BUSY == WIDE_TSS;
    }
}

const fn system_segment(segment: Segment, usable: bool) -> SystemSegment {
    SystemSegment { selector: Selector(segment.selector), base: segment.base, limit: segment.limit, usable }
}
