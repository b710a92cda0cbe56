//! Port input and output, single and string forms.

use gnomon_hw::SegReg;
use gnomon_trace::{Kind, Record};
use iced_x86::{Instruction, OpKind, Register};
use shadow_mmu::{Access, AccessKind, Gpa, Privilege};

use super::Next;
use crate::dev::BusEffect;
use crate::marks;
use crate::ram::PAGE;
use crate::trap::{Emulated, Exception, StopReason};
use crate::vcpu::flags;
use crate::vm::Vm;

/// Elements of a repeated string instruction done in one exit; the rest follows after a look at interrupts.
const STRING_BATCH: u32 = 1024;
/// Offset of the I/O map base in a 32-bit TSS (SDM 3A 7.2.1).
const IO_MAP_BASE: u32 = 0x66;

impl Vm {
    /// Whether the running code may use these ports (SDM 1, 19.5: IOPL, then the TSS's I/O permission bitmap).
    fn check_port(&mut self, port: u16, size: usize) -> Emulated<()> {
        // A CPU that virtualizes has looked at IOPL and the bitmap itself.
        if self.cpl() <= self.vcpu.iopl() || self.world.is_hardware() {
            return Ok(());
        }
        let refused = Exception::gp(0);
        let tr = self.vcpu.tr;
        if !tr.usable || !self.tss_is_wide() || tr.limit < IO_MAP_BASE + 1 {
            return Err(refused.into());
        }
        let map = self.read_u16(tr.base.wrapping_add(IO_MAP_BASE), Privilege::Supervisor)?;
        let byte = u32::from(map) + u32::from(port / 8);
        if byte + 1 > tr.limit {
            return Err(refused.into());
        }
        let bits = self.read_u16(tr.base.wrapping_add(byte), Privilege::Supervisor)?;
        let mask = ((1_u16 << size) - 1) << (port % 8);
        if bits & mask == 0 { Ok(()) } else { Err(refused.into()) }
    }

    /// Reads a port.
    pub(crate) fn port_in(&mut self, port: u16, size: usize) -> u32 {
        self.devices_touched = true;
        let value = self.bus.read(port, size as u8, self.now());
        self.tracer.record(|| Record { code: size as u8, arg: port.into(), a: value.into(), ..Record::new(Kind::Io) });
        value
    }

    /// Writes a port.
    ///
    /// # Errors
    /// The end of the machine, if the write asked for it.
    pub(crate) fn port_out(&mut self, port: u16, size: usize, value: u32) -> Result<(), StopReason> {
        self.devices_touched = true;
        self.tracer.record(|| Record {
            code: size as u8,
            flags: 1,
            arg: port.into(),
            a: value.into(),
            ..Record::new(Kind::Io)
        });
        if port == marks::PORT {
            self.mark(value);
        }
        let effect = self.bus.write(port, size as u8, value, self.now());
        self.take_effect(effect)
    }

    /// What a write asks for beyond the devices.
    fn take_effect(&mut self, effect: BusEffect) -> Result<(), StopReason> {
        match effect {
            BusEffect::None => Ok(()),
            BusEffect::Transfer(side) => {
                self.transfer_disk(side);
                Ok(())
            }
            BusEffect::Exit(status) => Err(StopReason::Exit(status)),
            BusEffect::PowerOff => Err(StopReason::PowerOff),
            BusEffect::Reset => Err(StopReason::Reset),
        }
    }

    /// Reads a device in memory.
    pub(crate) fn read_device(&mut self, gpa: Gpa, bytes: &mut [u8]) {
        let before = self.bus.next_deadline();
        self.bus.read_memory(gpa.raw(), bytes, self.now());
        self.devices_touched |= self.bus.next_deadline() != before;
        self.trace_device(gpa, bytes, 2);
    }

    /// Writes a device in memory. Most writes only end an interrupt, after which there is nothing to arm.
    pub(crate) fn write_device(&mut self, gpa: Gpa, bytes: &[u8]) {
        let before = self.bus.next_deadline();
        self.bus.write_memory(gpa.raw(), bytes, self.now());
        self.devices_touched |= self.bus.next_deadline() != before;
        self.trace_device(gpa, bytes, 3);
    }

    /// Flag 1 says write, flag 2 memory.
    fn trace_device(&self, gpa: Gpa, bytes: &[u8], flags: u8) {
        self.tracer.record(|| {
            let mut value = [0; 8];
            for (place, byte) in value.iter_mut().zip(bytes) {
                *place = *byte;
            }
            let a = u64::from_le_bytes(value);
            Record { code: bytes.len() as u8, flags, arg: gpa.raw() as u32, a, ..Record::new(Kind::Io) }
        });
    }

    /// IN or OUT.
    pub(crate) fn port_access(&mut self, insn: &Instruction, output: bool) -> Emulated<()> {
        let (data, address) = if output { (1, 0) } else { (0, 1) };
        let register = insn.op_register(data);
        let size = super::register_size(register);
        let port = match insn.op_kind(address) {
            OpKind::Register => self.register(Register::DX)? as u16,
            _ => u16::from(insn.immediate8()),
        };
        self.check_port(port, size)?;
        self.note_port(port, size);
        if output {
            let value = self.register(register)?;
            Ok(self.port_out(port, size, value)?)
        } else {
            let value = self.port_in(port, size);
            self.set_register(register, value)
        }
    }

    /// INS or OUTS, a batch of it in one exit.
    pub(crate) fn string_port_access(&mut self, insn: &Instruction, output: bool, size: usize) -> Emulated<Next> {
        let memory = if output { 1 } else { 0 };
        let narrow = matches!(insn.op_kind(memory), OpKind::MemorySegSI | OpKind::MemoryESDI);
        let segment = if output {
            super::operand::segment_register(insn.memory_segment()).ok_or(StopReason::Unemulated)?
        } else {
            SegReg::Es
        };
        let port = self.register(Register::DX)? as u16;
        self.check_port(port, size)?;
        self.note_port(port, size);
        let string = PortString {
            port,
            size,
            output,
            segment,
            mask: if narrow { 0xffff } else { u32::MAX },
            backwards: self.world.context().rflags as u32 & flags::DF != 0,
        };
        if !(insn.has_rep_prefix() || insn.has_repne_prefix()) {
            self.port_elements(&string, 1)?;
            return Ok(Next::Advance);
        }
        let mut room = STRING_BATCH;
        while room > 0 {
            let left = self.gpr(1) & string.mask;
            if left == 0 {
                return Ok(Next::Advance);
            }
            let done = self.port_elements(&string, left.min(room))?;
            self.set_gpr(1, string.merge(self.gpr(1), self.gpr(1).wrapping_sub(done)));
            room = room.saturating_sub(done);
        }
        Ok(Next::Stay)
    }

    /// Moves up to `count` elements, all in one page unless it is one; moves the pointer on. How many it were: at least one.
    #[inline(never)] // its buffer must not lie on the stack at other exits
    fn port_elements(&mut self, string: &PortString, count: u32) -> Emulated<u32> {
        let &PortString { port, size, output, segment, mask, backwards } = string;
        let pointer = if output { 6 } else { 7 };
        let offset = self.gpr(pointer) & mask;
        let address = self.linear(segment, offset)?;
        // Up to the end of the page, and of a 16-bit segment, of which the pointer comes round.
        let in_page = (PAGE as u32 - address % PAGE as u32) / size as u32;
        let in_segment = (mask - offset) / size as u32;
        let count = if backwards { 1 } else { count.min(in_page).min(in_segment).max(1) };
        let mut buffer = [0; PAGE as usize];
        let bytes = buffer.get_mut(..count as usize * size).ok_or(StopReason::Unemulated)?;
        self.devices_touched = true;
        let privilege = self.privilege();
        if output {
            self.read_linear(address, bytes, privilege)?;
        } else {
            // Rights first: a fault must not lose what the device gave away. An element may lie in two pages.
            let access = Access { kind: AccessKind::Write, privilege };
            self.translate(address, access)?;
            self.translate(address.wrapping_add(bytes.len() as u32 - 1), access)?;
        }
        let now = self.now();
        let effect = if output {
            self.bus.write_string(port, size as u8, bytes, now).0
        } else {
            self.bus.read_string(port, size as u8, bytes, now);
            self.write_linear(address, bytes, privilege)?;
            BusEffect::None
        };
        self.trace_string(string, bytes);
        let step = (size as u32).wrapping_mul(count);
        let moved = if backwards { offset.wrapping_sub(step) } else { offset.wrapping_add(step) };
        self.set_gpr(pointer, string.merge(self.gpr(pointer), moved));
        self.take_effect(effect)?;
        Ok(count)
    }

    /// One record for a block: its first element, and the number of elements in `b`.
    fn trace_string(&self, string: &PortString, bytes: &[u8]) {
        self.tracer.record(|| {
            let mut first = [0; 8];
            for (place, byte) in first.iter_mut().zip(bytes.iter().take(string.size)) {
                *place = *byte;
            }
            let elements = bytes.len().checked_div(string.size).unwrap_or(0) as u64;
            Record {
                code: string.size as u8,
                flags: string.output.into(),
                arg: string.port.into(),
                a: u64::from_le_bytes(first),
                b: elements,
                ..Record::new(Kind::Io)
            }
        });
    }
}

/// A string instruction with ports.
struct PortString {
    port: u16,
    size: usize,
    output: bool,
    segment: SegReg,
    /// The part of the pointer and of the count that is used.
    mask: u32,
    backwards: bool,
}

impl PortString {
    /// A register whose used part is replaced.
    fn merge(&self, old: u32, new: u32) -> u32 {
        (old & !self.mask) | (new & self.mask)
    }
}
