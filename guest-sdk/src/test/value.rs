//! Values and changes, as tests write them. This module does not know tables.

use std::collections::BTreeMap;

use crate::{Date, Op, Time, Timestamp, Uuid};

/// A cell of any kind. Rust values convert into it: `1.into()`, `"text".into()`,
/// `None::<i64>.into()`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// The update did not touch the value, and Postgres did not send it.
    Unchanged,
    /// A boolean.
    Boolean(bool),
    /// An integer of any width, or an oid.
    Integer(i64),
    /// A float of either width.
    Float(f64),
    /// A value that is transferred as text, such as numeric, json or an enum.
    Text(String),
    /// A bytea.
    Bytes(Vec<u8>),
    /// A UUID.
    Uuid(Uuid),
    /// A timestamp, with or without time zone.
    Timestamp(Timestamp),
    /// A date.
    Date(Date),
    /// A time of day.
    Time(Time),
    /// An array, composite, hstore or vector, as MessagePack.
    Packed(Vec<u8>),
}

/// The cells of a row, by column.
pub type Cells = BTreeMap<String, Value>;

/// A change, as Postgres sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The operation.
    pub op: Op,
    /// The new row; none for a delete. Columns that it lacks are NULL.
    pub new: Option<Cells>,
    /// The old row, if Postgres sends it. If it lacks a column of the table, it is the old key.
    pub old: Option<Cells>,
}

impl Change {
    /// An insert.
    pub fn insert<const N: usize>(new: [(&str, Value); N]) -> Change {
        Change { op: Op::Insert, new: Some(cells(new)), old: None }
    }

    /// A row of a snapshot.
    pub fn snapshot<const N: usize>(new: [(&str, Value); N]) -> Change {
        Change { op: Op::Snapshot, new: Some(cells(new)), old: None }
    }

    /// An update without an old row.
    pub fn update<const N: usize>(new: [(&str, Value); N]) -> Change {
        Change { op: Op::Update, new: Some(cells(new)), old: None }
    }

    /// A delete. `old` is the whole old row (REPLICA IDENTITY FULL), or its key.
    pub fn delete<const N: usize>(old: [(&str, Value); N]) -> Change {
        Change { op: Op::Delete, new: None, old: Some(cells(old)) }
    }

    /// Adds the old row of an update: all columns (REPLICA IDENTITY FULL), or the old key.
    #[must_use]
    pub fn with_old<const N: usize>(mut self, old: [(&str, Value); N]) -> Change {
        self.old = Some(cells(old));
        self
    }
}

fn cells<const N: usize>(cells: [(&str, Value); N]) -> Cells {
    cells.into_iter().map(|(column, value)| (column.to_owned(), value)).collect()
}

macro_rules! from {
    ($($rust:ty => |$v:ident| $value:expr;)*) => {$(
        impl From<$rust> for Value {
            fn from($v: $rust) -> Value {
                $value
            }
        }
    )*};
}

from! {
    bool => |v| Value::Boolean(v);
    i32 => |v| Value::Integer(v.into());
    i64 => |v| Value::Integer(v);
    f64 => |v| Value::Float(v);
    &str => |v| Value::Text(v.into());
    String => |v| Value::Text(v);
    &[u8] => |v| Value::Bytes(v.into());
    Uuid => |v| Value::Uuid(v);
    Timestamp => |v| Value::Timestamp(v);
    Date => |v| Value::Date(v);
    Time => |v| Value::Time(v);
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}
