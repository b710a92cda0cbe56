//! Segment descriptors and gates as the guest writes them (SDM 3A 3.4.5 and 6.11), and what becomes of them in the live tables.

/// A 16-bit segment selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector(pub u16);

impl Selector {
    /// Requested privilege level.
    #[must_use]
    pub const fn rpl(self) -> u8 {
        (self.0 & 3) as u8
    }

    /// Index into its table.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0 >> 3
    }

    /// Whether it names the LDT.
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0 & 4 != 0
    }

    /// Whether it is one of the four null selectors.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.0 & !3 == 0
    }

    /// The same selector with another RPL.
    #[must_use]
    pub const fn with_rpl(self, rpl: u8) -> Self {
        Self((self.0 & !3) | (rpl & 3) as u16)
    }

    /// As the real CPU has it for the guest's ring 0.
    #[must_use]
    pub const fn in_ring_1(self) -> u16 {
        self.with_rpl(1).0
    }

    /// As an error code: index and table, no RPL.
    #[must_use]
    pub const fn error_code(self) -> u32 {
        (self.0 & !3) as u32
    }
}

/// A raw 8-byte descriptor.
///
/// ```text
///  63      56 55 54 53 52 51    48 47 46 45 44 43   40 39              16 15             0
/// | base 31:24| G|D/B|L|AVL|lim 19:16| P| DPL | S| type  |    base 23:0     |  limit 15:0    |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub u64);

/// System descriptor types (SDM 3A table 3-2) that this monitor acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemType {
    /// 16-bit TSS, available or busy.
    Tss16,
    /// Local descriptor table.
    Ldt,
    /// 16-bit call gate.
    CallGate16,
    /// Task gate.
    TaskGate,
    /// 16-bit interrupt gate.
    InterruptGate16,
    /// 16-bit trap gate.
    TrapGate16,
    /// 32-bit TSS, available.
    Tss32,
    /// 32-bit TSS, busy.
    Tss32Busy,
    /// 32-bit call gate.
    CallGate32,
    /// 32-bit interrupt gate.
    InterruptGate32,
    /// 32-bit trap gate.
    TrapGate32,
    /// Reserved.
    Reserved,
}

const BASE: u64 = 0xff00_00ff_ffff_0000;
const ACCESSED: u64 = 1 << 40;
const WRITABLE_OR_READABLE: u64 = 1 << 41;
const CONFORMING: u64 = 1 << 42;
const CODE: u64 = 1 << 43;
const SEGMENT: u64 = 1 << 44;
const DPL_SHIFT: u32 = 45;
const PRESENT: u64 = 1 << 47;
const LONG: u64 = 1 << 53;
const BIG: u64 = 1 << 54;
const GRANULAR: u64 = 1 << 55;

impl Descriptor {
    /// Base address.
    #[must_use]
    pub const fn base(self) -> u32 {
        ((self.0 >> 16) & 0xff_ffff) as u32 | ((self.0 >> 56) as u32) << 24
    }

    /// Limit in bytes, inclusive, granularity applied.
    #[must_use]
    pub const fn limit(self) -> u32 {
        let raw = (self.0 & 0xffff) as u32 | ((self.0 >> 32) & 0xf_0000) as u32;
        if self.0 & GRANULAR != 0 { (raw << 12) | 0xfff } else { raw }
    }

    /// Descriptor privilege level.
    #[must_use]
    pub const fn dpl(self) -> u8 {
        ((self.0 >> DPL_SHIFT) & 3) as u8
    }

    /// P bit.
    #[must_use]
    pub const fn present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether it is a code or data segment (S = 1).
    #[must_use]
    pub const fn is_segment(self) -> bool {
        self.0 & SEGMENT != 0
    }

    /// Whether it is a code segment.
    #[must_use]
    pub const fn is_code(self) -> bool {
        self.is_segment() && self.0 & CODE != 0
    }

    /// Whether it is a conforming code segment.
    #[must_use]
    pub const fn is_conforming(self) -> bool {
        self.is_code() && self.0 & CONFORMING != 0
    }

    /// Whether data can be written through it.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.is_segment() && self.0 & CODE == 0 && self.0 & WRITABLE_OR_READABLE != 0
    }

    /// Whether data can be read through it.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.is_segment() && (self.0 & CODE == 0 || self.0 & WRITABLE_OR_READABLE != 0)
    }

    /// D/B bit: 32-bit code or stack.
    #[must_use]
    pub const fn is_big(self) -> bool {
        self.0 & BIG != 0
    }

    /// The descriptor with its accessed bit set.
    #[must_use]
    pub const fn accessed(self) -> Self {
        Self(self.0 | ACCESSED)
    }

    /// Whether the accessed bit is set.
    #[must_use]
    pub const fn is_accessed(self) -> bool {
        self.0 & ACCESSED != 0
    }

    /// Type of a system descriptor (S = 0).
    #[must_use]
    pub const fn system_type(self) -> SystemType {
        match (self.0 >> 40) & 0xf {
            1 | 3 => SystemType::Tss16,
            2 => SystemType::Ldt,
            4 => SystemType::CallGate16,
            5 => SystemType::TaskGate,
            6 => SystemType::InterruptGate16,
            7 => SystemType::TrapGate16,
            9 => SystemType::Tss32,
            11 => SystemType::Tss32Busy,
            12 => SystemType::CallGate32,
            14 => SystemType::InterruptGate32,
            15 => SystemType::TrapGate32,
            _ => SystemType::Reserved,
        }
    }

    /// The busy form of a 32-bit TSS descriptor.
    #[must_use]
    pub const fn busy(self) -> Self {
        Self(self.0 | 1 << 41)
    }

    /// The form of a TSS descriptor that is not busy.
    #[must_use]
    pub const fn idle(self) -> Self {
        Self(self.0 & !(1 << 41))
    }

    /// Whether a TSS descriptor is busy.
    #[must_use]
    pub const fn is_busy(self) -> bool {
        self.0 & 1 << 41 != 0
    }

    /// What the live table holds for this segment while the guest runs deprivileged: privilege level 0 becomes 1, the L bit is
    /// cleared (ring 1 must never reach 64-bit code), the accessed bit is set so that the CPU does not write to the live table.
    /// `None` for anything that is no code or data segment, or of privilege level 1 or 2.
    #[must_use]
    pub const fn to_live(self) -> Option<Self> {
        if !self.is_segment() {
            return None;
        }
        let dpl = match self.dpl() {
            0 => 1,
            3 => 3,
            _ => return None,
        };
        let cleared = self.0 & !(3 << DPL_SHIFT);
        let cleared = if self.is_code() { cleared & !LONG } else { cleared };
        Some(Self(cleared | dpl << DPL_SHIFT).accessed())
    }

    /// The guest's form of a live descriptor, as far as [`Self::to_live`] can be undone: level 1 was 0.
    #[must_use]
    pub const fn to_guest(self) -> Self {
        if self.dpl() == 1 { Self(self.0 & !(3 << DPL_SHIFT)) } else { self }
    }

    /// The same segment with its base moved by `shift`, mod 4 GiB.
    #[must_use]
    pub const fn moved(self, shift: u32) -> Self {
        let base = self.base().wrapping_add(shift) as u64;
        Self(self.0 & !BASE | (base & 0xff_ffff) << 16 | (base >> 24) << 56)
    }

    /// The same code segment, not readable.
    #[must_use]
    pub const fn execute_only(self) -> Self {
        Self(self.0 & !WRITABLE_OR_READABLE)
    }

    /// The same with the P bit cleared: a load of it raises #NP.
    #[must_use]
    pub const fn hidden(self) -> Self {
        Self(self.0 & !PRESENT)
    }

    /// Whether the live form must be hidden while the guest kernel runs, so that a return to it traps: user code, and conforming
    /// code, which a return may enter with any RPL.
    #[must_use]
    pub const fn leads_to_user(self) -> bool {
        self.is_code() && (self.dpl() == 3 || self.is_conforming())
    }
}

/// A call, interrupt or trap gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Target code segment.
    pub selector: Selector,
    /// Target offset.
    pub offset: u32,
    /// Call gates: words or doublewords to copy.
    pub parameters: u8,
}

impl Gate {
    /// Reads the gate fields of a descriptor; a 16-bit gate has a 16-bit offset.
    #[must_use]
    pub const fn new(raw: Descriptor, wide: bool) -> Self {
        let low = (raw.0 & 0xffff) as u32;
        let offset = if wide { low | ((raw.0 >> 32) as u32 & 0xffff_0000) } else { low };
        Self { selector: Selector((raw.0 >> 16) as u16), offset, parameters: ((raw.0 >> 32) & 0x1f) as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAT_CODE: Descriptor = Descriptor(0x00cf_9a00_0000_ffff);
    const FLAT_USER_CODE: Descriptor = Descriptor(0x00cf_fa00_0000_ffff);

    #[test]
    fn fields() {
        let d = Descriptor(0x1240_8956_789a_0067);
        assert_eq!((d.base(), d.limit(), d.dpl(), d.present()), (0x1256_789a, 0x67, 0, true));
        assert_eq!(d.system_type(), SystemType::Tss32);
        assert_eq!(d.busy().system_type(), SystemType::Tss32Busy);
        assert_eq!(FLAT_CODE.limit(), 0xffff_ffff);
        assert!(FLAT_CODE.is_code() && FLAT_CODE.is_readable() && !FLAT_CODE.is_writable() && FLAT_CODE.is_big());
    }

    #[test]
    fn live_form_has_no_ring_0_and_no_long_code() {
        for dpl in 0..4_u64 {
            for kind in 0..32_u64 {
                for flags in 0..16_u64 {
                    let raw = Descriptor(0xffff | kind << 40 | dpl << 45 | 1 << 47 | flags << 52);
                    if let Some(live) = raw.to_live() {
                        assert!(live.dpl() != 0 && live.is_segment() && live.is_accessed());
                        assert!(!live.is_code() || live.0 & LONG == 0);
                        assert_eq!(live.base(), raw.base());
                        assert_eq!(live.limit(), raw.limit());
                    }
                }
            }
        }
    }

    #[test]
    fn a_base_moves_around_the_end() {
        let moved = FLAT_CODE.moved(0xa000_0000).moved(0xc012_3000);
        assert_eq!(moved.base(), 0x6012_3000);
        assert_eq!(moved.moved(moved.base().wrapping_neg()), FLAT_CODE);
        assert!(!FLAT_CODE.execute_only().is_readable() && FLAT_CODE.execute_only().is_code());
    }

    #[test]
    fn the_live_form_says_what_the_guest_wrote() {
        for raw in [0x00cf_9a00_0000_ffff, 0x00cf_9200_0000_ffff, 0x00cf_fa00_0000_ffff, 0x004f_f612_3456_0fff] {
            let guest = Descriptor(raw);
            assert_eq!(guest.to_live().map(Descriptor::to_guest), Some(guest.accessed()), "{raw:#x}");
        }
    }

    #[test]
    fn user_code_is_hidden_from_the_kernel() {
        assert!(FLAT_USER_CODE.leads_to_user());
        assert!(!FLAT_CODE.leads_to_user());
        assert!(!FLAT_USER_CODE.hidden().present());
    }

    #[test]
    fn gate_fields() {
        let gate = Gate::new(Descriptor(0xc010_ee05_0008_1234), true);
        assert_eq!(gate, Gate { selector: Selector(8), offset: 0xc010_1234, parameters: 5 });
        assert_eq!(Gate::new(Descriptor(0xc010_ee05_0008_1234), false).offset, 0x1234);
    }
}
