//! The body of `cdc.{t}`: a MessagePack sequence of one table's consecutive changes.
//!
//! ```text
//! ["b", lsn, xid, at]               the changes that follow belong to this transaction
//! ["i", n, row]                     row: one value per column, in schema order
//! ["u", n, row, unchanged?, old?]   unchanged: indexes of columns not sent (nil in row)
//! ["d", n, old]                     old: one value for each index of the schema's `old`
//! ["t", n]                          truncate
//! ```
//!
//! `n` is the ordinal of the change in its transaction. This module does not know the types of
//! columns, nor how bodies are compressed or cut into parts.

use crate::{Caps, DecodeError, Lsn, Position, Reader, Value, pack};

/// Writes a body of changes.
///
/// The caller knows the columns: it appends the values of rows to [`ChangeWriter::out`] itself.
#[derive(Debug, Default)]
pub struct ChangeWriter {
    /// The body so far.
    pub out: Vec<u8>,
}

impl ChangeWriter {
    /// Starts a transaction. The changes after it belong to this transaction.
    ///
    /// `lsn` is the start of its commit record, `at` its commit time in microseconds since 1970.
    pub fn transaction(&mut self, lsn: Lsn, xid: u32, at: i64) {
        pack::array(&mut self.out, 4);
        pack::str(&mut self.out, "b");
        pack::uint(&mut self.out, lsn.0);
        pack::uint(&mut self.out, u64::from(xid));
        pack::int(&mut self.out, at);
    }

    /// Starts an insert. The caller appends the row.
    pub fn insert(&mut self, ordinal: u32) {
        self.begin_change("i", ordinal, 3);
    }

    /// Starts an update. The caller appends up to three items:
    /// 1. the row;
    /// 2. if `has_unchanged || has_old`: the array of unchanged indexes, or nil;
    /// 3. if `has_old`: the array of old values.
    pub fn update(&mut self, ordinal: u32, has_unchanged: bool, has_old: bool) {
        let len = if has_old { 5 } else { 3 + usize::from(has_unchanged) };
        self.begin_change("u", ordinal, len);
    }

    /// Starts a delete. The caller appends the array of old values.
    pub fn delete(&mut self, ordinal: u32) {
        self.begin_change("d", ordinal, 3);
    }

    /// Writes a truncate.
    pub fn truncate(&mut self, ordinal: u32) {
        self.begin_change("t", ordinal, 2);
    }

    fn begin_change(&mut self, op: &str, ordinal: u32, len: usize) {
        pack::array(&mut self.out, len);
        pack::str(&mut self.out, op);
        pack::uint(&mut self.out, u64::from(ordinal));
    }
}

/// The operation of a change.
///
/// A `row` has one value per column of the schema. Old rows have one value for each index of the
/// schema's `old`.
#[derive(Clone, Debug, PartialEq)]
pub enum Op<'a> {
    /// A row was inserted.
    Insert {
        /// The new row.
        row: Vec<Value<'a>>,
    },
    /// A row was updated.
    Update {
        /// The new row, with nil for each column of `unchanged`.
        row: Vec<Value<'a>>,
        /// Indexes of columns whose value was not sent: they keep the value that they had.
        unchanged: Vec<usize>,
        /// The old row, if Postgres logged it.
        old: Option<Vec<Value<'a>>>,
    },
    /// A row was deleted.
    Delete {
        /// The old row.
        old: Vec<Value<'a>>,
    },
    /// All rows were deleted.
    Truncate,
}

/// One change with its position and transaction. Its values borrow from the body.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<'a> {
    /// Commit record of the transaction, and ordinal of the change in it.
    pub position: Position,
    /// The transaction id, as Postgres logs it: 32 bits that wrap around.
    pub xid: u32,
    /// Commit time in microseconds since 1970.
    pub at: i64,
    /// What happened to the table.
    pub op: Op<'a>,
}

/// Decodes a decompressed body of changes to a table with `columns` columns.
///
/// # Errors
/// If the body is malformed, does not fit the number of columns, or exceeds `caps`.
pub fn decode_changes<'a>(
    body: &'a [u8],
    columns: usize,
    caps: &Caps,
) -> Result<Vec<Change<'a>>, DecodeError> {
    let mut reader = Reader::new(body, caps);
    let mut changes = Vec::new();
    let mut transaction = None;
    while !reader.is_empty() {
        let len = reader.array()?;
        let op = reader.str()?;
        if op == "b" {
            if len != 4 {
                return reader.fail("a transaction mark has four values");
            }
            transaction = Some((reader.lsn()?, reader.u32()?, reader.int()?));
            continue;
        }
        let Some((lsn, xid, at)) = transaction else {
            return reader.fail("a change stands before the first transaction mark");
        };
        let ordinal = reader.u32()?;
        let op = decode_operation(&mut reader, op, len, columns)?;
        changes.push(Change { position: Position::new(lsn, ordinal), xid, at, op });
    }
    Ok(changes)
}

fn decode_operation<'a>(
    reader: &mut Reader<'a>,
    op: &str,
    len: usize,
    columns: usize,
) -> Result<Op<'a>, DecodeError> {
    match (op, len) {
        ("i", 3) => Ok(Op::Insert { row: reader.full_row(columns)? }),
        ("u", 3..=5) => {
            let row = reader.full_row(columns)?;
            let unchanged = if len == 3 || reader.nil() {
                vec![]
            } else {
                reader.unchanged_indexes(columns)?
            };
            let old = if len == 5 { Some(reader.row()?) } else { None };
            Ok(Op::Update { row, unchanged, old })
        }
        ("d", 3) => Ok(Op::Delete { old: reader.row()? }),
        ("t", 2) => Ok(Op::Truncate),
        _ => reader.fail("an operation that this version does not know"),
    }
}

impl<'a> Reader<'a> {
    fn lsn(&mut self) -> Result<Lsn, DecodeError> {
        let value = self.int()?;
        u64::try_from(value).map(Lsn).or_else(|_| self.fail("a log position below zero"))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        let value = self.int()?;
        u32::try_from(value).or_else(|_| self.fail("an ordinal or transaction id beyond 32 bits"))
    }

    fn full_row(&mut self, columns: usize) -> Result<Vec<Value<'a>>, DecodeError> {
        let row = self.row()?;
        if row.len() == columns {
            Ok(row)
        } else {
            self.fail("a row does not have as many values as its schema has columns")
        }
    }

    fn unchanged_indexes(&mut self, columns: usize) -> Result<Vec<usize>, DecodeError> {
        let len = self.array()?;
        if len > columns {
            return self.fail("more unchanged columns than the schema has");
        }
        let index = |reader: &mut Self| match usize::try_from(reader.int()?) {
            Ok(index) if index < columns => Ok(index),
            _ => reader.fail("an unchanged column that the schema does not have"),
        };
        (0..len).map(|_| index(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_operation_round_trips() {
        let mut writer = ChangeWriter::default();
        let row = |out: &mut Vec<u8>, id: i64| {
            pack::array(out, 2);
            pack::int(out, id);
            pack::nil(out);
        };
        writer.transaction(Lsn(0x16_B374_D848), 7, -5);
        writer.insert(1);
        row(&mut writer.out, 10);
        writer.update(2, true, false);
        row(&mut writer.out, 11);
        pack::array(&mut writer.out, 1);
        pack::int(&mut writer.out, 1);
        writer.transaction(Lsn(0x16_B374_D900), 8, 9);
        writer.update(1, false, true);
        row(&mut writer.out, 12);
        pack::nil(&mut writer.out);
        pack::array(&mut writer.out, 1);
        pack::int(&mut writer.out, 11);
        writer.delete(2);
        pack::array(&mut writer.out, 1);
        pack::int(&mut writer.out, 12);
        writer.truncate(3);

        let changes = decode_changes(&writer.out, 2, &Caps::default()).unwrap();
        let ops: Vec<_> =
            changes.iter().map(|c| (c.position.ordinal, c.xid, c.op.clone())).collect();
        let row = |id| vec![Value::Int(id), Value::Nil];
        assert_eq!(
            ops,
            [
                (1, 7, Op::Insert { row: row(10) }),
                (2, 7, Op::Update { row: row(11), unchanged: vec![1], old: None }),
                (
                    1,
                    8,
                    Op::Update { row: row(12), unchanged: vec![], old: Some(vec![Value::Int(11)]) }
                ),
                (2, 8, Op::Delete { old: vec![Value::Int(12)] }),
                (3, 8, Op::Truncate),
            ]
        );
        assert_eq!(changes[0].position.commit_lsn, Lsn(0x16_B374_D848));
        assert_eq!(changes[4].at, 9);
    }

    #[test]
    fn what_the_schema_does_not_have_is_refused() {
        let refused = |write: &dyn Fn(&mut ChangeWriter)| {
            let mut writer = ChangeWriter::default();
            write(&mut writer);
            decode_changes(&writer.out, 1, &Caps::default()).unwrap_err().what
        };
        let what = refused(&|writer| {
            pack::array(&mut writer.out, 4);
            pack::str(&mut writer.out, "b");
            (0..3).for_each(|_| pack::int(&mut writer.out, -1));
        });
        assert_eq!(what, "a log position below zero");
        let what = refused(&|writer| {
            writer.transaction(Lsn(1), 1, 1);
            writer.update(1, true, false);
            pack::array(&mut writer.out, 1);
            pack::nil(&mut writer.out);
            pack::array(&mut writer.out, 1000);
            (0..1000).for_each(|_| pack::int(&mut writer.out, 0));
        });
        assert_eq!(what, "more unchanged columns than the schema has");
    }

    proptest! {
        #[test]
        fn garbage_is_refused_not_panicked(body: Vec<u8>, columns in 0usize..4) {
            let _ = decode_changes(&body, columns, &Caps::default());
        }
    }
}
