//! Descriptor table registers and segment register loads that the live tables refused.

use gnomon_hw::SegReg;
use gnomon_hw::virt::{Segment, SegmentRegister};
use iced_x86::Instruction;

use crate::trap::{Emulated, Exception, StopReason, vector};
use crate::vcpu::{Descriptor, Selector, SystemSegment, SystemType, TableRegister};
use crate::vm::Vm;

impl Vm {
    /// The 6-byte operand of LGDT and LIDT.
    fn pseudo_descriptor(&mut self, insn: &Instruction, narrow: bool) -> Emulated<TableRegister> {
        let address = self.memory_address(insn)?;
        let privilege = self.privilege();
        let limit = self.read_u16(address, privilege)?;
        let base = self.read_u32(address.wrapping_add(2), privilege)?;
        // With a 16-bit operand size the base has 24 bits (SDM 2A, LGDT).
        Ok(TableRegister { base: if narrow { base & 0xff_ffff } else { base }, limit })
    }

    /// LGDT.
    pub(crate) fn load_gdt(&mut self, insn: &Instruction, narrow: bool) -> Emulated<()> {
        let gdtr = self.pseudo_descriptor(insn, narrow)?;
        self.forget_descriptors();
        self.vcpu.gdtr = gdtr;
        Ok(())
    }

    /// LIDT.
    pub(crate) fn load_idt(&mut self, insn: &Instruction, narrow: bool) -> Emulated<()> {
        self.vcpu.idtr = self.pseudo_descriptor(insn, narrow)?;
        Ok(())
    }

    /// SGDT or SIDT.
    pub(crate) fn store_table(&mut self, insn: &Instruction, register: TableRegister) -> Emulated<()> {
        let address = self.memory_address(insn)?;
        let privilege = self.privilege();
        self.note_data(address, 6, true);
        let [b0, b1, b2, b3] = register.base.to_le_bytes();
        let [l0, l1] = register.limit.to_le_bytes();
        self.write_linear(address, &[l0, l1, b0, b1, b2, b3], privilege)
    }

    /// LLDT.
    pub(crate) fn load_ldt(&mut self, insn: &Instruction) -> Emulated<()> {
        let selector = Selector(self.read_operand(insn, 0, 2)? as u16);
        let (segment, descriptor) = if selector.is_null() {
            (SystemSegment { selector, ..SystemSegment::NULL }, Descriptor(0))
        } else {
            let descriptor = self.system_descriptor(selector)?;
            if descriptor.system_type() != SystemType::Ldt {
                return Err(Exception::gp(selector.error_code()).into());
            }
            (self.system_segment(selector, descriptor)?, descriptor)
        };
        self.set_ldtr(segment, descriptor);
        Ok(())
    }

    /// Puts a checked segment, and the descriptor that it comes from, into LDTR.
    pub(crate) fn set_ldtr(&mut self, segment: SystemSegment, descriptor: Descriptor) {
        self.forget_descriptors();
        self.vcpu.ldtr = segment;
        if self.world.is_hardware() {
            let loaded = Segment::of(segment.selector.0, descriptor.0);
            self.world.set_segment(SegmentRegister::Ldt, loaded);
        } else {
            self.world.set_ldt(segment.usable);
        }
    }

    /// Puts a checked segment, and its descriptor, into TR.
    pub(crate) fn set_task_register(&mut self, segment: SystemSegment, descriptor: Descriptor) {
        self.vcpu.tr = segment;
        self.world.set_segment(SegmentRegister::Task, Segment::of(segment.selector.0, descriptor.0));
    }

    /// LTR.
    pub(crate) fn load_task_register(&mut self, insn: &Instruction) -> Emulated<()> {
        let selector = Selector(self.read_operand(insn, 0, 2)? as u16);
        if selector.is_null() {
            return Err(Exception::gp(0).into());
        }
        if self.world.is_hardware() {
            self.read_descriptor_tables();
        }
        let descriptor = self.system_descriptor(selector)?;
        // Busy is bit 1 of the type: an available TSS is 1 or 9.
        let available = (descriptor.0 >> 40) & 0x7 == 1;
        if !available || !matches!(descriptor.system_type(), SystemType::Tss32 | SystemType::Tss16) {
            return Err(Exception::gp(selector.error_code()).into());
        }
        let segment = self.system_segment(selector, descriptor)?;
        self.write_descriptor_type(selector, descriptor.busy())?;
        self.set_task_register(segment, descriptor.busy());
        self.vcpu.tss_wide = descriptor.system_type() == SystemType::Tss32;
        Ok(())
    }

    /// Reads the descriptor of an LDT or TSS, which must lie in the GDT.
    fn system_descriptor(&mut self, selector: Selector) -> Emulated<Descriptor> {
        let error = Exception::gp(selector.error_code());
        if selector.is_local() {
            return Err(error.into());
        }
        let descriptor = self.read_descriptor(selector)?.ok_or(error)?;
        if descriptor.is_segment() { Err(error.into()) } else { Ok(descriptor) }
    }

    fn system_segment(&self, selector: Selector, descriptor: Descriptor) -> Emulated<SystemSegment> {
        if !descriptor.present() {
            return Err(Exception::coded(vector::NP, selector.error_code()).into());
        }
        Ok(SystemSegment { selector, base: descriptor.base(), limit: descriptor.limit(), usable: true })
    }

    /// Whether TR holds a 32-bit TSS.
    #[must_use]
    pub(crate) const fn tss_is_wide(&self) -> bool {
        self.vcpu.tss_wide
    }

    /// Loads a segment register with a selector, with all checks (SDM 2B, MOV).
    pub(crate) fn load_segment(&mut self, reg: SegReg, selector: Selector) -> Emulated<()> {
        if reg == SegReg::Ss {
            return self.load_stack_segment(selector);
        }
        if !selector.is_null() {
            let error = selector.error_code();
            let descriptor = self.read_descriptor(selector)?.ok_or(Exception::gp(error))?;
            let outer = self.cpl().max(selector.rpl());
            let reachable = descriptor.is_conforming() || outer <= descriptor.dpl();
            if !descriptor.is_readable() || !reachable {
                return Err(Exception::gp(error).into());
            }
            if !descriptor.present() {
                return Err(Exception::coded(vector::NP, error).into());
            }
            if self.world.is_hardware() {
                return self.load_into_cpu(reg, selector, descriptor);
            }
            self.sync_selector(selector)?;
            if descriptor.is_code() || !self.is_live(selector) {
                return self.load_once(reg, selector, descriptor);
            }
        }
        if self.world.is_hardware() {
            return self.load_into_cpu(reg, selector, Descriptor(0));
        }
        // What the live table still refuses has no live form: a middle ring, or an index that the host uses.
        self.world.load_segment(reg, selector.0).map_err(|_| StopReason::MiddleRing.into())
    }

    fn load_stack_segment(&mut self, selector: Selector) -> Emulated<()> {
        let cpl = self.cpl();
        if selector.is_null() {
            return Err(Exception::gp(0).into());
        }
        let error = selector.error_code();
        let descriptor = self.read_descriptor(selector)?.ok_or(Exception::gp(error))?;
        if selector.rpl() != cpl || descriptor.dpl() != cpl || !descriptor.is_writable() {
            return Err(Exception::gp(error).into());
        }
        if !descriptor.present() {
            return Err(Exception::coded(vector::SS, error).into());
        }
        self.load_stack_or_code(SegReg::Ss, selector, descriptor, cpl)
    }
}
