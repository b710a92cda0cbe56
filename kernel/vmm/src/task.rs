//! Hardware task switches: JMP, CALL and events through TSS descriptors and task gates, and IRET with NT (SDM 3A 7.3).
//!
//! A switch has two halves. Up to the point where the old task is saved, everything that goes wrong is the old task's fault, and
//! nothing has changed for it. From there on an exception is raised in the new task, before its first instruction.

mod hardware;
mod image;

use gnomon_hw::SegReg;
use shadow_mmu::Privilege;

use crate::event::{Event, Source};
use crate::trap::{Emulated, Exception, StopReason, Trap, vector};
use crate::v86::Segments;
use crate::vcpu::{Descriptor, Gate, Selector, SystemSegment, SystemType, cr0, dr6, flags};
use crate::vm::Vm;
use image::{Data, Image};

/// What switches tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A far JMP.
    Jump,
    /// A far CALL or an event: the new task is nested in the old one.
    Call,
    /// IRET with NT set.
    Return,
}

impl Cause {
    /// Which exception a bad TSS selector is.
    fn refuse(self, selector: Selector) -> Exception {
        let vector = if self == Self::Return { vector::TS } else { vector::GP };
        Exception::coded(vector, selector.error_code())
    }
}

/// A TSS that may be switched to.
#[derive(Clone, Copy)]
struct Target {
    segment: SystemSegment,
    descriptor: Descriptor,
    wide: bool,
}

impl Vm {
    /// Far JMP or CALL through the descriptor of a TSS or a task gate. `next` is where the old task goes on.
    pub(crate) fn branch_to_task(
        &mut self,
        selector: Selector,
        found: Descriptor,
        cause: Cause,
        next: u32,
    ) -> Emulated<()> {
        if found.dpl() < self.cpl().max(selector.rpl()) {
            return Err(cause.refuse(selector).into());
        }
        let tss = if found.system_type() == SystemType::TaskGate {
            if !found.present() {
                return Err(Exception::coded(vector::NP, selector.error_code()).into());
            }
            Gate::new(found, false).selector
        } else {
            selector
        };
        let due = self.switch_task(tss, cause, next)?;
        due.map_or(Ok(()), |exception| Err(exception.into()))
    }

    /// IRET with NT set, whose next instruction is at `next`: back to the task that the TSS links to.
    pub(crate) fn return_to_task(&mut self, next: u32) -> Emulated<()> {
        let link = Selector(self.read_u16(self.vcpu.tr.base, Privilege::Supervisor)?);
        let due = self.switch_task(link, Cause::Return, next)?;
        due.map_or(Ok(()), |exception| Err(exception.into()))
    }

    /// An event through a task gate of the IDT.
    pub(crate) fn deliver_to_task(&mut self, event: &Event, gate: Descriptor) -> Emulated<()> {
        self.deliver_to_tss(event, Gate::new(gate, false).selector, self.eip())
    }

    /// An event whose task gate names this TSS. `next` is where the old task goes on.
    fn deliver_to_tss(&mut self, event: &Event, tss: Selector, next: u32) -> Emulated<()> {
        let from = self.cpl();
        let due = self.switch_task(tss, Cause::Call, next)?;
        // Delivered: what comes now is an event of its own.
        self.interrupted = None;
        self.note_delivery(event, from);
        let due = match (due, event.error) {
            (None, Some(error)) => self.push(error, if self.tss_is_wide() { 4 } else { 2 }),
            (Some(exception), _) => Err(exception.into()),
            (None, None) => Ok(()),
        };
        match due {
            // The return address of the instruction was saved with the old task: this is the new task's own.
            Err(Trap::Exception(exception)) if event.source == Source::Software => {
                self.deliver(exception.into()).map_err(Trap::Stop)
            }
            due => due,
        }
    }

    /// Switches to the task of a TSS. Gives the exception that is due in the new task.
    ///
    /// # Errors
    /// An exception of the old task, which has not changed; or the VM stops.
    fn switch_task(&mut self, selector: Selector, cause: Cause, next: u32) -> Emulated<Option<Exception>> {
        if self.world.is_hardware() {
            self.read_descriptor_tables();
        }
        let target = self.task_target(selector, cause)?;
        let mut data = Data::default();
        self.read_linear(target.segment.base, data.bytes(target.wide), Privilege::Supervisor)?;
        let image = Image::read(&data, target.wide);
        self.save_task(cause, next)?;
        if cause == Cause::Call {
            let link = self.vcpu.tr.selector.0.to_le_bytes();
            self.write_linear(target.segment.base, &link, Privilege::Supervisor)?;
        }
        if cause != Cause::Call && self.vcpu.tr.usable {
            self.mark_idle(self.vcpu.tr.selector)?;
        }
        if cause != Cause::Return {
            self.write_descriptor_type(selector, target.descriptor.busy())?;
        }
        match self.enter_task(target, &image, cause) {
            Ok(()) if image.trap => Ok(Some(self.debug_exception(dr6::BT))),
            Ok(()) => Ok(None),
            Err(Trap::Exception(exception)) => Ok(Some(exception)),
            Err(stop) => Err(stop),
        }
    }

    /// Checks the TSS that is switched to.
    fn task_target(&mut self, selector: Selector, cause: Cause) -> Emulated<Target> {
        let refused = cause.refuse(selector);
        if selector.is_local() {
            return Err(refused.into());
        }
        let descriptor = self.read_descriptor(selector)?.ok_or(refused)?;
        let is_tss = matches!(descriptor.system_type(), SystemType::Tss16 | SystemType::Tss32 | SystemType::Tss32Busy);
        if descriptor.is_segment() || !is_tss || descriptor.is_busy() != (cause == Cause::Return) {
            return Err(refused.into());
        }
        if !descriptor.present() {
            return Err(Exception::coded(vector::NP, selector.error_code()).into());
        }
        let wide = descriptor.system_type() != SystemType::Tss16;
        if descriptor.limit() < Data::last_byte(wide) {
            return Err(Exception::coded(vector::TS, selector.error_code()).into());
        }
        let (base, limit) = (descriptor.base(), descriptor.limit());
        Ok(Target { segment: SystemSegment { selector, base, limit, usable: true }, descriptor, wide })
    }

    /// Writes the registers into the TSS of the task that is left. Without one, as before the first LTR, they are lost.
    fn save_task(&mut self, cause: Cause, next: u32) -> Emulated<()> {
        let (tr, wide) = (self.vcpu.tr, self.tss_is_wide());
        if !tr.usable {
            return Ok(());
        }
        if tr.limit < Data::last_byte(wide) {
            return Err(Exception::coded(vector::TS, tr.selector.error_code()).into());
        }
        let mut data = Data::default();
        self.read_linear(tr.base, data.bytes(wide), Privilege::Supervisor)?;
        let nested = if cause == Cause::Return { flags::NT } else { 0 };
        let mut image = Image { eip: next, eflags: self.eflags() & !nested, ..Image::read(&data, wide) };
        for (number, place) in image.gprs.iter_mut().enumerate() {
            *place = self.gpr(number);
        }
        for (place, reg) in image.segments.iter_mut().zip(image::SEGMENTS) {
            *place = Selector(self.visible_selector_any(reg));
        }
        image.write(&mut data, wide);
        let at = tr.base.wrapping_add(Data::first_saved(wide));
        self.write_linear(at, data.saved(wide), Privilege::Supervisor)
    }

    /// Clears the busy bit of a TSS descriptor.
    fn mark_idle(&mut self, selector: Selector) -> Emulated<()> {
        match self.read_descriptor(selector)? {
            Some(descriptor) => self.write_descriptor_type(selector, descriptor.idle()),
            None => Ok(()),
        }
    }

    /// The half that belongs to the new task.
    fn enter_task(&mut self, target: Target, image: &Image, cause: Cause) -> Emulated<()> {
        self.set_task_register(target.segment, target.descriptor.busy());
        self.vcpu.tss_wide = target.wide;
        self.vcpu.interrupt_shadow = None;
        self.clear_flags(flags::VM);
        self.forget_local_breakpoints();
        self.vcpu.cr0 |= cr0::TS;
        self.push_controls();
        let [_, cs, ss, ..] = image.segments;
        let v86 = image.eflags & flags::VM != 0;
        let cpl = if v86 { 3 } else { cs.rpl() };
        if cpl == 1 || cpl == 2 {
            return Err(StopReason::MiddleRing.into());
        }
        for reg in [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs] {
            self.load_segment(reg, Selector(0))?;
        }
        // A fault from here on finds the visible selectors, and the privilege level that they name.
        if self.world.is_hardware() {
            self.put_flat_into_cpu(cs, ss, cpl);
        } else {
            self.load_flat(cs.0, ss.0, cpl)?;
        }
        for (number, &value) in image.gprs.iter().enumerate() {
            self.set_gpr(number, value);
        }
        self.set_eip(image.eip);
        let nested = if cause == Cause::Call { flags::NT } else { 0 };
        let known = flags::REAL | flags::RF | flags::IF | flags::IOPL | flags::NT;
        self.load_flags(image.eflags | nested, known);
        if self.vcpu.paging() && target.wide {
            self.write_cr3(image.cr3)?;
        }
        self.load_task_ldt(image.ldt)?;
        if v86 {
            let segments = Segments(image.segments.map(|selector| selector.0));
            return self.enter_v86(segments);
        }
        self.load_task_segments(image)
    }

    fn load_task_ldt(&mut self, selector: Selector) -> Emulated<()> {
        self.set_ldtr(SystemSegment { selector, ..SystemSegment::NULL }, Descriptor(0));
        if selector.is_null() {
            return Ok(());
        }
        let refused = Exception::coded(vector::TS, selector.error_code());
        if selector.is_local() {
            return Err(refused.into());
        }
        let descriptor = self.read_descriptor(selector)?.ok_or(refused)?;
        if descriptor.is_segment() || descriptor.system_type() != SystemType::Ldt || !descriptor.present() {
            return Err(refused.into());
        }
        let (base, limit) = (descriptor.base(), descriptor.limit());
        self.set_ldtr(SystemSegment { selector, base, limit, usable: true }, descriptor);
        Ok(())
    }

    fn load_task_segments(&mut self, image: &Image) -> Emulated<()> {
        let [es, cs, ss, ds, fs, gs] = image.segments;
        let refused = Exception::coded(vector::TS, cs.error_code());
        let code = self.read_descriptor(cs)?.ok_or(refused)?;
        let allowed = if code.is_conforming() { code.dpl() <= cs.rpl() } else { code.dpl() == cs.rpl() };
        if !code.is_code() || !allowed {
            return Err(refused.into());
        }
        if !code.present() {
            return Err(Exception::coded(vector::NP, cs.error_code()).into());
        }
        self.load_stack_or_code(SegReg::Cs, cs, code, cs.rpl())?;
        let order = [(SegReg::Ss, ss), (SegReg::Es, es), (SegReg::Ds, ds), (SegReg::Fs, fs), (SegReg::Gs, gs)];
        for (reg, selector) in order {
            self.load_segment(reg, selector).map_err(as_invalid_tss)?;
        }
        if image.eip > code.limit() { Err(Exception::gp(0).into()) } else { Ok(()) }
    }
}

/// What a load of a segment register refuses with #GP, a task switch refuses with #TS.
fn as_invalid_tss(trap: Trap) -> Trap {
    match trap {
        Trap::Exception(exception) if exception.vector == vector::GP => {
            Trap::Exception(Exception { vector: vector::TS, ..exception })
        }
        trap => trap,
    }
}
