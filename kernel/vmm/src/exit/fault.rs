//! Page faults: the shadow MMU says what they are, here it is done.

use gnomon_trace::Reason;
use shadow_mmu::{Access, AccessKind, ControlFault, Fault, Gpa, GuestFault, Gva, Outcome, PfErr, Privilege, VmStop};

use super::ShortWays;
use crate::trap::{Emulated, Exception, StopReason, Trap};
use crate::vcpu::cr4;
use crate::vm::{PageHint, Vm};

/// Outcomes that the shadow MMU has for 64-bit guests alone, which do not run yet.
pub(crate) const LONG_MODE_ONLY: StopReason = StopReason::Internal("a 32-bit guest got an outcome of long mode");

/// The guest's own page fault that was delivered last.
#[derive(Clone, Copy)]
pub(crate) struct Faulted {
    /// Where it happened; above all addresses if nothing has faulted that may be tried again.
    pub eip: u64,
    fault: Fault,
}

impl Faulted {
    /// Nothing has faulted.
    pub(crate) const NOTHING: Self = Self {
        eip: u64::MAX,
        fault: Fault { gva: Gva::new(0), access: Access { kind: AccessKind::Read, privilege: Privilege::Supervisor } },
    };
}

impl Vm {
    /// Handles a page fault of the guest. The virtual IF may be lent to patches: a hidden fault leaves it there.
    pub(crate) fn on_page_fault(&mut self) -> Emulated<()> {
        let gva = Gva::new(self.world.cr2());
        let error = PfErr::from_bits_truncate(self.world.context().error as u32);
        let access = self.access_from(error);
        let fault = Fault { gva, access };
        if access.kind == AccessKind::Fetch && self.on_shadow_code() {
            return self.on_code_fetch(gva.raw() as u32);
        }
        if error.contains(PfErr::RESERVED)
            && let Some(fault) = self.mmu.known_absent(fault)
        {
            return self.on_true_fault(fault, access);
        }
        let (outcome, plan) = self.mmu.on_fault(fault);
        self.flush(plan);
        match outcome {
            Outcome::Resume => {
                self.count(Reason::HiddenFault);
                self.check_progress(gva)
            }
            Outcome::Inject(fault) => self.on_true_fault(fault, access),
            Outcome::EmulateWrite(gpa) => self.on_tracked_write(fault, gpa),
            Outcome::Mmio(_) if access.kind == AccessKind::Fetch => Err(StopReason::FetchOutsideMemory.into()),
            Outcome::Mmio(gpa) => self.on_device_access(fault, gpa),
            Outcome::NotResident(_) => Err(NOT_RESIDENT.into()),
            Outcome::EmulateFetch(_) | Outcome::NonCanonical(_) => Err(LONG_MODE_ONLY.into()),
            Outcome::Stop(stop) => Err(mmu_stop(stop).into()),
        }
    }

    /// The access that faulted. The error code does not tell of EFLAGS.AC, which suspends SMAP.
    #[inline]
    fn access_from(&self, error: PfErr) -> Access {
        let access = Access::from_error(error);
        if self.vcpu.cr4 & cr4::SMAP != 0 && !access.is_user() {
            return access.with_privilege(self.privilege());
        }
        access
    }

    /// The guest returns to what has faulted last, which it will try again: that should not fault for the shadow's sake.
    #[inline(never)] // out of the way of other returns
    pub(crate) fn fill_ahead(&mut self) {
        let fault = core::mem::replace(&mut self.faulted, Faulted::NOTHING).fault;
        let plan = self.mmu.fill_ahead(fault);
        self.flush(plan);
    }

    /// Completes the shadow for an access that no fault of the CPU tells of.
    #[inline(never)] // The faults of the CPU have the code of it in line.
    pub(crate) fn complete(&mut self, fault: Fault) -> Outcome {
        let (outcome, plan) = self.mmu.on_fault(fault);
        self.flush(plan);
        outcome
    }

    #[inline(always)] // Twice: a call would cost it a twentieth.
    fn on_true_fault(&mut self, fault: GuestFault, access: Access) -> Emulated<()> {
        self.reclaim_flags();
        self.faulted = Faulted { eip: self.world.context().rip, fault: Fault { gva: fault.gva, access } };
        self.count(Reason::TrueFault);
        self.check_progress(fault.gva)?;
        let exception = Exception::page_fault(fault.error.bits(), fault.gva.raw() as u32);
        if self.short_ways == ShortWays::Deprivileged && self.deliver_shortly(exception) {
            Ok(())
        } else {
            Err(exception.into())
        }
    }

    pub(crate) fn check_progress(&mut self, gva: Gva) -> Emulated<()> {
        if self.progress.stuck(self.world.context(), gva.raw()) { Err(StopReason::FaultLoop.into()) } else { Ok(()) }
    }

    /// A write that is allowed, into a frame that is tracked, or that no shadow entry can allow.
    fn on_tracked_write(&mut self, fault: Fault, gpa: Gpa) -> Emulated<()> {
        self.reclaim_flags();
        let kind = self.mmu.write_kind(gpa.gfn());
        let table = kind.page_table;
        if self.task_frame == Some(gpa.gfn()) {
            return self.on_task_segment_write(fault);
        }
        if kind.watched && !table && !self.code.is_source(gpa.gfn()) {
            self.count(Reason::TrackedWrite);
            self.open_descriptor_page(gpa.gfn());
            let _ = self.complete(fault);
            return Ok(());
        }
        let page = fault.gva.page().raw() as u32;
        self.write_hint = Some(PageHint { page, frame: gpa.gfn().base() });
        let done = self.emulate_access();
        self.write_hint = None;
        match done {
            Err(Trap::Stop(StopReason::Unemulated)) => self.step_over(fault),
            done => {
                // One that is not watched either is a supervisor's, past a clear WP and under SMAP.
                self.count(match (table, kind.watched) {
                    (true, _) => Reason::PtWrite,
                    (false, true) => Reason::CodeWrite,
                    (false, false) => Reason::TrackedWrite,
                });
                done
            }
        }
    }

    /// An access that is allowed, to a device, to ROM or to nothing.
    fn on_device_access(&mut self, fault: Fault, gpa: Gpa) -> Emulated<()> {
        self.reclaim_flags();
        self.count(Reason::Mmio);
        let hint = PageHint { page: fault.gva.page().raw() as u32, frame: gpa.gfn().base() };
        self.device_hint = Some(hint);
        if fault.access.kind == AccessKind::Write {
            self.write_hint = Some(hint);
        }
        let done = self.emulate_any();
        (self.device_hint, self.write_hint) = (None, None);
        done
    }

    /// Executes the instruction at EIP by emulation.
    pub(super) fn emulate_access(&mut self) -> Emulated<()> {
        let insn = self.decode()?;
        let next = self.execute_memory(&insn)?;
        self.finish(&insn, next);
        Ok(())
    }
}

/// The monitor's name for a stop of the shadow MMU.
pub(crate) fn mmu_stop(stop: VmStop) -> StopReason {
    match stop {
        VmStop::TableOutsideMemory { .. } => StopReason::TableOutsideMemory,
        VmStop::AddressTooWide(_) => StopReason::Internal("a 32-bit guest formed an address above 4 GiB"),
        VmStop::InWindow(_) => StopReason::HypervisorWindow,
        VmStop::BeyondHost(_) => StopReason::AddressBeyondHost,
        VmStop::NoCodeWindow(_) => StopReason::Internal("a 64-bit guest fetched through the code window"),
        VmStop::NoRoot => StopReason::Internal("page fault before control registers were loaded"),
        VmStop::Refused { .. } => StopReason::Internal("the last gate refused a shadow entry"),
        VmStop::Internal { .. } => StopReason::Internal("an invariant of the shadow MMU does not hold"),
    }
}

/// No frame is ever taken from a guest yet, so none can be missing.
pub(crate) const NOT_RESIDENT: StopReason = StopReason::Internal("a guest frame is not resident");

/// What a refused control register load means for the guest.
pub(crate) fn control_fault(fault: ControlFault) -> Trap {
    match fault {
        ControlFault::GeneralProtection => Exception::gp(0).into(),
        ControlFault::Unsupported(_) => StopReason::PagingMode.into(),
        ControlFault::NotResident(_) => NOT_RESIDENT.into(),
        ControlFault::Stop(stop) => mmu_stop(stop).into(),
    }
}
