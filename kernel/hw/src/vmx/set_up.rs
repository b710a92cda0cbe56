//! The first content of a VMCS: controls, the host's state, the guest's state at entry.

use super::enable::{Cpu, Group};
use super::vmcs::{control, field, write};
use super::{CR4_VMXE, EPT_FREE_CR0, Vmx, gnomon_vmx_exit};
use crate::virt::{HardwareCpu as _, SyscallRegisters, Translation};
use crate::{gdt, idt, paging};
use core::arch::asm;
use core::ptr::addr_of;
use x86::msr::{IA32_EFER, rdmsr};

use crate::world::{GUEST_CR0, GUEST_CR4};

/// #DB and #AC, so that no guest keeps the CPU in their delivery for ever; #PF with shadow tables.
const EXCEPTIONS: u64 = 1 << 1 | 1 << 17;
const PAGE_FAULT: u64 = 1 << 14;
/// Accessed 32-bit code and data, a busy 32-bit TSS, nothing.
const CODE: u64 = 0xc09b;
const DATA: u64 = 0xc093;
const TASK: u64 = 0x8b;
const UNUSABLE: u64 = 1 << 16;
/// Places of the segments ES CS SS DS FS GS LDTR TR: selector, access bits, limit.
const SEGMENTS: [(u64, u64, u64); 8] = [
    (0x10, DATA, 0xffff_ffff),
    (0x08, CODE, 0xffff_ffff),
    (0x10, DATA, 0xffff_ffff),
    (0x10, DATA, 0xffff_ffff),
    (0x10, DATA, 0xffff_ffff),
    (0x10, DATA, 0xffff_ffff),
    (0, UNUSABLE, 0),
    (0, TASK, 0x67),
];

/// Fields that are 0 at the first entry: page-fault filter, CR3 targets, MSR lists, event; TSC offset; debug control, pending
/// debug exceptions, activity, interruptibility; GDTR, IDTR; the host's FS, GS, SYSENTER.
const ZERO: [u32; 22] = [
    0x4006, 0x4008, 0x400a, 0x400e, 0x4010, 0x4014, 0x4016, 0x2010, 0x2802, 0x6822, 0x4826, 0x4824, 0x4810, 0x4812,
    0x6816, 0x6818, 0x6c06, 0x6c08, 0x4c00, 0x6c10, 0x6c12, 0x4018,
];

impl Vmx {
    pub(super) fn set_up(&mut self, cpu: Cpu, second: u32) {
        let own = self.first.raw() << 12;
        // SAFETY: VMX is on; VMCLEAR prepares this value's own VMCS.
        unsafe { asm!("vmclear [{0}]", in(reg) &raw const own, options(nostack)) };
        self.select();
        for field in ZERO {
            // SAFETY: this VMCS is current and not entered yet.
            unsafe { write(field, 0) };
        }
        self.set_up_controls(cpu, second);
        self.set_up_host();
        self.set_up_guest();
        self.set_syscalls(&SyscallRegisters::default());
        self.set_controls(1 << 4 | 1, 0);
    }

    fn set_up_controls(&mut self, cpu: Cpu, second: u32) {
        let nested = self.translation == Translation::Nested;
        let common = control::HLT
            | control::TSC_OFFSET
            | control::MWAIT
            | control::RDPMC
            | control::CR8
            | control::DEBUG_REGISTERS
            | control::PORTS
            | control::MONITOR
            | control::SECOND;
        let shadow = control::INVLPG | control::CR3_LOAD | control::CR3_STORE;
        // Some CPUs force exits for CR3 where they can do without; with EPT none is wanted.
        let wanted = if nested { common } else { common | shadow };
        self.cpu_controls = cpu.controls(Group::Cpu, wanted);
        let second = if nested { second } else { second & !(control::EPT | control::UNRESTRICTED) };
        let pin = cpu.controls(Group::Pin, control::PIN_INTERRUPT | control::PIN_NMI | control::PIN_VIRTUAL_NMI);
        let exit = control::EXIT_64 | control::EXIT_ACKNOWLEDGE | control::EXIT_LOAD_EFER;
        // Without MSR bitmap and with unconditional port exits, no MSR and no port of the machine is reached.
        let fields = [
            (field::PIN_CONTROLS, pin.into()),
            (field::CPU_CONTROLS, self.cpu_controls.into()),
            (field::SECOND_CONTROLS, second.into()),
            (field::EXIT_CONTROLS, cpu.controls(Group::Exit, exit).into()),
            (field::ENTRY_CONTROLS, cpu.controls(Group::Entry, control::ENTRY_LOAD_EFER).into()),
            (field::EXCEPTIONS, if nested { EXCEPTIONS } else { EXCEPTIONS | PAGE_FAULT }),
            (field::CR0_MASK, if nested { !EPT_FREE_CR0 & 0xffff_ffff } else { 0xffff_ffff }),
            (field::CR4_MASK, 0xffff_ffff),
            (field::LINK, u64::MAX),
        ];
        for (field, value) in fields {
            // SAFETY: this VMCS is current, and this is what `run` relies on.
            unsafe { write(field, value) };
        }
        if nested {
            // SAFETY: as above; the root was checked.
            unsafe { write(field::EPT_POINTER, self.ept_pointer) };
        }
        if second & control::VPID != 0 {
            // SAFETY: as above; another machine's VPID is another.
            unsafe { write(field::VPID, self.vpid.into()) };
        }
    }

    /// The host as it is, on its own root and tables.
    fn set_up_host(&self) {
        let (cs, tr, tr_base) = gdt::host_selectors();
        // SAFETY: reading these registers at CPL 0 changes nothing; every 64-bit CPU has EFER.
        let (cr0, cr4, efer) =
            unsafe { (x86::controlregs::cr0().bits() as u64, x86::controlregs::cr4().bits() as u64, rdmsr(IA32_EFER)) };
        // Without what a resident world has chosen for itself.
        let (cr0, cr4) = (cr0 & !GUEST_CR0, cr4 & !GUEST_CR4);
        for number in 0..6 {
            // SAFETY: this VMCS is current; 64-bit code at CPL 0 may have null data segments.
            unsafe { write(field::HOST_ES + 2 * number, 0) };
        }
        let fields = [
            (field::HOST_CS, cs.into()),
            (field::HOST_TR, tr.into()),
            (field::HOST_TR_BASE, tr_base),
            (field::HOST_GDTR_BASE, gdt::host_base()),
            (field::HOST_IDTR_BASE, idt::base()),
            (field::HOST_CR0, cr0),
            (field::HOST_CR3, paging::host_root()),
            (field::HOST_CR4, cr4 | CR4_VMXE),
            (field::HOST_EFER, efer),
            (field::HOST_RIP, addr_of!(gnomon_vmx_exit) as u64),
        ];
        for (field, value) in fields {
            // SAFETY: this VMCS is current; these are the host's own registers and tables, which stay where they are.
            unsafe { write(field, value) };
        }
    }

    fn set_up_guest(&self) {
        for (number, (selector, access, limit)) in (0..).zip(SEGMENTS) {
            let step = 2 * number;
            // SAFETY: this VMCS is current; the guest's segments are its own affair.
            unsafe {
                write(field::GUEST_ES + step, selector);
                write(field::GUEST_ES_ACCESS + step, access);
                write(field::GUEST_ES_LIMIT + step, limit);
                write(field::GUEST_ES_BASE + step, 0);
            }
        }
        let cr3 = if self.translation == Translation::Shadow { self.pdpt.cr3() } else { 0 };
        // SAFETY: this VMCS is current; the PDPT is this value's own.
        unsafe {
            write(field::GUEST_CR3, cr3);
            write(field::DR7, 0x400);
        }
    }
}
