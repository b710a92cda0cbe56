//! A peer to compare with: KVM, which has the same work to do.
//!
//! Source: KVM of Linux 6.1 (Debian's 6.1.0-56-amd64) running nanobench inside the same emulators: on QEMU 7.2 with AMD-V, `npt=1`
//! and `npt=0`, on Bochs 2.7 with VT-x, `ept=1` and `ept=0`. The VMM was a minimal one, so port accesses reach a user process.
//! Smallest of five rounds, identical when run again.

use super::column::Mmu;
use crate::cli::MachineKind;

/// What the report says about the figures.
pub(super) const NOTE: &str = "\
The columns *KVM* are a peer: KVM of Linux 6.1, with nested and with shadow paging, measured inside the same emulators (QEMU with
AMD-V, Bochs with VT-x) by the guest nanobench, whose operations `bench` repeats. It leans on hardware virtualization: its guest
kernel stays in ring 0, system calls and most exceptions do not exit, and what the hardware does in an exit is not counted. Its
port accesses go on to a user process. With shadow paging it lets page tables go out of sync, so that page-table writes are nearly
free until INVLPG or a CR3 load pays for them. Its exits run through a full Linux. Its figure for `cr3_64_touch64` with shadow
paging on QEMU was 19,404 when the guest had 64 MiB. CPUID exits under KVM, not under Gnomon's `depriv`. An empty cell was not measured.";

/// An operation of nanobench, with instructions: `npt=1`, `npt=0`, `ept=1`, `ept=0`.
struct Figures(&'static str, [f64; 4]);

const FIGURES: &[Figures] = &[
    Figures("cpuid", [2880.0, 2844.0, 1058.0, 1043.0]),
    Figures("inb", [3023.0, 3020.0, 7405.0, 3215.0]),
    Figures("div0_kernel", [5.0, 5.0, 6.0, 6.0]),
    Figures("div0_user", [5.0, 5.0, 6.0, 6.0]),
    Figures("int80", [4.0, 4.0, 4.0, 4.0]),
    Figures("invlpg", [3.0, 3700.0, 3.0, 1283.0]),
    Figures("ptemod", [13.0, 13.4, 13.0, 13.4]),
    Figures("ptemod_invlpg", [18.0, 5901.0, 18.0, 3480.0]),
    Figures("ptemod_invlpg_touch", [20.0, 5961.0, 20.0, 3543.0]),
    Figures("burst64", [14.0, 10075.0, 14.0, 9988.0]),
    Figures("dirty", [5.0, 3777.0, 5.0, 3838.0]),
    Figures("pf_skip", [13.0, 1645.0, 14.0, 1750.0]),
    Figures("pgfault_kernel", [22.0, 5465.0, 23.0, 5620.0]),
    Figures("pgfault_user", [21.0, 5464.0, 22.0, 5618.0]),
    Figures("cr3_1", [9.0, 3818.0, 9.0, 1654.0]),
    Figures("cr3_2", [9.0, 5190.0, 9.0, 3028.0]),
    Figures("cr3_16", [9.0, 5190.0, 9.0, 3028.0]),
    Figures("cr3_64", [9.0, 5190.0, 9.0, 3028.0]),
    Figures("cr3_64_touch64", [331.0, 5515.0, 331.0, 3350.0]),
    Figures("map4m_touch_invlpg", [18.0, 6371.0, 18.0, 3960.0]),
    Figures("map4m_touch_cr3", [16.0, 2034.0, 16.0, 2031.0]),
];

/// The peer's instructions for each `operation`.
pub(super) fn instructions(machine: MachineKind, mmu: Mmu, operation: &str) -> Option<f64> {
    let operation = if operation == "ptemod_cr3_touch" { "burst64" } else { operation };
    let Figures(_, [npt, no_npt, ept, no_ept]) = FIGURES.iter().find(|Figures(name, _)| *name == operation)?;
    Some(match (machine, mmu) {
        (MachineKind::Qemu, Mmu::Nested) => *npt,
        (MachineKind::Qemu, Mmu::Shadow) => *no_npt,
        (MachineKind::Bochs, Mmu::Nested) => *ept,
        (MachineKind::Bochs, Mmu::Shadow) => *no_ept,
    })
}
