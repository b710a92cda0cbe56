//! The demo guest: a tiny Unix. Its kernel starts one process, whose `malloc` runs out of arena and calls `brk`; the
//! kernel extends the page table; the process touches the new memory.
//!
//! It is assembly throughout: 32-bit code in a 64-bit object, converted to a 32-bit ELF file by `gnomon-guests`.
#![no_std]
#![no_main]

core::arch::global_asm!(
    ".code32",
    include_str!("../asm/start.s"),
    include_str!("../asm/console.s"),
    include_str!("../asm/memory.s"),
    include_str!("../asm/kernel.s"),
    include_str!("../asm/user.s"),
    ".text",
    ".code64",
    options(att_syntax, raw)
);

/// No Rust code runs in the guest, so nothing panics; the compiler wants a handler all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
