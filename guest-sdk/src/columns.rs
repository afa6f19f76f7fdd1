//! The columns that a guest reads of a row.
//!
//! `#[derive(Columns)]` implements [`Columns`] for a struct. This module implements it for `()`,
//! which reads nothing, and for [`AllColumns`].

use crate::batch::{Batch, ColumnView};
use crate::layout::{ColumnData, STATE_ABSENT, STATE_NULL, STATE_UNCHANGED};
use crate::{Cell, Date, Packed, Read, Table, Time, Timestamp, Uuid};

/// The columns that a guest reads. The gateway copies no others to the guest.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which columns it reads",
    note = "add #[derive(Columns)] to the struct, or take AllColumns<'_> or ()"
)]
pub trait Columns<'a>: Sized {
    /// The columns of a batch, with their types checked.
    type Views;

    /// The columns to read of `table`, for the plan.
    ///
    /// # Errors
    /// The message names the column, its type, and the type that the guest expects.
    fn reads(table: &Table) -> Result<Vec<Read>, String>;
    /// Checks the types of a batch's columns. `None` if the batch is not as planned.
    fn open(batch: &'a Batch<'a>) -> Option<Self::Views>;
    /// Reads a row.
    ///
    /// # Errors
    /// If a value does not fit its field, NULL for instance. The message names the column.
    fn read(views: &Self::Views, row: usize) -> Result<Self, String>;
}

/// Reads no column, for guests that only hide columns.
impl<'a> Columns<'a> for () {
    type Views = ();

    fn reads(_: &Table) -> Result<Vec<Read>, String> {
        Ok(Vec::new())
    }

    fn open(_: &'a Batch<'a>) -> Option<()> {
        Some(())
    }

    #[inline]
    fn read((): &(), _: usize) -> Result<(), String> {
        Ok(())
    }
}

/// All columns of any table, in the table's order.
///
/// ```
/// # use walgate_guest::prelude::*;
/// /// Drops rows in which every column is NULL.
/// #[transform]
/// fn not_empty(row: AllColumns<'_>) -> Verdict {
///     let is_empty = row.iter().all(|cell| cell == Some(Cell::Null));
///     if is_empty { Verdict::Drop } else { Verdict::Keep }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AllColumns<'a> {
    columns: &'a [ColumnView<'a>],
    row: usize,
}

/// A value of any [`Kind`](crate::Kind).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Any<'a> {
    /// A boolean.
    Boolean(bool),
    /// An integer of any width, or an oid.
    Integer(i64),
    /// A float of either width.
    Float(f64),
    /// A value that is transferred as text, such as numeric, json or an enum.
    Text(&'a str),
    /// A bytea.
    Bytes(&'a [u8]),
    /// A UUID.
    Uuid(Uuid),
    /// A timestamp, with or without time zone.
    Timestamp(Timestamp),
    /// A date.
    Date(Date),
    /// A time of day.
    Time(Time),
    /// An array, composite, hstore or vector.
    Packed(Packed<'a>),
}

impl<'a> AllColumns<'a> {
    /// Number of columns.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether the table has no columns.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The cell of column `column`, counted from 0.
    ///
    /// `None` beyond the last column, and for a column that an old row does not contain.
    pub fn get(&self, column: usize) -> Option<Cell<Any<'a>>> {
        let ColumnView { states, data } = self.columns.get(column)?;
        Some(match states[self.row] {
            STATE_NULL => Cell::Null,
            STATE_UNCHANGED => Cell::Unchanged,
            STATE_ABSENT => return None,
            _ => Cell::Value(any_value(data, self.row)),
        })
    }

    /// The cells of all columns, as [`AllColumns::get`] returns them.
    pub fn iter(&self) -> impl Iterator<Item = Option<Cell<Any<'a>>>> {
        (0..self.len()).map(|column| self.get(column))
    }
}

#[inline]
fn any_value<'a>(data: &ColumnData<'a>, row: usize) -> Any<'a> {
    let int = |data: &[[u8; 8]]| i64::from_le_bytes(data[row]);
    match data {
        ColumnData::Boolean(data) => Any::Boolean(data[row] != 0),
        ColumnData::Integer(data) => Any::Integer(int(data)),
        ColumnData::Float(data) => Any::Float(f64::from_le_bytes(data[row])),
        ColumnData::Text(data) => Any::Text(data.get(row)),
        ColumnData::Bytes(data) => Any::Bytes(data.get(row)),
        ColumnData::Uuid(data) => Any::Uuid(Uuid(data[row])),
        ColumnData::Timestamp(data) => Any::Timestamp(Timestamp(int(data))),
        ColumnData::Date(data) => Any::Date(Date(int(data))),
        ColumnData::Time(data) => Any::Time(Time(int(data))),
        ColumnData::Packed(data) => Any::Packed(Packed(data.get(row))),
    }
}

impl<'a> Columns<'a> for AllColumns<'a> {
    type Views = &'a [ColumnView<'a>];

    fn reads(table: &Table) -> Result<Vec<Read>, String> {
        let read = |name: &String| Read { column: name.clone(), unchanged: true };
        Ok(table.columns.iter().map(|column| read(&column.name)).collect())
    }

    fn open(batch: &'a Batch<'a>) -> Option<Self::Views> {
        Some(batch.columns())
    }

    #[inline]
    fn read(columns: &Self::Views, row: usize) -> Result<Self, String> {
        Ok(AllColumns { columns, row })
    }
}
