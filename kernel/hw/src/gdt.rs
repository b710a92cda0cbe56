//! The live descriptor tables and the task state.
//!
//! Every GDT, the host's first one and each world's, has the host's entries at the same places, so that the host's selectors
//! stay valid whichever is loaded.
//!
//! ```text
//!     0 .. 8159   the guest's (in the host's own GDT: nothing)
//!  8160           64-bit code of the host
//!  8162, 8163     TSS        8164, 8165   LDT of the world
//!  8168 .. 8173   segment-cache slots: ES CS SS DS FS GS
//! ```

use crate::cell::SingleCpu;
use crate::descriptor;
use core::arch::asm;

/// GDT entries that belong to the guest: indexes 0 to this, exclusive.
pub(crate) const GDT_GUEST_ENTRIES: u16 = 8160;
/// LDT entries, all of them the guest's.
pub(crate) const LDT_ENTRIES: u16 = 512;

const ENTRIES: usize = 8192;
const HOST_CODE: usize = 8160;
const TSS: usize = 8162;
const LDT: usize = 8164;
/// The first of the six segment-cache slots.
pub(crate) const CACHE: u16 = 8168;
pub(crate) const CACHE_COUNT: u16 = 6;

pub(crate) const HOST_CODE_SELECTOR: u16 = (HOST_CODE as u16) << 3;
const TSS_SELECTOR: u16 = (TSS as u16) << 3;
const LDT_SELECTOR: u16 = (LDT as u16) << 3;

/// A global descriptor table of the largest size.
#[repr(C, align(4096))]
pub(crate) struct Gdt(pub(crate) [u64; ENTRIES]);

/// The 64-bit task state segment: the CPU takes from it only stack pointers and the place of the I/O bitmap.
#[repr(C, packed(4))]
struct Tss {
    _reserved: u32,
    rsp: [u64; 3],
    _reserved1: u64,
    ist: [u64; 7],
    _reserved2: u64,
    _reserved3: u16,
    io_map: u16,
}

const _: () = assert!(size_of::<Tss>() == 104);
const TSS_LIMIT: u32 = 103;

#[repr(C, align(16))]
struct Stack([u8; 8192]);

/// The vectors that get a stack of their own: NMI, double fault, machine check.
const IST_STACKS: usize = 3;

static HOST_GDT: SingleCpu<Gdt> = SingleCpu::new(Gdt([0; ENTRIES]));
static TASK: SingleCpu<Tss> = SingleCpu::new(Tss {
    _reserved: 0,
    rsp: [0; 3],
    _reserved1: 0,
    ist: [0; 7],
    _reserved2: 0,
    _reserved3: 0,
    // At the limit: there is no bitmap, so CPL > IOPL may use no port.
    io_map: TSS_LIMIT as u16 + 1,
});
static STACKS: SingleCpu<[Stack; IST_STACKS]> = SingleCpu::new([const { Stack([0; 8192]) }; IST_STACKS]);

impl Gdt {
    /// Puts the host's entries in. `ldt` is the address of the world's LDT, 0 for none.
    pub(crate) fn install_host(&mut self, ldt: u64) {
        self.0[HOST_CODE] = descriptor::HOST_CODE;
        let [low, high] = descriptor::tss(TASK.as_ptr() as u64, TSS_LIMIT);
        self.0[TSS] = low;
        self.0[TSS + 1] = high;
        if ldt != 0 {
            let [low, high] = descriptor::ldt(ldt, u32::from(LDT_ENTRIES) * 8 - 1);
            self.0[LDT] = low;
            self.0[LDT + 1] = high;
        }
    }
}

/// What LGDT and LIDT take.
#[repr(C, packed)]
pub(crate) struct TablePointer {
    pub(crate) limit: u16,
    pub(crate) base: u64,
}

/// Sets up the host's GDT and the TSS and loads both.
pub(crate) fn init() {
    let stacks = STACKS.as_ptr() as u64;
    // SAFETY: nothing in the closures reaches the cells again.
    unsafe {
        TASK.with(|tss| {
            let tops = core::array::from_fn::<u64, 7, _>(|i| stacks + (i as u64 + 1) * size_of::<Stack>() as u64);
            tss.ist = tops.map(|top| if top <= stacks + (IST_STACKS * size_of::<Stack>()) as u64 { top } else { 0 });
        });
        HOST_GDT.with(|gdt| gdt.install_host(0));
        load(HOST_GDT.as_ptr());
    }
    // SAFETY: the GDT just loaded has 64-bit code and a TSS at these selectors. The far return loads CS and goes on at the next
    // line; the data segments are null, which 64-bit code at CPL 0 may have.
    unsafe {
        asm!(
            "push {cs}",
            "lea {tmp}, [rip + 2f]",
            "push {tmp}",
            "retfq",
            "2:",
            "ltr {tr:x}",
            cs = in(reg) u64::from(HOST_CODE_SELECTOR),
            tmp = lateout(reg) _,
            tr = in(reg) u32::from(TSS_SELECTOR),
        );
    }
}

/// Loads `gdt`. CS and TR stay: their entries are the same in every GDT.
///
/// # Safety
/// `gdt` has the host's entries ([`Gdt::install_host`]) and lives until another is loaded.
pub(crate) unsafe fn load(gdt: *const Gdt) {
    let pointer = TablePointer { limit: (ENTRIES * 8 - 1) as u16, base: gdt as u64 };
    // SAFETY: the caller vouches for the table; the pointer is valid during the instruction.
    unsafe { asm!("lgdt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
}

/// Selectors of the host's code and TSS, and the TSS's address.
pub(crate) fn host_selectors() -> (u16, u16, u64) {
    (HOST_CODE_SELECTOR, TSS_SELECTOR, TASK.as_ptr() as u64)
}

/// The address of the host's own GDT.
pub(crate) fn host_base() -> u64 {
    HOST_GDT.as_ptr() as u64
}

/// Loads the host's own GDT and no LDT: before a world's tables go away.
pub(crate) fn load_host() {
    // SAFETY: the host's GDT is static and has the host's entries.
    unsafe {
        load(HOST_GDT.as_ptr());
        load_ldt(false);
    }
}

/// Loads the LDT of the world whose GDT is loaded, or none.
///
/// # Safety
/// If `present`, the loaded GDT has an LDT entry.
pub(crate) unsafe fn load_ldt(present: bool) {
    let selector = if present { LDT_SELECTOR } else { 0 };
    // SAFETY: the entry is the host's, made by `install_host`.
    unsafe { asm!("lldt {0:x}", in(reg) u32::from(selector), options(nostack, preserves_flags)) };
}

/// Sets where the CPU pushes when a guest is left.
pub(crate) fn set_exit_stack(top: u64) {
    // SAFETY: the closure does not reach the cell again. The CPU reads the field only when a guest is left.
    unsafe { TASK.with(|tss| tss.rsp[0] = top) };
}
