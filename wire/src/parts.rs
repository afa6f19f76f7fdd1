//! Bodies that are larger than a message: they are split into parts, and each part is numbered.
//!
//! This module does not know how large a message may be.

use std::{fmt, str::FromStr};

/// The value of the header `Wg-Part`, `2/5` for instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of this part, from 1 to `of`.
    pub number: u32,
    /// Number of parts of the body.
    pub of: u32,
}

impl Part {
    /// Whether the body is complete with this part.
    pub fn is_last(self) -> bool {
        self.number == self.of
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parsed = s.split_once('/').and_then(|(number, of)| {
            Some(Part { number: number.parse().ok()?, of: of.parse().ok()? })
        });
        parsed
            .filter(|p| (1..=p.of).contains(&p.number))
            .ok_or_else(|| format!("'{s}' is not a part: expected number/of"))
    }
}

/// Splits `body` into pieces of at most `max_bytes` bytes. `max_bytes` must not be 0.
///
/// A body that fits is one piece without a [`Part`].
///
/// ```
/// use walgate_wire::split_into_parts;
///
/// let pieces: Vec<_> = split_into_parts(b"abcde", 2).map(|(_, piece)| piece).collect();
/// assert_eq!(pieces, [&b"ab"[..], b"cd", b"e"]);
/// assert_eq!(split_into_parts(b"abcde", 9).collect::<Vec<_>>(), [(None, &b"abcde"[..])]);
/// ```
pub fn split_into_parts(
    body: &[u8],
    max_bytes: usize,
) -> impl Iterator<Item = (Option<Part>, &[u8])> {
    let of = body.len().div_ceil(max_bytes).max(1);
    (0..of).map(move |i| {
        let piece = &body[i * max_bytes..body.len().min((i + 1) * max_bytes)];
        let part = (of > 1).then_some(Part { number: i as u32 + 1, of: of as u32 });
        (part, piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_make_up_the_body(body: Vec<u8>, max in 1usize..40) {
            let pieces: Vec<_> = split_into_parts(&body, max).collect();
            prop_assert_eq!(pieces.iter().flat_map(|p| p.1).copied().collect::<Vec<_>>(), &body[..]);
            prop_assert!(pieces.iter().all(|p| p.1.len() <= max));
            if pieces.len() > 1 {
                for (i, (part, _)) in pieces.iter().enumerate() {
                    let part = part.unwrap();
                    prop_assert_eq!(part.number as usize, i + 1);
                    prop_assert_eq!(part.of as usize, pieces.len());
                    prop_assert_eq!(part.to_string().parse::<Part>().unwrap(), part);
                }
            }
        }

        #[test]
        fn garbage_is_refused(s: String) {
            let _ = s.parse::<Part>();
        }
    }
}
