//! Control registers, debug registers, MSRs and the TLB.

use gnomon_hw::time;
use gnomon_trace::{Kind, Record};
use iced_x86::{Instruction, OpKind, Register};
use shadow_mmu::{ControlWrite, Controls, Gva};

use crate::trap::{Emulated, Exception, StopReason};
use crate::vcpu::{self, cr0, cr4, flags};
use crate::vm::Vm;

/// CR0 bits that matter to paging; CD and NW make the CPU load the PDPTEs (SDM 3A 4.4.1).
const CR0_PAGING: u32 = cr0::PAGING | cr0::CD | cr0::NW;
const MSR_TSC: u32 = vcpu::msr_number::TSC;
const MSR_TSC_ADJUST: u32 = vcpu::msr_number::TSC_ADJUST;

impl Vm {
    /// MOV from a control register.
    pub(crate) fn read_control(&mut self, insn: &Instruction) -> Emulated<()> {
        let value = match insn.op1_register() {
            Register::CR0 => self.vcpu.cr0,
            Register::CR2 => self.vcpu.cr2,
            Register::CR3 => self.vcpu.cr3,
            Register::CR4 => self.vcpu.cr4,
            _ => return Err(Exception::ud().into()),
        };
        self.set_register(insn.op0_register(), value)
    }

    /// MOV to a control register.
    pub(crate) fn write_control(&mut self, insn: &Instruction) -> Emulated<()> {
        let value = self.register(insn.op1_register())?;
        match insn.op0_register() {
            Register::CR0 => self.write_cr0(value),
            Register::CR2 => {
                self.vcpu.cr2 = value;
                Ok(())
            }
            Register::CR3 => self.write_cr3(value),
            Register::CR4 => self.write_cr4(value),
            _ => Err(Exception::ud().into()),
        }
    }

    /// A new CR0 (SDM 3A 2.5).
    pub(crate) fn write_cr0(&mut self, value: u32) -> Emulated<()> {
        let new = (value & cr0::KNOWN) | cr0::ET;
        let old = self.vcpu.cr0;
        let paging_unprotected = new & cr0::PG != 0 && new & cr0::PE == 0;
        let write_back_uncached = new & cr0::NW != 0 && new & cr0::CD == 0;
        if paging_unprotected || write_back_uncached {
            return Err(Exception::gp(0).into());
        }
        if new & cr0::PE == 0 {
            return Err(StopReason::RealMode.into());
        }
        if new & cr0::PG != 0 && self.vcpu.msrs.efer & vcpu::efer::LME != 0 {
            return Err(StopReason::LongMode.into());
        }
        self.vcpu.cr0 = new;
        self.trace_control(0, old, new);
        self.push_controls();
        if (old ^ new) & CR0_PAGING == 0 {
            return Ok(());
        }
        self.reload_translation(ControlWrite::Cr0).inspect_err(|_| {
            self.vcpu.cr0 = old;
            self.push_controls();
        })
    }

    /// A CR3 load.
    pub(crate) fn write_cr3(&mut self, value: u32) -> Emulated<()> {
        let old = self.vcpu.cr3;
        self.vcpu.cr3 = value;
        self.reload_translation(ControlWrite::Cr3).inspect_err(|_| self.vcpu.cr3 = old)?;
        if self.nested.is_some() {
            self.world.set_cr3(value);
        }
        let root = self.mmu.root().map_or(0, |root| root.table.base().raw());
        self.tracer.record(|| Record { a: old.into(), b: value.into(), c: root, ..Record::new(Kind::SetCr3) });
        Ok(())
    }

    fn write_cr4(&mut self, value: u32) -> Emulated<()> {
        if value & !self.vcpu.cr4_offered != 0 {
            return Err(Exception::gp(0).into());
        }
        let old = self.vcpu.cr4;
        self.vcpu.cr4 = value;
        self.trace_control(4, old, value);
        self.push_controls();
        if (old ^ value) & cr4::PAGING == 0 {
            return Ok(());
        }
        if value & cr4::SMAP != 0 {
            // Patches use the real AC for something else.
            self.give_up_patches();
        }
        self.reload_translation(ControlWrite::Cr4).inspect_err(|_| {
            self.vcpu.cr4 = old;
            self.push_controls();
        })?;
        if (old ^ value) & cr4::SMEP != 0 && self.code.is_on() {
            // What the window shows was allowed without it.
            self.start_window();
        }
        Ok(())
    }

    fn trace_control(&self, which: u8, before: u32, after: u32) {
        self.tracer.record(|| Record {
            code: which,
            a: before.into(),
            b: after.into(),
            ..Record::new(Kind::SetControl)
        });
    }

    /// Tells the shadow MMU the control registers and loads the root that it answers with.
    ///
    /// # Errors
    /// #GP(0) where the CPU refuses the value; a stop where the mode is not run.
    pub(crate) fn reload_translation(&mut self, why: ControlWrite) -> Emulated<()> {
        let controls = Controls {
            cr0: self.vcpu.cr0.into(),
            cr3: self.vcpu.cr3.into(),
            cr4: self.vcpu.cr4.into(),
            efer: self.vcpu.msrs.efer,
            pkru: 0,
        };
        if self.nested.is_some() {
            self.mmu.follow_controls(controls, why).map_err(crate::exit::control_fault)?;
            self.world.set_pdptes(self.mmu.pdptes());
            return Ok(());
        }
        let plan = self.mmu.load_controls(controls, why).map_err(crate::exit::control_fault)?;
        self.load_root()?;
        self.flush(plan);
        self.revalidate_descriptors();
        Ok(())
    }

    /// Points the real CPU at the shadow MMU's current root.
    pub(crate) fn load_root(&mut self) -> Emulated<()> {
        let root = self.mmu.root().ok_or(StopReason::Internal("no shadow root after a CR3 load"))?;
        self.world.set_root(root);
        Ok(())
    }

    /// LMSW: PE can be set, not cleared (SDM 2A).
    pub(crate) fn load_machine_status(&mut self, insn: &Instruction) -> Emulated<()> {
        let word = self.read_operand(insn, 0, 2)?;
        let low = cr0::PE | cr0::MP | cr0::EM | cr0::TS;
        let kept = self.vcpu.cr0 & (!low | cr0::PE);
        self.write_cr0(kept | (word & low))
    }

    /// INVLPG.
    pub(crate) fn invalidate_page(&mut self, insn: &Instruction) -> Emulated<()> {
        let segment = super::operand::segment_register(insn.memory_segment()).ok_or(StopReason::Unemulated)?;
        self.invalidate(self.segment_base(segment).wrapping_add(self.effective_address(insn)));
        Ok(())
    }

    /// A translation may have changed.
    pub(crate) fn invalidate(&mut self, gva: u32) {
        let plan = self.mmu.on_invlpg(Gva::new(gva.into()));
        self.flush(plan);
        if self.watches_page(gva) {
            self.revalidate_descriptors();
        }
    }

    /// Gives the control registers to the CPU. A deprivileged guest whose time stamp counter is not the host's must not read that; and
    /// while it does not page, its pages are no user's, whatever the shadow entries say.
    pub(crate) fn push_controls(&mut self) {
        let traps = if self.vcpu.tsc_adjust != 0 && !self.world.is_hardware() { cr4::TSD } else { 0 };
        let pages = if self.vcpu.paging() { 0 } else { cr4::SMEP | cr4::SMAP };
        self.world.set_control_bits(self.vcpu.cr0.into(), (self.vcpu.cr4 & !pages | traps).into());
    }

    /// Has the virtual CPU all these bits of CR4?
    pub(crate) const fn offers_cr4(&self, bits: u32) -> bool {
        self.vcpu.cr4_offered & bits == bits
    }

    /// Does CR4.UMIP keep the running code from SGDT, SIDT, SLDT, STR and SMSW?
    pub(crate) fn are_tables_hidden(&self) -> bool {
        self.cpl() != 0 && self.vcpu.cr4 & cr4::UMIP != 0
    }

    /// STAC and CLAC.
    pub(crate) fn set_access_flag(&mut self, on: bool) {
        self.load_flags(if on { flags::AC } else { 0 }, flags::AC);
    }

    /// The guest's time stamp counter.
    fn tsc(&self) -> u64 {
        time::tsc().wrapping_add(self.vcpu.tsc_adjust)
    }

    /// A new IA32_TSC_ADJUST; a write of the counter itself changes it by as much (SDM 3B 17.17.3).
    fn adjust_tsc(&mut self, adjust: u64) {
        self.vcpu.tsc_adjust = adjust;
        self.world.set_tsc_offset(adjust);
        self.push_controls();
    }

    /// RDMSR.
    pub(crate) fn read_msr(&mut self) -> Emulated<()> {
        let msr = self.gpr(1);
        let value = match msr {
            MSR_TSC => Some(self.tsc()),
            MSR_TSC_ADJUST => Some(self.vcpu.tsc_adjust),
            vcpu::msr_number::APIC_BASE => self.bus.apic_base(),
            _ => self.vcpu.msrs.read(msr),
        };
        let value = value.ok_or(Exception::gp(0))?;
        self.set_gpr(0, value as u32);
        self.set_gpr(2, (value >> 32) as u32);
        Ok(())
    }

    /// WRMSR.
    pub(crate) fn write_msr(&mut self) -> Emulated<()> {
        let value = u64::from(self.gpr(0)) | u64::from(self.gpr(2)) << 32;
        if self.gpr(1) == vcpu::msr_number::APIC_BASE {
            self.devices_touched = true;
            return if self.bus.set_apic_base(value) { Ok(()) } else { Err(Exception::gp(0).into()) };
        }
        match self.gpr(1) {
            MSR_TSC => {
                self.adjust_tsc(value.wrapping_sub(time::tsc()));
                return Ok(());
            }
            MSR_TSC_ADJUST => {
                self.adjust_tsc(value);
                return Ok(());
            }
            _ => {}
        }
        let old = self.vcpu.msrs.efer;
        self.store_msr(self.gpr(1), value, old)?;
        self.push_syscalls();
        Ok(())
    }

    fn store_msr(&mut self, msr: u32, value: u64, old: u64) -> Emulated<()> {
        match self.vcpu.msrs.write(msr, value) {
            vcpu::Written::Stored => Ok(()),
            vcpu::Written::Refused => Err(Exception::gp(0).into()),
            vcpu::Written::Efer => {
                if self.vcpu.paging() && (old ^ value) & vcpu::efer::LME != 0 {
                    self.vcpu.msrs.efer = old;
                    return Err(Exception::gp(0).into());
                }
                if (old ^ value) & vcpu::efer::NXE != 0 { self.reload_translation(ControlWrite::Efer) } else { Ok(()) }
            }
        }
    }

    /// RDTSC, when it traps.
    ///
    /// # Errors
    /// #GP(0) in user code while CR4.TSD is set.
    pub(crate) fn read_tsc(&mut self) -> Emulated<()> {
        if self.cpl() != 0 && self.vcpu.cr4 & cr4::TSD != 0 {
            return Err(Exception::gp(0).into());
        }
        let now = self.tsc();
        self.set_gpr(0, now as u32);
        self.set_gpr(2, (now >> 32) as u32);
        Ok(())
    }

    /// SMSW.
    pub(crate) fn store_machine_status(&mut self, insn: &Instruction) -> Emulated<()> {
        let size = if insn.op_kind(0) == OpKind::Register { super::register_size(insn.op0_register()) } else { 2 };
        self.write_operand(insn, 0, size, self.vcpu.cr0)
    }
}
