//! Why a Linux kernel cannot be served.

use core::fmt;

/// Why a Linux kernel cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinuxError {
    /// A boot protocol that is too old.
    Protocol {
        /// Its version, major number in the upper byte.
        version: u16,
    },
    /// A zImage: its protected-mode part belongs at 64 KiB.
    Low,
    /// A 64-bit kernel.
    Bits64,
    /// An image that ends before its protected-mode part does.
    Cut,
    /// A command line that is too long for the kernel.
    CommandLine {
        /// How long it is.
        bytes: u64,
        /// How long it may be.
        most: u64,
    },
}

impl fmt::Display for LinuxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Protocol { version } => {
                let [minor, major] = version.to_le_bytes();
                write!(f, "a Linux kernel of boot protocol {major}.{minor:02}: expected 2.02 or later")
            }
            Self::Low => write!(f, "a Linux zImage: expected a bzImage, which is loaded at 1 MiB"),
            Self::Bits64 => write!(f, "a 64-bit Linux kernel, not yet supported: expected a 32-bit one"),
            Self::Cut => write!(f, "the bzImage is cut off: expected as many bytes as its header counts"),
            Self::CommandLine { bytes, most } => {
                write!(f, "the kernel's arguments have {bytes} bytes: expected {most} or less")
            }
        }
    }
}
