//! Device interrupts on their way into the guest.

use gnomon_trace::{Kind, Record};

use crate::event::{Event, Source};
use crate::trap::{StopReason, vector};
use crate::vm::Vm;

impl Vm {
    /// Whether the run loop has to look at devices, interrupts or a halted CPU before it enters the guest again.
    #[inline]
    pub(crate) fn wants_attention(&self) -> bool {
        self.devices_touched | self.vcpu.halted | self.bus.nmi_pending() | self.bus.interrupt_pending()
    }

    /// Delivers a waiting device interrupt if virtual IF allows it. Inside the shadow of STI or MOV SS one more instruction runs
    /// first, single-stepped, so that the interrupt comes right behind it (SDM 3A 6.8.3).
    ///
    /// # Errors
    /// The reason for which the VM stops.
    pub(crate) fn inject_interrupt(&mut self) -> Result<(), StopReason> {
        if self.world.is_hardware() {
            return self.offer_interrupt();
        }
        if self.bus.nmi_pending() && !self.vcpu.nmi_blocked && !self.mmu.is_open() {
            return self.inject_nmi();
        }
        if !self.vcpu.interrupts_on() || !self.bus.interrupt_pending() || self.mmu.is_open() {
            return Ok(());
        }
        if self.vcpu.interrupt_shadow == Some(self.eip()) {
            self.begin_step();
            return Ok(());
        }
        self.vcpu.interrupt_shadow = None;
        self.take_interrupt()
    }

    /// Delivers the interrupt that waits.
    pub(crate) fn take_interrupt(&mut self) -> Result<(), StopReason> {
        // Ticks up to now belong to the request that is waiting; after the acknowledge they would ask again.
        self.bus.advance(self.now());
        let vector = self.bus.acknowledge();
        // The next timer tick may have a deadline only now that this one is taken.
        self.devices_touched = true;
        self.deliver(Event { vector, error: None, cr2: None, source: Source::External })
    }

    /// Whether what waits ends a HLT.
    pub(crate) fn is_woken(&self) -> bool {
        let interrupt = self.bus.interrupt_pending() && self.vcpu.interrupts_on();
        interrupt || (self.bus.nmi_pending() && !self.nmi_blocked())
    }

    /// Whether NMIs wait for an IRET.
    pub(crate) fn nmi_blocked(&self) -> bool {
        if self.world.is_hardware() { self.world.nmi_blocked() } else { self.vcpu.nmi_blocked }
    }

    /// Delivers the NMI; the next one waits for an IRET (SDM 3A 6.7.1).
    #[cold]
    pub(crate) fn inject_nmi(&mut self) -> Result<(), StopReason> {
        self.bus.acknowledge_nmi();
        self.vcpu.nmi_blocked = true;
        self.vcpu.interrupt_shadow = None;
        self.deliver(Event { vector: vector::NMI, error: None, cr2: None, source: Source::External })
    }

    /// Records that the guest goes on.
    pub(crate) fn trace_resume(&self) {
        self.tracer.record(|| Record {
            code: self.last_reason as u8,
            flags: self.cpl(),
            a: self.eip().into(),
            c: self.esp().into(),
            ..Record::new(Kind::Resume)
        });
    }
}
