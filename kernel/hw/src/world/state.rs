use super::breakpoints::Breakpoints;
use super::hidden::Hidden;
use crate::entry::GuestContext;
use crate::frames::VmId;
use crate::gdt::{Gdt, LDT_ENTRIES};
use crate::{paging, phys};
use core::mem::offset_of;
use gnomon_boot::WINDOW_BASE;
use shadow_mmu::Pfn;

/// Control bits a guest may choose: CR0.MP EM TS AM.
pub(crate) const GUEST_CR0: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 18;
/// CR4.TSD DE OSFXSR OSXMMEXCPT SMEP SMAP.
pub(crate) const GUEST_CR4: u64 = 1 << 2 | 1 << 3 | 1 << 9 | 1 << 10 | 1 << 20 | 1 << 21;

/// Everything of a world that the CPU uses or that is put away while another world is resident.
#[repr(C, align(4096))]
pub(crate) struct State {
    pub(crate) gdt: Gdt,
    pub(crate) ldt: [u64; LDT_ENTRIES as usize],
    /// FPU and SSE registers while not resident (FXSAVE format).
    pub(crate) fpu: Fpu,
    pub(crate) vm: VmId,
    pub(crate) ldt_present: bool,
    /// Ring 1 runs shadow code only: SMEP is on where there is one.
    pub(crate) fetch_guard: bool,
    /// ES, CS (unused), SS (unused), DS, FS, GS while not resident.
    pub(crate) segments: [u16; 6],
    /// Descriptors that data segment registers hold although the tables have changed; see `hidden`.
    pub(crate) hidden: Hidden,
    /// The guest's bits of CR0 and CR4.
    pub(crate) cr0: u64,
    pub(crate) cr4: u64,
    /// Frame number of the shadow root.
    pub(crate) root: u64,
    pub(crate) cr2: u64,
    /// The guest's breakpoints, and whether the CPU has to watch any.
    pub(crate) breakpoints: Breakpoints,
    pub(crate) armed: bool,
    /// A code segment of ring 3 was installed whose base is not 0.
    pub(crate) moved_code: bool,
    /// A hardware guest's DR6 at its last #DB.
    pub(crate) dr6: u64,
    /// What the CPU and the stub write when IRETQ faults reaches 48 bytes below the context; see `entry/enter.S`.
    _below: [u64; 16],
    pub(crate) context: GuestContext,
}

/// TSS.RSP0 is the end of the context, and the CPU aligns its stack pointer to 16 before it pushes.
pub(crate) const CONTEXT_END: usize = offset_of!(State, context) + size_of::<GuestContext>();
const _: () = assert!(CONTEXT_END.is_multiple_of(16));
const _: () = assert!(offset_of!(State, context) - offset_of!(State, _below) >= 64);

/// The FXSAVE area (SDM 1 10.5.1).
#[repr(C, align(16))]
pub(crate) struct Fpu(pub(crate) [u8; 512]);

const _: () = assert!(offset_of!(State, fpu).is_multiple_of(16));

/// Offsets in the FXSAVE area and their values after FNINIT and reset: control word, SSE control and status.
const FCW_AT: usize = 0;
const FCW: u16 = 0x37f;
const MXCSR_AT: usize = 24;
const MXCSR: u32 = 0x1f80;

impl State {
    /// Frames a state occupies.
    pub(crate) const FRAMES: usize = size_of::<Self>().div_ceil(phys::PAGE_SIZE);

    /// Makes the state of a new world at `place`.
    ///
    /// # Safety
    /// `place` is memory of the window of [`FRAMES`](Self::FRAMES) frames that nothing else uses.
    pub(crate) unsafe fn init(place: *mut Self, vm: VmId) {
        // SAFETY: the caller gives the memory, and all zeroes are a value of every field.
        let state = unsafe {
            core::ptr::write_bytes(place, 0, 1);
            &mut *place
        };
        let ldt = (&raw const state.ldt).addr() as u64;
        state.gdt.install_host(ldt);
        state.fpu.0[FCW_AT..FCW_AT + 2].copy_from_slice(&FCW.to_le_bytes());
        state.fpu.0[MXCSR_AT..MXCSR_AT + 4].copy_from_slice(&MXCSR.to_le_bytes());
        state.vm = vm;
        state.root = paging::host_root() >> 12;
    }

    pub(crate) fn first_frame(&self) -> Pfn {
        Pfn::new(((self as *const Self).addr() as u64 - WINDOW_BASE) >> 12)
    }
}
