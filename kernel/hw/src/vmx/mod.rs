//! VT-x: one guest CPU in a VMCS, with EPT or shadow tables (SDM 3C).
//!
//! The real state while such a guest runs is in `docs/architecture.md`. VPID is used where the CPU has it. A guest on EPT may turn its own
//! paging off, which needs the "unrestricted guest" control; on shadow tables the CPU always pages.

mod context;
mod enable;
mod events;
mod exit;
mod segment;
mod set_up;
mod vmcs;

use crate::cell::SingleCpu;
use crate::frames::{self, Owner, VmId};
use crate::virt::{
    ControlRegisters, EFER_NXE, HardwareCpu, HardwareExit, Injection, Pdpt, SyscallRegisters, Translation,
};
use crate::virt::{DescriptorTables, Segment, SegmentRegister, Unavailable, descriptor, real_controls};
use crate::world::{SegReg, State, arm_hardware, disarm};
use crate::{gate, phys};
use alloc::boxed::Box;
use core::arch::{asm, global_asm};
use shadow_mmu::{FlushPlan, Pfn, Root};
use vmcs::{control, field, read, write};

global_asm!(include_str!("run.S"), host_rsp = const field::HOST_RSP);

unsafe extern "C" {
    fn gnomon_vmx_run();
    static gnomon_vmx_exit: u8;
}

/// CR0.NE and CR4.VMXE, which VT-x keeps set.
const CR0_NE: u64 = 1 << 5;
const CR4_VMXE: u64 = 1 << 13;
/// CR0 bits that a guest on EPT changes without an exit: MP EM TS ET WP AM.
const EPT_FREE_CR0: u64 = 0b1_1110 | 1 << 16 | 1 << 18;
/// Access bits of a segment that holds nothing.
const UNUSABLE: u64 = 1 << 16;
/// Access bit of a 32-bit code segment.
const BIG: u64 = 1 << 14;

/// Bit of the interruptibility state: NMIs wait for an IRET.
const NMI_BLOCKED: u64 = 1 << 3;

/// The VMCS that is current in the CPU; 0 if none.
static CURRENT: SingleCpu<u64> = SingleCpu::new(0);

/// The VT-x part of a world.
pub(crate) struct Vmx {
    first: Pfn,
    translation: Translation,
    pdpt: Pdpt,
    /// 0: none.
    vpid: u16,
    ept_pointer: u64,
    cpu_controls: u32,
    launched: bool,
    /// An event is in the entry field.
    injecting: bool,
    /// EIP, ESP and EFLAGS as the VMCS has them.
    known: [u64; 3],
    cr2: u32,
}

/// Frames of a guest: VMCS, PDPT.
const FRAMES: usize = 2;

/// Makes a guest CPU.
pub(crate) fn make(vm: VmId, nested: Option<Root>) -> Result<Box<dyn HardwareCpu>, Unavailable> {
    Ok(Box::new(Vmx::new(vm, nested)?))
}

impl Vmx {
    fn new(vm: VmId, nested: Option<Root>) -> Result<Self, Unavailable> {
        let cpu = enable::enable()?;
        let second = cpu.second(control::EPT | control::VPID | control::WBINVD | control::UNRESTRICTED);
        if let Some(root) = nested {
            if second & control::EPT == 0 {
                return Err(Unavailable::Missing("this CPU has VT-x but no EPT; use mmu=shadow"));
            }
            if second & control::UNRESTRICTED == 0 {
                return Err(Unavailable::Missing("this CPU has EPT but no unrestricted guest; use mmu=shadow"));
            }
            if !frames::with(|frames| gate::is_root::<gate::Nested>(frames, vm, root.table.raw())) {
                return Err(Unavailable::Root);
            }
        }
        let first = frames::alloc_contiguous(FRAMES, Owner::Host).ok_or(Unavailable::Memory)?;
        if first.raw() + FRAMES as u64 > 1 << 20 {
            return Err(Unavailable::Memory);
        }
        // SAFETY: the frames were just allocated for this; the first one starts with the revision, as VMPTRLD wants it.
        unsafe {
            core::ptr::write_bytes(phys::frame::<u8>(first), 0, FRAMES * phys::PAGE_SIZE);
            phys::frame::<u32>(first).write_volatile(cpu.revision);
        }
        let mut vmx = Self {
            first,
            translation: if nested.is_some() { Translation::Nested } else { Translation::Shadow },
            pdpt: Pdpt::new(vm, Pfn::new(first.raw() + 1)),
            vpid: if second & control::VPID != 0 { u16::from(vm.0) + 1 } else { 0 },
            // Write-back, four levels, no A and D bits.
            ept_pointer: nested.map_or(0, |root| root.table.raw() << 12 | 3 << 3 | 6),
            cpu_controls: 0,
            launched: false,
            injecting: false,
            known: [u64::MAX; 3],
            cr2: 0,
        };
        vmx.set_up(cpu, second);
        Ok(vmx)
    }

    /// Makes this VMCS the current one.
    #[inline]
    fn select(&self) {
        let own = self.first.raw() << 12;
        // SAFETY: the closure does not reach the cell again. VMX is on, and the VMCS is this value's own and starts with the revision.
        unsafe {
            CURRENT.with(|current| {
                if *current != own {
                    asm!("vmptrld [{0}]", in(reg) &raw const own, options(nostack));
                    *current = own;
                }
            });
        }
    }

    /// Drops what the TLB holds under this VPID. Without VPIDs each transition does.
    fn flush_own(&self) {
        if self.vpid != 0 {
            let what = [u64::from(self.vpid), 0];
            // SAFETY: INVVPID, one context, only makes later accesses slower; VMX is on.
            unsafe { asm!("invvpid {0}, [{1}]", in(reg) 1_u64, in(reg) &raw const what, options(nostack)) };
        }
    }

    /// Drops what the TLB holds by way of the second-level tables.
    fn flush_nested(&self) {
        let what = [self.ept_pointer, 0];
        // SAFETY: INVEPT, one context, only makes later accesses slower; VMX is on and the CPU has EPT.
        unsafe { asm!("invept {0}, [{1}]", in(reg) 1_u64, in(reg) &raw const what, options(nostack)) };
    }
}

impl HardwareCpu for Vmx {
    fn set_controls(&mut self, cr0: u64, cr4: u64) {
        self.select();
        let (real0, real4) = real_controls(self.translation, cr0, cr4);
        // SAFETY: this VMCS is current. `real_controls` keeps what shadow tables need, and NE and VMXE are what VT-x needs.
        unsafe {
            write(field::GUEST_CR0, real0 | CR0_NE);
            write(field::CR0_SHADOW, cr0);
            write(field::GUEST_CR4, real4 | CR4_VMXE);
            write(field::CR4_SHADOW, cr4);
        }
        self.flush_own();
    }

    fn set_pdptes(&mut self, entries: [u64; 4]) {
        if self.translation == Translation::Nested {
            self.select();
            for (index, entry) in (0..).zip(entries) {
                // SAFETY: this VMCS is current; the CPU checks these fields at the entry, and they are guest-physical.
                unsafe { write(field::GUEST_PDPTE0 + 2 * index, entry) };
            }
        }
    }

    fn controls(&self) -> ControlRegisters {
        self.select();
        let shadow = read(field::CR0_SHADOW) & !EPT_FREE_CR0;
        ControlRegisters {
            cr0: (read(field::GUEST_CR0) & EPT_FREE_CR0 | shadow) as u32,
            cr2: self.cr2,
            cr3: read(field::GUEST_CR3) as u32,
            cr4: read(field::CR4_SHADOW) as u32,
        }
    }

    fn set_cr2(&mut self, cr2: u32) {
        self.cr2 = cr2;
    }

    fn set_cr3(&mut self, cr3: u32) {
        if self.translation == Translation::Nested {
            self.select();
            // SAFETY: this VMCS is current; with EPT CR3 is the guest's own, and guest-physical.
            unsafe { write(field::GUEST_CR3, cr3.into()) };
            self.flush_own();
        }
    }

    fn set_syscalls(&mut self, registers: &SyscallRegisters) {
        self.select();
        let forced = if self.translation == Translation::Shadow { EFER_NXE } else { 0 };
        let [cs, esp, eip] = registers.sysenter.map(u64::from);
        // SAFETY: this VMCS is current; these are the guest's own registers, and of EFER only NXE acts outside long mode.
        unsafe {
            write(field::SYSENTER_CS, cs);
            write(field::SYSENTER_ESP, esp);
            write(field::SYSENTER_EIP, eip);
            write(field::GUEST_EFER, registers.efer & EFER_NXE | forced);
        }
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.select();
        // SAFETY: this VMCS is current; any offset is right.
        unsafe { write(field::TSC_OFFSET, offset) };
    }

    fn inject(&mut self, event: Injection) {
        self.select();
        self.put_event(event);
        self.injecting = true;
    }

    fn injecting(&self) -> bool {
        self.injecting
    }

    #[inline]
    fn interrupted(&self) -> Option<Injection> {
        events::interrupted()
    }

    fn interrupt_shadow(&self) -> bool {
        self.select();
        read(field::INTERRUPTIBILITY) & 3 != 0
    }

    fn keeps_shadow(&self) -> bool {
        true
    }

    fn nmi_blocked(&self) -> bool {
        self.select();
        read(field::INTERRUPTIBILITY) & NMI_BLOCKED != 0
    }

    fn block_nmi(&mut self, blocked: bool) {
        self.select();
        let others = read(field::INTERRUPTIBILITY) & !NMI_BLOCKED;
        let state = if blocked { others | NMI_BLOCKED } else { others };
        // SAFETY: this VMCS is current; whether its NMIs wait is the guest's affair.
        unsafe { write(field::INTERRUPTIBILITY, state) };
    }

    fn request_window(&mut self) {
        self.select();
        self.set_cpu_controls(self.cpu_controls | control::WINDOW);
    }

    fn request_nmi_window(&mut self) {
        self.select();
        self.set_cpu_controls(self.cpu_controls | control::NMI_WINDOW);
    }

    fn flush(&mut self, plan: FlushPlan) {
        if plan.is_all() {
            if self.translation == Translation::Nested {
                self.flush_nested();
            } else {
                self.flush_own();
            }
            return;
        }
        for page in plan.pages().filter(|_| self.vpid != 0) {
            let what = [u64::from(self.vpid), page.raw()];
            // SAFETY: INVVPID of one address only makes later accesses slower; VMX is on.
            unsafe { asm!("invvpid {0}, [{1}]", in(reg) 0_u64, in(reg) &raw const what, options(nostack)) };
        }
    }

    fn selector(&self, reg: SegReg) -> u16 {
        self.select();
        read(field::GUEST_ES + 2 * reg as u32) as u16
    }

    fn descriptor(&self, reg: SegReg) -> u64 {
        self.select();
        let Segment { access, base, limit, .. } = segment::read_segment(SegmentRegister::Plain(reg));
        if access == 0 { 0 } else { descriptor(base, limit, access) }
    }

    fn descriptor_tables(&self) -> DescriptorTables {
        self.select();
        segment::read_tables()
    }

    fn set_descriptor_tables(&mut self, gdtr: (u32, u16), idtr: (u32, u16)) {
        self.select();
        segment::write_tables(gdtr, idtr);
    }

    fn set_segment(&mut self, register: SegmentRegister, segment: Segment) {
        self.select();
        segment::write_segment(register, segment);
        if register == SegmentRegister::Task {
            // Another task: what STI or MOV SS held back is due.
            self.end_interrupt_shadow();
        }
    }

    #[inline]
    fn code(&self) -> (u32, bool) {
        self.select();
        let step = 2 * SegReg::Cs as u32;
        (read(field::GUEST_ES_BASE + step) as u32, read(field::GUEST_ES_ACCESS + step) & BIG != 0)
    }

    #[inline]
    fn run(&mut self, state: *mut State, root: u64) -> HardwareExit {
        self.select();
        if self.translation == Translation::Shadow && self.pdpt.follow(root) {
            self.flush_own();
        }
        // SAFETY: the caller owns the world, so nothing else refers to its context.
        let State { context, armed, breakpoints, .. } = unsafe { &mut *state };
        self.load(context);
        if *armed {
            let control = arm_hardware(breakpoints, read(field::GUEST_ES_BASE + 2 * SegReg::Cs as u32));
            // SAFETY: this VMCS is current; the host's addresses are not among the guest's.
            unsafe { write(field::DR7, control) };
        }
        let failed: u32;
        // SAFETY: this VMCS is current and whole (see `set_up`): its tables are this machine's own (a checked EPT root, or a PDPT
        // that names only L2 tables which the gate knows), every port and MSR makes it exit, and the host's state in it is what
        // this CPU has. CR2 belongs to whoever runs. The stub keeps RBX, RBP and the stack.
        unsafe {
            asm!("mov cr2, {0}", in(reg) u64::from(self.cr2), options(nostack, preserves_flags));
            asm!(
                "call {run}",
                run = sym gnomon_vmx_run,
                inout("rdi") &raw mut *context => _,
                inout("rsi") u64::from(self.launched) => _,
                lateout("eax") failed,
                lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
                clobber_abi("sysv64"),
            );
            // Reading CR2 at CPL 0 changes nothing.
            self.cr2 = x86::controlregs::cr2() as u32;
        }
        if *armed {
            disarm();
            // SAFETY: this VMCS is current.
            unsafe { write(field::DR7, 0x400) };
        }
        if failed != 0 {
            return HardwareExit::Refused(u64::MAX);
        }
        self.launched = true;
        self.save(context);
        self.ended(state)
    }
}

impl Drop for Vmx {
    fn drop(&mut self) {
        let own = self.first.raw() << 12;
        // SAFETY: VMX is on; VMCLEAR makes the CPU forget this VMCS, which nothing uses any more, before its memory goes.
        unsafe {
            asm!("vmclear [{0}]", in(reg) &raw const own, options(nostack));
            CURRENT.with(|current| *current = if *current == own { 0 } else { *current });
            frames::free_host(self.first, FRAMES);
        }
    }
}
