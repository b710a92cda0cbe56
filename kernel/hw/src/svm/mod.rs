//! AMD-V: one guest CPU in a control block, with nested or shadow tables (APM 2, chapter 15).
//!
//! The real state while such a guest runs is in `docs/architecture.md`. What the CPU may not offer is not used: next RIP, decode
//! assists, flush by ASID, clean bits. So the monitor decodes intercepted instructions, and a flush empties the TLB of every ASID.

mod context;
mod enable;
mod exit;
mod segment;
mod vmcb;

use crate::frames::{self, Owner, VmId};
use crate::virt::{ControlRegisters, EFER_NXE, EFER_SCE, EventKind, Injection, Pdpt, SyscallRegisters, Translation};
use crate::virt::{DescriptorTables, HardwareCpu, HardwareExit, Segment, SegmentRegister, descriptor};
use crate::virt::{Unavailable, real_controls};
use crate::world::{SegReg, State, arm_hardware, disarm};
use crate::{gate, phys};
use alloc::boxed::Box;
use core::arch::{asm, global_asm};
use core::ptr::NonNull;
use shadow_mmu::{FlushPlan, Pfn, Root};
use vmcb::{SECOND, Vmcb, first, interrupt};

global_asm!(include_str!("run.S"));

unsafe extern "C" {
    fn gnomon_svm_run();
}

/// EFER.SVME, which VMRUN demands in the guest's EFER too.
const EFER_SVME: u64 = 1 << 12;
/// `tlb_control`: empty the TLB, all ASIDs.
const FLUSH_ALL: u32 = 1;
/// PAT at reset: write-back is entry 0.
const PAT: u64 = 0x0007_0406_0007_0406;
/// Of a segment's access bits.
const PRESENT: u16 = 0x80;
/// Access bit of a 32-bit code segment.
const BIG: u16 = 0x400;
/// #DB and #AC, so that no guest keeps the CPU in their delivery for ever; #PF with shadow tables.
const DEBUG: u32 = 1 << 1;
const ALIGNMENT: u32 = 1 << 17;
const PAGE_FAULT: u32 = 1 << 14;
/// #DF #TS #NP #SS #GP #PF: what can make a double or triple fault.
const WHILE_DELIVERING: u32 = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14;

/// The AMD-V part of a world.
pub(crate) struct Svm {
    vmcb: NonNull<Vmcb>,
    first: Pfn,
    translation: Translation,
    pdpt: Pdpt,
    host: u64,
    /// The exceptions that are always intercepted.
    exceptions: u32,
    /// The guest may write its TSS, and runs without one.
    hides_task: bool,
    /// Where the last host interrupt has found interrupts held back.
    held_at: Option<u64>,
}

/// Frames of a guest: control block, PDPT.
const FRAMES: usize = 2;

impl Svm {
    /// A guest CPU with everything at reset, in protected mode. `nested` is the root of its second-level tables; without one it runs on
    /// shadow tables.
    fn new(vm: VmId, nested: Option<Root>) -> Result<Self, Unavailable> {
        let cpu = enable::enable(nested.is_some())?;
        if let Some(root) = nested {
            let own = frames::with(|frames| gate::is_root::<gate::Nested>(frames, vm, root.table.raw()));
            if !own {
                return Err(Unavailable::Root);
            }
        }
        let first = frames::alloc_contiguous(FRAMES, Owner::Host).ok_or(Unavailable::Memory)?;
        if first.raw() + FRAMES as u64 > 1 << 20 {
            return Err(Unavailable::Memory);
        }
        let place = phys::frame::<Vmcb>(first);
        // SAFETY: the frames were just allocated for this, and all zeroes are a value of every field.
        unsafe { core::ptr::write_bytes(place.cast::<u8>(), 0, FRAMES * phys::PAGE_SIZE) };
        let vmcb = NonNull::new(place).ok_or(Unavailable::Memory)?;
        let translation = if nested.is_some() { Translation::Nested } else { Translation::Shadow };
        let mut svm = Self {
            vmcb,
            first,
            translation,
            pdpt: Pdpt::new(vm, Pfn::new(first.raw() + 1)),
            host: cpu.host,
            exceptions: 0,
            hides_task: false,
            held_at: None,
        };
        svm.set_up(vm, &cpu, nested);
        Ok(svm)
    }

    fn set_up(&mut self, vm: VmId, cpu: &enable::Cpu, nested: Option<Root>) {
        let cr3 = self.pdpt.cr3();
        let vmcb = self.vmcb_mut();
        vmcb.intercept_first = first::INTERRUPT
            | first::NMI
            | first::WINDOW
            | first::RDPMC
            | first::CPUID
            | first::RSM
            | first::INVD
            | first::HLT
            | first::INVLPGA
            | first::PORTS
            | first::MSRS
            | first::TASK_SWITCH
            | first::SHUTDOWN;
        vmcb.intercept_second = SECOND;
        vmcb.intercept_dr = u32::MAX;
        vmcb.intercept_exceptions = DEBUG | ALIGNMENT;
        if nested.is_some() {
            // Changes of CR0 but for TS and MP; writes of CR4 and CR8.
            vmcb.intercept_first |= first::CR0_SELECTED;
            vmcb.intercept_cr = (1 << 4 | 1 << 8) << 16;
            vmcb.nested_enable = 1;
            vmcb.nested_cr3 = nested.map_or(0, |root| root.table.raw() << 12);
        } else {
            vmcb.intercept_first |= first::INVLPG | first::LTR;
            // CR0, CR2, CR3, CR4, CR8: reads and writes, but CR2 is the guest's.
            vmcb.intercept_cr = (1 | 1 << 3 | 1 << 4 | 1 << 8) * 0x1_0001;
            vmcb.intercept_exceptions |= PAGE_FAULT;
            vmcb.cr3 = cr3;
        }
        vmcb.io_map = cpu.io_map;
        vmcb.msr_map = cpu.msr_map;
        // ASID 0 is the host's.
        vmcb.asid = 1 + u32::from(vm.0) % (cpu.asids - 1);
        vmcb.tlb_control = FLUSH_ALL;
        vmcb.virtual_interrupt = interrupt::MASKING;
        vmcb.dr6 = 0xffff_0ff0;
        vmcb.dr7 = 0x400;
        vmcb.pat = PAT;
        vmcb.rflags = 2;
        self.exceptions = self.vmcb().intercept_exceptions;
        self.reset_segments();
        self.set_syscalls(&SyscallRegisters::default());
        self.set_controls(1 << 4 | 1, 0);
    }

    #[inline]
    fn vmcb(&self) -> &Vmcb {
        // SAFETY: the block lives as long as this value; the CPU writes it only within `run`, which borrows mutably.
        unsafe { self.vmcb.as_ref() }
    }

    #[inline]
    fn vmcb_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as for `vmcb`, exclusively.
        unsafe { self.vmcb.as_mut() }
    }
}

/// Makes a guest CPU.
pub(crate) fn make(vm: VmId, nested: Option<Root>) -> Result<Box<dyn HardwareCpu>, Unavailable> {
    Ok(Box::new(Svm::new(vm, nested)?))
}

impl HardwareCpu for Svm {
    /// CR0 and CR4 as the guest believes them.
    fn set_controls(&mut self, cr0: u64, cr4: u64) {
        let (cr0, cr4) = real_controls(self.translation, cr0, cr4);
        let vmcb = self.vmcb_mut();
        if (vmcb.cr0, vmcb.cr4) != (cr0, cr4) {
            (vmcb.cr0, vmcb.cr4) = (cr0, cr4);
            vmcb.tlb_control = FLUSH_ALL;
        }
    }

    fn set_pdptes(&mut self, _: [u64; 4]) {
        // With nested paging the CPU reads them from the guest's memory.
    }

    /// The control registers in the CPU; with shadow tables only CR2 is the guest's.
    #[inline]
    fn controls(&self) -> ControlRegisters {
        let vmcb = self.vmcb();
        ControlRegisters { cr0: vmcb.cr0 as u32, cr2: vmcb.cr2 as u32, cr3: vmcb.cr3 as u32, cr4: vmcb.cr4 as u32 }
    }

    fn set_cr2(&mut self, cr2: u32) {
        self.vmcb_mut().cr2 = cr2.into();
    }

    fn set_cr3(&mut self, cr3: u32) {
        if self.translation == Translation::Nested {
            let vmcb = self.vmcb_mut();
            (vmcb.cr3, vmcb.tlb_control) = (cr3.into(), FLUSH_ALL);
        }
    }

    fn set_syscalls(&mut self, registers: &SyscallRegisters) {
        let forced = if self.translation == Translation::Shadow { EFER_NXE } else { 0 };
        let vmcb = self.vmcb_mut();
        [vmcb.sysenter_cs, vmcb.sysenter_esp, vmcb.sysenter_eip] = registers.sysenter.map(u64::from);
        vmcb.star = registers.star;
        vmcb.efer = registers.efer & (EFER_SCE | EFER_NXE) | EFER_SVME | forced;
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.vmcb_mut().tsc_offset = offset;
    }

    /// Has the CPU deliver an event at the next run.
    fn inject(&mut self, event: Injection) {
        let kind = match event.kind {
            EventKind::External => 0,
            EventKind::Nmi => 2,
            EventKind::Exception => 3,
            EventKind::Software => 4,
        };
        let error = event.error.map_or(0, |error| u64::from(error) << 32 | 1 << 11);
        if event.kind == EventKind::Exception {
            // QEMU forgets that a fault came while an injected exception was delivered, and makes no double fault of the two.
            self.vmcb_mut().intercept_exceptions = self.exceptions | WHILE_DELIVERING;
        }
        if event.kind == EventKind::Nmi {
            // The next one waits for an IRET.
            self.vmcb_mut().intercept_first |= first::IRET;
        }
        self.vmcb_mut().inject = u64::from(event.vector) | kind << 8 | error | 1 << 31;
    }

    /// Is an event waiting for the next run?
    #[inline]
    fn injecting(&self) -> bool {
        self.vmcb().inject & 1 << 31 != 0
    }

    /// The event whose delivery the last exit cut short.
    #[inline]
    fn interrupted(&self) -> Option<Injection> {
        let raw = self.vmcb().exit_interrupted;
        if raw & 1 << 31 == 0 {
            return None;
        }
        let kind = match raw >> 8 & 7 {
            0 => EventKind::External,
            2 => EventKind::Nmi,
            4 => EventKind::Software,
            _ => EventKind::Exception,
        };
        let error = (raw & 1 << 11 != 0).then_some((raw >> 32) as u32);
        Some(Injection { kind, vector: raw as u8, error })
    }

    /// Are interrupts held for one more instruction, behind STI or MOV SS?
    #[inline]
    fn interrupt_shadow(&self) -> bool {
        self.vmcb().interrupt_shadow & 1 != 0
    }

    /// AMD-V takes it up again at the next run (APM 2, 15.21.5); QEMU forgets it.
    fn keeps_shadow(&self) -> bool {
        false
    }

    fn nmi_blocked(&self) -> bool {
        self.vmcb().intercept_first & first::IRET != 0
    }

    fn block_nmi(&mut self, blocked: bool) {
        if blocked {
            self.vmcb_mut().intercept_first |= first::IRET;
        } else {
            self.vmcb_mut().intercept_first &= !first::IRET;
        }
    }

    /// Leaves the guest as soon as it can take an interrupt.
    fn request_window(&mut self) {
        self.vmcb_mut().virtual_interrupt = interrupt::MASKING | interrupt::REQUEST | interrupt::HIGHEST;
    }

    fn request_nmi_window(&mut self) {
        // While NMIs are blocked an IRET ends the run.
    }

    /// Takes out of the TLB what the plan names.
    #[inline]
    fn flush(&mut self, plan: FlushPlan) {
        if plan.is_all() {
            self.vmcb_mut().tlb_control = FLUSH_ALL;
        }
        let asid = self.vmcb().asid;
        for page in plan.pages() {
            // SAFETY: INVLPGA takes any address and ASID and only makes later accesses slower; SVME is on.
            unsafe {
                asm!("invlpga rax, ecx", in("rax") page.raw(), in("ecx") asid, options(nostack, preserves_flags))
            };
        }
    }

    #[inline]
    fn run(&mut self, state: *mut State, root: u64) -> HardwareExit {
        let shadow = self.translation == Translation::Shadow;
        let task = self.vmcb().tr.base;
        if shadow {
            if self.pdpt.follow(root) {
                self.vmcb_mut().tlb_control = FLUSH_ALL;
            }
            if self.pdpt.lets_write(task as u32) {
                let Some(hole) = self.pdpt.hole().filter(|_| self.hides_task) else {
                    return HardwareExit::TaskSegmentOpen;
                };
                self.vmcb_mut().tr.base = hole.into();
            }
        }
        let (guest, host) = (self.first.raw() << 12, self.host);
        // SAFETY: the caller owns the world, so nothing else refers to its context.
        let State { context, armed, breakpoints, .. } = unsafe { &mut *state };
        self.load(context);
        if *armed {
            // QEMU does not look at DR7 in the control block: what acts is what was armed before.
            self.vmcb_mut().dr7 = arm_hardware(breakpoints, self.vmcb().cs.base);
        }
        // SAFETY: the control block is whole: its tables are this machine's own (a checked nested root, or a PDPT that names only
        // L2 tables which the gate knows), every port and MSR is intercepted, and the host's block is the CPU's own. The stub keeps
        // RBX, RBP and the stack.
        unsafe {
            asm!(
                "call {run}",
                run = sym gnomon_svm_run,
                inout("rdi") &raw mut *context => _,
                inout("rsi") guest => _,
                inout("rdx") host => _,
                lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
                clobber_abi("sysv64"),
            );
        }
        if *armed {
            disarm();
            self.vmcb_mut().dr7 = 0x400;
        }
        self.save(context);
        if shadow {
            if self.vmcb().cr3 != self.pdpt.cr3() {
                return HardwareExit::Unasked;
            }
            // LTR exits, so it has not moved but by what was put there above.
            self.vmcb_mut().tr.base = task;
        }
        self.ended(state)
    }

    fn selector(&self, reg: SegReg) -> u16 {
        self.register(reg).selector
    }

    #[inline]
    fn descriptor(&self, reg: SegReg) -> u64 {
        let segment = self.register(reg);
        if segment.access & PRESENT == 0 { 0 } else { descriptor(segment.base as u32, segment.limit, segment.access) }
    }

    fn descriptor_tables(&self) -> DescriptorTables {
        let vmcb = self.vmcb();
        DescriptorTables {
            gdtr: (vmcb.gdtr.base as u32, vmcb.gdtr.limit as u16),
            idtr: (vmcb.idtr.base as u32, vmcb.idtr.limit as u16),
            ldtr: segment::seen(&vmcb.ldtr),
            tr: segment::seen(&vmcb.tr),
        }
    }

    fn set_descriptor_tables(&mut self, gdtr: (u32, u16), idtr: (u32, u16)) {
        self.load_tables(gdtr, idtr);
    }

    fn hide_task_segment(&mut self, hide: bool) {
        self.hides_task = hide;
    }

    fn set_segment(&mut self, register: SegmentRegister, segment: Segment) {
        self.load_segment(register, segment);
    }

    #[inline]
    fn code(&self) -> (u32, bool) {
        let cs = &self.vmcb().cs;
        (cs.base as u32, cs.access & BIG != 0)
    }
}

impl Drop for Svm {
    fn drop(&mut self) {
        // SAFETY: the frames are those of `new`; the CPU uses them only within `run`.
        unsafe { frames::free_host(self.first, FRAMES) };
    }
}
