//! Model-specific registers that a 32-bit guest may touch.

/// Numbers of the MSRs that act (SDM 4, chapter 2; APM 2, appendix A).
pub mod number {
    #![allow(missing_docs, reason = "the names are the manual's names")]
    pub const TSC: u32 = 0x10;
    pub const APIC_BASE: u32 = 0x1b;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const BIOS_SIGN_ID: u32 = 0x8b;
    pub const MTRR_CAP: u32 = 0xfe;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const MTRR_FIRST: u32 = 0x200;
    pub const MTRR_LAST: u32 = 0x20f;
    pub const MTRR_FIX64K: u32 = 0x250;
    pub const MTRR_FIX16K_80000: u32 = 0x258;
    pub const MTRR_FIX16K_A0000: u32 = 0x259;
    pub const MTRR_FIX4K_FIRST: u32 = 0x268;
    pub const MTRR_FIX4K_LAST: u32 = 0x26f;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    // PerfEvtSel0 to 3, PerfCtr0 to 3, which every CPU of AMD's has.
    pub const PERF_FIRST: u32 = 0xc001_0000;
    pub const PERF_LAST: u32 = 0xc001_0007;
}

/// EFER bits.
pub mod efer {
    #![allow(missing_docs, reason = "the names are the manual's mnemonics")]
    pub const SCE: u64 = 1 << 0;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
}

/// What WRMSR did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Stored.
    Stored,
    /// EFER changed: translation may mean something else now.
    Efer,
    /// Not an MSR, or a value it refuses: #GP(0).
    Refused,
}

/// The stored MSRs. Registers without effect here (MTRRs, PAT) are remembered so that the guest reads back what it wrote.
#[derive(Debug)]
pub struct Msrs {
    /// SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP.
    pub sysenter: [u32; 3],
    /// EFER.
    pub efer: u64,
    /// STAR.
    pub star: u64,
    plain: [(u32, u64); PLAIN.len()],
    mtrr_variable: [u64; 16],
    mtrr_fix4k: [u64; 8],
}

/// MSRs that only keep their value, with their value at reset.
const PLAIN: [(u32, u64); 9] = [
    (number::FEATURE_CONTROL, 1),
    (number::BIOS_SIGN_ID, 0),
    (number::MCG_STATUS, 0),
    (number::MISC_ENABLE, 1),
    (number::PAT, 0x0007_0406_0007_0406),
    (number::MTRR_DEF_TYPE, 0),
    (number::MTRR_FIX64K, 0),
    (number::MTRR_FIX16K_80000, 0),
    (number::MTRR_FIX16K_A0000, 0),
];

impl Msrs {
    /// Values at reset.
    #[must_use]
    pub const fn new() -> Self {
        Self { sysenter: [0; 3], efer: 0, star: 0, plain: PLAIN, mtrr_variable: [0; 16], mtrr_fix4k: [0; 8] }
    }

    /// The value that RDMSR gives, or `None` for #GP(0). The TSC, its adjustment and IA32_APIC_BASE are the caller's business.
    #[must_use]
    pub fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            number::SYSENTER_CS => Some(self.sysenter[0].into()),
            number::SYSENTER_ESP => Some(self.sysenter[1].into()),
            number::SYSENTER_EIP => Some(self.sysenter[2].into()),
            number::EFER => Some(self.efer),
            number::STAR => Some(self.star),
            number::MTRR_CAP => Some(0x508),
            number::MCG_CAP => Some(0),
            number::MTRR_FIRST..=number::MTRR_LAST => stored(&self.mtrr_variable, msr, number::MTRR_FIRST),
            number::MTRR_FIX4K_FIRST..=number::MTRR_FIX4K_LAST => {
                stored(&self.mtrr_fix4k, msr, number::MTRR_FIX4K_FIRST)
            }
            number::PERF_FIRST..=number::PERF_LAST => Some(0),
            _ => self.plain.iter().find(|&&(number, _)| number == msr).map(|&(_, value)| value),
        }
    }

    /// Executes WRMSR.
    pub fn write(&mut self, msr: u32, value: u64) -> Written {
        match msr {
            number::SYSENTER_CS => self.sysenter[0] = value as u32,
            number::SYSENTER_ESP => self.sysenter[1] = value as u32,
            number::SYSENTER_EIP => self.sysenter[2] = value as u32,
            number::EFER => {
                if value & !(efer::SCE | efer::LME | efer::NXE) != 0 {
                    return Written::Refused;
                }
                self.efer = value;
                return Written::Efer;
            }
            number::STAR => self.star = value,
            // They count nothing; a kernel that reads back what it wrote sees that.
            number::PERF_FIRST..=number::PERF_LAST => {}
            number::FEATURE_CONTROL | number::MTRR_CAP | number::MCG_CAP => return Written::Refused,
            _ => match self.place(msr) {
                Some(place) => *place = value,
                None => return Written::Refused,
            },
        }
        Written::Stored
    }

    fn place(&mut self, msr: u32) -> Option<&mut u64> {
        let index = |first: u32| msr.wrapping_sub(first) as usize;
        match msr {
            number::MTRR_FIRST..=number::MTRR_LAST => self.mtrr_variable.get_mut(index(number::MTRR_FIRST)),
            number::MTRR_FIX4K_FIRST..=number::MTRR_FIX4K_LAST => {
                self.mtrr_fix4k.get_mut(index(number::MTRR_FIX4K_FIRST))
            }
            _ => self.plain.iter_mut().find(|(number, _)| *number == msr).map(|(_, value)| value),
        }
    }
}

fn stored(values: &[u64], msr: u32, first: u32) -> Option<u64> {
    values.get(msr.wrapping_sub(first) as usize).copied()
}

impl Default for Msrs {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_are_distinct() {
        for (i, (number, _)) in PLAIN.iter().enumerate() {
            assert!(PLAIN.iter().skip(i + 1).all(|(other, _)| other != number));
        }
    }

    #[test]
    fn mtrrs_read_back() {
        let mut msrs = Msrs::new();
        for msr in [number::MTRR_FIRST, number::MTRR_LAST, number::MTRR_FIX4K_LAST, number::PAT] {
            assert_eq!(msrs.write(msr, u64::from(msr)), Written::Stored);
            assert_eq!(msrs.read(msr), Some(u64::from(msr)));
        }
    }

    #[test]
    fn performance_counters_are_there_and_count_nothing() {
        let mut msrs = Msrs::new();
        for msr in number::PERF_FIRST..=number::PERF_LAST {
            assert_eq!((msrs.write(msr, 7), msrs.read(msr)), (Written::Stored, Some(0)));
        }
        assert_eq!(msrs.write(number::PERF_LAST + 1, 7), Written::Refused);
    }

    #[test]
    fn reads_back_and_refuses() {
        let mut msrs = Msrs::new();
        assert_eq!(msrs.write(number::SYSENTER_EIP, 0xc010_0000), Written::Stored);
        assert_eq!(msrs.read(number::SYSENTER_EIP), Some(0xc010_0000));
        assert_eq!(msrs.write(number::EFER, 1 << 63), Written::Refused);
        assert_eq!(msrs.write(number::EFER, efer::SCE), Written::Efer);
        for long_mode in [0xc000_0082, 0xc000_0084, 0xc000_0100, 0xc000_0102] {
            assert_eq!(
                (msrs.read(long_mode), msrs.write(long_mode, 0)),
                (None, Written::Refused),
                "there is no long mode"
            );
        }
        assert_eq!(msrs.read(0x1234_5678), None);
        assert_eq!(msrs.write(0x1234_5678, 0), Written::Refused);
    }
}
