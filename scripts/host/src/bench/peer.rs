//! A peer to compare with: KVM's own shadow paging, which has the same work to do with the guest's page tables.
//!
//! Source: KVM of Linux 6.1 (Debian's 6.1.0-56-amd64) with shadow paging, running nanobench inside the same emulators: on QEMU 7.2
//! with AMD-V and `npt=0`, on Bochs 2.7 with VT-x and `ept=0`. The VMM was a minimal one, so port accesses reach a user process.
//! Smallest of five rounds, identical when run again.

use crate::cli::MachineKind;

/// The guest that was measured.
pub(super) const GUEST: &str = "nanobench";

/// What the report says about the figures.
pub(super) const NOTE: &str = "\
The column *KVM* is a peer: KVM of Linux 6.1 with shadow paging, measured inside the same emulators (QEMU with AMD-V and `npt=0`,
Bochs with VT-x and `ept=0`) by the same guest. It leans on hardware virtualization: its guest kernel stays in ring 0, system calls
and most exceptions do not exit, and what the hardware does in an exit is not counted. Its port accesses go on to a user process.
It lets page tables go out of sync, so that page-table writes are nearly free until INVLPG or a CR3 load pays for them; Gnomon
pays at each write. Its exits run through a full Linux. Its figure for `cr3_64_touch64` on QEMU was 19,404 when the guest had 64 MiB.
CPUID exits under KVM, not under Gnomon. An empty cell was not measured.";

/// An operation of nanobench, with instructions on QEMU and on Bochs.
struct Figure(&'static str, f64, f64);

const FIGURES: &[Figure] = &[
    Figure("cpuid", 2844.0, 1043.0),
    Figure("inb", 3020.0, 3215.0),
    Figure("div0_kernel", 5.0, 6.0),
    Figure("div0_user", 5.0, 6.0),
    Figure("int80", 4.0, 4.0),
    Figure("invlpg", 3700.0, 1283.0),
    Figure("ptemod", 13.4, 13.4),
    Figure("ptemod_invlpg", 5901.0, 3480.0),
    Figure("ptemod_invlpg_touch", 5961.0, 3543.0),
    Figure("ptemod_cr3_touch", 10075.0, 9988.0),
    Figure("dirty", 3777.0, 3838.0),
    Figure("pf_skip", 1645.0, 1750.0),
    Figure("pgfault_kernel", 5465.0, 5620.0),
    Figure("pgfault_user", 5464.0, 5618.0),
    Figure("cr3_1", 3818.0, 1654.0),
    Figure("cr3_2", 5190.0, 3028.0),
    Figure("cr3_16", 5190.0, 3028.0),
    Figure("cr3_64", 5190.0, 3028.0),
    Figure("cr3_64_touch64", 5515.0, 3350.0),
    Figure("map4m_touch_invlpg", 6371.0, 3960.0),
    Figure("map4m_touch_cr3", 2034.0, 2031.0),
];

/// The peer's instructions for each `operation`.
pub(super) fn instructions(machine: MachineKind, operation: &str) -> Option<f64> {
    let Figure(_, qemu, bochs) = FIGURES.iter().find(|Figure(name, ..)| *name == operation)?;
    Some(match machine {
        MachineKind::Qemu => *qemu,
        MachineKind::Bochs => *bochs,
    })
}
