//! Which Rust values a guest may set in a column of which Postgres type. One marker type a Postgres type, so that
//! the compiler checks it.

use std::borrow::Cow;
use std::fmt::{self, Write};

use crate::decisions::{Decisions, Writer, extend};
use crate::redact::Masked;
use crate::{Date, Decimal, Json, Numeric, Time, Timestamp, Uuid};

/// A value that a column of the Postgres type `T` can be set to. `None` is NULL.
#[diagnostic::on_unimplemented(
    message = "a column of the Postgres type `{T}` cannot be set to a value of type `{Self}`",
    label = "not a value for this column",
    note = "the type of an output column is the second word of replace(\"column\", \"type\") or add(\"column\", \"type\")"
)]
pub trait Fits<T> {
    #[doc(hidden)]
    fn write(self, cell: Cell<'_>);
}

/// Where a value goes.
#[doc(hidden)]
#[derive(Debug)]
pub struct Cell<'o> {
    column: &'o mut Writer,
    row: usize,
}

/// Sets the current row's value in output column `index`.
#[doc(hidden)]
#[inline]
pub fn set<T>(decisions: &mut Decisions, index: usize, value: impl Fits<T>) {
    let (column, row) = decisions.column(index);
    value.write(Cell { column, row });
}

/// Postgres types, for [`Fits`].
pub mod types {
    macro_rules! markers {
        ($($name:ident)*) => {$(
            #[derive(Clone, Copy, Debug)]
            pub enum $name {}
        )*};
    }
    markers! { Bool Int2 Int4 Int8 Float4 Float8 Numeric Text Bytea Uuid Json Timestamp Date Time }
}

impl<T, V: Fits<T>> Fits<T> for Option<V> {
    #[inline]
    fn write(self, cell: Cell<'_>) {
        match self {
            Some(value) => value.write(cell),
            None => cell.column.null(cell.row),
        }
    }
}

macro_rules! fixed {
    ($($rust:ty => $($marker:ident)*: |$v:ident| $bytes:expr;)*) => {$($(
        impl Fits<types::$marker> for $rust {
            #[inline]
            fn write(self, cell: Cell<'_>) {
                let $v = self;
                cell.column.fixed(cell.row, $bytes);
            }
        }
    )*)*};
}

fixed! {
    bool => Bool: |v| [u8::from(v)];
    i16 => Int2 Int4 Int8: |v| i64::from(v).to_le_bytes();
    i32 => Int4 Int8: |v| i64::from(v).to_le_bytes();
    i64 => Int8: |v| v.to_le_bytes();
    u32 => Int8: |v| i64::from(v).to_le_bytes();
    f32 => Float4 Float8: |v| f64::from(v).to_le_bytes();
    f64 => Float8: |v| v.to_le_bytes();
    Uuid => Uuid: |v| v.0;
    Timestamp => Timestamp: |v| v.0.to_le_bytes();
    Date => Date: |v| v.0.to_le_bytes();
    Time => Time: |v| v.0.to_le_bytes();
}

macro_rules! bytes {
    ($($rust:ty => $($marker:ident)*: |$v:ident| $bytes:expr;)*) => {$($(
        impl Fits<types::$marker> for $rust {
            #[inline]
            fn write(self, cell: Cell<'_>) {
                let $v = &self;
                extend(cell.column.bytes(cell.row), $bytes);
            }
        }
    )*)*};
}

bytes! {
    &str => Text Json Numeric: |v| v.as_bytes();
    String => Text Json Numeric: |v| v.as_bytes();
    &String => Text Json Numeric: |v| v.as_bytes();
    Cow<'_, str> => Text Json Numeric: |v| v.as_bytes();
    Json<'_> => Text Json: |v| v.0.as_bytes();
    Numeric<'_> => Text Numeric: |v| v.0.as_bytes();
    &[u8] => Bytea: |v| v;
    Vec<u8> => Bytea: |v| v;
}

macro_rules! displayed {
    ($($rust:ty => $($marker:ident)*;)*) => {$($(
        impl Fits<types::$marker> for $rust {
            #[inline]
            fn write(self, cell: Cell<'_>) {
                // Writing to memory cannot fail.
                let _ = write!(Text(cell.column.bytes(cell.row)), "{self}");
            }
        }
    )*)*};
}

displayed! {
    fmt::Arguments<'_> => Text Json Numeric;
    Decimal => Text Numeric;
    i16 => Numeric;
    i32 => Numeric;
    i64 => Numeric;
    u32 => Numeric;
}

impl Fits<types::Text> for Masked<'_> {
    #[inline]
    fn write(self, cell: Cell<'_>) {
        let bytes = cell.column.bytes(cell.row);
        self.parts().into_iter().for_each(|part| extend(bytes, part.as_bytes()));
    }
}

struct Text<'o>(&'o mut Vec<u8>);

impl Write for Text<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        extend(self.0, text.as_bytes());
        Ok(())
    }
}
