//! Extracts single members of a JSON object in place.
//!
//! It is for text that Postgres has validated: text that is not JSON has no members. This module
//! does not know the columns.

use std::borrow::Cow;

/// The member `name`, if it is a string.
pub fn string_member<'a>(object: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let value = member_text(object, name)?;
    unescape(value.strip_prefix('"')?.strip_suffix('"')?)
}

/// The text of the member `name`, if it is a number without an exponent.
///
/// Numeric columns do not accept exponents.
pub fn number_member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let value = member_text(object, name)?;
    let plain = value.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.'));
    plain.then_some(value)
}

/// The JSON text of the member `name`.
fn member_text<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = object.trim_start().strip_prefix('{')?.trim_start();
    while rest.starts_with('"') {
        let key = &rest[..value_len(rest)?];
        let after = rest[key.len()..].trim_start().strip_prefix(':')?.trim_start();
        let value = &after[..value_len(after)?];
        if unescape(&key[1..key.len() - 1])? == name {
            return Some(value.trim_end());
        }
        rest = after[value.len()..].trim_start().strip_prefix(',')?.trim_start();
    }
    None
}

/// Length of the value at the start, up to a comma or closing bracket. A string ends with its
/// quote.
fn value_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0usize, 0);
    loop {
        match bytes.get(at)? {
            b'"' => {
                at += string_len(&bytes[at..])?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b',' | b'}' | b']' if depth == 0 => return Some(at),
            _ => {}
        }
        at += 1;
    }
}

/// Length of the string at the start, with both quotes.
fn string_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// Replaces the escapes of a JSON string.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('\\') {
        return Some(text.into());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let escaped = after.chars().next()?;
        rest = &after[escaped.len_utf8()..];
        match escaped {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'u' => {
                let (c, left) = unescape_unicode(rest)?;
                out.push(c);
                rest = left;
            }
            other => out.push(other),
        }
    }
    out.push_str(rest);
    Some(out.into())
}

/// The character of `\u` escapes, and the rest: four hex digits, or a surrogate pair of `\u`
/// escapes.
fn unescape_unicode(text: &str) -> Option<(char, &str)> {
    let unit = |text: &str| u16::from_str_radix(text.get(..4)?, 16).ok();
    let first = unit(text)?;
    if let Some(c) = char::from_u32(first.into()) {
        return Some((c, &text[4..]));
    }
    let second = unit(text[4..].strip_prefix("\\u")?)?;
    let c = char::decode_utf16([first, second]).next()?.ok()?;
    Some((c, &text[10..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_after_others() {
        let json = r#"{"a": {"colour": "no"}, "b": ["}", 1], "colour": "grün\n\u00e9\ud83e\udd80", "n": -1.50}"#;
        assert_eq!(string_member(json, "colour").as_deref(), Some("grün\né🦀"));
        assert_eq!(number_member(json, "n"), Some("-1.50"));
        assert_eq!(string_member(json, "n"), None);
        assert_eq!(number_member(json, "missing"), None);
    }

    #[test]
    fn text_that_is_not_an_object_has_no_members() {
        for json in [
            "",
            "null",
            "[1]",
            "{",
            "{\"a",
            "{\"a\":",
            "{\"a\":\"",
            "{\"a\":\"\\",
            "{\"a\":\"\\u12\"}",
            "{}",
        ] {
            assert_eq!(string_member(json, "a"), None, "{json}");
        }
    }
}
