//! Exit reasons: each exit is counted under exactly one of them.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why the guest left for the hypervisor, decided by the handler after decoding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name used in text, JSON and plots: lower case, words joined by `-`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// A shadow entry was built; the guest never knew.
    HiddenFault = "hidden-fault",
    /// A page fault that the guest's own tables demand; injected.
    TrueFault = "true-fault",
    /// A write to a tracked page table, emulated.
    PtWrite = "pt-write",
    /// A write to a tracked frame that is not emulated: the frame was opened for it.
    TrackedWrite = "tracked-write",
    /// An access to a guest-physical address without memory behind it.
    Mmio = "mmio",
    /// MOV from a control register, SMSW.
    ReadCr = "read-cr",
    /// MOV to CR0, CR2 or CR4, LMSW, CLTS.
    WriteCr = "write-cr",
    /// MOV to CR3.
    WriteCr3 = "write-cr3",
    /// INVLPG.
    Invlpg = "invlpg",
    /// MOV to or from a debug register.
    DebugRegister = "debug-register",
    /// CLI.
    Cli = "cli",
    /// STI.
    Sti = "sti",
    /// HLT.
    Hlt = "hlt",
    /// IN, OUT.
    Io = "io",
    /// INS, OUTS, with or without REP.
    StringIo = "string-io",
    /// RDMSR, WRMSR.
    Msr = "msr",
    /// LGDT, LIDT, LLDT, LTR, SGDT, SIDT, SLDT, STR.
    DescriptorTable = "descriptor-table",
    /// A segment register load that the live descriptors refused.
    SegmentLoad = "segment-load",
    /// Far JMP or CALL that the live descriptors refused.
    FarTransfer = "far-transfer",
    /// Far RET that the live descriptors refused.
    FarReturn = "far-return",
    /// IRET that the live descriptors refused.
    Iret = "iret",
    /// INT n, INT3, INTO.
    SoftInterrupt = "soft-interrupt",
    /// SYSENTER, SYSEXIT, SYSCALL, SYSRET.
    FastSyscall = "fast-syscall",
    /// An exception of the guest's own, passed on to it.
    Exception = "exception",
    /// An interrupt of the host's hardware.
    HostInterrupt = "host-interrupt",
    /// WBINVD, INVD and other cache control.
    CacheControl = "cache-control",
    /// CPUID, RDTSC, RDPMC when they trap.
    Cpuid = "cpuid",
    /// Anything else that was emulated.
    OtherPrivileged = "other-privileged",
    /// A sensitive instruction found by shadow code.
    Sensitive = "sensitive",
    /// A single step of the monitor's own: over an instruction that it cannot emulate, or out of the shadow of STI.
    SingleStep = "single-step",
    /// Discovery of guest-kernel code by shadow code.
    CodeDiscovery = "code-discovery",
    /// The second-level tables (EPT, NPT) lacked an entry; the guest never knew.
    NestedFault = "nested-fault",
    /// The guest can take an interrupt that waited (AMD-V, VT-x).
    InterruptWindow = "interrupt-window",
    /// A write to a frame that guest-kernel code was discovered in, emulated.
    CodeWrite = "code-write",
    /// A task switch that the CPU left to the monitor (VT-x).
    TaskSwitch = "task-switch",
}

/// One count for each [`Reason`].
#[derive(Clone, Debug)]
pub struct Counters {
    counts: [u64; Reason::ALL.len()],
}

impl Counters {
    /// All zero.
    #[must_use]
    pub const fn new() -> Self {
        Self { counts: [0; Reason::ALL.len()] }
    }

    /// Counts one exit.
    #[inline]
    pub fn add(&mut self, reason: Reason) {
        if let Some(count) = self.counts.get_mut(reason as usize) {
            *count = count.wrapping_add(1);
        }
    }

    /// The count of one reason.
    #[must_use]
    pub fn get(&self, reason: Reason) -> u64 {
        self.counts.get(reason as usize).copied().unwrap_or(0)
    }

    /// All exits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The reasons that occurred, with their counts, in the order of [`Reason::ALL`].
    pub fn nonzero(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.iter().copied().zip(self.counts.iter().copied()).filter(|&(_, count)| count != 0)
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}
