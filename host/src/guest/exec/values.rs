//! The values of one column in a guest's answer: checked as a whole, then read one by one.
//!
//! Nothing here panics whatever the bytes. What a value is for is not known here.

use crate::guest::{exec::decisions::STATE_VALUE, plan::kinds::Kind};

/// What the guest says of one column of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Untouched,
    Null,
    Boolean(bool),
    /// Also timestamps, dates and times.
    Integer(i64),
    Float(f64),
    Text(&'a str),
    /// Also uuids.
    Bytes(&'a [u8]),
}

#[derive(Debug)]
pub(super) enum Data<'a> {
    None,
    Booleans(&'a [u8]),
    Integers(&'a [[u8; 8]]),
    Floats(&'a [[u8; 8]]),
    Uuids(&'a [[u8; 16]]),
    Texts { ends: &'a [[u8; 4]], text: &'a str },
    Bytes { ends: &'a [[u8; 4]], bytes: &'a [u8] },
}

impl<'a> Data<'a> {
    #[inline]
    pub(super) fn value(&self, row: usize) -> Option<Value<'a>> {
        Some(match *self {
            Data::None => return None,
            Data::Booleans(values) => Value::Boolean(*values.get(row)? != 0),
            Data::Integers(values) => Value::Integer(i64::from_le_bytes(*values.get(row)?)),
            Data::Floats(values) => Value::Float(f64::from_le_bytes(*values.get(row)?)),
            Data::Uuids(values) => Value::Bytes(values.get(row)?),
            Data::Texts { ends, text } => {
                let (start, end) = bounds(ends, row)?;
                Value::Text(text.get(start..end)?)
            }
            Data::Bytes { ends, bytes } => {
                let (start, end) = bounds(ends, row)?;
                Value::Bytes(bytes.get(start..end)?)
            }
        })
    }
}

#[inline]
fn bounds(ends: &[[u8; 4]], row: usize) -> Option<(usize, usize)> {
    let end = |at: usize| ends.get(at).map(|end| u32::from_le_bytes(*end) as usize);
    Some((end(row)?, end(row + 1)?))
}

/// The data of a column, checked; `states` are its rows'.
pub(super) fn data_of<'a>(
    kind: Kind,
    states: &[u8],
    data: &'a [u8],
) -> Result<Data<'a>, &'static str> {
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
            Ok(Data::Booleans(data))
        }
        Kind::Integer | Kind::Timestamp | Kind::Date | Kind::Time => {
            Ok(Data::Integers(data.as_chunks().0))
        }
        Kind::Float => Ok(Data::Floats(data.as_chunks().0)),
        Kind::Uuid => Ok(Data::Uuids(data.as_chunks().0)),
        Kind::Text | Kind::Bytes | Kind::Packed => varied(kind, rows, data),
    }
}

/// Ends of each row, the first being 0, directly followed by the bytes.
fn varied(kind: Kind, rows: usize, data: &[u8]) -> Result<Data<'_>, &'static str> {
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
        return Ok(Data::Bytes { ends, bytes });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "its text is not UTF-8")?;
    if !text.is_ascii() && ends.iter().any(|end| !text.is_char_boundary(at(end))) {
        return Err("its text is not UTF-8");
    }
    Ok(Data::Texts { ends, text })
}
