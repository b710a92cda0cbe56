//! What a [`ShadowMmu`](crate::ShadowMmu) is made of.

use alloc::vec::Vec;
use core::fmt;

use crate::addr::Pfn;
use crate::policy::Policy;

/// What a [`ShadowMmu`](crate::ShadowMmu) is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// The frames for shadow tables: the whole pool, never more. At least [`Config::MIN_FRAMES`].
    pub frames: Vec<Pfn>,
    /// Guest frames `0..guest_frames` may be memory; everything above is a hole.
    pub guest_frames: u64,
    /// Physical address bits of the virtual CPU: 32..=52. Decides which bits of entries are reserved.
    pub maxphyaddr: u8,
    /// The virtual CPU has 1 GiB pages (CPUID leaf 0x8000_0001, EDX bit 26); else PS is reserved in a PDPTE of long mode.
    pub gib_pages: bool,
    /// Switches.
    pub policy: Policy,
}

impl Config {
    /// The smallest pool: three roots, a path of four pages, and room to go on while old ones are given up.
    pub const MIN_FRAMES: usize = 16;
    /// The largest pool.
    pub const MAX_FRAMES: usize = 65_535;

    /// A configuration with 36 address bits, 1 GiB pages and the default policy.
    #[must_use]
    pub fn new(frames: Vec<Pfn>, guest_frames: u64) -> Self {
        Self { frames, guest_frames, maxphyaddr: 36, gib_pages: true, policy: Policy::default() }
    }
}

/// Why no [`ShadowMmu`](crate::ShadowMmu) could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The pool has this many frames, which is too few or too many.
    PoolSize(usize),
    /// This many guest frames are none or more than 2^32 - 1.
    GuestFrames(u64),
    /// The virtual CPU cannot have that many physical address bits.
    MaxPhyAddr(u8),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoolSize(n) => {
                write!(f, "{n} shadow table frames: expected {}..={}", Config::MIN_FRAMES, Config::MAX_FRAMES)
            }
            Self::GuestFrames(n) => write!(f, "{n} guest frames: expected 1..{}", u32::MAX),
            Self::MaxPhyAddr(n) => write!(f, "{n} physical address bits: expected 32..=52"),
        }
    }
}
