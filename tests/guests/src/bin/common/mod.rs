//! What every micro-guest is made of: the runtime in `asm/runtime` and its own file in `asm`.

/// Assembles one guest: `guest!("timer")` is the runtime and `asm/timer.s`, which defines `guest_main`. Further files of
/// a large guest follow its first one.
macro_rules! guest {
    ($($file:literal),+) => {
        core::arch::global_asm!(
            ".code32",
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/asm/runtime/macros.s")),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/asm/runtime/start.s")),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/asm/runtime/serial.s")),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/asm/runtime/tap.s")),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/asm/runtime/arguments.s")),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/asm/runtime/traps.s")),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/asm/runtime/paging.s")),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/asm/runtime/interrupts.s")),
            ".text",
            $(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/asm/", $file, ".s")),)+
            ".text",
            ".code64",
            options(att_syntax, raw)
        );
    };
}
pub(crate) use guest;

/// No Rust code runs in a guest, so nothing panics; the compiler wants a handler all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
