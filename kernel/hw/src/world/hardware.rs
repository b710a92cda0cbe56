//! Worlds that AMD-V or VT-x runs.

use super::SegReg;
use super::{Exit, OutOfFrames, World, resident};
use crate::frames::VmId;
use crate::virt::{self, ControlRegisters, HardwareExit, Injection, SyscallRegisters, Unavailable, Vendor};
use crate::virt::{DescriptorTables, Segment, SegmentRegister};
use shadow_mmu::Root;

impl World {
    /// A world that `vendor`'s extension runs: protected mode, flat segments, everything else at reset. `nested` is the root of its
    /// second-level tables; without one it runs on shadow tables, and has no memory until it gets a root.
    pub fn new_hardware(vm: VmId, vendor: Vendor, nested: Option<Root>) -> Result<Self, Unavailable> {
        let mut world = Self::new(vm).map_err(|OutOfFrames| Unavailable::Memory)?;
        world.on_shadow = nested.is_none();
        world.hardware = Some(virt::make(vendor, vm, nested)?);
        Ok(world)
    }

    /// Does an extension run it?
    #[must_use]
    #[inline]
    pub fn is_hardware(&self) -> bool {
        self.hardware.is_some()
    }

    #[inline(never)]
    pub(super) fn run_hardware(&mut self) -> Exit {
        let state = self.state.as_ptr();
        resident::make_resident(state);
        let root = self.state().root;
        if let Some(hardware) = &mut self.hardware {
            self.last = hardware.run(state, root);
        }
        match self.last {
            HardwareExit::Vector(vector) => Exit::Vector(vector),
            HardwareExit::Interrupt(irq) => Exit::Interrupt(irq),
            _ => Exit::Hardware,
        }
    }

    /// How the last run ended, in full.
    #[must_use]
    #[inline]
    pub fn hardware_exit(&self) -> HardwareExit {
        self.last
    }

    /// Base of the code segment, and whether it is a 32-bit one.
    #[must_use]
    #[inline]
    pub fn hardware_code(&self) -> (u32, bool) {
        self.hardware.as_ref().map_or((0, false), |hardware| hardware.code())
    }

    /// The control registers in the CPU; all zero in a world that no extension runs. On shadow tables only CR2 is the guest's.
    #[must_use]
    #[inline]
    pub fn control_registers(&self) -> ControlRegisters {
        self.hardware.as_ref().map_or(ControlRegisters::default(), |hardware| hardware.controls())
    }

    /// The four PDPTEs that the guest's last write to a control register has loaded. Only of hardware worlds; so are all below.
    pub fn set_pdptes(&mut self, entries: [u64; 4]) {
        if let Some(hardware) = &mut self.hardware {
            hardware.set_pdptes(entries);
        }
    }

    /// Sets the guest's CR2.
    pub fn set_cr2(&mut self, cr2: u32) {
        if let Some(hardware) = &mut self.hardware {
            hardware.set_cr2(cr2);
        }
    }

    /// Loads CR3 as the CPU does, where it walks the guest's own tables; on shadow tables CR3 is not the guest's.
    pub fn set_cr3(&mut self, cr3: u32) {
        if let Some(hardware) = &mut self.hardware {
            hardware.set_cr3(cr3);
        }
    }

    /// GDTR, IDTR, LDTR and TR.
    #[must_use]
    pub fn descriptor_tables(&self) -> DescriptorTables {
        self.hardware.as_ref().map_or(DescriptorTables::default(), |hardware| hardware.descriptor_tables())
    }

    /// Loads GDTR and IDTR: base and limit.
    pub fn set_descriptor_tables(&mut self, gdtr: (u32, u16), idtr: (u32, u16)) {
        if let Some(hardware) = &mut self.hardware {
            hardware.set_descriptor_tables(gdtr, idtr);
        }
    }

    /// While this is on, a guest that would end in [`HardwareExit::TaskSegmentOpen`] runs with a TR that leads to no memory instead. That
    /// will do for one instruction of ring 0.
    pub fn hide_task_segment(&mut self, hide: bool) {
        if let Some(hardware) = &mut self.hardware {
            hardware.hide_task_segment(hide);
        }
    }

    /// Loads a segment register. The privilege level is that of the stack segment.
    pub fn set_segment(&mut self, register: SegmentRegister, segment: Segment) {
        let Some(hardware) = &mut self.hardware else { return };
        hardware.set_segment(register, segment);
        match register {
            SegmentRegister::Plain(SegReg::Cs) => self.context_mut().cs = segment.selector.into(),
            SegmentRegister::Plain(SegReg::Ss) => self.context_mut().ss = segment.selector.into(),
            _ => {}
        }
    }

    /// Sets the registers of the fast system calls, and EFER.
    pub fn set_syscalls(&mut self, registers: &SyscallRegisters) {
        if let Some(hardware) = &mut self.hardware {
            hardware.set_syscalls(registers);
        }
    }

    /// What the CPU adds to the time stamp counter that the guest reads.
    pub fn set_tsc_offset(&mut self, offset: u64) {
        if let Some(hardware) = &mut self.hardware {
            hardware.set_tsc_offset(offset);
        }
    }

    /// Has the CPU deliver an event at the next run; one that waits already is replaced.
    pub fn inject(&mut self, event: Injection) {
        if let Some(hardware) = &mut self.hardware {
            hardware.inject(event);
        }
    }

    /// Is an event waiting for the next run?
    #[must_use]
    pub fn injecting(&self) -> bool {
        self.hardware.as_ref().is_some_and(|hardware| hardware.injecting())
    }

    /// The event whose delivery the last exit cut short.
    #[must_use]
    #[inline]
    pub fn interrupted(&self) -> Option<Injection> {
        self.hardware.as_ref()?.interrupted()
    }

    /// Are interrupts held for one more instruction, behind STI or MOV SS?
    #[must_use]
    pub fn interrupt_shadow(&self) -> bool {
        self.hardware.as_ref().is_some_and(|hardware| hardware.interrupt_shadow())
    }

    /// Does the next run begin with interrupts held back, if the last one ended so?
    #[must_use]
    pub fn keeps_shadow(&self) -> bool {
        self.hardware.as_ref().is_none_or(|hardware| hardware.keeps_shadow())
    }

    /// Has the guest not come back from its last NMI?
    #[must_use]
    pub fn nmi_blocked(&self) -> bool {
        self.hardware.as_ref().is_some_and(|hardware| hardware.nmi_blocked())
    }

    /// Sets whether NMIs wait for an IRET.
    pub fn block_nmi(&mut self, blocked: bool) {
        if let Some(hardware) = &mut self.hardware {
            hardware.block_nmi(blocked);
        }
    }

    /// Ends a run as soon as the guest has come back from its last NMI.
    pub fn request_nmi_window(&mut self) {
        if let Some(hardware) = &mut self.hardware {
            hardware.request_nmi_window();
        }
    }

    /// Ends a run as soon as the guest can take an interrupt.
    pub fn request_window(&mut self) {
        if let Some(hardware) = &mut self.hardware {
            hardware.request_window();
        }
    }
}
