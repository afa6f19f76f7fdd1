//! The name of a table on the wire: its token, and the subjects and keys that contain the token.
//!
//! Two tables never share a token. A token is legal as one token of a NATS subject and as a KV key.
//! This module does not know which tables exist.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Subject of progress messages: ends of transactions, and heartbeats.
///
/// It cannot be the subject of a table: in a token two hex digits follow each `=`.
pub const PROGRESS_SUBJECT: &str = "cdc.=progress";

/// A table's name in Postgres, unquoted.
///
/// ```
/// use walgate_wire::TableName;
///
/// let name: TableName = "sales.orders".parse()?;
/// assert_eq!(name, TableName::new("sales", "orders"));
/// assert_eq!(name.token().as_str(), "sales=2Eorders");
/// # Ok::<(), walgate_wire::InvalidName>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema, `public` for instance.
    pub schema: String,
    /// The table in that schema.
    pub table: String,
}

impl TableName {
    /// The table `table` of the schema `schema`, both unquoted.
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        TableName { schema: schema.into(), table: table.into() }
    }

    /// The table's token: `users` for `public.users`, `sales=2Eorders` for `sales.orders`.
    ///
    /// It is the name as a user writes it, with every byte outside `[A-Za-z0-9_-]` as `=XX`. A part
    /// that contains a dot or a quote is quoted as in SQL first, so that no two tables share a
    /// token.
    pub fn token(&self) -> Token {
        let table = quote_where_needed(&self.table);
        if self.schema == "public" {
            return Token::escape(&table);
        }
        Token::escape(&format!("{}.{table}", quote_where_needed(&self.schema)))
    }
}

fn quote_where_needed(part: &str) -> String {
    if part.contains(['.', '"']) || part.is_empty() {
        format!("\"{}\"", part.replace('"', "\"\""))
    } else {
        part.to_owned()
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quote_where_needed(&self.schema), quote_where_needed(&self.table))
    }
}

impl FromStr for TableName {
    type Err = InvalidName;

    /// Parses `users` (schema `public`), `sales.orders` and `"odd.schema"."odd ""table"`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName(text.to_owned());
        let (first, rest) = take_part(text).ok_or_else(invalid)?;
        let Some(rest) = rest.strip_prefix('.') else {
            return if rest.is_empty() {
                Ok(TableName::new("public", first))
            } else {
                Err(invalid())
            };
        };
        match take_part(rest) {
            Some((second, "")) => Ok(TableName::new(first, second)),
            _ => Err(invalid()),
        }
    }
}

/// Splits off the first part of a name, and removes its quotes. The rest begins with a dot or is
/// empty.
fn take_part(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        let part = &text[..end];
        return (!part.is_empty() && !part.contains('"')).then(|| (part.to_owned(), &text[end..]));
    };
    let mut part = String::new();
    let mut rest = quoted;
    loop {
        let end = rest.find('"')?;
        part.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => rest = after,
            None => return Some((part, rest)),
        }
        part.push('"');
    }
}

/// A table's name in subjects and KV keys. It consists of `[A-Za-z0-9_-]` and `=XX`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    fn escape(text: &str) -> Token {
        let mut token = String::with_capacity(text.len() + 8);
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
                token.push(char::from(byte));
            } else {
                token.push_str(&format!("={byte:02X}"));
            }
        }
        Token(token)
    }

    /// Checks a token that arrived in a subject: it must be one that [`TableName::token`] can
    /// return.
    ///
    /// # Errors
    /// If it is empty or contains other characters. The error holds at most 80 characters of it.
    pub fn parse(text: &str) -> Result<Token, InvalidName> {
        let invalid = || InvalidName(text.chars().take(80).collect());
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            if byte == b'=' {
                let code = [bytes.next().ok_or_else(invalid)?, bytes.next().ok_or_else(invalid)?];
                let is_digit = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
                if !code.into_iter().all(is_digit) {
                    return Err(invalid());
                }
            } else if !(byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
                return Err(invalid());
            }
        }
        if text.is_empty() { Err(invalid()) } else { Ok(Token(text.to_owned())) }
    }

    /// The token of an alias that the operator gave the table in the configuration.
    pub fn of_alias(alias: &str) -> Token {
        Token::escape(alias)
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The KV key of the table's dictionary: `users_dict`.
    pub fn dictionary_key(&self) -> String {
        format!("{}_dict", self.0)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not a table name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a table name: write table, schema.table, or quote odd names as in SQL")]
pub struct InvalidName(pub String);

/// All NATS subjects of the protocol. `cdc.=progress` is [`PROGRESS_SUBJECT`].
pub mod subjects {
    use super::Token;

    /// The subjects of the stream of changes.
    pub const CDC_ALL: &str = "cdc.>";
    /// The subjects of the stream of snapshots.
    pub const INIT_ALL: &str = "init.>";
    /// The subjects of the stream of snapshot requests.
    pub const REQUESTS_ALL: &str = "snapshot.request.>";
    /// The subjects of the stream of dead letters.
    pub const DLQ_ALL: &str = "dlq.>";
    /// What precedes the token in the subject of a snapshot request.
    pub const REQUEST_PREFIX: &str = "snapshot.request.";

    /// The changes of a table.
    pub fn cdc(table: &Token) -> String {
        format!("cdc.{table}")
    }

    /// Requests for a snapshot of a table.
    pub fn snapshot_request(table: &Token) -> String {
        format!("{REQUEST_PREFIX}{table}")
    }

    /// The start of a snapshot: [`crate::InitStart`].
    pub fn init_start(table: &Token) -> String {
        format!("init.start.{table}")
    }

    /// The end of a snapshot: [`crate::InitMeta`].
    pub fn init_meta(table: &Token) -> String {
        format!("init.meta.{table}")
    }

    /// The failure of a snapshot: [`crate::InitError`].
    pub fn init_error(table: &Token) -> String {
        format!("init.error.{table}")
    }

    /// One chunk of a snapshot; chunks are numbered from 0.
    pub fn init_snap(table: &Token, snapshot_id: &str, chunk: u64) -> String {
        format!("init.snap.{table}.{snapshot_id}.{chunk}")
    }

    /// All chunks of one snapshot.
    pub fn init_snap_of(table: &Token, snapshot_id: &str) -> String {
        format!("init.snap.{table}.{snapshot_id}.>")
    }

    /// All chunks of all snapshots of a table.
    pub fn init_snap_all(table: &Token) -> String {
        format!("init.snap.{table}.>")
    }

    /// Rows that a table's guest failed on: [`crate::DeadLetter`].
    pub fn dlq(table: &Token) -> String {
        format!("dlq.{table}")
    }
}

/// The KV buckets. A bucket is a stream, its keys are subjects of that stream.
pub mod buckets {
    /// The bucket of schemas and of the epoch record.
    pub const SCHEMAS: &str = "schemas";
    /// The stream of [`SCHEMAS`].
    pub const SCHEMAS_STREAM: &str = "KV_schemas";
    /// What precedes a key of [`SCHEMAS`] in its subject.
    pub const SCHEMAS_PREFIX: &str = "$KV.schemas.";
    /// The bucket of dictionaries.
    pub const DICTIONARIES: &str = "dictionaries";
    /// The stream of [`DICTIONARIES`].
    pub const DICTIONARIES_STREAM: &str = "KV_dictionaries";
    /// What precedes a key of [`DICTIONARIES`] in its subject.
    pub const DICTIONARIES_PREFIX: &str = "$KV.dictionaries.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_of_the_contract() {
        assert_eq!(TableName::new("public", "users").token().as_str(), "users");
        assert_eq!(TableName::new("sales", "orders").token().as_str(), "sales=2Eorders");
    }

    proptest! {
        #[test]
        fn tokens_are_injective(a in ".{0,3}", b in ".{0,3}", c in "[a.\"=2E]{0,3}", d in "[a.\"=2E]{0,3}") {
            let (x, y) = (TableName::new(a.clone(), b), TableName::new(c.clone(), d.clone()));
            prop_assert_eq!(x == y, x.token() == y.token());
            let public = TableName::new("public", d.clone());
            let other = TableName::new(c, d);
            prop_assert_eq!(public == other, public.token() == other.token());
        }

        #[test]
        fn tokens_are_legal_and_parse(a: String, b: String) {
            let token = TableName::new(a, b).token();
            prop_assert!(token.as_str().bytes().all(|c| c.is_ascii_alphanumeric() || b"_-=".contains(&c)));
            prop_assert_eq!(Token::parse(token.as_str()).unwrap(), token);
        }

        #[test]
        fn names_round_trip(a in ".{1,6}", b in ".{1,6}") {
            let name = TableName::new(a, b);
            prop_assert_eq!(name.to_string().parse::<TableName>().unwrap(), name);
        }

        #[test]
        fn garbage_is_refused_not_panicked(s: String) {
            let _ = s.parse::<TableName>();
            let _ = Token::parse(&s);
        }
    }
}
