//! Task switches that the CPU does without an exit: QEMU's AMD-V does not honour that intercept, and loads CR3 from the guest's TSS. With
//! shadow tables CR3 is host-physical, so no switch may come that far.
//!
//! The first thing that the CPU writes in a switch, before anything has changed, is the TSS of the task that it leaves. So LTR exits,
//! `gnomon_hw` enters no guest that may write at the base of its TSS, and the frame there is watched here. The write faults instead, and
//! the switch is emulated as VT-x wants it. A CPU that honours the intercept exits before the write.

use gnomon_hw::virt::{DescriptorTables, TaskCause, TaskSwitch};
use gnomon_trace::Reason;
use iced_x86::{Instruction, Mnemonic};
use shadow_mmu::{Fault, Gva, Privilege};

use crate::event::Event;
use crate::trap::{Emulated, StopReason, Trap};
use crate::vcpu::{Descriptor, Gate, Selector, SystemType};
use crate::vm::Vm;

impl Vm {
    /// Takes the right to write the frame where the guest's TSS begins.
    #[cold] // The frame changes with TR, and when the guest maps its TSS elsewhere.
    pub(crate) fn close_task_segment(&mut self) {
        let base = self.world.descriptor_tables().tr.base;
        // The shadow of a table out of sync may still lead to another frame.
        let plan = self.mmu.on_invlpg(Gva::new(base.into()));
        self.flush(plan);
        let frame = self.frame_behind(base);
        if frame == self.task_frame {
            return;
        }
        if let Some(old) = self.task_frame.take() {
            self.mmu.unwatch(old);
        }
        if let Some(gfn) = frame {
            let plan = self.mmu.watch(gfn);
            self.flush(plan);
        }
        self.task_frame = frame;
    }

    /// A write to the frame that the guest's TSS begins in.
    #[cold] // Kernels write nothing there but the stack pointer of ring 0, if that.
    pub(crate) fn on_task_segment_write(&mut self, fault: Fault) -> Emulated<()> {
        let tables = self.world.descriptor_tables();
        let first = !fault.access.is_user() && fault.gva == Gva::new(tables.tr.base.into());
        if first && let Some(switch) = self.unasked_switch(&tables)? {
            return self.on_task_switch(switch);
        }
        match self.emulate_any() {
            Err(Trap::Stop(StopReason::Unemulated)) if self.cpl() == 0 => {
                self.world.hide_task_segment(true);
                self.step_over(fault)
            }
            done => {
                self.count(Reason::TrackedWrite);
                done
            }
        }
    }

    /// The task switch that the CPU has begun, if it has.
    fn unasked_switch(&mut self, tables: &DescriptorTables) -> Emulated<Option<TaskSwitch>> {
        if let Some(event) = self.interrupted.map(Event::from) {
            let gate = tables.idtr.0.wrapping_add(u32::from(event.vector) * 8);
            let gate = Descriptor(self.read_u64(gate, Privilege::Supervisor)?);
            let selector = task_gate(gate);
            return Ok(selector.map(|tss| TaskSwitch { cause: TaskCause::Event, selector: tss.0, next: None }));
        }
        let insn = self.decode()?;
        let next = Some(insn.next_ip32());
        let switch = |cause, selector: Selector| TaskSwitch { cause, selector: selector.0, next };
        Ok(match insn.mnemonic() {
            Mnemonic::Iret | Mnemonic::Iretd if self.nested_task() != 0 => {
                Some(switch(TaskCause::Return, Selector(self.read_u16(tables.tr.base, Privilege::Supervisor)?)))
            }
            Mnemonic::Jmp => self.branch_target(&insn)?.map(|tss| switch(TaskCause::Jump, tss)),
            Mnemonic::Call => self.branch_target(&insn)?.map(|tss| switch(TaskCause::Call, tss)),
            _ => None,
        })
    }

    /// The TSS that a far JMP or CALL leads to.
    fn branch_target(&mut self, insn: &Instruction) -> Emulated<Option<Selector>> {
        let Some((selector, _)) = self.far_pointer(insn)? else { return Ok(None) };
        self.read_descriptor_tables();
        let Some(target) = self.read_descriptor(selector)? else { return Ok(None) };
        Ok(match target.system_type() {
            _ if target.is_segment() => None,
            SystemType::Tss16 | SystemType::Tss32 => Some(selector),
            _ => task_gate(target),
        })
    }
}

/// The selector in a task gate.
fn task_gate(gate: Descriptor) -> Option<Selector> {
    let leads_to_task = !gate.is_segment() && gate.system_type() == SystemType::TaskGate;
    leads_to_task.then(|| Gate::new(gate, false).selector)
}
