//! The fields of a `Columns` struct: how the state of a cell becomes a value, NULL or *unchanged*.
//!
//! This module does not know which Rust type fits which column; `scalars` does.

use crate::batch::ColumnView;
use crate::layout::{STATE_ABSENT, STATE_NULL, STATE_UNCHANGED, STATE_VALUE};
use crate::{Column, Read, Table};

/// A cell that can be *unchanged*: an update did not touch its large value, and Postgres did not
/// send it (TOAST).
///
/// For a field that is not a `Cell` the gateway looks such a value up, which costs a query.
///
/// ```
/// # use walgate_guest::prelude::*;
/// #[derive(Columns)]
/// struct Post<'a> { body: Cell<&'a str> }
///
/// #[transform(replace("body"))]
/// fn posts(post: Post<'_>, out: &mut Out<'_>) -> Verdict {
///     // A body that is not set here stays as it is.
///     if let Cell::Value(body) = post.body {
///         out.body(body.to_lowercase());
///     }
///     Verdict::Keep
/// }
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cell<T> {
    /// A value.
    Value(T),
    /// NULL.
    Null,
    /// The update did not touch the value. The guest does not receive it.
    Unchanged,
}

impl<T> Cell<T> {
    /// The value, if there is one.
    pub fn value(self) -> Option<T> {
        if let Cell::Value(value) = self { Some(value) } else { None }
    }
}

/// Why a cell cannot be read into a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It is NULL, and the field is not an `Option`.
    Null,
    /// It is *unchanged*, and the field is not a [`Cell`].
    Unchanged,
    /// The row does not contain the column.
    Absent,
    /// The number is outside the range of the field's type.
    Range,
}

impl Fault {
    /// The message of the row's error.
    #[cold]
    pub fn message(self, column: &str) -> String {
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

/// A Rust type of values that are not NULL: `i64`, `&str`, [`crate::Timestamp`], …
#[diagnostic::on_unimplemented(
    message = "a column cannot be read as `{Self}`",
    note = "fields are bool, i16, i32, i64, u32, f32, f64, &str, &[u8], Uuid, Timestamp, Date, Time, Numeric, Json or Packed, \
            each also as Option<…> (may be NULL) or Cell<…> (may be unchanged)"
)]
pub trait Scalar<'a>: Sized {
    /// The values of a column of the right kind.
    type Data: Copy;
    /// The type in messages: `an i64`.
    const WANTS: &'static str;

    /// Whether every value of the column can be read as this type.
    fn fits(column: &Column) -> bool;
    /// The values of a column; `None` if it is of another kind.
    fn open(column: &ColumnView<'a>) -> Option<Self::Data>;
    /// The value of a row whose state is `STATE_VALUE`.
    ///
    /// # Errors
    /// If the value is outside the range of this type.
    fn value(data: &Self::Data, row: usize) -> Result<Self, Fault>;
}

/// A column of a batch whose kind was checked for a field.
#[derive(Clone, Copy, Debug)]
pub struct OpenColumn<'a, D> {
    states: &'a [u8],
    data: D,
}

/// The type of a field of a `Columns` struct: a [`Scalar`], or an `Option` or [`Cell`] of one.
#[diagnostic::on_unimplemented(
    message = "a column cannot be read as `{Self}`",
    note = "fields are bool, i16, i32, i64, u32, f32, f64, &str, &[u8], Uuid, Timestamp, Date, Time, Numeric, Json or Packed, \
            each also as Option<…> (may be NULL) or Cell<…> (may be unchanged)"
)]
pub trait Field<'a>: Sized {
    /// The type of the values.
    type Scalar: Scalar<'a>;
    /// Whether the field accepts NULL.
    const NULLABLE: bool;
    /// Whether the field accepts *unchanged*.
    const UNCHANGED: bool;

    /// Reads the cell of a row.
    ///
    /// # Errors
    /// If the field does not accept the cell's state, or its value.
    fn get(
        column: &OpenColumn<'a, <Self::Scalar as Scalar<'a>>::Data>,
        row: usize,
    ) -> Result<Self, Fault>;
}

/// The part of [`Columns::Views`](crate::Columns::Views) for a field.
pub type View<'a, F> = OpenColumn<'a, <<F as Field<'a>>::Scalar as Scalar<'a>>::Data>;

impl<'a, T: Scalar<'a>> Field<'a> for T {
    type Scalar = T;
    const NULLABLE: bool = false;
    const UNCHANGED: bool = false;

    #[inline]
    fn get(column: &OpenColumn<'a, T::Data>, row: usize) -> Result<T, Fault> {
        match column.states[row] {
            STATE_VALUE => T::value(&column.data, row),
            state => Err(fault_of_state(state)),
        }
    }
}

impl<'a, T: Scalar<'a>> Field<'a> for Option<T> {
    type Scalar = T;
    const NULLABLE: bool = true;
    const UNCHANGED: bool = false;

    #[inline]
    fn get(column: &OpenColumn<'a, T::Data>, row: usize) -> Result<Option<T>, Fault> {
        match column.states[row] {
            STATE_VALUE => T::value(&column.data, row).map(Some),
            STATE_NULL => Ok(None),
            state => Err(fault_of_state(state)),
        }
    }
}

impl<'a, T: Scalar<'a>> Field<'a> for Cell<T> {
    type Scalar = T;
    const NULLABLE: bool = true;
    const UNCHANGED: bool = true;

    #[inline]
    fn get(column: &OpenColumn<'a, T::Data>, row: usize) -> Result<Cell<T>, Fault> {
        match column.states[row] {
            STATE_VALUE => T::value(&column.data, row).map(Cell::Value),
            STATE_NULL => Ok(Cell::Null),
            STATE_UNCHANGED => Ok(Cell::Unchanged),
            state => Err(fault_of_state(state)),
        }
    }
}

#[cold]
fn fault_of_state(state: u8) -> Fault {
    match state {
        STATE_NULL => Fault::Null,
        STATE_ABSENT => Fault::Absent,
        _ => Fault::Unchanged,
    }
}

/// Plans what a field reads of `table`. If the column can be NULL and the field cannot, it logs
/// this.
///
/// # Errors
/// If the table has no such column, or if its type does not fit the field.
pub fn plan_read<'a, F: Field<'a>>(table: &Table, name: &str) -> Result<Read, String> {
    let Some(column) = table.find(name) else {
        return Err(format!(
            "the guest reads {name}, which is not there: {}",
            table.list_columns()
        ));
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

/// Checks the kind of the field's column in a batch. `None` if it is not the planned one.
pub fn open_column<'a, F: Field<'a>>(column: &ColumnView<'a>) -> Option<View<'a, F>> {
    let data = <F::Scalar as Scalar<'a>>::open(column)?;
    Some(OpenColumn { states: column.states, data })
}
