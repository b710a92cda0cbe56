//! From the boot loader's jump to the kernel's main function. Compiled for the bare-metal kernel only.
//!
//! ```text
//!   GRUB (multiboot2)      qemu -kernel (multiboot1)
//!        └────────┬────────────────┘
//!   entry.S  gnomon_entry32   32-bit, paging off: page tables for the first 4 GiB, twice; long mode
//!            gnomon_entry64   64-bit at the window's address, boot stack
//!   start()                   BootInfo from what the loader left
//!   gnomon_kernel_main()      in the kernel binary
//! ```

mod memory;

use crate::{
    Arena, BootError, BootInfo, KernelImage, Range, WINDOW_BASE, WINDOW_SIZE, multiboot1, multiboot2, symbols,
};
use core::arch::global_asm;
use core::ptr::{addr_of, addr_of_mut};

global_asm!(include_str!("entry.S"), options(att_syntax));

/// Room for all command lines.
const TEXT_SIZE: usize = 16 << 10;

unsafe extern "Rust" {
    /// The kernel binary's main function.
    fn gnomon_kernel_main(info: Result<BootInfo, BootError>) -> !;
}

// Defined by the linker script; only their addresses mean something.
unsafe extern "C" {
    static gnomon_image_start: u8;
    static gnomon_text_start: u8;
    static gnomon_text_end: u8;
    static gnomon_rodata_end: u8;
    static gnomon_image_end: u8;
    static gnomon_stack_guard: u8;
}

/// The section the host tool fills after linking.
#[unsafe(link_section = ".gnomon.symbols")]
#[used]
static SYMBOLS: [u8; symbols::AREA_SIZE] = [0; symbols::AREA_SIZE];

/// The kernel's symbol table, if the host tool filled it.
#[must_use]
pub fn symbol_table() -> Option<symbols::Table<'static>> {
    // SAFETY: the pointer is to a live static of this size. The black box keeps the compiler from using the zeroes it knows:
    // the bytes were replaced in the file after it ran.
    let area =
        unsafe { core::slice::from_raw_parts(core::hint::black_box(addr_of!(SYMBOLS).cast()), symbols::AREA_SIZE) };
    symbols::Table::read(area)
}

/// Memory as the boot page tables show it.
struct Window;

impl multiboot1::PhysicalMemory for Window {
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        let end = address.checked_add(len as u64)?;
        if end > WINDOW_SIZE {
            return None;
        }
        // SAFETY: the boot page tables map all of the first 4 GiB at the window. Addresses without memory behind them read as
        // ones. The loader's structures are not written while they are parsed: nothing else runs yet.
        Some(unsafe { core::slice::from_raw_parts((WINDOW_BASE + address) as *const u8, len) })
    }
}

/// Called once by `entry.S` with the loader's EAX and EBX.
extern "C" fn start(magic: u32, information: u32) -> ! {
    static mut TEXT: [u8; TEXT_SIZE] = [0; TEXT_SIZE];
    // SAFETY: `start` runs once, so this is the only reference there will ever be.
    let mut arena = Arena::new(unsafe { &mut *addr_of_mut!(TEXT) });
    let info = read(magic, information, &mut arena).map(|mut info| {
        info.image = image();
        info
    });
    // SAFETY: the kernel binary defines the function with this signature.
    unsafe { gnomon_kernel_main(info) }
}

fn read(magic: u32, information: u32, arena: &mut Arena) -> Result<BootInfo, BootError> {
    match magic {
        multiboot1::MAGIC => multiboot1::parse(&Window, information, arena),
        multiboot2::MAGIC => {
            let block = multiboot1::PhysicalMemory::bytes(&Window, information.into(), multiboot2::MAX_SIZE);
            multiboot2::parse(block.ok_or(BootError::Information("the multiboot2 block lies above 4 GiB"))?, arena)
        }
        _ => Err(BootError::UnknownLoader(magic)),
    }
}

fn image() -> KernelImage {
    // Only the addresses of these symbols are taken; the linker script defines them.
    let at = |symbol: *const u8| symbol.addr() as u64 & !WINDOW_BASE;
    let text_end = at(addr_of!(gnomon_text_end));
    let guard = at(addr_of!(gnomon_stack_guard));
    KernelImage {
        all: Range { start: at(addr_of!(gnomon_image_start)), end: at(addr_of!(gnomon_image_end)) },
        text: Range { start: at(addr_of!(gnomon_text_start)), end: text_end },
        rodata: Range { start: text_end, end: at(addr_of!(gnomon_rodata_end)) },
        stack_guard: Range { start: guard, end: guard + 4096 },
    }
}

global_asm!(
    ".section .text.gnomon_start_call, \"ax\"",
    ".globl gnomon_start",
    "gnomon_start:",
    "jmp {start}",
    start = sym start,
);
