//! Lower-case hexadecimal, as hashes are written on the wire.
//!
//! This module does not know what the bytes mean.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Returns two lower-case digits for each byte.
///
/// ```
/// assert_eq!(walgate_wire::hex::encode(&[0x00, 0xaf]), "00af");
/// ```
pub fn encode(bytes: &[u8]) -> String {
    let mut digits = Vec::new();
    append(&mut digits, bytes);
    digits.into_iter().map(char::from).collect()
}

/// Appends the digits of [`encode`] to `out`, as ASCII.
#[inline]
pub fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.extend(digits(*byte));
    }
}

/// Appends the digits of [`encode`] to a string.
#[inline]
pub fn append_str(out: &mut String, bytes: &[u8]) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.extend(digits(*byte).map(char::from));
    }
}

/// Reads pairs of digits of either case; `None` for any other text.
///
/// ```
/// assert_eq!(walgate_wire::hex::decode("00AF"), Some(vec![0x00, 0xaf]));
/// assert_eq!(walgate_wire::hex::decode("0"), None);
/// ```
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[inline]
fn digits(byte: u8) -> [u8; 2] {
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hex_has_two_digits_a_byte() {
        assert_eq!(encode(&[0x00, 0x09, 0xaf, 0xff]), "0009afff");
    }

    proptest! {
        #[test]
        fn hex_round_trips(bytes: Vec<u8>) {
            let mut text = String::new();
            append_str(&mut text, &bytes);
            prop_assert_eq!(&text, &encode(&bytes));
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn text_that_is_not_hex_is_refused(text in "[0-9a-fg ]{0,5}") {
            let is_hex = text.len() % 2 == 0 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            prop_assert_eq!(decode(&text).is_some(), is_hex);
        }
    }
}
