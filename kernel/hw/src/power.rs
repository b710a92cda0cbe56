//! The end: exit codes and how an emulator is told.

use crate::{console, trace_port};
use core::arch::asm;
use x86::io::outb;

/// How the hypervisor ended. Under QEMU the process status is `2 * code + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Every guest ended with status 0.
    Ok = 0x10,
    /// A guest ended with another status, or was stopped with a report.
    Guest = 0x11,
    /// A bad command line, image or machine.
    Config = 0x12,
    /// A fault or panic of the hypervisor.
    Host = 0x13,
}

/// QEMU's isa-debug-exit device.
const QEMU_EXIT: u16 = 0xf4;
/// Bochs's unmapped device: the bytes of "Shutdown" end it.
const BOCHS_EXIT: u16 = 0x8900;

/// Prints the last line, `[gnomon exit] code=0x10 status=0 reason=...`, waits until it is out, and ends the machine. `status` is the
/// one that the first guest ended itself with, if it did. On a machine without such a device the CPU stops.
pub fn exit(code: ExitCode, status: Option<u32>, reason: &str) -> ! {
    let code_number = code as u8;
    match status {
        Some(status) => console::line("exit", format_args!("code={code_number:#x} status={status} reason={reason}")),
        None => console::line("exit", format_args!("code={code_number:#x} reason={reason}")),
    }
    console::flush();
    trace_port::flush();
    // SAFETY: these ports belong to the emulators' exit devices, or to nothing.
    unsafe {
        outb(QEMU_EXIT, code as u8);
        b"Shutdown".iter().for_each(|&byte| outb(BOCHS_EXIT, byte));
    }
    loop {
        // SAFETY: stops the CPU with interrupts off, which is the aim.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
