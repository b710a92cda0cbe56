//! Guests that AMD-V or VT-x runs: what crosses the border at each transition, and events that the CPU delivers itself.
//!
//! Everything else is shared with the deprivileged guests: exits are counted, decoded and emulated by the same code. The CPU holds
//! the whole EFLAGS, the segment and descriptor table registers, and with second-level tables the control registers too; `vcpu`
//! gets the ones that emulation looks at.

use gnomon_hw::tables::NestedTables;
use gnomon_hw::virt::{EventKind, HardwareExit, Injection, SyscallRegisters, Vendor};
use gnomon_hw::{Exit, VmId};
use gnomon_trace::{Kind, Record};
use shadow_mmu::second::{Ept, Npt, SecondConfig, SecondCounters, SecondLevel, SecondOutcome};
use shadow_mmu::{AccessKind, ConfigError, ControlWrite, Controls, FlushPlan, Gpa, Root};

use crate::event::{Event, Source, combine};
use crate::ram::GuestRam;
use crate::trap::{Exception, StopReason, vector};
use crate::vcpu::flags;
use crate::vm::Vm;

/// EFLAGS bits that `vcpu` keeps.
const SYSTEM_FLAGS: u32 = flags::IF | flags::IOPL | flags::NT;

/// What stands for an exit when the guest was not entered: the instruction at EIP is hidden by a patch.
const HIDDEN: Exit = Exit::Vector(vector::BP);

/// Second-level tables in a vendor's format.
pub(crate) enum Nested {
    /// VT-x.
    Ept(SecondLevel<Ept, NestedTables>),
    /// AMD-V.
    Npt(SecondLevel<Npt, NestedTables>),
}

impl Nested {
    /// Empty tables.
    pub(crate) fn new(id: VmId, vendor: Vendor, config: SecondConfig) -> Result<Self, ConfigError> {
        let tables = NestedTables::new(id);
        Ok(match vendor {
            Vendor::Vmx => Self::Ept(SecondLevel::new(tables, config)?),
            Vendor::Svm => Self::Npt(SecondLevel::new(tables, config)?),
        })
    }

    /// Where the CPU begins.
    pub(crate) fn root(&self) -> Root {
        match self {
            Self::Ept(tables) => tables.root(),
            Self::Npt(tables) => tables.root(),
        }
    }

    /// An access that found no entry, or no right.
    pub(crate) fn on_violation(&mut self, mem: &GuestRam, gpa: Gpa, kind: AccessKind) -> (SecondOutcome, FlushPlan) {
        match self {
            Self::Ept(tables) => tables.on_violation(mem, gpa, kind),
            Self::Npt(tables) => tables.on_violation(mem, gpa, kind),
        }
    }

    /// What happened so far.
    pub(crate) fn counters(&self) -> &SecondCounters {
        match self {
            Self::Ept(tables) => tables.counters(),
            Self::Npt(tables) => tables.counters(),
        }
    }
}

impl From<Injection> for Event {
    fn from(event: Injection) -> Self {
        let source = match event.kind {
            EventKind::External | EventKind::Nmi => Source::External,
            EventKind::Exception => Source::Exception,
            EventKind::Software => Source::Software,
        };
        Self { vector: event.vector, error: event.error, cr2: None, source }
    }
}

impl Vm {
    /// Runs the guest until something ends the run. `waits`: an interrupt waits for it.
    #[inline]
    pub(crate) fn enter(&mut self, waits: bool) -> Exit {
        if self.code.patching.count != 0 && self.prepare_patches(waits) {
            return HIDDEN;
        }
        match self.world.run_active() {
            Some(exit) => exit,
            None => self.enter_otherwise(),
        }
    }

    /// A world that is not active: another root, or a hardware one.
    #[inline(never)] // Out of the way of those that are.
    fn enter_otherwise(&mut self) -> Exit {
        if self.world.is_hardware() { self.enter_hardware() } else { self.world.run() }
    }

    #[inline(never)] // Out of the way of the deprivileged guests' loop.
    fn enter_hardware(&mut self) -> Exit {
        if self.interrupted.is_some() {
            self.inject_again();
        }
        let system = u64::from(self.vcpu.system_flags);
        let context = self.world.context_mut();
        context.rflags = context.rflags & !u64::from(SYSTEM_FLAGS) | system;
        let mut exit = self.world.run();
        if self.world.hardware_exit() == HardwareExit::TaskSegmentOpen {
            self.close_task_segment();
            exit = self.world.run();
        }
        let rflags = self.world.context().rflags as u32;
        self.vcpu.system_flags = rflags & SYSTEM_FLAGS;
        // An instruction that was begun is behind every event.
        if !matches!(self.world.hardware_exit(), HardwareExit::Intercepted(_)) {
            self.interrupted = self.world.interrupted();
        }
        if rflags & flags::VM != 0 {
            self.note_v86();
        }
        exit
    }

    /// Has the CPU deliver once more what the last exit cut short.
    #[cold]
    fn inject_again(&mut self) {
        // The CPU comes to INT n again by itself: EIP still points at it.
        if let Some(event) = self.interrupted.take().filter(|event| event.kind != EventKind::Software) {
            self.world.inject(event);
        }
    }

    /// Brings `vcpu` and the page walker in line with the control registers in the CPU, where the guest writes them itself.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        if self.nested.is_none() {
            return;
        }
        let now = self.world.control_registers();
        self.vcpu.cr2 = now.cr2;
        let same = (now.cr0, now.cr3, now.cr4) == (self.vcpu.cr0, self.vcpu.cr3, self.vcpu.cr4);
        if same && !self.vcpu.pae() {
            return;
        }
        (self.vcpu.cr0, self.vcpu.cr3, self.vcpu.cr4) = (now.cr0, now.cr3, now.cr4);
        let efer = self.vcpu.msrs.efer;
        let controls = Controls { cr0: now.cr0.into(), cr3: now.cr3.into(), cr4: now.cr4.into(), efer, pkru: 0 };
        // The CPU runs on these, so only a PDPTE that was spoiled after the load can be refused: the walker keeps the old ones.
        let _ = self.mmu.follow_controls(controls, ControlWrite::Efer);
    }

    /// Hands the fast system call registers and EFER to the CPU.
    #[inline(never)] // Out of the way of the deprivileged guests' loop.
    pub(crate) fn push_syscalls(&mut self) {
        if self.world.is_hardware() {
            let msrs = &self.vcpu.msrs;
            let registers = SyscallRegisters { sysenter: msrs.sysenter, star: msrs.star, efer: msrs.efer };
            self.world.set_syscalls(&registers);
        }
    }

    /// Delivers a waiting device interrupt, or asks to be called when the guest can take it.
    #[inline(never)] // Out of the way of the deprivileged guests' loop.
    pub(crate) fn offer_interrupt(&mut self) -> Result<(), StopReason> {
        let mut nmi = self.bus.nmi_pending();
        if nmi && self.world.nmi_blocked() {
            self.world.request_nmi_window();
            nmi = false;
        }
        if !(nmi || self.bus.interrupt_pending()) || self.mmu.is_open() || self.vcpu.halted {
            return Ok(());
        }
        let busy = self.interrupted.is_some() || self.world.injecting();
        if nmi && !busy {
            return self.inject_nmi();
        }
        let held = self.world.interrupt_shadow() && !self.retired;
        if held && !busy && self.vcpu.interrupts_on() && !self.world.keeps_shadow() {
            // In a window the interrupt would come before the instruction that has to be first: a HLT behind STI would wait for another.
            self.begin_step();
            return Ok(());
        }
        if busy || held || !self.vcpu.interrupts_on() {
            self.world.request_window();
            return Ok(());
        }
        self.take_interrupt()
    }

    /// Has the CPU deliver an event at the next entry. An event whose delivery this one has cut short counts as in SDM 3A table 6-5.
    #[inline(never)] // Out of the way of the deprivileged guests' loop.
    pub(crate) fn deliver_by_cpu(&mut self, event: Event) -> Result<(), StopReason> {
        let event = match self.interrupted.take() {
            Some(first) if event.source == Source::Exception => {
                let second = Exception { vector: event.vector, error: event.error, cr2: event.cr2 };
                combine(&first.into(), second).ok_or(StopReason::TripleFault)?
            }
            _ => event,
        };
        if let Some(cr2) = event.cr2 {
            self.vcpu.cr2 = cr2;
            self.world.set_cr2(cr2);
        }
        let kind = match event.source {
            Source::External if event.vector == vector::NMI => EventKind::Nmi,
            Source::External => EventKind::External,
            Source::Exception => EventKind::Exception,
            Source::Software => EventKind::Software,
        };
        self.world.inject(Injection { kind, vector: event.vector, error: event.error });
        self.vcpu.halted = false;
        self.tracer.record(|| Record {
            code: event.vector,
            flags: self.cpl(),
            arg: event.error.unwrap_or(0),
            b: event.cr2.unwrap_or(0).into(),
            ..Record::new(Kind::Inject)
        });
        Ok(())
    }
}
