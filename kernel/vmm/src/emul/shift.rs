//! Shifts and rotates with their flags, for operands of 1, 2 or 4 bytes, one bit at a time (SDM 2, RCL/RCR/ROL/ROR, SAL/SAR/SHL/SHR,
//! SHLD, SHRD).

use iced_x86::Mnemonic;

use super::alu::{Result, mask, result_flags, sign};
use crate::vcpu::flags;

/// A shift or rotate by one bit, repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shift {
    /// Rotate left.
    Rol,
    /// Rotate right.
    Ror,
    /// Rotate left through CF.
    Rcl,
    /// Rotate right through CF.
    Rcr,
    /// Shift left.
    Shl,
    /// Shift right, zeros come in.
    Shr,
    /// Shift right, copies of the sign come in.
    Sar,
    /// Shift left, the bits of another operand come in.
    Shld(u32),
    /// Shift right, the bits of another operand come in.
    Shrd(u32),
}

impl Shift {
    /// The operation of a mnemonic; `from` is where bits come from in the two double shifts.
    pub(crate) fn of(mnemonic: Mnemonic, from: u32) -> Option<Self> {
        Some(match mnemonic {
            Mnemonic::Rol => Self::Rol,
            Mnemonic::Ror => Self::Ror,
            Mnemonic::Rcl => Self::Rcl,
            Mnemonic::Rcr => Self::Rcr,
            Mnemonic::Shl | Mnemonic::Sal => Self::Shl,
            Mnemonic::Shr => Self::Shr,
            Mnemonic::Sar => Self::Sar,
            Mnemonic::Shld => Self::Shld(from),
            Mnemonic::Shrd => Self::Shrd(from),
            _ => return None,
        })
    }

    /// Flags that the operation defines anew.
    pub(crate) const fn flags(self) -> u32 {
        match self {
            Self::Rol | Self::Ror | Self::Rcl | Self::Rcr => flags::CF | flags::OF,
            _ => flags::STATUS,
        }
    }

    const fn goes_left(self) -> bool {
        matches!(self, Self::Rol | Self::Rcl | Self::Shl | Self::Shld(_))
    }

    /// The bit that comes in at the empty end, in the step after `done` others.
    fn incoming(self, value: u32, carry: bool, done: u32, size: usize) -> bool {
        let top = value & sign(size) != 0;
        match self {
            Self::Rol => top,
            Self::Ror => value & 1 != 0,
            Self::Rcl | Self::Rcr => carry,
            Self::Shl | Self::Shr => false,
            Self::Sar => top,
            Self::Shld(from) => from & (sign(size) >> (done % bits(size))) != 0,
            Self::Shrd(from) => from & (1 << (done % bits(size))) != 0,
        }
    }
}

const fn bits(size: usize) -> u32 {
    (size as u32) * 8
}

/// Shifts `value` by `count`, which the CPU takes modulo 32. `None` if that is 0: then no flag changes.
///
/// OF is defined for a count of 1 only, and AF never (it is 0 here), like what a double shift of 16 bits does with a larger count.
#[must_use]
pub(crate) fn shift(op: Shift, value: u32, count: u32, carry: bool, size: usize) -> Option<Result> {
    let count = count & 31;
    let (mut value, mut carry) = (value & mask(size), carry);
    let mut overflow = false;
    for done in 0..count {
        let before = value;
        let incoming = op.incoming(value, carry, done, size);
        if op.goes_left() {
            carry = value & sign(size) != 0;
            value = (value << 1 | u32::from(incoming)) & mask(size);
        } else {
            carry = value & 1 != 0;
            value = value >> 1 | if incoming { sign(size) } else { 0 };
        }
        overflow = (before ^ value) & sign(size) != 0;
    }
    let mut set = result_flags(value, size);
    if carry {
        set |= flags::CF;
    }
    if overflow {
        set |= flags::OF;
    }
    (count != 0).then_some(Result { value, flags: set & op.flags() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(op: Shift, value: u32, count: u32, carry: bool, size: usize) -> u32 {
        shift(op, value, count, carry, size).unwrap().value
    }

    #[test]
    fn agrees_with_the_host() {
        for a in [0_u32, 1, 0x80, 0x8000, 0x8000_0001, 0x7fff_ffff, 0x1234_5678, u32::MAX] {
            for count in 1..32 {
                assert_eq!(value(Shift::Shl, a, count, false, 4), a << count);
                assert_eq!(value(Shift::Shr, a, count, false, 4), a >> count);
                assert_eq!(value(Shift::Sar, a, count, false, 4), (a as i32 >> count) as u32);
                assert_eq!(value(Shift::Rol, a, count, false, 4), a.rotate_left(count));
                assert_eq!(value(Shift::Ror, a, count, false, 4), a.rotate_right(count));
                assert_eq!(value(Shift::Rol, a, count, false, 1), u32::from((a as u8).rotate_left(count)));
                assert_eq!(value(Shift::Ror, a, count, false, 2), u32::from((a as u16).rotate_right(count)));
                let b = 0xa5c3_0f96;
                assert_eq!(value(Shift::Shld(b), a, count, false, 4), a << count | b >> (32 - count));
                assert_eq!(value(Shift::Shrd(b), a, count, false, 4), a >> count | b << (32 - count));
            }
        }
    }

    #[test]
    fn carry_and_overflow_of_one_bit() {
        let set = |op, value, carry| shift(op, value, 1, carry, 1).unwrap().flags & (flags::CF | flags::OF);
        assert_eq!(set(Shift::Shl, 0xc0, false), flags::CF);
        assert_eq!(set(Shift::Shl, 0x80, false), flags::CF | flags::OF);
        assert_eq!(set(Shift::Shr, 0x81, false), flags::CF | flags::OF);
        assert_eq!(set(Shift::Sar, 0x81, false), flags::CF);
        assert_eq!(set(Shift::Rcl, 0x40, false), flags::OF);
        assert_eq!(set(Shift::Rcr, 0x01, true), flags::CF | flags::OF);
    }

    #[test]
    fn nine_steps_through_carry_are_a_circle() {
        for carry in [false, true] {
            let there = shift(Shift::Rcl, 0x5a, 9, carry, 1).unwrap();
            assert_eq!((there.value, there.flags & flags::CF != 0), (0x5a, carry));
        }
        assert_eq!(value(Shift::Rcr, 0x01, 1, true, 2), 0x8000);
    }

    #[test]
    fn a_count_of_32_is_none() {
        assert_eq!(shift(Shift::Shl, 1, 32, true, 4), None);
    }
}
