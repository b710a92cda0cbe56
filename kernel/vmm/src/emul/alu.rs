//! Arithmetic with flags, for operands of 1, 2 or 4 bytes (SDM 1, 3.4.3.1; SDM 2, each instruction).

use crate::vcpu::flags;

/// A binary operation that sets all status flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    /// Addition.
    Add,
    /// Addition with carry.
    Adc,
    /// Subtraction, and comparison.
    Sub,
    /// Subtraction with borrow.
    Sbb,
    /// Conjunction, and test.
    And,
    /// Disjunction.
    Or,
    /// Exclusive disjunction.
    Xor,
}

/// A result and the status flags that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Result {
    /// Value, cut to the operand's size.
    pub value: u32,
    /// Flags out of [`flags::STATUS`].
    pub flags: u32,
}

const fn bits(size: usize) -> u32 {
    (size as u32) * 8
}

/// All bits of an operand.
#[must_use]
pub(super) const fn mask(size: usize) -> u32 {
    if size >= 4 { u32::MAX } else { (1 << bits(size)) - 1 }
}

/// The sign bit of an operand.
#[must_use]
pub(super) const fn sign(size: usize) -> u32 {
    1 << (bits(size) - 1)
}

/// SF, ZF and PF of a value.
#[must_use]
pub(crate) const fn result_flags(value: u32, size: usize) -> u32 {
    let mut set = 0;
    if value & mask(size) == 0 {
        set |= flags::ZF;
    }
    if value & sign(size) != 0 {
        set |= flags::SF;
    }
    if (value & 0xff).count_ones().is_multiple_of(2) {
        set |= flags::PF;
    }
    set
}

/// Computes `a op b`; `carry` is CF before.
#[must_use]
pub(crate) fn binary(op: Binary, a: u32, b: u32, carry: bool, size: usize) -> Result {
    let (a, b) = (a & mask(size), b & mask(size));
    let carry_in = u64::from(carry && matches!(op, Binary::Adc | Binary::Sbb));
    let (wide, carried) = match op {
        Binary::Add | Binary::Adc => {
            let wide = u64::from(a) + u64::from(b) + carry_in;
            (wide as u32, wide >> bits(size) != 0)
        }
        Binary::Sub | Binary::Sbb => {
            let wide = u64::from(a).wrapping_sub(u64::from(b)).wrapping_sub(carry_in);
            (wide as u32, u64::from(b) + carry_in > u64::from(a))
        }
        Binary::And => (a & b, false),
        Binary::Or => (a | b, false),
        Binary::Xor => (a ^ b, false),
    };
    let value = wide & mask(size);
    let mut set = result_flags(value, size);
    if carried {
        set |= flags::CF;
    }
    let overflow = match op {
        Binary::Add | Binary::Adc => (a ^ value) & (b ^ value),
        Binary::Sub | Binary::Sbb => (a ^ b) & (a ^ value),
        _ => 0,
    };
    if overflow & sign(size) != 0 {
        set |= flags::OF;
    }
    let arithmetic = !matches!(op, Binary::And | Binary::Or | Binary::Xor);
    if arithmetic && (a ^ b ^ value) & 0x10 != 0 {
        set |= flags::AF;
    }
    Result { value, flags: set }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_and_subtracts_like_the_cpu() {
        let r = binary(Binary::Add, 0xff, 1, false, 1);
        assert_eq!(r, Result { value: 0, flags: flags::ZF | flags::CF | flags::AF | flags::PF });
        let r = binary(Binary::Add, 0x7fff_ffff, 1, false, 4);
        assert_eq!(r, Result { value: 0x8000_0000, flags: flags::SF | flags::OF | flags::AF | flags::PF });
        let r = binary(Binary::Sub, 0, 1, false, 2);
        assert_eq!(r, Result { value: 0xffff, flags: flags::SF | flags::CF | flags::AF | flags::PF });
        let r = binary(Binary::Sbb, 5, 5, true, 4);
        assert_eq!(r.value, u32::MAX);
        assert_eq!(r.flags & flags::CF, flags::CF);
        let r = binary(Binary::Adc, u32::MAX, 0, true, 4);
        assert_eq!(r, Result { value: 0, flags: flags::ZF | flags::CF | flags::AF | flags::PF });
    }

    #[test]
    fn logic_clears_carry_and_overflow() {
        let r = binary(Binary::And, 0xf0, 0x0f, true, 1);
        assert_eq!(r, Result { value: 0, flags: flags::ZF | flags::PF });
        assert_eq!(binary(Binary::Xor, 0x80, 0, false, 1).flags, flags::SF);
    }

    /// The host CPU is the reference.
    #[test]
    fn agrees_with_the_host() {
        let values =
            [0_u32, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX, 0x1234_5678];
        for a in values {
            for b in values {
                let (sum, carry) = a.overflowing_add(b);
                let r = binary(Binary::Add, a, b, false, 4);
                assert_eq!((r.value, r.flags & flags::CF != 0), (sum, carry));
                assert_eq!(r.flags & flags::OF != 0, (a as i32).overflowing_add(b as i32).1);
                let (difference, borrow) = a.overflowing_sub(b);
                let r = binary(Binary::Sub, a, b, false, 4);
                assert_eq!((r.value, r.flags & flags::CF != 0), (difference, borrow));
                assert_eq!(r.flags & flags::OF != 0, (a as i32).overflowing_sub(b as i32).1);
            }
        }
    }
}
