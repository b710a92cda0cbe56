//! What a task switch needs of a hardware guest beyond what every exit does: the descriptor table registers, and segment registers
//! that can be loaded. VT-x leaves each switch to the monitor (SDM 3C 26.4.2), AMD-V where it is intercepted (APM 2, 15.14.1).

use crate::world::SegReg;

/// What switches tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskCause {
    /// A far JMP.
    Jump,
    /// A far CALL.
    Call,
    /// IRET with NT set.
    Return,
    /// An event through a task gate of the IDT: the one that the exit has cut short.
    Event,
}

/// A task switch that the CPU has not begun. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskSwitch {
    /// What switches.
    pub cause: TaskCause,
    /// Selector of the new TSS.
    pub selector: u16,
    /// Where the instruction ends, if the CPU tells and there is one.
    pub next: Option<u32>,
}

/// The segment registers of a hardware guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentRegister {
    /// CS, SS or a data segment.
    Plain(SegReg),
    /// LDTR.
    Ldt,
    /// TR.
    Task,
}

impl SegmentRegister {
    /// Place in the order of the VMCS: the plain ones, LDTR, TR.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Plain(reg) => reg as u32,
            Self::Ldt => 6,
            Self::Task => 7,
        }
    }
}

/// What a segment register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Segment {
    /// The visible selector.
    pub selector: u16,
    /// Bits 40 to 47 and 52 to 55 of a descriptor: type, S, DPL, P, AVL, L, D/B, G. Without P it holds nothing.
    pub access: u16,
    /// Base address.
    pub base: u32,
    /// Last valid byte offset.
    pub limit: u32,
}

impl Segment {
    /// Present.
    const PRESENT: u16 = 0x80;
    /// A 64-bit segment, which this guest has not.
    const LONG: u16 = 0x200;
    /// A segment of virtual-8086 mode: writable data, accessed, of level 3 (SDM 3C 27.3.1.2).
    const REAL_MODE: u16 = 0xf3;

    /// What loading a descriptor gives.
    #[must_use]
    pub const fn of(selector: u16, descriptor: u64) -> Self {
        let raw = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
        let access = (descriptor >> 40 & 0xff | descriptor >> 44 & 0xf00) as u16 & !Self::LONG;
        let limit = if descriptor & 1 << 55 != 0 { raw << 12 | 0xfff } else { raw };
        let base = (descriptor >> 16 & 0xff_ffff | descriptor >> 56 << 24) as u32;
        Self { selector, access, base, limit }
    }

    /// What virtual-8086 mode has for a number.
    #[must_use]
    pub const fn real_mode(number: u16) -> Self {
        Self { selector: number, access: Self::REAL_MODE, base: (number as u32) << 4, limit: 0xffff }
    }

    /// Whether there is a segment.
    #[must_use]
    pub const fn present(self) -> bool {
        self.access & Self::PRESENT != 0
    }

    /// Its privilege level.
    pub(crate) const fn dpl(self) -> u8 {
        (self.access >> 5 & 3) as u8
    }
}

/// The registers that lead to the guest's descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DescriptorTables {
    /// GDTR: base and limit.
    pub gdtr: (u32, u16),
    /// IDTR.
    pub idtr: (u32, u16),
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virt::descriptor;

    #[test]
    fn a_descriptor_is_taken_apart_as_it_is_put_together() {
        for (base, limit, access) in [(0x1234_5678, 0x67, 0x8b), (0, u32::MAX, 0xc9b), (0xffff_f000, 0xf_ffff, 0x4f3)] {
            let segment = Segment::of(0x28, descriptor(base, limit, access));
            assert_eq!(segment, Segment { selector: 0x28, access, base, limit });
        }
        assert!(!Segment::of(0, 0).present(), "a null selector");
        assert_eq!(Segment::of(8, descriptor(0, 0, 0xa9b)).access, 0x89b, "never a 64-bit segment");
        assert_eq!(Segment::of(0x2b, descriptor(0, u32::MAX, 0xcf3)).dpl(), 3);
    }

    #[test]
    fn virtual_8086_segments_are_what_the_entry_checks_demand() {
        let segment = Segment::real_mode(0x4200);
        assert_eq!((segment.base, segment.limit, segment.access), (0x42000, 0xffff, 0xf3));
        assert_eq!(segment.dpl(), 3);
    }
}
