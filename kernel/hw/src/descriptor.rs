//! Segment descriptors: the last gate that decides which a guest may have in the live tables, and the host's own.
//!
//! ```text
//!  63    56 55 54 53 52 51  48 47 46 45 44 43    40 39           16 15           0
//! [base 31:24][G][D][L][A][lim 19:16][P][DPL ][S][ type   ][ base 23:0     ][ limit 15:0  ]
//! ```
//! Source: SDM 3A 3.4.5 "Segment Descriptors", 8.2.3 "TSS Descriptor in 64-bit Mode".

/// S: a code or data segment, not a system one.
const CODE_OR_DATA: u64 = 1 << 44;
const DPL_SHIFT: u32 = 45;
const LONG: u64 = 1 << 53;

/// 64-bit code, DPL 0, present, accessed.
pub(crate) const HOST_CODE: u64 = 0x0020_9b00_0000_0000;
/// Type and rights of an available 64-bit TSS, present, DPL 0.
const TSS_TYPE: u64 = 0x89;
/// Type and rights of an LDT, present, DPL 0.
const LDT_TYPE: u64 = 0x82;

/// The last gate refused a descriptor that a guest must not be able to select. Always a bug of the caller, who shall hand in
/// only what the guest may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedDescriptor {
    /// The index is beyond the guest's part of the table.
    Index,
    /// A gate, TSS or LDT: the CPU would take it for a 64-bit one.
    System,
    /// DPL 0 is the host's.
    Privilege,
    /// L=1: from ring 1, a 64-bit code segment reaches the whole hypervisor.
    Long,
}

/// May a 32-bit guest have `raw` in a live table?
///
/// Present or not makes no difference: a descriptor is judged by what it would be if it were present.
#[inline]
pub(crate) const fn check(raw: u64) -> Result<(), RefusedDescriptor> {
    if raw == 0 {
        Ok(())
    } else if raw & CODE_OR_DATA == 0 {
        Err(RefusedDescriptor::System)
    } else if raw >> DPL_SHIFT & 3 == 0 {
        Err(RefusedDescriptor::Privilege)
    } else if raw & LONG != 0 {
        Err(RefusedDescriptor::Long)
    } else {
        Ok(())
    }
}

/// A code segment of ring 3 whose base is not 0.
#[inline]
pub(crate) const fn is_moved_user_code(raw: u64) -> bool {
    const USER_CODE: u64 = CODE_OR_DATA | 1 << 43 | 3 << DPL_SHIFT;
    const BASE: u64 = 0xff00_00ff_ffff_0000;
    raw & USER_CODE == USER_CODE && raw & BASE != 0
}

/// The two entries of a 64-bit TSS descriptor.
pub(crate) const fn tss(base: u64, limit: u32) -> [u64; 2] {
    system(base, limit, TSS_TYPE)
}

/// The two entries of an LDT descriptor in long mode.
pub(crate) const fn ldt(base: u64, limit: u32) -> [u64; 2] {
    system(base, limit, LDT_TYPE)
}

const fn system(base: u64, limit: u32, kind: u64) -> [u64; 2] {
    let limit = limit as u64;
    let low =
        limit & 0xffff | (base & 0xff_ffff) << 16 | kind << 40 | (limit >> 16 & 0xf) << 48 | (base >> 24 & 0xff) << 56;
    [low, base >> 32]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flat 32-bit code, DPL 1, present.
    const CODE1: u64 = 0x00cf_bb00_0000_ffff;

    #[test]
    fn code_and_data_of_rings_1_to_3_pass() {
        assert_eq!(check(0), Ok(()));
        assert_eq!(check(CODE1), Ok(()));
        assert_eq!(check(0x00cf_f300_0000_ffff), Ok(()), "data, DPL 3");
        assert_eq!(check(CODE1 & !(1 << 47)), Ok(()), "not present");
    }

    #[test]
    fn what_leads_out_of_the_guest_is_refused() {
        assert_eq!(check(CODE1 | LONG), Err(RefusedDescriptor::Long));
        assert_eq!(check((CODE1 | LONG) & !(1 << 47)), Err(RefusedDescriptor::Long), "even if not present");
        assert_eq!(check(CODE1 & !(3 << DPL_SHIFT)), Err(RefusedDescriptor::Privilege));
        assert_eq!(check(0x0000_ee00_0008_0000), Err(RefusedDescriptor::System), "a gate");
        assert_eq!(check(1), Err(RefusedDescriptor::System), "not present and without a type");
    }

    #[test]
    fn every_type_and_right_is_judged_alike() {
        for access in 0..=0xff_u64 {
            for flags in 0..16_u64 {
                let raw = access << 40 | flags << 52 | 0xffff;
                let passes = access & 0x10 != 0 && access & 0x60 != 0 && flags & 2 == 0;
                assert_eq!(check(raw).is_ok(), passes, "{raw:#x}");
            }
        }
    }

    #[test]
    fn system_descriptors_hold_a_whole_address() {
        let [low, high] = tss(0xffff_8000_1234_5678, 0x67);
        assert_eq!((low, high), (0x1200_8934_5678_0067, 0xffff_8000));
        assert_eq!(ldt(0x10_0000, 0xfff)[0], 0x0000_8210_0000_0fff);
    }
}
