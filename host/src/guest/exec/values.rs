//! The values of one column in a guest's answer: checked as a whole, then read one by one.
//!
//! No input makes this panic. What a value is for is not known here.

use crate::guest::plan::{kinds::Kind, output_types::GuestValue};

/// States of a cell in the buffers of both directions.
pub(super) const STATE_NULL: u8 = 0;
pub(super) const STATE_VALUE: u8 = 1;

#[derive(Debug)]
pub(super) enum ColumnData<'a> {
    None,
    Booleans(&'a [u8]),
    Integers(&'a [[u8; 8]]),
    Floats(&'a [[u8; 8]]),
    Uuids(&'a [[u8; 16]]),
    Texts { ends: &'a [[u8; 4]], text: &'a str },
    Bytes { ends: &'a [[u8; 4]], bytes: &'a [u8] },
}

impl<'a> ColumnData<'a> {
    #[inline]
    pub(super) fn value_at(&self, row: usize) -> Option<GuestValue<'a>> {
        Some(match *self {
            ColumnData::None => return None,
            ColumnData::Booleans(values) => GuestValue::Boolean(*values.get(row)? != 0),
            ColumnData::Integers(values) => {
                GuestValue::Integer(i64::from_le_bytes(*values.get(row)?))
            }
            ColumnData::Floats(values) => GuestValue::Float(f64::from_le_bytes(*values.get(row)?)),
            ColumnData::Uuids(values) => GuestValue::Bytes(values.get(row)?),
            ColumnData::Texts { ends, text } => {
                let (start, end) = text_bounds(ends, row)?;
                GuestValue::Text(text.get(start..end)?)
            }
            ColumnData::Bytes { ends, bytes } => {
                let (start, end) = text_bounds(ends, row)?;
                GuestValue::Bytes(bytes.get(start..end)?)
            }
        })
    }
}

#[inline]
fn text_bounds(ends: &[[u8; 4]], row: usize) -> Option<(usize, usize)> {
    let end = |at: usize| ends.get(at).map(|end| u32::from_le_bytes(*end) as usize);
    Some((end(row)?, end(row + 1)?))
}

/// Checks the data of a column; `states` are those of its rows.
pub(super) fn check_column_data<'a>(
    kind: Kind,
    states: &[u8],
    data: &'a [u8],
) -> Result<ColumnData<'a>, &'static str> {
    let rows = states.len();
    if kind.width().is_some_and(|width| Some(data.len()) != rows.checked_mul(width)) {
        return Err("its data has not the size of its rows");
    }
    match kind {
        Kind::Boolean => {
            let mut values = states.iter().zip(data).filter(|&(&state, _)| state == STATE_VALUE);
            if values.any(|(_, &value)| value > 1) {
                return Err("a boolean is neither 0 nor 1");
            }
            Ok(ColumnData::Booleans(data))
        }
        Kind::Integer | Kind::Timestamp | Kind::Date | Kind::Time => {
            Ok(ColumnData::Integers(data.as_chunks().0))
        }
        Kind::Float => Ok(ColumnData::Floats(data.as_chunks().0)),
        Kind::Uuid => Ok(ColumnData::Uuids(data.as_chunks().0)),
        Kind::Text | Kind::Bytes | Kind::Packed => check_varying(kind, rows, data),
    }
}

/// The data of values of varying length: the end of each row, with a 0 before them, then the bytes.
fn check_varying(kind: Kind, rows: usize, data: &[u8]) -> Result<ColumnData<'_>, &'static str> {
    let ends = rows.checked_add(1).and_then(|ends| ends.checked_mul(4));
    let (ends, bytes) = ends
        .and_then(|ends| data.split_at_checked(ends))
        .ok_or("its data is too short for its ends")?;
    let (ends, _) = ends.as_chunks::<4>();
    let at = |end: &[u8; 4]| u32::from_le_bytes(*end) as usize;
    if ends.first().map(at) != Some(0)
        || !ends.is_sorted_by_key(at)
        || ends.last().map(at) != Some(bytes.len())
    {
        return Err("its ends do not begin with 0, go down, or do not end with its bytes");
    }
    if kind != Kind::Text {
        return Ok(ColumnData::Bytes { ends, bytes });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "its text is not UTF-8")?;
    if !text.is_ascii() && ends.iter().any(|end| !text.is_char_boundary(at(end))) {
        return Err("its text is not UTF-8");
    }
    Ok(ColumnData::Texts { ends, text })
}
