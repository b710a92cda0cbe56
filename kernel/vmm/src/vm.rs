//! One virtual machine: its CPU, memory, devices and counters.

use alloc::string::String;
use gnomon_hw::World;
use gnomon_hw::tables::HostTables;
use gnomon_hw::virt::Injection;
use gnomon_trace::{Counters, Reason};
use shadow_mmu::{FlushPlan, Gfn, Gpa, Privilege, ShadowMmu};

use crate::clock::Clock;
use crate::code::ShadowCode;
use crate::dev::{Bus, Nanos};
use crate::emul::DecodeCache;
use crate::exit::{Faulted, ShortWays};
use crate::hardware::Nested;
use crate::marks::Marks;
use crate::progress::Progress;
use crate::ram::{GuestRam, PAGE};
use crate::segments::LiveTables;
use crate::tracer::Tracer;
use crate::trap::StopReason;
use crate::vcpu::{Vcpu, cr4, flags};

/// The shadow MMU over this monitor's memory, tables and trace.
pub(crate) type Mmu = ShadowMmu<GuestRam, HostTables, Tracer>;

/// A virtual machine.
pub(crate) struct Vm {
    /// Its name, for people.
    pub name: String,
    /// Registers that live in the real CPU while it runs.
    pub world: World,
    /// Architectural state that does not.
    pub vcpu: Vcpu,
    /// Its page tables' shadows.
    pub mmu: Mmu,
    /// Its second-level tables, if the CPU walks the guest's own page tables.
    pub nested: Option<Nested>,
    /// An event whose delivery by the CPU an exit has cut short: it is due at the next entry.
    pub interrupted: Option<Injection>,
    /// The frame of its TSS, where writes to that are watched.
    pub task_frame: Option<Gfn>,
    /// Its descriptor tables' live images.
    pub live: LiveTables,
    /// Its kernel's shadow code.
    pub code: ShadowCode,
    /// Its devices.
    pub bus: Bus,
    /// Exits by reason.
    pub counters: Counters,
    /// Reason of the exit that is being handled.
    pub last_reason: Reason,
    /// Guest time.
    pub clock: Clock,
    /// Where its records go.
    pub tracer: Tracer,
    /// Single-stepping on our own account, and whether the guest had TF set itself.
    pub step: Option<Step>,
    /// Instructions decoded before.
    pub decoded: DecodeCache,
    /// The page that the write being emulated goes to, translated already.
    pub write_hint: Option<PageHint>,
    /// The page of a device that the access being emulated goes to, translated already.
    pub device_hint: Option<PageHint>,
    /// Whether this exit emulated an instruction to its end.
    pub retired: bool,
    /// The guest's last page fault, while it may be tried again.
    pub faulted: Faulted,
    /// Faults without progress.
    pub progress: Progress,
    /// What was counted since the guest's last mark.
    pub marks: Marks,
    /// Whether the guest has breakpoints.
    pub armed: bool,
    /// Whether it has breakpoints, or is traced: then it takes no short ways.
    pub watched: bool,
    /// Breakpoints that the instruction being emulated has hit: B0 to B3 of DR6.
    pub hits: u32,
    /// Which short ways of exits are open.
    pub short_ways: ShortWays,
    /// What ended the machine in a short way; the run loop looks for it when devices were touched.
    pub end: Option<StopReason>,
    /// Whether devices were touched since the run loop last looked at them.
    pub devices_touched: bool,
}

/// A translation for the access of the instruction that is being emulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageHint {
    /// The linear page.
    pub page: u32,
    /// The guest-physical page.
    pub frame: Gpa,
}

impl PageHint {
    /// The guest-physical address of an access that lies, all of it, in the page.
    #[inline]
    pub(crate) fn covers(self, gva: u32, len: usize) -> Option<Gpa> {
        let offset = gva.wrapping_sub(self.page);
        (u64::from(offset) + len as u64 <= PAGE).then(|| self.frame.add(offset.into()))
    }
}

/// A single step that the monitor asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The guest's own TF, to be put back.
    pub guest_tf: bool,
}

impl Vm {
    /// Virtual privilege level: real ring 1 is the guest's ring 0.
    #[must_use]
    pub(crate) fn cpl(&self) -> u8 {
        if self.world.context().cs & 3 == 3 { 3 } else { 0 }
    }

    /// Privilege of ordinary memory accesses by the code that runs.
    #[must_use]
    pub(crate) fn privilege(&self) -> Privilege {
        let smap = self.vcpu.cr4 & cr4::SMAP != 0;
        Privilege::explicit(self.cpl(), smap && self.world.context().rflags as u32 & flags::AC != 0)
    }

    /// EIP.
    #[must_use]
    pub(crate) fn eip(&self) -> u32 {
        self.world.context().rip as u32
    }

    /// Sets EIP.
    pub(crate) fn set_eip(&mut self, eip: u32) {
        self.world.context_mut().rip = eip.into();
    }

    /// ESP.
    #[must_use]
    pub(crate) fn esp(&self) -> u32 {
        self.world.context().rsp as u32
    }

    /// Sets ESP.
    pub(crate) fn set_esp(&mut self, esp: u32) {
        self.world.context_mut().rsp = esp.into();
    }

    /// Guest time now.
    #[must_use]
    pub(crate) fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// Counts this exit.
    #[inline]
    pub(crate) fn count(&mut self, reason: Reason) {
        self.last_reason = reason;
        self.counters.add(reason);
    }

    /// Carries out what the shadow MMU says must leave the TLB.
    #[inline]
    pub(crate) fn flush(&mut self, plan: FlushPlan) {
        if !plan.is_none() {
            self.world.flush(plan);
        }
    }

    /// Makes the next entry execute one instruction only.
    pub(crate) fn begin_step(&mut self) {
        self.short_ways = ShortWays::Closed;
        if self.step.is_none() {
            let context = self.world.context_mut();
            self.step = Some(Step { guest_tf: context.rflags & u64::from(flags::TF) != 0 });
            context.rflags |= u64::from(flags::TF);
        }
    }

    /// Ends single-stepping on our own account; returns whether it was on.
    pub(crate) fn end_step(&mut self) -> bool {
        let Some(step) = self.step.take() else { return false };
        if !step.guest_tf {
            self.world.context_mut().rflags &= !u64::from(flags::TF);
        }
        true
    }
}
