//! The local APIC as the CPU sees it, beyond its page of registers: NMIs and IA32_APIC_BASE.

use super::Bus;

impl Bus {
    /// Whether there are a local APIC and an I/O APIC, for CPUID and the tables that tell of them.
    #[must_use]
    pub fn has_apic(&self) -> bool {
        self.has_apic
    }

    /// An NMI waits for the CPU.
    #[must_use]
    #[inline]
    pub fn nmi_pending(&self) -> bool {
        self.lapic.nmi()
    }

    /// Whether an NMI waits, or a device can raise one while the CPU does nothing.
    #[must_use]
    pub fn nmi_may_come(&self) -> bool {
        self.lapic.nmi_may_come() || self.io_apic.sends_nmis()
    }

    /// The CPU takes the NMI.
    pub fn acknowledge_nmi(&mut self) {
        self.lapic.acknowledge_nmi();
    }

    /// IA32_APIC_BASE; `None` if the CPU has no local APIC.
    #[must_use]
    pub fn apic_base(&self) -> Option<u64> {
        self.has_apic.then(|| self.lapic.base())
    }

    /// Writes IA32_APIC_BASE; false if the register or the value is refused.
    #[must_use]
    pub fn set_apic_base(&mut self, value: u64) -> bool {
        let stored = self.has_apic && self.lapic.set_base(value);
        self.take_over_apic();
        stored
    }
}
