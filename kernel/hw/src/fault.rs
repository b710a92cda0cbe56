//! Exceptions and interrupts that arrive in host mode: the few that are planned for, and the report for all others.

use crate::entry::{self, GuestContext};
use crate::idt::IRQ_BASE;
use crate::power::{self, ExitCode};
use crate::report;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// #DB.
pub const DEBUG: u8 = 1;
/// #BP.
pub const BREAKPOINT: u8 = 3;
/// #GP.
pub const GENERAL_PROTECTION: u8 = 13;
/// #PF.
pub const PAGE_FAULT: u8 = 14;

static LAST_VECTOR: AtomicU8 = AtomicU8::new(0);
static LAST_ERROR: AtomicU32 = AtomicU32::new(0);
static LAST_ADDRESS: AtomicU64 = AtomicU64::new(0);

/// Vector and error code of the last fault that a fixup caught.
pub(crate) fn last() -> (u8, u32) {
    (LAST_VECTOR.load(Ordering::Relaxed), LAST_ERROR.load(Ordering::Relaxed))
}

/// Its address, if it was a page fault.
pub(crate) fn last_address() -> u64 {
    LAST_ADDRESS.load(Ordering::Relaxed)
}

/// Where to go on after a fault of the instruction at `rip`, if that instruction may fault.
fn fixup(rip: u64) -> Option<u64> {
    let copy_fault = addr_of!(entry::gnomon_copy_fault);
    let fetch_fault = addr_of!(entry::gnomon_fetch_fault);
    let after = addr_of!(entry::gnomon_load_fault);
    let table = [
        (addr_of!(entry::gnomon_copy_insn), copy_fault),
        (addr_of!(entry::gnomon_copy_tail_insn), copy_fault),
        (addr_of!(entry::gnomon_fetch_low_insn), fetch_fault),
        (addr_of!(entry::gnomon_fetch_high_insn), fetch_fault),
        (addr_of!(entry::gnomon_load_es_insn), after),
        (addr_of!(entry::gnomon_load_ds_insn), after),
        (addr_of!(entry::gnomon_load_fs_insn), after),
        (addr_of!(entry::gnomon_load_gs_insn), after),
    ];
    table.iter().find(|(from, _)| *from as u64 == rip).map(|(_, to)| *to as u64)
}

/// Called by `exit.S` for what arrives in host mode. Changes the frame for a planned case; does not return for any other.
pub(crate) extern "C" fn host_exception(frame: &mut GuestContext) {
    let vector = frame.vector as u8;
    if (IRQ_BASE..IRQ_BASE + 16).contains(&vector) {
        let (first, last) = (addr_of!(entry::gnomon_idle_insn) as u64, addr_of!(entry::gnomon_idle_done) as u64);
        if (first..=last).contains(&frame.rip) {
            // Wake the idle stub with interrupts off again.
            frame.rip = last;
            frame.gpr[0] = u64::from(vector);
            frame.rflags &= !(1 << 9);
            return;
        }
    } else if let Some(to) = fixup(frame.rip) {
        LAST_VECTOR.store(vector, Ordering::Relaxed);
        LAST_ERROR.store(frame.error as u32, Ordering::Relaxed);
        // SAFETY: reading CR2 at CPL 0 changes nothing.
        LAST_ADDRESS.store(unsafe { x86::controlregs::cr2() } as u64, Ordering::Relaxed);
        frame.rip = to;
        return;
    }
    die(frame)
}

fn die(frame: &GuestContext) -> ! {
    report::begin();
    log::error!("host fault: vector {} error {:#x}", frame.vector, frame.error);
    // SAFETY: reading CR2 at CPL 0 changes nothing.
    if report::in_guard(unsafe { x86::controlregs::cr2() } as u64) {
        log::error!("the host's stack overflowed");
    }
    report::registers(frame);
    report::backtrace(frame.rip, frame.gpr[5]);
    power::exit(ExitCode::Host, None, "host fault")
}

/// What the kernel binary's panic handler does: the message, a backtrace, exit code 0x13.
pub fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    report::begin();
    log::error!("{info}");
    report::backtrace(0, report::frame_pointer());
    power::exit(ExitCode::Host, None, "panic")
}
