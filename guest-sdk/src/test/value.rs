//! Values and changes, as a test writes them.

use std::collections::BTreeMap;

use crate::{Date, Op, Time, Timestamp, Uuid};

/// A cell of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    /// An update left it alone and Postgres did not send it.
    Unchanged,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Uuid(Uuid),
    Timestamp(Timestamp),
    Date(Date),
    Time(Time),
    /// MessagePack.
    Packed(Vec<u8>),
}

/// A row's cells by column.
pub type Cells = BTreeMap<String, Value>;

/// One change. Columns that `new` does not have are NULL; an `old` that does not have all of them holds the key
/// alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub op: Op,
    pub new: Option<Cells>,
    pub old: Option<Cells>,
}

impl Change {
    pub fn insert<const N: usize>(new: [(&str, Value); N]) -> Change {
        Change { op: Op::Insert, new: Some(cells(new)), old: None }
    }

    /// A row of a snapshot.
    pub fn snapshot<const N: usize>(new: [(&str, Value); N]) -> Change {
        Change { op: Op::Snapshot, new: Some(cells(new)), old: None }
    }

    /// An update without its old row.
    pub fn update<const N: usize>(new: [(&str, Value); N]) -> Change {
        Change { op: Op::Update, new: Some(cells(new)), old: None }
    }

    pub fn delete<const N: usize>(old: [(&str, Value); N]) -> Change {
        Change { op: Op::Delete, new: None, old: Some(cells(old)) }
    }

    /// With the row as it was before: all columns (REPLICA IDENTITY FULL), or the old key.
    #[must_use]
    pub fn was<const N: usize>(mut self, old: [(&str, Value); N]) -> Change {
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
