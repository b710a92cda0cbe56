//! The hypervisor's own page tables: the window at PML4 slot 256, shared by all roots.
//!
//! ```text
//!   WINDOW_BASE + p  shows physical address p, for all memory below 4 GiB
//!     kernel image   4 KiB pages: code RX, constants R, data RW, the page below the boot stack unmapped
//!     other memory   2 MiB pages, RW, not executable
//! ```
//! Supervisor only: 32-bit guests in ring 1 are supervisors too, but cannot form an address above 4 GiB, so the window has
//! no name for them (architecture, section 3).

use crate::frames::{self, Owner};
use crate::phys;
use core::sync::atomic::{AtomicU64, Ordering};
use gnomon_boot::{BootInfo, KernelImage, MemoryKind, Range, WINDOW_SIZE};
use shadow_mmu::Pfn;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

const DATA: u64 = PRESENT | WRITABLE | ACCESSED | DIRTY | NO_EXECUTE;
const TABLE: u64 = PRESENT | WRITABLE | ACCESSED;

/// What an L2 entry covers.
const LARGE_SIZE: u64 = 2 << 20;
/// What an L3 entry covers.
const GIB: u64 = 1 << 30;

static HOST_ROOT: AtomicU64 = AtomicU64::new(0);

/// Physical address of the root that maps the window and nothing else.
#[inline]
pub(crate) fn host_root() -> u64 {
    HOST_ROOT.load(Ordering::Relaxed)
}

/// Entry `index` of the window, which every root must have.
pub(crate) fn window_entry(index: usize) -> u64 {
    read(host_root(), index)
}

/// Builds the tables and loads them. The boot tables are not used any more.
///
/// # Panics
/// If memory runs out.
pub(crate) fn init(info: &BootInfo) {
    let root = new_table();
    let directory_pointers = new_table();
    write(root, 256, directory_pointers | TABLE);
    let top = info.memory.iter().filter(|r| r.kind == MemoryKind::Usable).map(|r| r.end);
    let modules = info.modules.iter().map(|m| m.end);
    let top = top.chain(modules).max().unwrap_or(0).clamp(info.image.all.end, WINDOW_SIZE);
    for at in (0..top).step_by(LARGE_SIZE as usize) {
        let slot = (at / GIB) as usize;
        if read(directory_pointers, slot) == 0 {
            write(directory_pointers, slot, new_table() | TABLE);
        }
        let directory = read(directory_pointers, slot) & FRAME;
        let index = (at % GIB / LARGE_SIZE) as usize;
        write(directory, index, large_entry(at, &info.image));
    }
    HOST_ROOT.store(root, Ordering::Relaxed);
    // SAFETY: the new tables show everything the boot tables showed that is in use: the kernel's image with the rights its
    // parts need, the stack in it, and all memory. Code goes on at the same address.
    unsafe { x86::controlregs::cr3_write(root) };
}

/// The L2 entry for the 2 MiB at `at`: a large page, or a table of small ones where the kernel's image is.
fn large_entry(at: u64, image: &KernelImage) -> u64 {
    if at >= image.all.end || at + LARGE_SIZE <= image.all.start {
        return at | DATA | LARGE;
    }
    let table = new_table();
    for index in 0..512 {
        let page = at + index as u64 * phys::PAGE_SIZE as u64;
        write(table, index, small_entry(page, image));
    }
    table | TABLE
}

fn small_entry(page: u64, image: &KernelImage) -> u64 {
    let within = |range: Range| range.start <= page && page < range.end;
    if within(image.stack_guard) {
        0
    } else if within(image.text) {
        page | PRESENT | ACCESSED
    } else if within(image.rodata) {
        page | PRESENT | ACCESSED | NO_EXECUTE
    } else {
        page | DATA
    }
}

fn new_table() -> u64 {
    let frame = frames::alloc_contiguous(1, Owner::Host).expect("no memory for the host's page tables");
    // SAFETY: the frame was just allocated, so nothing else uses it; the boot tables' window shows it.
    unsafe { core::ptr::write_bytes(phys::frame::<u8>(frame), 0, phys::PAGE_SIZE) };
    frame.base().raw()
}

fn read(table: u64, index: usize) -> u64 {
    assert!(index < 512);
    // SAFETY: `table` is a table frame made by `new_table`, and `index` is within it.
    unsafe { phys::frame::<u64>(Pfn::new(table >> 12)).wrapping_add(index).read_volatile() }
}

fn write(table: u64, index: usize, raw: u64) {
    assert!(index < 512);
    // SAFETY: `table` is a table frame made by `new_table`, and `index` is within it. It is not loaded yet.
    unsafe { phys::frame::<u64>(Pfn::new(table >> 12)).wrapping_add(index).write_volatile(raw) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_the_image_has_its_own_rights() {
        let range = |start, end| Range { start, end };
        let image = KernelImage {
            all: range(0x10_0000, 0x20_0000),
            text: range(0x10_1000, 0x11_0000),
            rodata: range(0x11_0000, 0x12_0000),
            stack_guard: range(0x15_0000, 0x15_1000),
        };
        let rights = |page| small_entry(page, &image) & (PRESENT | WRITABLE | NO_EXECUTE);
        assert_eq!(rights(0x10_1000), PRESENT);
        assert_eq!(rights(0x11_0000), PRESENT | NO_EXECUTE);
        assert_eq!(rights(0x12_0000), PRESENT | WRITABLE | NO_EXECUTE);
        assert_eq!(rights(0x15_0000), 0);
        assert_eq!(rights(0x30_0000), PRESENT | WRITABLE | NO_EXECUTE);
        assert_eq!(large_entry(0x20_0000, &image), 0x20_0000 | DATA | LARGE);
    }
}
