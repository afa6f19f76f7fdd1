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
        let Some(at) = self.0.bytes().rposition(|byte| byte == b'@') else {
            return ["***", "", ""];
        };
        let first = self.0[..at].chars().next().map_or(0, char::len_utf8);
        [&self.0[..first], "***", &self.0[at..]]
    }
}

impl fmt::Display for Masked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().into_iter().try_for_each(|part| f.write_str(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
