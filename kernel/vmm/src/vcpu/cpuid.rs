//! CPUID as the virtual CPU: what the emulator's CPU has, without what this virtual CPU does not have.
//!
//! The guest's user code executes CPUID natively and sees the emulator's own, so the two differ only where the kernel would act on a bit
//! that nobody serves here (SDM 2A, CPUID; APM 3, appendix E).

use super::cr4;

/// What CPUID returns: EAX, EBX, ECX, EDX.
pub type Registers = [u32; 4];

/// What the machine around the virtual CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// A local APIC that is enabled.
    pub apic: bool,
    /// The bits of CR4 that it has.
    pub cr4: u32,
    /// Bits of a physical address.
    pub physical_bits: u8,
}

/// Highest basic leaf: of those above, what would be named is not there.
const LAST_BASIC: u32 = 7;
const EXTENDED: u32 = 0x8000_0000;
const LAST_EXTENDED: u32 = 0x8000_0008;
const LINEAR_BITS: u32 = 32;

const fn bits<const N: usize>(numbers: [u32; N]) -> u32 {
    let mut mask = 0;
    let mut at = 0;
    while at < N {
        // A table of constants, evaluated when this is compiled.
        #[allow(clippy::indexing_slicing, reason = "at is below N")]
        let number = numbers[at];
        mask |= 1 << number;
        at += 1;
    }
    mask
}

/// Leaf 1, EDX: FPU DE PSE TSC MSR PAE CX8 SEP PGE CMOV CLFSH MMX FXSR SSE SSE2 SS. Not VME (no V86 mode), MCE, MCA, MTRR, PAT, PSE-36,
/// nor what counts packages and threads.
const FEATURES_EDX: u32 = bits([0, 2, 3, 4, 5, 6, 8, 11, 13, 15, 19, 23, 24, 25, 26, 27]);
const APIC: u32 = 1 << 9;
/// Leaf 1, ECX: SSE3 PCLMULQDQ SSSE3 CMPXCHG16B SSE4.1 SSE4.2 MOVBE POPCNT AESNI RDRAND, and the bit that says "hypervisor". Not
/// MONITOR, VMX, PCID, x2APIC, TSC deadline, nor XSAVE and all that needs it: CR4.OSXSAVE cannot be set.
const FEATURES_ECX: u32 = bits([0, 1, 9, 13, 19, 20, 22, 23, 25, 30, 31]);
/// Leaf 7, EBX: BMI1 BMI2 ERMS RDSEED ADX CLFLUSHOPT SHA; SMEP and SMAP as CR4 has them. Not FSGSBASE, INVPCID, nor AVX.
const STRUCTURED_EBX: u32 = bits([3, 8, 9, 18, 19, 23, 29]);
const SMEP: u32 = 1 << 7;
const SMAP: u32 = 1 << 20;
/// Leaf 7, ECX.
const UMIP: u32 = 1 << 2;
/// Leaf 7, EBX: IA32_TSC_ADJUST, which is here whatever the host has.
const TSC_ADJUST: u32 = 1 << 1;
/// Leaf 0x8000_0001, EDX: what leaf 1 has too, SYSCALL, NX, MMX extensions, 3DNow!. Not long mode, RDTSCP, FFXSR, 1 GiB pages.
const EXTENDED_EDX: u32 = bits([0, 2, 3, 4, 5, 6, 8, 11, 13, 15, 20, 22, 23, 24, 30, 31]);
/// Leaf 0x8000_0001, ECX: LAHF ABM SSE4A PREFETCHW. Not SVM.
const EXTENDED_ECX: u32 = bits([0, 5, 6, 8]);

/// What the guest gets for a leaf; `host` asks the real CPU.
pub fn identify(leaf: u32, subleaf: u32, machine: Machine, host: impl Fn(u32, u32) -> Registers) -> Registers {
    let [last, ..] = host(leaf & EXTENDED, 0);
    if leaf > last.min(if leaf < EXTENDED { LAST_BASIC } else { LAST_EXTENDED }) {
        return [0; 4];
    }
    let [eax, ebx, ecx, edx] = host(leaf, subleaf);
    match leaf {
        0 => [eax.min(LAST_BASIC), ebx, ecx, edx],
        1 => {
            let apic = if machine.apic { edx & APIC } else { 0 };
            // One logical processor, APIC ID 0; the size of a cache line stays.
            [eax, ebx & 0xff00 | 1 << 16, ecx & FEATURES_ECX, edx & FEATURES_EDX | apic]
        }
        // Caches stay; numbers of cores that share them do not.
        4 => [eax & 0x3ff, ebx, ecx, edx],
        7 if subleaf == 0 => {
            let has = |bit: u32, feature: u32| if machine.cr4 & bit != 0 { feature } else { 0 };
            let paging = has(cr4::SMEP, SMEP) | has(cr4::SMAP, SMAP);
            [0, ebx & (STRUCTURED_EBX | paging) | TSC_ADJUST, ecx & has(cr4::UMIP, UMIP), 0]
        }
        EXTENDED => [eax.min(LAST_EXTENDED), ebx, ecx, edx],
        0x8000_0001 => {
            let apic = if machine.apic { edx & APIC } else { 0 };
            [eax, ebx, ecx & EXTENDED_ECX, edx & EXTENDED_EDX | apic]
        }
        LAST_EXTENDED => [LINEAR_BITS << 8 | u32::from(machine.physical_bits), 0, 0, 0],
        2 | 0x8000_0002..=0x8000_0006 => [eax, ebx, ecx, edx],
        // Power states, performance counters, serial numbers: none.
        _ => [0; 4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { apic: true, cr4: cr4::ALWAYS, physical_bits: 36 };

    /// A CPU that has everything.
    fn host(leaf: u32, _subleaf: u32) -> Registers {
        match leaf {
            0 => [0x1f, 1, 2, 3],
            EXTENDED => [0x8000_001f, 1, 2, 3],
            _ => [u32::MAX; 4],
        }
    }

    #[test]
    fn what_nobody_serves_is_not_there() {
        let [_, _, ecx, edx] = identify(1, 0, MACHINE, host);
        for (bit, name) in
            [(3, "MONITOR"), (5, "VMX"), (17, "PCID"), (21, "x2APIC"), (24, "deadline"), (26, "XSAVE"), (28, "AVX")]
        {
            assert_eq!(ecx >> bit & 1, 0, "{name}");
        }
        for (bit, name) in [(1, "VME"), (7, "MCE"), (12, "MTRR"), (14, "MCA"), (16, "PAT"), (28, "HTT")] {
            assert_eq!(edx >> bit & 1, 0, "{name}");
        }
        for (bit, name) in [(0, "FPU"), (3, "PSE"), (4, "TSC"), (6, "PAE"), (9, "APIC"), (13, "PGE"), (25, "SSE")] {
            assert_eq!(edx >> bit & 1, 1, "{name}");
        }
        let [_, _, svm, long] = identify(0x8000_0001, 0, MACHINE, host);
        assert_eq!((svm >> 2 & 1, long >> 29 & 1, long >> 20 & 1), (0, 0, 1));
        assert_eq!(identify(7, 0, MACHINE, host)[1] & (1 << 7 | 1 << 20 | 1 << 5), 0, "SMEP, SMAP, AVX2");
    }

    #[test]
    fn what_cr4_has_is_there() {
        let machine = Machine { cr4: cr4::ALWAYS | cr4::UMIP | cr4::SMEP, ..MACHINE };
        let [_, ebx, ecx, _] = identify(7, 0, machine, host);
        assert_eq!((ebx & (SMEP | SMAP), ecx), (SMEP, UMIP));
        assert_eq!(identify(7, 0, machine, |_, _| [7, 0, 0, 0]), [0, TSC_ADJUST, 0, 0], "the host has none");
    }

    #[test]
    fn leaves_end_where_they_are_said_to() {
        assert_eq!(identify(0, 0, MACHINE, host), [LAST_BASIC, 1, 2, 3]);
        assert_eq!(identify(0xd, 0, MACHINE, host), [0; 4]);
        assert_eq!(identify(0x4000_0000, 0, MACHINE, host), [0; 4]);
        assert_eq!(identify(0x8000_000a, 0, MACHINE, host), [0; 4]);
        assert_eq!(identify(LAST_EXTENDED, 0, MACHINE, host), [32 << 8 | 36, 0, 0, 0]);
    }

    #[test]
    fn the_apic_can_be_hidden() {
        let hidden = Machine { apic: false, ..MACHINE };
        assert_eq!(identify(1, 0, hidden, host)[3] & APIC, 0);
        assert_eq!(identify(0x8000_0001, 0, hidden, host)[3] & APIC, 0);
    }
}
