//! Postgres' numeric: its text form, and exact arithmetic on numbers that fit 128 bits.
//!
//! This module does not know the precision and scale of columns.

use std::{cmp::Ordering, fmt, str::FromStr};

/// A numeric as Postgres prints it: `12.30`, `NaN`, `Infinity`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Numeric<'a>(pub &'a str);

impl Numeric<'_> {
    /// The number, for arithmetic. `None` for NaN, infinities, and numbers that do not fit.
    pub fn decimal(&self) -> Option<Decimal> {
        self.0.parse().ok()
    }
}

impl fmt::Display for Numeric<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A decimal number: `units` / 10^`scale`. Numbers of different scales can be equal.
///
/// ```
/// use walgate_guest::{Decimal, Numeric};
///
/// let price = Numeric("19.95").decimal().unwrap();
/// assert_eq!(price.checked_mul(3).unwrap().to_string(), "59.85");
/// assert_eq!(price.round(1), Some(Decimal::new(200, 1)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    units: i128,
    scale: u8,
}

/// A text that is not a number which [`Decimal`] can hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotDecimal;

impl fmt::Display for NotDecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a decimal number of at most 38 digits")
    }
}

impl std::error::Error for NotDecimal {}

impl Decimal {
    /// Zero.
    pub const ZERO: Decimal = Decimal { units: 0, scale: 0 };
    const SCALE_MAX: u8 = 38;

    /// `new(1230, 2)` is 12.30. A scale above 38 counts as 38.
    pub fn new(units: i128, scale: u8) -> Decimal {
        Decimal { units, scale: scale.min(Self::SCALE_MAX) }
    }

    /// The number without its point: 1230 for 12.30.
    pub fn units(self) -> i128 {
        self.units
    }

    /// Number of digits after the point.
    pub fn scale(self) -> u8 {
        self.scale
    }

    /// The sum, at the larger scale; `None` if it does not fit.
    pub fn checked_add(self, other: impl Into<Decimal>) -> Option<Decimal> {
        let (a, b, scale) = self.align_scales(other.into())?;
        Some(Decimal { units: a.checked_add(b)?, scale })
    }

    /// The difference, at the larger scale; `None` if it does not fit.
    pub fn checked_sub(self, other: impl Into<Decimal>) -> Option<Decimal> {
        let (a, b, scale) = self.align_scales(other.into())?;
        Some(Decimal { units: a.checked_sub(b)?, scale })
    }

    /// The product; `None` if it does not fit. As in Postgres, its scale is the sum of the scales.
    pub fn checked_mul(self, other: impl Into<Decimal>) -> Option<Decimal> {
        let other = other.into();
        let scale = self.scale.checked_add(other.scale).filter(|s| *s <= Self::SCALE_MAX)?;
        Some(Decimal { units: self.units.checked_mul(other.units)?, scale })
    }

    /// Rounds to `scale` digits after the point, halves away from zero, as Postgres does.
    ///
    /// `None` if the result does not fit.
    pub fn round(self, scale: u8) -> Option<Decimal> {
        if scale >= self.scale {
            return Some(Decimal { units: self.at_scale(scale)?, scale });
        }
        let divisor = power_of_ten(self.scale - scale)?;
        let (quotient, rest) = (self.units / divisor, self.units % divisor);
        let up = rest.unsigned_abs() >= divisor.unsigned_abs().div_ceil(2);
        Some(Decimal { units: quotient + if up { self.units.signum() } else { 0 }, scale })
    }

    fn at_scale(self, scale: u8) -> Option<i128> {
        self.units.checked_mul(power_of_ten(scale.checked_sub(self.scale)?)?)
    }

    fn align_scales(self, other: Decimal) -> Option<(i128, i128, u8)> {
        let scale = self.scale.max(other.scale);
        Some((self.at_scale(scale)?, other.at_scale(scale)?, scale))
    }

    fn whole_and_rest(self) -> (i128, i128) {
        match power_of_ten(self.scale) {
            Some(one) => (self.units.div_euclid(one), self.units.rem_euclid(one)),
            None => (0, self.units),
        }
    }
}

fn power_of_ten(exponent: u8) -> Option<i128> {
    10i128.checked_pow(exponent.into())
}

impl From<i64> for Decimal {
    fn from(whole: i64) -> Self {
        Decimal { units: whole.into(), scale: 0 }
    }
}

impl From<i32> for Decimal {
    fn from(whole: i32) -> Self {
        i64::from(whole).into()
    }
}

impl FromStr for Decimal {
    type Err = NotDecimal;

    /// Parses digits with an optional sign and point. Exponents are not allowed.
    fn from_str(text: &str) -> Result<Self, NotDecimal> {
        let (negative, digits) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let (mut units, mut scale, mut count, mut point) = (0i128, 0u8, 0usize, false);
        for byte in digits {
            match byte {
                b'.' if !point => point = true,
                b'0'..=b'9' => {
                    let digit = i128::from(byte - b'0');
                    let grown = units.checked_mul(10).and_then(|u| u.checked_add(digit));
                    units = grown.ok_or(NotDecimal)?;
                    scale += u8::from(point);
                    count += 1;
                }
                _ => return Err(NotDecimal),
            }
            if scale > Self::SCALE_MAX {
                return Err(NotDecimal);
            }
        }
        if count == 0 {
            return Err(NotDecimal);
        }
        Ok(Decimal { units: if negative { -units } else { units }, scale })
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (digits, scale) = (self.units.unsigned_abs().to_string(), usize::from(self.scale));
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        let sign = if self.units < 0 { "-" } else { "" };
        write!(f, "{sign}{whole}")?;
        if fraction.is_empty() { Ok(()) } else { write!(f, ".{fraction}") }
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((a, a_rest), (b, b_rest)) = (self.whole_and_rest(), other.whole_and_rest());
        // Fractions are below 1, so both fit at the larger scale.
        let scale = self.scale.max(other.scale);
        let rest = |rest: i128, of: u8| rest * power_of_ten(scale - of).unwrap_or(1);
        a.cmp(&b).then_with(|| rest(a_rest, self.scale).cmp(&rest(b_rest, other.scale)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn prices() {
        assert_eq!(d("12.30").checked_mul(3).unwrap().to_string(), "36.90");
        assert_eq!(d("0.1").checked_add(d("0.20")).unwrap().to_string(), "0.30");
        assert_eq!(d("1").checked_sub(d("1.05")).unwrap().to_string(), "-0.05");
        assert_eq!(d("2.345").round(2).unwrap().to_string(), "2.35");
        assert_eq!(d("-2.345").round(2).unwrap().to_string(), "-2.35");
        assert_eq!(d("2").round(2).unwrap().to_string(), "2.00");
    }

    #[test]
    fn order_is_that_of_numbers() {
        assert_eq!(d("1.0"), d("1"));
        assert!(d("-1.5") < d("-1.25"));
        assert!(
            d("170141183460469231731687303715884105727")
                > d("0.00000000000000000000000000000000000001")
        );
    }

    #[test]
    fn what_is_no_decimal() {
        for text in [
            "",
            "-",
            ".",
            "NaN",
            "Infinity",
            "1e5",
            "1.2.3",
            "999999999999999999999999999999999999999",
        ] {
            assert_eq!(text.parse::<Decimal>(), Err(NotDecimal), "{text}");
        }
        assert_eq!(Numeric("NaN").decimal(), None);
    }

    proptest::proptest! {
        #[test]
        fn printed_and_read(units in proptest::num::i128::ANY, scale in 0u8..=38) {
            let decimal = Decimal::new(units, scale);
            if units != i128::MIN {
                let read: Decimal = decimal.to_string().parse().unwrap();
                assert_eq!((read.units, read.scale), (units, scale));
            }
        }

        #[test]
        fn comparing_never_overflows(a in proptest::num::i128::ANY, b in proptest::num::i128::ANY, s in 0u8..=38, t in 0u8..=38) {
            let (a, b) = (Decimal::new(a, s), Decimal::new(b, t));
            assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        }
    }
}
