//! Small redactions that most guests want.

use std::fmt;

/// An e-mail address of which the first character and the domain remain: `a***@example.org`. What holds no `@`
/// becomes `***`.
pub fn mask(text: &str) -> Masked<'_> {
    Masked(text)
}

/// See [`mask`].
#[derive(Clone, Copy, Debug)]
pub struct Masked<'a>(&'a str);

impl<'a> Masked<'a> {
    /// What it is written as, one behind the other.
    #[inline]
    pub(crate) fn parts(self) -> [&'a str; 3] {
        let Some(at) = last_at(self.0.as_bytes()) else {
            return ["***", "", ""];
        };
        let first = self.0[..at].chars().next().map_or(0, char::len_utf8);
        [&self.0[..first], "***", &self.0[at..]]
    }
}

/// Where the last `@` is. Eight bytes at a time: in wasm each turn of a loop also looks at the clock.
#[inline]
fn last_at(text: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::from_le_bytes([0x7f; 8]);
    let (rest, eights) = text.as_rchunks::<8>();
    for (index, eight) in eights.iter().enumerate().rev() {
        let differs = u64::from_le_bytes(*eight) ^ u64::from_le_bytes([b'@'; 8]);
        // The top bit of each byte that does not differ, and no other.
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
    fn what_remains() {
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
