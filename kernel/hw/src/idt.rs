//! The interrupt descriptor table: 256 interrupt gates to the stubs of `entry/exit.S`.
//!
//! All gates are interrupt gates: IF=0 in the host. DPL 3 only for what a guest may use with the INT family natively: #BP and #OF,
//! which mean the same by exception and by instruction, and 0x80, the hot system call gate. Every other `INT n` arrives as #GP
//! and is decoded, because the error code's meaning differs between emulators. Host interrupts use [`IRQ_BASE`] up.

use crate::cell::SingleCpu;
use crate::entry::{VECTOR_STRIDE, gnomon_vectors};
use crate::gdt::{HOST_CODE_SELECTOR, TablePointer};
use core::arch::asm;
use core::ptr::addr_of;

/// Vector of host interrupt 0; there are 16.
pub(crate) const IRQ_BASE: u8 = 0xe0;

#[repr(C, align(4096))]
struct Idt([[u64; 2]; 256]);

static IDT: SingleCpu<Idt> = SingleCpu::new(Idt([[0; 2]; 256]));

/// An interrupt gate (SDM 3A 6.14.1): present, type 14.
const fn gate(handler: u64, dpl: u64, ist: u64) -> [u64; 2] {
    let access = 0x8e | dpl << 5;
    let low = handler & 0xffff
        | (HOST_CODE_SELECTOR as u64) << 16
        | ist << 32
        | access << 40
        | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

const fn dpl(vector: usize) -> u64 {
    if matches!(vector, 3 | 4 | 0x80) { 3 } else { 0 }
}

const fn ist(vector: usize) -> u64 {
    match vector {
        2 => 1,
        8 => 2,
        18 => 3,
        _ => 0,
    }
}

/// Fills and loads the table.
pub(crate) fn init() {
    let stubs = addr_of!(gnomon_vectors) as u64;
    // SAFETY: the closure does not reach the cell again; the table is not loaded yet.
    unsafe {
        IDT.with(|idt| {
            for (vector, entry) in idt.0.iter_mut().enumerate() {
                *entry = gate(stubs + (vector * VECTOR_STRIDE) as u64, dpl(vector), ist(vector));
            }
        });
    }
    let pointer = TablePointer { limit: (size_of::<Idt>() - 1) as u16, base: IDT.as_ptr() as u64 };
    // SAFETY: the table is static, each gate leads to its stub, and the IST stacks were set by `gdt::init`.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
}

/// The table's address.
pub(crate) fn base() -> u64 {
    IDT.as_ptr() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_hold_their_parts() {
        assert_eq!(gate(0xffff_8000_1234_5678, 3, 2), [0x1234_ee02_ff00_5678, 0xffff_8000]);
    }

    #[test]
    fn only_three_gates_are_open_to_guests() {
        let open: std::vec::Vec<_> = (0..256).filter(|&v| dpl(v) != 0).collect();
        assert_eq!(open, [3, 4, 0x80]);
    }
}
