//! What one chooses between on the command line.

use clap::ValueEnum;

/// An emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineKind {
    /// QEMU with its translator (no KVM)
    Qemu,
    /// Bochs
    Bochs,
}

/// Who runs the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum BackendName {
    /// Rings 1 and 3 on shadow tables
    Depriv,
    /// VT-x (Bochs)
    Vmx,
    /// AMD-V (QEMU)
    Svm,
}

impl BackendName {
    /// As the hypervisor's command line has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Depriv => "depriv",
            Self::Vmx => "vmx",
            Self::Svm => "svm",
        }
    }
}

/// Whose tables the CPU walks for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum MmuName {
    /// Shadow tables
    Shadow,
    /// The guest's own and second-level ones (EPT, NPT)
    Nested,
}

impl MmuName {
    /// As a guest's description has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Nested => "nested",
        }
    }
}

/// What a guest's console is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConsoleKind {
    /// The text screen as lines, until the guest prints to a serial or debug port
    Auto,
    /// COM1
    Serial,
    /// The text screen as lines
    Lines,
    /// The text screen as it looks, and the keyboard
    Screen,
}

impl ConsoleKind {
    /// As a guest's description has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Serial => "serial",
            Self::Lines => "lines",
            Self::Screen => "screen",
        }
    }
}

/// A way to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Boot {
    /// QEMU loads the image itself (`-kernel`): quick
    Kernel,
    /// GRUB loads it from an ISO image
    Grub,
}
