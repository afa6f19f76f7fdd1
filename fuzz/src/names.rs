//! Names, tokens, subjects, positions, parts: the short texts in subjects and headers.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use walgate_wire::{Lsn, PROGRESS_SUBJECT, Part, StreamPosition, TableName, Token, subjects};

/// An accepted text is printed, and reads as the same. A token is valid in a subject and in a KV
/// key, and no two tables share one.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    reads_back::<TableName>(text);
    reads_back::<StreamPosition>(text);
    reads_back::<Lsn>(text);
    if let Some(part) = reads_back::<Part>(text) {
        assert!(part.number >= 1 && part.number <= part.of);
    }
    if let Ok(name) = text.parse::<TableName>() {
        check_token(&name.token());
        let again = name.to_string().parse::<TableName>().unwrap();
        assert_eq!(again.token(), name.token());
    }
    if let Some(Ok(token)) = text.strip_prefix(subjects::REQUEST_PREFIX).map(Token::parse) {
        assert_eq!(subjects::snapshot_request(&token), text);
    }
    if let Ok(token) = Token::parse(text) {
        assert_eq!(token.as_str(), text);
        check_token(&token);
    }
    if !text.is_empty() {
        check_token(&Token::of_alias(text));
    }
}

fn reads_back<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value = text.parse::<T>().ok()?;
    assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(&value), "{text}");
    Some(value)
}

/// A single token of a subject: no wildcard, legal in a KV key, not the subject of progress.
pub fn check_token(token: &Token) {
    let text = token.as_str();
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte);
    assert!(!text.is_empty() && text.bytes().all(legal), "{text}");
    assert_eq!(Token::parse(text).unwrap().as_str(), text);
    assert_eq!(subjects::cdc(token).split('.').count(), 2);
    assert_ne!(subjects::cdc(token), PROGRESS_SUBJECT);
}
