//! The two transitions, host to guest and back, and what may happen in host mode.
//!
//! The real state of the CPU while a guest runs (32-bit, compatibility mode):
//!
//! | register | value |
//! |---|---|
//! | CS, SS | the guest's selectors, from its own descriptors (DPL 1 or 3) in the live GDT |
//! | DS ES FS GS | the guest's; they stay in the CPU during host code, which does not use them |
//! | RFLAGS | the guest's arithmetic bits, TF, DF, AC; IF=1, IOPL=0, NT=0, VM=0 |
//! | CR0 | PG PE WP NE, and the guest's TS EM MP AM |
//! | CR3 | the shadow root; the hypervisor's window is in every root |
//! | CR4 | PAE, UMIP and PKS where there are any, and the guest's DE TSD OSFXSR OSXMMEXCPT; SMEP for guests on shadow code; SMAP PGE OSXSAVE off |
//! | EFER | LME LMA NXE; SCE=0, so that SYSCALL is #UD |
//! | SYSENTER_CS | 0, so that SYSENTER is #GP |
//! | TSS | RSP0 = end of the GuestContext; I/O bitmap beyond the limit, so that each IN and OUT is #GP |
//! | FPU, SSE | the guest's: the host is built without |

mod context;

use core::arch::global_asm;
use core::sync::atomic::AtomicU64;

pub use context::GuestContext;
pub(crate) use context::{CS, GPR8, REFUSED, RFLAGS, RIP, VECTOR};

/// The host's stack pointer while a guest runs.
pub(crate) static HOST_RSP: AtomicU64 = AtomicU64::new(0);

global_asm!(include_str!("enter.S"), host_rsp = sym HOST_RSP);
global_asm!(
    include_str!("exit.S"),
    host_rsp = sym HOST_RSP,
    entry_refused = sym crate::world::entry_refused,
    host_exception = sym crate::fault::host_exception,
    vector = const VECTOR,
    rip = const RIP,
    cs = const CS,
    rflags = const RFLAGS,
    gpr8 = const GPR8,
);
global_asm!(include_str!("fixup.S"));

/// Bytes from one vector's stub to the next.
pub(crate) const VECTOR_STRIDE: usize = 16;

unsafe extern "C" {
    pub(crate) static gnomon_vectors: u8;
    pub(crate) static gnomon_copy_insn: u8;
    pub(crate) static gnomon_copy_tail_insn: u8;
    pub(crate) static gnomon_copy_fault: u8;
    pub(crate) static gnomon_fetch_low_insn: u8;
    pub(crate) static gnomon_fetch_high_insn: u8;
    pub(crate) static gnomon_fetch_fault: u8;
    pub(crate) static gnomon_load_es_insn: u8;
    pub(crate) static gnomon_load_ds_insn: u8;
    pub(crate) static gnomon_load_fs_insn: u8;
    pub(crate) static gnomon_load_gs_insn: u8;
    pub(crate) static gnomon_load_fault: u8;
    pub(crate) static gnomon_idle_insn: u8;
    pub(crate) static gnomon_idle_done: u8;

    pub(crate) fn gnomon_enter();
    /// Copies between host memory and a guest's linear addresses: 0, or 1 if a byte faulted.
    pub(crate) fn gnomon_copy(to: *mut u8, from: *const u8, bytes: usize) -> u32;
    /// Reads 16 bytes at a guest's linear address; its own calling convention.
    pub(crate) fn gnomon_fetch();
    pub(crate) fn gnomon_load_es(selector: u32) -> u32;
    pub(crate) fn gnomon_load_ds(selector: u32) -> u32;
    pub(crate) fn gnomon_load_fs(selector: u32) -> u32;
    pub(crate) fn gnomon_load_gs(selector: u32) -> u32;
    /// Sleeps until an interrupt; gives its vector.
    pub(crate) fn gnomon_idle() -> u32;
}
