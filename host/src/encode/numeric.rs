//! `numeric` → the decimal string that Postgres prints, digit for digit.
//!
//! Binary form: digit count, weight, sign, display scale (16 bits each), then digits in base
//! 10,000. See `numeric_send` and `get_str_from_var` in numeric.c.

use walgate_wire::pack;

use crate::encode::PackError;

const HEADER: usize = 8;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const NEGATIVE_INFINITY: u16 = 0xf000;
/// Decimal digits in one digit of base 10,000.
const GROUP: usize = 4;

/// `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        pairs[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    pairs
};

pub(super) fn pack_numeric(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
    let (header, digits) = bytes.split_first_chunk::<HEADER>().ok_or(PackError::EndsEarly)?;
    let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let sign = half(4);
    match sign {
        0 | NEGATIVE => {}
        _ => return pack_special(sign, out),
    }
    let count = usize::from(half(0));
    if digits.len() != count * 2 {
        return Err(PackError::WrongLength);
    }
    let number = Number {
        digits,
        weight: i32::from(half(2) as i16),
        scale: usize::from(half(6)),
        negative: sign == NEGATIVE,
    };
    number.write(out)
}

fn pack_special(sign: u16, out: &mut Vec<u8>) -> Result<(), PackError> {
    let text = match sign {
        NAN => "NaN",
        INFINITY => "Infinity",
        NEGATIVE_INFINITY => "-Infinity",
        _ => return Err(PackError::BadNumeric),
    };
    pack::str(out, text);
    Ok(())
}

/// Σ digit\[i\] × 10000^(weight − i), shown with `scale` decimal places.
struct Number<'a> {
    digits: &'a [u8],
    weight: i32,
    scale: usize,
    negative: bool,
}

impl Number<'_> {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PackError> {
        let first = self.digit_at(0)?;
        let first_width = match first {
            _ if self.weight < 0 => 1,
            0..=9 => 1,
            10..=99 => 2,
            100..=999 => 3,
            _ => 4,
        };
        let whole = first_width + GROUP * usize::try_from(self.weight).unwrap_or(0);
        let fraction = if self.scale > 0 { 1 + self.scale } else { 0 };
        pack::str_header(out, usize::from(self.negative) + whole + fraction);
        out.reserve(whole + fraction + GROUP);
        if self.negative {
            out.push(b'-');
        }
        if self.weight < 0 {
            out.push(b'0');
        } else {
            out.extend_from_slice(&decimal_digits(first)[GROUP - first_width..]);
            for index in 1..=self.weight {
                out.extend_from_slice(&decimal_digits(self.digit_at(index)?));
            }
        }
        self.write_fraction(out)
    }

    fn write_fraction(&self, out: &mut Vec<u8>) -> Result<(), PackError> {
        if self.scale == 0 {
            return Ok(());
        }
        out.push(b'.');
        let mut index = self.weight + 1;
        let mut left = self.scale;
        while left > 0 {
            let group = decimal_digits(self.digit_at(index)?);
            if left >= GROUP {
                out.extend_from_slice(&group);
                left -= GROUP;
            } else {
                out.extend_from_slice(&group[..left]);
                left = 0;
            }
            index += 1;
        }
        Ok(())
    }

    /// The digit of base 10,000 at `index`; zero before the first and after the last.
    #[inline]
    fn digit_at(&self, index: i32) -> Result<u16, PackError> {
        let Ok(index) = usize::try_from(index) else { return Ok(0) };
        match self.digits.get(index * 2..index * 2 + 2) {
            Some(&[high, low]) => {
                let digit = u16::from_be_bytes([high, low]);
                if digit < 10_000 { Ok(digit) } else { Err(PackError::BadNumeric) }
            }
            _ => Ok(0),
        }
    }
}

#[inline]
fn decimal_digits(group: u16) -> [u8; GROUP] {
    let [a, b] = PAIRS[usize::from(group / 100)];
    let [c, d] = PAIRS[usize::from(group % 100)];
    [a, b, c, d]
}
