//! A world: the real CPU state of one guest CPU, and the way into it.
//!
//! One world at a time is *resident*: its segment registers, FPU registers, control bits and descriptor tables are in the CPU.
//! It stays resident over exits, which therefore save general registers only. A resident world is *active* while its root is in
//! CR3 with nothing stale in the TLB; only an active world is entered.

mod breakpoints;
mod hardware;
mod hidden;
mod linear;
mod resident;
mod segment;
mod state;

use crate::descriptor::{self, RefusedDescriptor};
use crate::entry::{self, GuestContext, REFUSED};
use crate::frames::{self, Owner, VmId};
use crate::gdt::{CACHE, CACHE_COUNT, GDT_GUEST_ENTRIES, LDT_ENTRIES};
use crate::idt::IRQ_BASE;
use crate::irq::{self, Irq};
use crate::virt::{HardwareCpu, HardwareExit};
use crate::{cpu, fault, phys};
use alloc::boxed::Box;
use core::arch::asm;
use core::fmt;
use core::ptr::NonNull;
use shadow_mmu::{FlushPlan, Root};

pub use breakpoints::Breakpoints;
pub(crate) use breakpoints::{arm_hardware, disarm, status};
pub use linear::LinearFault;
pub(crate) use resident::init;
pub use segment::{SegReg, SegmentFault};
pub(crate) use state::State;
#[cfg(feature = "vmx")]
pub(crate) use state::{GUEST_CR0, GUEST_CR4};

/// Why the guest was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// An exception, or an INT instruction through one of the open gates (3, 4, 0x80). Error code and registers are in the
    /// context; a page fault's address is [`World::cr2`].
    Vector(u8),
    /// A device of the host. It was acknowledged at the interrupt controller.
    Interrupt(Irq),
    /// The guest is in virtual-8086 mode: the selectors in the context are real-mode ones. `context.vector` says what happened.
    V86,
    /// The CPU refused the CS or SS in the context, with this exception; its error code is in `context.error`. The guest ran no
    /// instruction, and the rest of the context is as it was.
    EntryFailed(u8),
    /// Something that only a hardware world has: [`World::hardware_exit`] tells. The run loop's own value stays small.
    Hardware,
}

/// A descriptor table of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The global descriptor table.
    Gdt,
    /// The local descriptor table.
    Ldt,
}

/// There is not enough contiguous memory for a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfFrames;

impl fmt::Display for OutOfFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} contiguous frames for a guest CPU are not there", State::FRAMES)
    }
}

/// The real CPU state of one guest CPU.
pub struct World {
    /// In frames of the host that this world alone owns; the CPU writes the context and the accessed bits of descriptors.
    state: NonNull<State>,
    /// The control structure of a hardware world. Such a world is resident while it runs, but never active.
    hardware: Option<Box<dyn HardwareCpu>>,
    /// A hardware world that the CPU runs on its shadow root.
    on_shadow: bool,
    /// How a hardware world's last run ended.
    last: HardwareExit,
}

impl World {
    /// Indexes of the GDT that are the guest's; the host's own entries and the segment-cache slots are above.
    pub const GDT_GUEST_ENTRIES: u16 = GDT_GUEST_ENTRIES;
    /// Entries of the LDT.
    pub const LDT_ENTRIES: u16 = LDT_ENTRIES;

    /// A world with empty descriptor tables, null segments, a reset FPU and no root: until it gets one, every access of the
    /// guest to memory faults.
    pub fn new(vm: VmId) -> Result<Self, OutOfFrames> {
        let first = frames::alloc_contiguous(State::FRAMES, Owner::Host).ok_or(OutOfFrames)?;
        let place = NonNull::new(phys::frame::<State>(first)).ok_or(OutOfFrames)?;
        // SAFETY: the frames were just allocated for this and are contiguous in the window; a State fits.
        unsafe { State::init(place.as_ptr(), vm) };
        Ok(Self { state: place, hardware: None, on_shadow: false, last: HardwareExit::Window })
    }

    /// The guest's registers.
    #[must_use]
    #[inline]
    pub fn context(&self) -> &GuestContext {
        // SAFETY: the state lives as long as this world. The CPU writes the context only within `run`, which borrows mutably.
        unsafe { &(*self.state.as_ptr()).context }
    }

    /// The guest's registers, to change them before the next run.
    #[inline]
    pub fn context_mut(&mut self) -> &mut GuestContext {
        // SAFETY: as for `context`, and this borrow is exclusive.
        unsafe { &mut (*self.state.as_ptr()).context }
    }

    /// The address of the last page fault that ended a run.
    #[must_use]
    #[inline]
    pub fn cr2(&self) -> u64 {
        self.state().cr2
    }

    /// Sets an entry of a live table. This is the last gate of descriptors: it takes 0, or a code or data segment of DPL 1 to
    /// 3 that is not 64-bit code. A segment register that holds the entry already is not reloaded.
    pub fn set_descriptor(&mut self, table: Table, index: u16, raw: u64) -> Result<(), RefusedDescriptor> {
        descriptor::check(raw)?;
        let limit = if table == Table::Gdt { GDT_GUEST_ENTRIES } else { LDT_ENTRIES };
        // Entry 0 of a GDT is never used by the CPU, and stays 0.
        if index >= limit || (table == Table::Gdt && index == 0 && raw != 0) {
            return Err(RefusedDescriptor::Index);
        }
        self.write_entry(table, index, raw);
        Ok(())
    }

    /// Sets the segment-cache slot of a segment register: a GDT entry out of the guest's part, for a register whose
    /// descriptor in the guest's own table has changed since it was loaded. Gives the entry's index. Same gate as
    /// [`set_descriptor`](Self::set_descriptor).
    pub fn set_cache_slot(&mut self, reg: SegReg, raw: u64) -> Result<u16, RefusedDescriptor> {
        descriptor::check(raw)?;
        let index = CACHE + reg as u16;
        self.write_entry(Table::Gdt, index, raw);
        Ok(index)
    }

    /// The index of the segment-cache slot of a segment register, if it holds this already.
    #[must_use]
    pub fn cache_slot_with(&self, reg: SegReg, raw: u64) -> Option<u16> {
        let index = CACHE + reg as u16;
        (self.descriptor(Table::Gdt, index) == raw).then_some(index)
    }

    /// The live entry, with the accessed bit as the CPU left it; 0 beyond the guest's part.
    #[must_use]
    pub fn descriptor(&self, table: Table, index: u16) -> u64 {
        let limit = if table == Table::Gdt { GDT_GUEST_ENTRIES } else { LDT_ENTRIES };
        let cache = table == Table::Gdt && (CACHE..CACHE + CACHE_COUNT).contains(&index);
        if index >= limit && !cache {
            return 0;
        }
        // SAFETY: the index is within the table, see `entry`; the CPU may change the accessed bit, hence volatile.
        unsafe { self.entry(table, index).read_volatile() }
    }

    fn write_entry(&mut self, table: Table, index: u16, raw: u64) {
        let selectors = self.data_selectors();
        let entry = self.entry(table, index);
        // SAFETY: callers checked the index. The CPU may change the accessed bit, hence volatile.
        let old = unsafe { entry.read_volatile() };
        // Nearly always no data segment register holds the entry, and then there is nothing to keep.
        let holds = |selector: &u16| segment::place(*selector) == (table, index);
        let raw = match selectors.iter().any(holds) {
            true => self.state_mut().hidden.replaced(&selectors, (table, index), old, raw),
            false => raw,
        };
        self.state_mut().moved_code |= descriptor::is_moved_user_code(raw);
        // SAFETY: callers passed the entry through the gate; `replaced` changes at most the accessed bit.
        unsafe { entry.write_volatile(raw) };
    }

    /// Gives an entry the accessed bit that it had when it was `raw`, or does nothing if it was 0.
    fn restore_entry(&mut self, (table, index): (Table, u16), raw: u64) {
        if raw != 0 {
            // SAFETY: the entry is in the guest's part, or it would have read as 0, and has held this before.
            unsafe { self.entry(table, index).write_volatile(raw) };
        }
    }

    fn entry(&self, table: Table, index: u16) -> *mut u64 {
        segment::entry(self.state.as_ptr(), table, index)
    }

    /// The root of the shadow tables that the guest runs on from now. A root that is not a live root of this machine is
    /// refused with an error in the log, and the guest has no memory until it gets another.
    pub fn set_root(&mut self, root: Root) {
        let root = root.table.raw();
        if self.state().root != root {
            self.state_mut().root = root;
            self.deactivate();
        }
    }

    /// Takes what the plan names out of the TLB before the guest runs again. If the world is not active there is nothing to
    /// do: activation empties the TLB.
    #[inline]
    pub fn flush(&mut self, plan: FlushPlan) {
        if let Some(hardware) = &mut self.hardware {
            hardware.flush(plan);
        } else if plan.is_all() {
            self.deactivate();
        } else if !plan.is_none() && cpu::is_active(self.state.as_ptr()) {
            for page in plan.pages() {
                // SAFETY: INVLPG takes any address and only makes later accesses slower.
                unsafe { x86::tlb::flush(page.raw() as usize) };
            }
        }
    }

    #[inline]
    fn deactivate(&self) {
        if cpu::is_active(self.state.as_ptr()) {
            cpu::deactivate();
        }
    }

    /// Runs the guest from its context until something ends the run.
    #[inline]
    pub fn run(&mut self) -> Exit {
        if self.is_hardware() { self.run_hardware() } else { self.run_deprivileged() }
    }

    #[inline(never)]
    fn run_deprivileged(&mut self) -> Exit {
        let state = self.state.as_ptr();
        if !cpu::is_active(state) {
            if self.state().armed {
                return self.run_armed();
            }
            resident::activate(state);
        }
        self.enter()
    }

    /// The same for a world that is active, which a hardware world never is. `None`: it is not, and did not run.
    #[inline]
    pub fn run_active(&mut self) -> Option<Exit> {
        if cpu::is_active(self.state.as_ptr()) { Some(self.enter()) } else { None }
    }

    /// Runs the guest of an active world.
    #[inline(always)] // The one call that matters is in `run_active`.
    fn enter(&mut self) -> Exit {
        let state = self.state.as_ptr();
        // SAFETY: `state` is this world's own, and nothing else runs before the asm.
        let context = unsafe { &mut (*state).context };
        context.rflags = GuestContext::real_flags(context.rflags);
        // A 32-bit guest has no upper half. TCG would fetch from a RIP above 4 GiB even in compatibility mode.
        context.rip &= 0xffff_ffff;
        context.rsp &= 0xffff_ffff;
        let entered = context.rflags;
        // SAFETY: the world is active, so CR3 is a checked root with the window, the live GDT and LDT hold only entries that
        // passed the gate, and TSS.RSP0 is the end of this context. gnomon_enter keeps RBX, RBP and the stack.
        unsafe {
            asm!(
                "call {enter}",
                enter = sym entry::gnomon_enter,
                inout("rdi") &raw mut (*state).context => _,
                lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
                clobber_abi("sysv64"),
            );
        }
        if self.context_mut().was_in_v86(entered) {
            return Exit::V86;
        }
        self.ended()
    }

    #[inline]
    fn ended(&mut self) -> Exit {
        let vector = self.context().vector;
        if vector == u64::from(fault::PAGE_FAULT) {
            // SAFETY: reading CR2 at CPL 0 changes nothing. No fault of the host's came between.
            self.state_mut().cr2 = unsafe { x86::controlregs::cr2() } as u64;
        } else if vector >= u64::from(IRQ_BASE) {
            return self.ended_otherwise();
        }
        Exit::Vector(vector as u8)
    }

    /// By an interrupt of the host's, or not begun.
    #[inline(never)]
    fn ended_otherwise(&mut self) -> Exit {
        let vector = self.context().vector;
        let line = (vector as u8).wrapping_sub(IRQ_BASE);
        if vector & REFUSED != 0 {
            self.context_mut().vector = vector & !REFUSED;
            Exit::EntryFailed(vector as u8)
        } else if line < irq::LINES {
            Exit::Interrupt(irq::acknowledge(line))
        } else {
            Exit::Vector(vector as u8)
        }
    }

    #[inline]
    fn state(&self) -> &State {
        // SAFETY: the state lives as long as this world and is shared with nothing but the CPU, whose writes (context, accessed
        // bits) happen within `run` or by volatile access.
        unsafe { self.state.as_ref() }
    }

    #[inline]
    fn state_mut(&mut self) -> &mut State {
        // SAFETY: as for `state`, exclusively.
        unsafe { self.state.as_mut() }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.hardware = None;
        resident::evict(self.state.as_ptr());
        let first = self.state().first_frame();
        // SAFETY: the frames are those of `new`; the CPU does not use them any more, and the world ends here.
        unsafe { frames::free_host(first, State::FRAMES) };
    }
}

/// Called by `exit.S` when IRETQ refused the guest's CS or SS. The CPU and the stub wrote `frame` just below and over the lower
/// part of the context, whose registers were in the CPU already.
pub(crate) extern "C" fn entry_refused(frame: *const GuestContext) {
    let state = cpu::resident();
    // SAFETY: only an active, hence resident, world is entered. `frame` was just written by the stub; it may overlap the context,
    // so it is copied out first.
    unsafe {
        let frame = frame.read();
        let context = &mut (*state).context;
        // What the context had for R8 to R15 was overwritten; nothing is ever there.
        context.gpr = [0; 16];
        context.gpr[..8].copy_from_slice(&frame.gpr[..8]);
        context.vector = frame.vector | REFUSED;
        context.error = frame.error;
    }
}
