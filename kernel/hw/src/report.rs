//! What is printed when the host itself fails: registers and a backtrace with names.

use crate::cell::SingleCpu;
use crate::entry::GuestContext;
use crate::power;
use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use gnomon_boot::symbols::Table;
use gnomon_boot::{KernelImage, Range, WINDOW_BASE};
use rustc_demangle::demangle;

/// The deepest call chain printed.
const MAX_FRAMES: usize = 24;

static REPORTS: AtomicU32 = AtomicU32::new(0);
static SYMBOLS: SingleCpu<Option<Table<'static>>> = SingleCpu::new(None);
static STACK: SingleCpu<Range> = SingleCpu::new(Range { start: 0, end: 0 });
static GUARD: SingleCpu<Range> = SingleCpu::new(Range { start: 0, end: 0 });

/// Gives the reports names for addresses. Without a table, addresses are printed bare.
pub fn set_symbols(table: Option<Table<'static>>) {
    // SAFETY: the closure does not reach the cell again.
    unsafe { SYMBOLS.with(|symbols| *symbols = table) };
}

/// Tells where the kernel's image is, for the stack in it: frame pointers are followed only there.
pub(crate) fn set_stack(image: &KernelImage) {
    let at = |range: Range| Range { start: range.start + WINDOW_BASE, end: range.end + WINDOW_BASE };
    // SAFETY: the closures do not reach the cells again.
    unsafe {
        STACK.with(|stack| *stack = at(image.all));
        GUARD.with(|guard| *guard = at(image.stack_guard));
    }
}

/// Is `address` in the page below the stack, which only an overflow reaches?
pub(crate) fn in_guard(address: u64) -> bool {
    // SAFETY: the closure does not reach the cell again.
    unsafe { GUARD.with(|guard| guard.start <= address && address < guard.end) }
}

/// Begins a report. A fault within a report ends at once: it would repeat itself.
pub(crate) fn begin() {
    if REPORTS.fetch_add(1, Ordering::Relaxed) > 0 {
        power::exit(power::ExitCode::Host, None, "fault within a fault report");
    }
}

/// An address of code, with the name of the function it is in.
struct Place(u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)?;
        // SAFETY: the closure does not reach the cell again.
        let table = unsafe { SYMBOLS.with(|symbols| *symbols) };
        let offset = self.0.checked_sub(WINDOW_BASE).and_then(|o| u32::try_from(o).ok());
        match table.zip(offset).and_then(|(table, offset)| table.find(offset)) {
            Some((name, distance)) => write!(f, " {:#}+{distance:#x}", demangle(name)),
            None => Ok(()),
        }
    }
}

/// Prints the registers of a frame.
pub(crate) fn registers(frame: &GuestContext) {
    let [rax, rcx, rdx, rbx, _, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = frame.gpr;
    log::error!("rip {}", Place(frame.rip));
    log::error!("rax {rax:#018x} rbx {rbx:#018x} rcx {rcx:#018x} rdx {rdx:#018x}");
    log::error!("rsi {rsi:#018x} rdi {rdi:#018x} rbp {rbp:#018x} rsp {:#018x}", frame.rsp);
    log::error!("r8  {r8:#018x} r9  {r9:#018x} r10 {r10:#018x} r11 {r11:#018x}");
    log::error!("r12 {r12:#018x} r13 {r13:#018x} r14 {r14:#018x} r15 {r15:#018x}");
    // SAFETY: reading control registers at CPL 0 changes nothing.
    let (cr0, cr2, cr3, cr4) = unsafe {
        use x86::controlregs::{cr0, cr2, cr3, cr4};
        (cr0().bits(), cr2(), cr3(), cr4().bits())
    };
    log::error!(
        "cs {:#x} ss {:#x} rflags {:#x} cr0 {cr0:#x} cr2 {cr2:#x} cr3 {cr3:#x} cr4 {cr4:#x}",
        frame.cs,
        frame.ss,
        frame.rflags
    );
}

/// The caller's frame pointer.
#[inline(always)]
pub(crate) fn frame_pointer() -> u64 {
    let rbp: u64;
    // SAFETY: reads a register only.
    unsafe { asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    rbp
}

/// Prints the call chain: `rip` if it is not 0, then the return addresses along the frame pointers from `rbp`.
pub(crate) fn backtrace(rip: u64, rbp: u64) {
    // SAFETY: the closure does not reach the cell again.
    let stack = unsafe { STACK.with(|stack| *stack) };
    if rip != 0 {
        log::error!("at {}", Place(rip));
    }
    let mut at = rbp;
    for _ in 0..MAX_FRAMES {
        if at < stack.start || at.saturating_add(16) > stack.end || !at.is_multiple_of(8) {
            return;
        }
        // SAFETY: the two words lie in the kernel's image, and the boot stack's guard page is the only hole in that; a chain that
        // leads there faults into `begin`, which ends it.
        let [next, address] = unsafe { (at as *const [u64; 2]).read() };
        if address == 0 {
            return;
        }
        log::error!("by {}", Place(address - 1));
        if next <= at {
            return;
        }
        at = next;
    }
}
