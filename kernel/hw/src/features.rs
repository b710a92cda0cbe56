//! What the CPU must have, and what is used if it is there.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// What the CPU offers beyond the minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// SGDT, SIDT, SLDT, STR and SMSW can be made to fault outside ring 0.
    pub umip: bool,
    /// The supervisor can be kept from executing user pages.
    pub smep: bool,
    /// Protection keys for user pages.
    pub pku: bool,
    /// Protection keys for supervisor pages.
    pub pks: bool,
    /// Bits of a physical address.
    pub physical_bits: u8,
}

/// A feature that the CPU lacks and the hypervisor cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing(&'static str);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU: {} missing; use QEMU with -cpu max (or any 64-bit model) or Bochs with model=tigerlake", self.0)
    }
}

impl core::error::Error for Missing {}

static UMIP: AtomicBool = AtomicBool::new(false);
static PKS: AtomicBool = AtomicBool::new(false);
static SMEP: AtomicBool = AtomicBool::new(false);
/// Until it is known, as many as there can be.
static PHYSICAL_BITS: AtomicU8 = AtomicU8::new(52);

/// Looks for everything needed. Called by [`init`](crate::init), and harmless at any time.
pub fn check() -> Result<Features, Missing> {
    let basic = __cpuid(1);
    let extended = __cpuid(0x8000_0001);
    let needed = [
        (basic.edx >> 4, "time stamp counter (TSC)"),
        (basic.edx >> 8, "CMPXCHG8B (CX8)"),
        (basic.edx >> 24, "FXSAVE and FXRSTOR (FXSR)"),
        (extended.edx >> 20, "execute disable (NX)"),
    ];
    if let Some((_, name)) = needed.iter().find(|(bit, _)| bit & 1 == 0) {
        return Err(Missing(name));
    }
    let (structured, smep) = if __cpuid(0).eax >= 7 {
        let leaf = __cpuid_count(7, 0);
        (leaf.ecx, leaf.ebx & 1 << 7 != 0)
    } else {
        (0, false)
    };
    let physical_bits = if __cpuid(0x8000_0000).eax >= 0x8000_0008 { __cpuid(0x8000_0008).eax as u8 } else { 36 };
    let has = |bit: u32| structured >> bit & 1 != 0;
    let features = Features { umip: has(2), smep, pku: has(3), pks: has(31), physical_bits };
    UMIP.store(features.umip, Ordering::Relaxed);
    PKS.store(features.pks, Ordering::Relaxed);
    SMEP.store(features.smep, Ordering::Relaxed);
    PHYSICAL_BITS.store(physical_bits, Ordering::Relaxed);
    Ok(features)
}

/// What CPUID gives for a leaf and subleaf: EAX, EBX, ECX, EDX.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let found = __cpuid_count(leaf, subleaf);
    [found.eax, found.ebx, found.ecx, found.edx]
}

/// Are there address bits in a page-table entry that this CPU reserves? Shadow tables mark absent entries by them
/// ([`Spte::GAP`](shadow_mmu::Spte::GAP)).
#[must_use]
#[inline]
pub fn reserves_address_bits() -> bool {
    PHYSICAL_BITS.load(Ordering::Relaxed) < 52
}

/// Can shadow code be fetched and not be read?
#[must_use]
pub fn hides_code() -> bool {
    get().pks
}

/// The part of [`Features`] that the control registers need, as last found.
pub(crate) fn get() -> Features {
    let [umip, smep, pks] = [&UMIP, &SMEP, &PKS].map(|known| known.load(Ordering::Relaxed));
    Features { umip, smep, pks, ..Features::default() }
}
