//! What a guest reads of a row. `#[derive(Columns)]` implements [`Columns`] for a struct of fields; here are the
//! two that need none: nothing, and everything.

use crate::batch::{Batch, ColumnView};
use crate::layout::{Data, STATE_ABSENT, STATE_NULL, STATE_UNCHANGED};
use crate::{Cell, Date, Packed, Read, Table, Time, Timestamp, Uuid};

/// Columns that a guest reads. Nothing else is copied to it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which columns it reads",
    note = "add #[derive(Columns)] to the struct, or take AllColumns<'_> or ()"
)]
pub trait Columns<'a>: Sized {
    /// The columns of a batch, opened.
    type Views;

    /// Plan time. `Err` names column, type and what the guest wants.
    fn reads(table: &Table) -> Result<Vec<Read>, String>;
    /// `None`: the batch is not what was planned.
    fn open(batch: &'a Batch<'a>) -> Option<Self::Views>;
    /// `Err`: the row cannot be read; names the column.
    fn read(views: &Self::Views, row: usize) -> Result<Self, String>;
}

/// Reads nothing: for guests that only hide columns.
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

/// Every column of whatever table it is, in the table's order.
#[derive(Clone, Copy, Debug)]
pub struct AllColumns<'a> {
    columns: &'a [ColumnView<'a>],
    row: usize,
}

/// A value of a column of any kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Any<'a> {
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Uuid(Uuid),
    Timestamp(Timestamp),
    Date(Date),
    Time(Time),
    Packed(Packed<'a>),
}

impl<'a> AllColumns<'a> {
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// `None` beyond the last column, and for a cell that is not in the row (an old row's that is no key).
    pub fn get(&self, column: usize) -> Option<Cell<Any<'a>>> {
        let ColumnView { states, data } = self.columns.get(column)?;
        Some(match states[self.row] {
            STATE_NULL => Cell::Null,
            STATE_UNCHANGED => Cell::Unchanged,
            STATE_ABSENT => return None,
            _ => Cell::Value(any(data, self.row)),
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = Option<Cell<Any<'a>>>> {
        (0..self.len()).map(|column| self.get(column))
    }
}

#[inline]
fn any<'a>(data: &Data<'a>, row: usize) -> Any<'a> {
    let int = |data: &[[u8; 8]]| i64::from_le_bytes(data[row]);
    match data {
        Data::Boolean(data) => Any::Boolean(data[row] != 0),
        Data::Integer(data) => Any::Integer(int(data)),
        Data::Float(data) => Any::Float(f64::from_le_bytes(data[row])),
        Data::Text(data) => Any::Text(data.get(row)),
        Data::Bytes(data) => Any::Bytes(data.get(row)),
        Data::Uuid(data) => Any::Uuid(Uuid(data[row])),
        Data::Timestamp(data) => Any::Timestamp(Timestamp(int(data))),
        Data::Date(data) => Any::Date(Date(int(data))),
        Data::Time(data) => Any::Time(Time(int(data))),
        Data::Packed(data) => Any::Packed(Packed(data.get(row))),
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
