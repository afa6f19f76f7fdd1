//! The Rust values that a guest can set in a column of a Postgres type.
//!
//! There is one marker type per Postgres type, so that the compiler checks the combination.

use std::borrow::Cow;
use std::fmt::{self, Write};

use crate::decisions::{ColumnWriter, Decisions, append_bytes};
use crate::redact::Masked;
use crate::{Date, Decimal, Json, Numeric, Time, Timestamp, Uuid};

/// A value that can be set in a column of the Postgres type `T`, one of [`types`]. `None` is NULL.
#[diagnostic::on_unimplemented(
    message = "a column of the Postgres type `{T}` cannot be set to a value of type `{Self}`",
    label = "not a value for this column",
    note = "the type of an output column is the second word of replace(\"column\", \"type\") or add(\"column\", \"type\")"
)]
pub trait Fits<T> {
    #[doc(hidden)]
    fn write(self, cell: OutputCell<'_>);
}

/// The cell that is being written.
#[doc(hidden)]
#[derive(Debug)]
pub struct OutputCell<'o> {
    column: &'o mut ColumnWriter,
    row: usize,
}

/// Sets the value of the current row in the output column `index`.
#[doc(hidden)]
#[inline]
pub fn set_value<T>(decisions: &mut Decisions, index: usize, value: impl Fits<T>) {
    let (column, row) = decisions.column(index);
    value.write(OutputCell { column, row });
}

/// Markers of Postgres types, for [`Fits`].
pub mod types {
    macro_rules! markers {
        ($($name:ident)*) => {$(
            #[doc = concat!("The Postgres type ", stringify!($name), ".")]
            #[derive(Clone, Copy, Debug)]
            pub enum $name {}
        )*};
    }
    markers! { Bool Int2 Int4 Int8 Float4 Float8 Numeric Text Bytea Uuid Json Timestamp Date Time }
}

impl<T, V: Fits<T>> Fits<T> for Option<V> {
    #[inline]
    fn write(self, cell: OutputCell<'_>) {
        match self {
            Some(value) => value.write(cell),
            None => cell.column.set_null(cell.row),
        }
    }
}

macro_rules! fixed {
    ($($rust:ty => $($marker:ident)*: |$v:ident| $bytes:expr;)*) => {$($(
        impl Fits<types::$marker> for $rust {
            #[inline]
            fn write(self, cell: OutputCell<'_>) {
                let $v = self;
                cell.column.set_fixed(cell.row, $bytes);
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
            fn write(self, cell: OutputCell<'_>) {
                let $v = &self;
                append_bytes(cell.column.begin_bytes(cell.row), $bytes);
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
            fn write(self, cell: OutputCell<'_>) {
                // Writing to memory cannot fail.
                let _ = write!(TextWriter(cell.column.begin_bytes(cell.row)), "{self}");
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
    fn write(self, cell: OutputCell<'_>) {
        let bytes = cell.column.begin_bytes(cell.row);
        self.parts().into_iter().for_each(|part| append_bytes(bytes, part.as_bytes()));
    }
}

struct TextWriter<'o>(&'o mut Vec<u8>);

impl Write for TextWriter<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        append_bytes(self.0, text.as_bytes());
        Ok(())
    }
}
