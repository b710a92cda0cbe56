//! The registers that decide about translation, and what a load of one of them does.

use super::PRESENT;
use crate::ram::Ram;

/// CR0.WP.
pub const WP: u64 = 1 << 16;
/// CR0.PG.
pub const PG: u64 = 1 << 31;
/// CR0.NW.
pub const NW: u64 = 1 << 29;
/// CR0.CD.
pub const CD: u64 = 1 << 30;
/// CR4.PSE.
pub const PSE: u64 = 1 << 4;
/// CR4.PAE.
pub const PAE: u64 = 1 << 5;
/// CR4.PGE.
pub const PGE: u64 = 1 << 7;
/// CR4.LA57.
pub const LA57: u64 = 1 << 12;
/// CR4.SMEP.
pub const SMEP: u64 = 1 << 20;
/// CR4.SMAP.
pub const SMAP: u64 = 1 << 21;
/// CR4.PKE.
pub const PKE: u64 = 1 << 22;
/// EFER.LME.
pub const LME: u64 = 1 << 8;
/// EFER.NXE.
pub const NXE: u64 = 1 << 11;

/// The paging modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// CR0.PG = 0.
    Off,
    /// 32-bit paging.
    Legacy,
    /// PAE paging.
    Pae,
    /// 4-level paging.
    Long4,
    /// 5-level paging.
    Long5,
}

/// What CPUID says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Physical address bits: MAXPHYADDR.
    pub width: u32,
    /// Pages of 1 GiB.
    pub gib_pages: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self { width: 36, gib_pages: true }
    }
}

/// The registers that decide about translation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regs {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// PKRU.
    pub pkru: u32,
    /// What PAE paging has latched.
    pub pdptes: [u64; 4],
    /// Never changes.
    pub features: Features,
}

/// Which instruction changes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// MOV to CR0.
    Cr0,
    /// MOV to CR3.
    Cr3,
    /// MOV to CR4.
    Cr4,
    /// WRMSR of EFER.
    Efer,
    /// WRPKRU.
    Pkru,
}

impl Regs {
    /// The paging mode (SDM 4.1.1).
    #[must_use]
    pub fn mode(&self) -> Mode {
        if self.cr0 & PG == 0 {
            Mode::Off
        } else if self.cr4 & PAE == 0 {
            Mode::Legacy
        } else if self.efer & LME == 0 {
            Mode::Pae
        } else if self.cr4 & LA57 == 0 {
            Mode::Long4
        } else {
            Mode::Long5
        }
    }

    /// Is NX a bit of entries?
    #[must_use]
    pub fn nxe(&self) -> bool {
        !matches!(self.mode(), Mode::Off | Mode::Legacy) && self.efer & NXE != 0
    }

    /// Is it a 64-bit guest?
    #[must_use]
    pub fn is_long(&self) -> bool {
        matches!(self.mode(), Mode::Long4 | Mode::Long5)
    }

    /// Bytes of an entry.
    #[must_use]
    pub fn entry_size(&self) -> u64 {
        if self.mode() == Mode::Legacy { 4 } else { 8 }
    }

    /// For each level of a walk from the top down: log2 of the bytes that an entry maps.
    #[must_use]
    pub fn levels(&self) -> &'static [u32] {
        match self.mode() {
            Mode::Off => &[],
            Mode::Legacy => &[22, 12],
            Mode::Pae => &[21, 12],
            Mode::Long4 => &[39, 30, 21, 12],
            Mode::Long5 => &[48, 39, 30, 21, 12],
        }
    }

    /// The table in which a walk begins; `None` if PAE paging has no directory there.
    #[must_use]
    pub fn top(&self, va: u64) -> Option<u64> {
        match self.mode() {
            Mode::Pae => {
                let pdpte = self.pdptes[(va >> 30 & 3) as usize];
                (pdpte & PRESENT != 0).then_some(pdpte & self.address_bits())
            }
            Mode::Off | Mode::Legacy => Some(self.cr3 & 0xffff_f000),
            Mode::Long4 | Mode::Long5 => Some(self.cr3 & self.address_bits()),
        }
    }

    /// Where the entry for `va` lies in a table.
    #[must_use]
    pub fn entry_at(&self, table: u64, va: u64, shift: u32) -> u64 {
        let index = va >> shift & if self.mode() == Mode::Legacy { 1023 } else { 511 };
        table + index * self.entry_size()
    }

    /// Does a load latch the PDPTEs (SDM 4.4.1)?
    #[must_use]
    pub fn latches(&self, new: &Self, load: Load) -> bool {
        let named = match load {
            Load::Cr3 => true,
            Load::Cr0 => (self.cr0 ^ new.cr0) & (PG | CD | NW) != 0,
            Load::Cr4 => (self.cr4 ^ new.cr4) & (PAE | PGE | PSE | SMEP) != 0,
            Load::Efer | Load::Pkru => false,
        };
        new.mode() == Mode::Pae && (named || self.mode() != Mode::Pae)
    }

    /// The registers after a load of `new`, or `None` for #GP(0). Of `new`, the latched PDPTEs do not count.
    #[must_use]
    pub fn load(&self, ram: &Ram, new: Self, load: Load) -> Option<Self> {
        let (was, is) = (self.mode(), new.mode());
        let long = |mode| matches!(mode, Mode::Long4 | Mode::Long5);
        // SDM 2.5, 4.1.2: no way between modes of PAE, LME and LA57 while paging.
        let refused = new.cr0 & PG != 0 && new.cr0 & 1 == 0
            || new.cr0 & PG != 0 && new.efer & LME != 0 && new.cr4 & PAE == 0
            || was != Mode::Off && is != Mode::Off && (self.efer ^ new.efer) & LME != 0
            || long(was) && long(is) && was != is
            || new.cr3 >> self.features.width != 0;
        if refused {
            return None;
        }
        if is != Mode::Pae {
            return Some(Self { pdptes: [0; 4], ..new });
        }
        if !self.latches(&new, load) {
            return Some(Self { pdptes: self.pdptes, ..new });
        }
        let mut pdptes = [0; 4];
        for (n, pdpte) in pdptes.iter_mut().enumerate() {
            // An empty bus reads as ones.
            *pdpte = ram.read((new.cr3 & 0xffff_ffe0) + 8 * n as u64, 8).unwrap_or(u64::MAX);
            let reserved = !(self.address_bits() | 0xfff) | 0x1e6;
            if *pdpte & PRESENT != 0 && *pdpte & reserved != 0 {
                return None;
            }
        }
        Some(Self { pdptes, ..new })
    }

    /// Where entries of 8 bytes have their address.
    #[must_use]
    pub fn address_bits(&self) -> u64 {
        ((1 << self.features.width) - 1) & !0xfff
    }
}
