//! Encodes a batch as the gateway does.
//!
//! It is a second, small implementation of the gateway's side. The vectors in `tests/vectors/guest`
//! hold both to the same layout.

use crate::decisions::{append_section, put_numbers};
use crate::layout::{
    BATCH_MAGIC, ENTRY_BYTES, FLAG_KEY_ONLY, HEADER_BYTES, STATE_ABSENT, STATE_NULL,
    STATE_UNCHANGED, STATE_VALUE,
};
use crate::{GuestPlan, Kind, Table};

use super::{Cells, Value};

/// One row of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Image<'c> {
    /// The `FLAG_*` of [`crate::layout`].
    pub flags: u8,
    /// The cells of the row.
    pub cells: &'c Cells,
}

/// Encodes a batch of rows of `table`.
///
/// # Errors
/// If a value does not have the kind of its column.
pub fn encode_batch(
    table: &Table,
    plan: &GuestPlan,
    images: &[Image<'_>],
) -> Result<Vec<u8>, String> {
    let kinds = plan.read_kinds(table)?;
    let mut out = vec![0; HEADER_BYTES + kinds.len() * ENTRY_BYTES];
    out[..4].copy_from_slice(&BATCH_MAGIC);
    let flags: Vec<u8> = images.iter().map(|image| image.flags).collect();
    let flags = append_section(&mut out, &flags);
    put_numbers(&mut out[4..HEADER_BYTES], &[images.len(), kinds.len(), 0, flags]);
    for (index, (read, kind)) in plan.reads.iter().zip(kinds).enumerate() {
        let (states, data) = encode_column(&read.column, kind, images)?;
        let states = append_section(&mut out, &states);
        let data_at = append_section(&mut out, &data);
        let at = HEADER_BYTES + index * ENTRY_BYTES;
        out[at] = kind.number();
        put_numbers(&mut out[at + 4..at + ENTRY_BYTES], &[states, data_at, data.len()]);
    }
    Ok(out)
}

/// The states and the values of a column.
fn encode_column(
    name: &str,
    kind: Kind,
    images: &[Image<'_>],
) -> Result<(Vec<u8>, Vec<u8>), String> {
    let (mut states, mut data, mut ends) = (Vec::new(), Vec::new(), vec![0u8; 4]);
    for image in images {
        let missing = if image.flags & FLAG_KEY_ONLY != 0 { STATE_ABSENT } else { STATE_NULL };
        let state = match image.cells.get(name) {
            None => missing,
            Some(Value::Null) => STATE_NULL,
            Some(Value::Unchanged) => STATE_UNCHANGED,
            Some(value) => {
                append_value(&mut data, kind, value).ok_or_else(|| {
                    format!("column {name} takes values of kind {kind:?}, and is given {value:?}")
                })?;
                STATE_VALUE
            }
        };
        if let (Some(width), true) = (kind.width(), state != STATE_VALUE) {
            data.resize(data.len() + width, 0);
        }
        states.push(state);
        ends.extend_from_slice(&(data.len() as u32).to_le_bytes());
    }
    if kind.width().is_none() {
        ends.append(&mut data);
        data = ends;
    }
    Ok((states, data))
}

fn append_value(data: &mut Vec<u8>, kind: Kind, value: &Value) -> Option<()> {
    match (kind, value) {
        (Kind::Boolean, Value::Boolean(v)) => data.push(u8::from(*v)),
        (Kind::Integer, Value::Integer(v)) => data.extend(v.to_le_bytes()),
        (Kind::Float, Value::Float(v)) => data.extend(v.to_le_bytes()),
        (Kind::Text, Value::Text(v)) => data.extend(v.as_bytes()),
        (Kind::Bytes, Value::Bytes(v)) | (Kind::Packed, Value::Packed(v)) => data.extend(v),
        (Kind::Uuid, Value::Uuid(v)) => data.extend(v.0),
        (Kind::Timestamp, Value::Timestamp(v)) => data.extend(v.0.to_le_bytes()),
        (Kind::Date, Value::Date(v)) => data.extend(v.0.to_le_bytes()),
        (Kind::Time, Value::Time(v)) => data.extend(v.0.to_le_bytes()),
        _ => return None,
    }
    Some(())
}
