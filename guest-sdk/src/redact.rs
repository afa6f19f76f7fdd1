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

impl fmt::Display for Masked<'_> {
    #[inline]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((local, domain)) = self.0.rsplit_once('@') else { return f.write_str("***") };
        let first = local.chars().next().map_or(0, char::len_utf8);
        f.write_str(&local[..first])?;
        f.write_str("***@")?;
        f.write_str(domain)
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
