//! UUIDs and their text form. This module does not know versions or variants.

use std::{fmt, str::FromStr};

/// A UUID as its 16 bytes.
///
/// ```
/// use walgate_guest::Uuid;
///
/// let id: Uuid = "0f8fad5b-d9cb-469f-a165-70867728950e".parse()?;
/// assert_eq!(id.0[0], 0x0f);
/// # Ok::<(), walgate_guest::NotUuid>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uuid(pub [u8; 16]);

/// A text that is not a UUID.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotUuid;

impl fmt::Display for NotUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a UUID: 32 hex digits, with or without hyphens")
    }
}

impl std::error::Error for NotUuid {}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let hyphen = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Uuid {
    type Err = NotUuid;

    fn from_str(text: &str) -> Result<Self, NotUuid> {
        let mut digits = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let mut digit = || digits.next().flatten().ok_or(NotUuid);
            *byte = (digit()? << 4 | digit()?) as u8;
        }
        if digits.next().is_some() { Err(NotUuid) } else { Ok(Uuid(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let text = "0f8fad5b-d9cb-469f-a165-70867728950e";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
        assert_eq!("0f".parse::<Uuid>(), Err(NotUuid));
        assert_eq!("zz8fad5b-d9cb-469f-a165-70867728950e".parse::<Uuid>(), Err(NotUuid));
    }
}
