//! The short texts in subjects and headers: names, tokens, positions and parts.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use walgate_wire::{Lsn, PROGRESS_SUBJECT, Part, StreamPosition, TableName, Token, subjects};

/// Every accepted text round-trips. A token is legal in subjects and KV keys, and identifies its
/// table.
pub fn check_names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    check_round_trip::<TableName>(text);
    check_round_trip::<StreamPosition>(text);
    check_round_trip::<Lsn>(text);
    if let Some(part) = check_round_trip::<Part>(text) {
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

fn check_round_trip<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value = text.parse::<T>().ok()?;
    assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(&value), "{text}");
    Some(value)
}

/// Asserts that a token is one token of a subject without wildcards, and legal in a KV key.
///
/// It must not form the subject of progress messages.
pub fn check_token(token: &Token) {
    let text = token.as_str();
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte);
    assert!(!text.is_empty() && text.bytes().all(legal), "{text}");
    assert_eq!(Token::parse(text).unwrap().as_str(), text);
    assert_eq!(subjects::cdc(token).split('.').count(), 2);
    assert_ne!(subjects::cdc(token), PROGRESS_SUBJECT);
}
