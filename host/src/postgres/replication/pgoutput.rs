//! pgoutput, protocol version 1: bytes of one XLogData frame → one borrowed message.
//!
//! Pure and total: any bytes become a message or [`Malformed`]. Positions, tables, the
//! configuration and the socket are not known here.

use walgate_wire::{Identity, Lsn, TableName};

use crate::rows::{Malformed, OldTuple, Tuple, walk};

/// Microseconds between 1970-01-01 and 2000-01-01, the epoch of Postgres.
pub const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// One message. Times are microseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    Begin {
        /// Start of the commit record that will end the transaction.
        final_lsn: Lsn,
        at_micros: i64,
        xid: u32,
    },
    Commit {
        commit_lsn: Lsn,
        end_lsn: Lsn,
        at_micros: i64,
    },
    /// Shape of the relation's tuples from here on.
    Relation(Relation),
    Insert {
        relid: u32,
        new: Tuple<'a>,
    },
    Update {
        relid: u32,
        old: Option<OldTuple<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        relid: u32,
        old: OldTuple<'a>,
    },
    Truncate(Truncated<'a>),
    /// Type names, replication origins and logical messages, which the gateway does not need.
    Other,
}

/// A Relation message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub relid: u32,
    pub namespace: String,
    pub name: String,
    pub identity: Identity,
    pub columns: Vec<RelationColumn>,
}

impl Relation {
    pub fn table_name(&self) -> TableName {
        TableName::new(self.namespace.clone(), self.name.clone())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    pub name: String,
    /// Part of the replica identity. Under FULL every column is.
    pub key: bool,
    pub oid: u32,
    pub typmod: i32,
}

/// The relations of a truncate, four bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated<'a>(&'a [u8]);

impl Truncated<'_> {
    pub fn relids(&self) -> impl Iterator<Item = u32> {
        self.0.as_chunks::<4>().0.iter().map(|relid| u32::from_be_bytes(*relid))
    }
}

/// Reads one message.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let (&tag, body) =
        bytes.split_first().ok_or(Malformed { tag: 0, at: 0, what: "an empty message" })?;
    let mut cursor = Cursor { tag, body, at: 0 };
    let message = match tag {
        b'I' => {
            let relid = cursor.u32()?;
            cursor.expect(b'N')?;
            Message::Insert { relid, new: cursor.tuple() }
        }
        b'U' => cursor.update()?,
        b'D' => {
            let relid = cursor.u32()?;
            let key_only =
                cursor.old_marker()?.ok_or_else(|| cursor.malformed("expected K or O"))?;
            Message::Delete { relid, old: OldTuple { tuple: cursor.tuple(), key_only } }
        }
        b'B' => {
            let final_lsn = Lsn(cursor.u64()?);
            let at = cursor.u64()? as i64;
            Message::Begin { final_lsn, at_micros: unix_micros(at), xid: cursor.u32()? }
        }
        b'C' => {
            cursor.u8()?;
            let commit_lsn = Lsn(cursor.u64()?);
            let end_lsn = Lsn(cursor.u64()?);
            let at = cursor.u64()? as i64;
            Message::Commit { commit_lsn, end_lsn, at_micros: unix_micros(at) }
        }
        b'R' => Message::Relation(cursor.relation()?),
        b'T' => cursor.truncate()?,
        b'Y' | b'O' | b'M' => return Ok(Message::Other),
        _ => return Err(cursor.malformed("a message that protocol version 1 does not have")),
    };
    cursor.end()?;
    Ok(message)
}

/// From Postgres' epoch to that of Unix.
pub fn unix_micros(postgres_micros: i64) -> i64 {
    postgres_micros.saturating_add(POSTGRES_EPOCH_MICROS)
}

struct Cursor<'a> {
    tag: u8,
    body: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { tag: self.tag, at: self.at + 1, what }
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.at == self.body.len() {
            Ok(())
        } else {
            Err(self.malformed("bytes follow the message"))
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((bytes, _)) = self.body[self.at..].split_first_chunk::<N>() else {
            return Err(self.malformed("the message ends too early"));
        };
        self.at += N;
        Ok(*bytes)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Result<String, Malformed> {
        let rest = &self.body[self.at..];
        let Some(len) = rest.iter().position(|&b| b == 0) else {
            return Err(self.malformed("a name without its terminating zero"));
        };
        let text =
            std::str::from_utf8(&rest[..len]).map_err(|_| self.malformed("a name is not UTF-8"))?;
        self.at += len + 1;
        Ok(text.to_owned())
    }

    fn expect(&mut self, marker: u8) -> Result<(), Malformed> {
        if self.u8()? == marker { Ok(()) } else { Err(self.malformed("expected a new tuple (N)")) }
    }

    /// The rest of the message.
    fn tuple(&mut self) -> Tuple<'a> {
        let bytes = &self.body[self.at..];
        self.at = self.body.len();
        Tuple { bytes }
    }

    /// `Some(key_only)` if an old tuple begins here.
    fn old_marker(&mut self) -> Result<Option<bool>, Malformed> {
        let key_only = match self.body.get(self.at) {
            Some(b'K') => true,
            Some(b'O') => false,
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(key_only))
    }

    fn update(&mut self) -> Result<Message<'a>, Malformed> {
        let relid = self.u32()?;
        let mut old = None;
        if let Some(key_only) = self.old_marker()? {
            let rest = &self.body[self.at..];
            let len = walk(rest, |_| ())?;
            old = Some(OldTuple { tuple: Tuple { bytes: &rest[..len] }, key_only });
            self.at += len;
        }
        self.expect(b'N')?;
        Ok(Message::Update { relid, old, new: self.tuple() })
    }

    fn truncate(&mut self) -> Result<Message<'a>, Malformed> {
        let count = self.u32()? as usize;
        self.u8()?;
        let relids = &self.body[self.at..];
        if !relids.len().is_multiple_of(4) || relids.len() / 4 != count {
            return Err(self.malformed("the list of relations does not have the announced length"));
        }
        self.at = self.body.len();
        Ok(Message::Truncate(Truncated(relids)))
    }

    fn relation(&mut self) -> Result<Relation, Malformed> {
        let relid = self.u32()?;
        let namespace = match self.string()? {
            empty if empty.is_empty() => "pg_catalog".to_owned(),
            namespace => namespace,
        };
        let name = self.string()?;
        let identity = match self.u8()? {
            b'd' => Identity::Default,
            b'i' => Identity::Index,
            b'f' => Identity::Full,
            b'n' => Identity::Nothing,
            _ => return Err(self.malformed("a replica identity that is not d, i, f or n")),
        };
        let count = self.u16()?;
        let columns = (0..count).map(|_| self.relation_column()).collect::<Result<_, _>>()?;
        Ok(Relation { relid, namespace, name, identity, columns })
    }

    fn relation_column(&mut self) -> Result<RelationColumn, Malformed> {
        let key = self.u8()? & 1 == 1;
        Ok(RelationColumn {
            key,
            name: self.string()?,
            oid: self.u32()?,
            typmod: self.u32()? as i32,
        })
    }
}

#[cfg(test)]
#[path = "pgoutput_tests.rs"]
mod tests;
