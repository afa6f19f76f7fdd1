//! What the fields of a `Columns` struct may be: how a state becomes a value, NULL or *unchanged*. Which Rust
//! type fits which column is `scalars`' business.

use crate::batch::ColumnView;
use crate::layout::{STATE_ABSENT, STATE_NULL, STATE_UNCHANGED, STATE_VALUE};
use crate::{Column, Read, Table};

/// A cell of a column whose large values an update may leave out of what Postgres sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cell<T> {
    Value(T),
    Null,
    /// The update left it alone; what it holds is not known here.
    Unchanged,
}

impl<T> Cell<T> {
    pub fn value(self) -> Option<T> {
        if let Cell::Value(value) = self { Some(value) } else { None }
    }
}

/// Why a row cannot be read. [`Fault::of`] makes a message of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    Null,
    Unchanged,
    Absent,
    Range,
}

impl Fault {
    #[cold]
    pub fn of(self, column: &str) -> String {
        match self {
            Fault::Null => {
                format!("column {column} is NULL: read it as an Option to allow for that")
            }
            Fault::Unchanged => {
                format!(
                    "column {column} is unchanged and its value not known: read it as a Cell to allow for that"
                )
            }
            Fault::Absent => format!("column {column} is not in this row"),
            Fault::Range => {
                format!("column {column} holds a number outside the range of the field's type")
            }
        }
    }
}

/// A value without NULL: `i64`, `&str`, [`crate::Timestamp`], …
#[diagnostic::on_unimplemented(
    message = "a column cannot be read as `{Self}`",
    note = "fields are bool, i16, i32, i64, u32, f32, f64, &str, &[u8], Uuid, Timestamp, Date, Time, Numeric, Json or Packed, \
            each also as Option<…> (may be NULL) or Cell<…> (may be unchanged)"
)]
pub trait Scalar<'a>: Sized {
    /// A checked column.
    type Data: Copy;
    /// For messages: `an i64`.
    const WANTS: &'static str;

    /// Whether every value of this column can be read so.
    fn fits(column: &Column) -> bool;
    /// `None` if the column is of another kind.
    fn open(column: &ColumnView<'a>) -> Option<Self::Data>;
    fn value(data: &Self::Data, row: usize) -> Result<Self, Fault>;
}

/// The column that a field reads.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a, D> {
    states: &'a [u8],
    data: D,
}

/// A field of a `Columns` struct: a [`Scalar`], `Option` or [`Cell`] of one.
#[diagnostic::on_unimplemented(
    message = "a column cannot be read as `{Self}`",
    note = "fields are bool, i16, i32, i64, u32, f32, f64, &str, &[u8], Uuid, Timestamp, Date, Time, Numeric, Json or Packed, \
            each also as Option<…> (may be NULL) or Cell<…> (may be unchanged)"
)]
pub trait Field<'a>: Sized {
    type Scalar: Scalar<'a>;
    const NULLABLE: bool;
    const UNCHANGED: bool;

    fn get(
        column: &Opened<'a, <Self::Scalar as Scalar<'a>>::Data>,
        row: usize,
    ) -> Result<Self, Fault>;
}

/// The type behind `Columns::Views` for a field.
pub type View<'a, F> = Opened<'a, <<F as Field<'a>>::Scalar as Scalar<'a>>::Data>;

impl<'a, T: Scalar<'a>> Field<'a> for T {
    type Scalar = T;
    const NULLABLE: bool = false;
    const UNCHANGED: bool = false;

    #[inline]
    fn get(column: &Opened<'a, T::Data>, row: usize) -> Result<T, Fault> {
        match column.states[row] {
            STATE_VALUE => T::value(&column.data, row),
            state => Err(fault(state)),
        }
    }
}

impl<'a, T: Scalar<'a>> Field<'a> for Option<T> {
    type Scalar = T;
    const NULLABLE: bool = true;
    const UNCHANGED: bool = false;

    #[inline]
    fn get(column: &Opened<'a, T::Data>, row: usize) -> Result<Option<T>, Fault> {
        match column.states[row] {
            STATE_VALUE => T::value(&column.data, row).map(Some),
            STATE_NULL => Ok(None),
            state => Err(fault(state)),
        }
    }
}

impl<'a, T: Scalar<'a>> Field<'a> for Cell<T> {
    type Scalar = T;
    const NULLABLE: bool = true;
    const UNCHANGED: bool = true;

    #[inline]
    fn get(column: &Opened<'a, T::Data>, row: usize) -> Result<Cell<T>, Fault> {
        match column.states[row] {
            STATE_VALUE => T::value(&column.data, row).map(Cell::Value),
            STATE_NULL => Ok(Cell::Null),
            STATE_UNCHANGED => Ok(Cell::Unchanged),
            state => Err(fault(state)),
        }
    }
}

#[cold]
fn fault(state: u8) -> Fault {
    match state {
        STATE_NULL => Fault::Null,
        STATE_ABSENT => Fault::Absent,
        _ => Fault::Unchanged,
    }
}

/// Plan time: what this field reads, or why the table does not suit it.
pub fn read_of<'a, F: Field<'a>>(table: &Table, name: &str) -> Result<Read, String> {
    let Some(column) = table.find(name) else {
        return Err(format!("the guest reads {name}, which is not there: {}", table.listing()));
    };
    let wants = <F::Scalar as Scalar<'a>>::WANTS;
    if !<F::Scalar as Scalar<'a>>::fits(column) {
        return Err(format!(
            "column {name} is {}; the guest reads it as {wants}",
            column.type_name
        ));
    }
    if column.nullable && !F::NULLABLE {
        crate::log::info!(
            "column {name} of {} may be NULL and is read as {wants}: a row in which it is NULL will be an error, unless it is read as an Option",
            table.name
        );
    }
    Ok(Read { column: name.to_owned(), unchanged: F::UNCHANGED })
}

/// The field's column of a batch. `None`: of another kind than was planned.
pub fn open<'a, F: Field<'a>>(column: &ColumnView<'a>) -> Option<View<'a, F>> {
    let data = <F::Scalar as Scalar<'a>>::open(column)?;
    Some(Opened { states: column.states, data })
}
