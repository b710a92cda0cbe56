//! All unsafe code and all assembly of the Gnomon kernel, behind functions that are safe for every argument.
//!
//! - [`World`] is the real CPU state of one guest CPU; [`World::run`] enters it and returns an [`Exit`].
//! - [`frames`] owns physical memory. [`tables`] and the descriptor functions of [`World`] are the *last gates*: they look up
//!   owners and rights at each store, so that no bug in safe code can give a guest what is not its own.
//! - [`phys`] reaches guest memory by frame, [`World::read_linear`] by linear address.
//! - `console`, `trace_port`, `time`, `idle`, `power` are the host's devices.
//!
//! There is one CPU, and host code runs with interrupts off. Nothing here is meant to be called before [`init`].
#![no_std]
#![cfg_attr(
    not(all(feature = "svm", feature = "vmx")),
    allow(dead_code, unused_imports, reason = "what the back ends share is used by those that are built")
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod absent;
mod cell;
pub mod code;
pub mod console;
mod cpu;
mod descriptor;
mod entry;
pub mod fault;
pub mod features;
pub mod frames;
mod gate;
mod gdt;
pub mod heap;
pub mod idle;
mod idt;
mod irq;
mod paging;
pub mod phys;
pub mod power;
pub mod report;
pub mod rtc;
#[cfg(feature = "svm")]
mod svm;
#[cfg(not(feature = "svm"))]
use absent::svm;
pub mod tables;
pub mod time;
pub mod trace_port;
mod uart;
pub mod virt;
#[cfg(not(feature = "vmx"))]
use absent::vmx;
#[cfg(feature = "vmx")]
mod vmx;
mod world;

pub use descriptor::RefusedDescriptor;
pub use entry::GuestContext;
pub use features::Missing;
pub use frames::VmId;
pub use irq::Irq;
pub use world::{Breakpoints, Exit, LinearFault, OutOfFrames, SegReg, SegmentFault, Table, World};

use gnomon_boot::BootInfo;
use x86::msr::{IA32_EFER, IA32_SYSENTER_CS, rdmsr, wrmsr};

/// Sets up the console and the log: before anything that may have something to say.
pub fn early_init() {
    console::init();
    trace_port::init();
}

/// Takes the machine over: features, descriptor tables, physical memory, page tables, interrupt controllers, clocks. Once, after
/// [`early_init`].
///
/// # Panics
/// If there is not even memory for the host's own tables.
pub fn init(info: &BootInfo) -> Result<features::Features, Missing> {
    let features = features::check()?;
    gdt::init();
    idt::init();
    report::set_stack(&info.image);
    enable_no_execute();
    frames::init(info);
    paging::init(info);
    world::init();
    time::init();
    irq::init();
    Ok(features)
}

/// NX pages on, SYSCALL off (#UD for guests), SYSENTER without a target (#GP for guests).
fn enable_no_execute() {
    const SCE: u64 = 1 << 0;
    const NXE: u64 = 1 << 11;
    // SAFETY: the CPU has NX (features::check), the boot page tables leave its bit clear, and the host uses neither SYSCALL nor
    // SYSENTER.
    unsafe {
        wrmsr(IA32_EFER, rdmsr(IA32_EFER) & !SCE | NXE);
        wrmsr(IA32_SYSENTER_CS, 0);
    }
}
