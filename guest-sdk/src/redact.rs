//! Redactions that many guests need. This module does not know columns.

use std::fmt;

/// Masks an e-mail address, but for its first character and its domain.
///
/// A text without `@` becomes `***`.
///
/// ```
/// use walgate_guest::mask;
///
/// assert_eq!(mask("ada@example.org").to_string(), "a***@example.org");
/// assert_eq!(mask("ada").to_string(), "***");
/// ```
pub fn mask(text: &str) -> Masked<'_> {
    Masked(text)
}

/// A masked text, see [`mask`]. A text column can be set to it without allocating a string.
#[derive(Clone, Copy, Debug)]
pub struct Masked<'a>(&'a str);

impl<'a> Masked<'a> {
    /// The parts of the masked text, in order.
    #[inline]
    pub(crate) fn parts(self) -> [&'a str; 3] {
        let Some(at) = last_at(self.0.as_bytes()) else {
            return ["***", "", ""];
        };
        let first = self.0[..at].chars().next().map_or(0, char::len_utf8);
        [&self.0[..first], "***", &self.0[at..]]
    }
}

/// The index of the last `@`.
///
/// It compares eight bytes at a time, because in wasm each iteration of a loop also checks the
/// deadline of the call.
#[inline]
fn last_at(text: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::from_le_bytes([0x7f; 8]);
    let (rest, eights) = text.as_rchunks::<8>();
    for (index, eight) in eights.iter().enumerate().rev() {
        let differs = u64::from_le_bytes(*eight) ^ u64::from_le_bytes([b'@'; 8]);
        // Only the top bits of the bytes that are equal.
        let found = !(((differs & LOW) + LOW) | differs | LOW);
        if found != 0 {
            let byte = 7 - found.leading_zeros() as usize / 8;
            return Some(rest.len() + 8 * index + byte);
        }
    }
    rest.iter().rposition(|byte| *byte == b'@')
}

impl fmt::Display for Masked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().into_iter().try_for_each(|part| f.write_str(part))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_last_at_is_found(text in "[@?A\u{c0}\u{2040}a]{0,40}") {
            prop_assert_eq!(last_at(text.as_bytes()), text.rfind('@'));
        }
    }

    #[test]
    fn the_first_character_and_the_domain_remain() {
        for (text, masked) in [
            ("ada@example.org", "a***@example.org"),
            ("ünal@example.org", "ü***@example.org"),
            ("@example.org", "***@example.org"),
            ("\"a@b\"@example.org", "\"***@example.org"),
            ("nothing", "***"),
            ("", "***"),
        ] {
            assert_eq!(mask(text).to_string(), masked);
        }
    }
}
