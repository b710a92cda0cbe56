//! Multiplication and division, for operands of 1, 2 or 4 bytes (SDM 2, MUL, IMUL, DIV, IDIV).

use super::alu::mask;

const fn bits(size: usize) -> u32 {
    (size as u32) * 8
}

/// The low `size` bytes as a signed number.
const fn signed(value: u32, size: usize) -> i64 {
    let spare = 64 - bits(size);
    ((value as i64) << spare) >> spare
}

/// A product in two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Product {
    /// The lower `size` bytes.
    pub low: u32,
    /// The upper `size` bytes.
    pub high: u32,
    /// The lower half alone is not the product: CF and OF.
    pub wide: bool,
}

fn halves(product: u64, size: usize) -> (u32, u32) {
    (product as u32 & mask(size), (product >> bits(size)) as u32 & mask(size))
}

/// MUL.
#[must_use]
pub(crate) fn multiply(a: u32, b: u32, size: usize) -> Product {
    let product = u64::from(a & mask(size)).wrapping_mul(u64::from(b & mask(size)));
    let (low, high) = halves(product, size);
    Product { low, high, wide: high != 0 }
}

/// IMUL.
#[must_use]
pub(crate) fn multiply_signed(a: u32, b: u32, size: usize) -> Product {
    let product = signed(a, size).wrapping_mul(signed(b, size));
    let (low, high) = halves(product as u64, size);
    Product { low, high, wide: signed(low, size) != product }
}

/// DIV of `high:low`: quotient and remainder; `None` is #DE.
#[must_use]
pub(crate) fn divide(high: u32, low: u32, by: u32, size: usize) -> Option<(u32, u32)> {
    let (dividend, by) = (u64::from(high) << bits(size) | u64::from(low), u64::from(by));
    let quotient = u32::try_from(dividend.checked_div(by)?).ok()?;
    (quotient <= mask(size)).then_some((quotient, dividend.checked_rem(by)? as u32))
}

/// IDIV of `high:low`: quotient and remainder; `None` is #DE.
#[must_use]
pub(crate) fn divide_signed(high: u32, low: u32, by: u32, size: usize) -> Option<(u32, u32)> {
    let spare = 64 - 2 * bits(size);
    let dividend = ((u64::from(high) << bits(size) | u64::from(low)) << spare) as i64 >> spare;
    let by = signed(by, size);
    let (quotient, remainder) = (dividend.checked_div(by)?, dividend.checked_rem(by)?);
    let low = quotient as u32 & mask(size);
    (signed(low, size) == quotient).then_some((low, remainder as u32 & mask(size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_have_two_halves() {
        assert_eq!(multiply(0xffff_ffff, 2, 4), Product { low: 0xffff_fffe, high: 1, wide: true });
        assert_eq!(multiply(0xff, 0xff, 1), Product { low: 0x01, high: 0xfe, wide: true });
        assert_eq!(multiply(3, 5, 2), Product { low: 15, high: 0, wide: false });
        assert_eq!(multiply_signed(0xffff_ffff, 2, 4), Product { low: 0xffff_fffe, high: 0xffff_ffff, wide: false });
        assert_eq!(multiply_signed(0x80, 0x80, 1), Product { low: 0, high: 0x40, wide: true });
    }

    #[test]
    fn quotients_that_do_not_fit_are_errors() {
        assert_eq!(divide(1, 0, 2, 4), Some((0x8000_0000, 0)));
        assert_eq!(divide(2, 0, 2, 4), None);
        assert_eq!(divide(0, 7, 0, 4), None);
        assert_eq!(divide(0, 0xff, 0x10, 1), Some((0x0f, 0x0f)));
        assert_eq!(divide_signed(0xff, 0xf9, 2, 1), Some((0xfd, 0xff)), "-7 / 2 is -3, remainder -1");
        assert_eq!(divide_signed(0xff, 0x80, 0xff, 1), None, "-128 / -1");
        assert_eq!(divide_signed(0x8000_0000, 0, 0xffff_ffff, 4), None, "the most negative dividend");
        assert_eq!(divide_signed(0, 1, 0, 4), None);
    }
}
