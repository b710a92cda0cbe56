//! Segment registers in the current VMCS (SDM 3C 24.4.1).

use super::UNUSABLE;
use super::vmcs::{field, read, write};
use crate::virt::{DescriptorTables, Segment, SegmentRegister};

/// A segment register. One that is unusable has no access bits.
pub(super) fn read_segment(register: SegmentRegister) -> Segment {
    let step = 2 * register.number();
    let raw = read(field::GUEST_ES_ACCESS + step);
    // The VMCS has the upper four access bits where a descriptor has them: four places further up than AMD-V.
    let access = if raw & UNUSABLE != 0 { 0 } else { raw & 0xff | raw >> 4 & 0xf00 };
    Segment {
        selector: read(field::GUEST_ES + step) as u16,
        access: access as u16,
        base: read(field::GUEST_ES_BASE + step) as u32,
        limit: read(field::GUEST_ES_LIMIT + step) as u32,
    }
}

/// Loads a segment register. What the CPU does not accept is found at the next entry, which fails.
pub(super) fn write_segment(register: SegmentRegister, segment: Segment) {
    let step = 2 * register.number();
    let access = u64::from(segment.access);
    let access = if segment.present() { access & 0xff | (access & 0xf00) << 4 } else { UNUSABLE };
    // SAFETY: callers have made a VMCS current; the guest's segments are its own affair.
    unsafe {
        write(field::GUEST_ES + step, segment.selector.into());
        write(field::GUEST_ES_ACCESS + step, access);
        write(field::GUEST_ES_BASE + step, segment.base.into());
        write(field::GUEST_ES_LIMIT + step, segment.limit.into());
    }
}

/// GDTR, IDTR, LDTR and TR.
pub(super) fn read_tables() -> DescriptorTables {
    DescriptorTables {
        gdtr: (read(field::GUEST_GDTR_BASE) as u32, read(field::GUEST_GDTR_LIMIT) as u16),
        idtr: (read(field::GUEST_IDTR_BASE) as u32, read(field::GUEST_IDTR_LIMIT) as u16),
        ldtr: read_segment(SegmentRegister::Ldt),
        tr: read_segment(SegmentRegister::Task),
    }
}

/// Loads GDTR and IDTR: base and limit.
pub(super) fn write_tables(gdtr: (u32, u16), idtr: (u32, u16)) {
    // SAFETY: the caller's VMCS is current; the CPU wants nothing of these but a limit of 16 bits.
    unsafe {
        write(field::GUEST_GDTR_BASE, gdtr.0.into());
        write(field::GUEST_GDTR_LIMIT, gdtr.1.into());
        write(field::GUEST_IDTR_BASE, idtr.0.into());
        write(field::GUEST_IDTR_LIMIT, idtr.1.into());
    }
}
