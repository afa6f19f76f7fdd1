//! From values on the wire to SQLite values.

use rusqlite::types::{ToSqlOutput, ValueRef};
use walgate_wire::{Column, Value};

use crate::{ValueKind, json, text};

/// What [`SqliteSink`](crate::SqliteSink) stores for `value` in a column like this.
///
/// Integers and booleans are INTEGER, floats REAL, bytea BLOB. NaN is TEXT, because SQLite has no
/// such number. Everything else is TEXT as Postgres prints it; arrays, composites and hstore are
/// JSON.
pub fn sqlite_value<'a>(column: &Column, value: &'a Value<'a>) -> ToSqlOutput<'a> {
    to_sql(&ValueKind::of_column(column), value)
}

pub(super) fn to_sql<'a>(kind: &ValueKind, value: &'a Value<'a>) -> ToSqlOutput<'a> {
    let borrowed = ToSqlOutput::Borrowed;
    let text = |text: String| ToSqlOutput::Owned(text.into());
    match (kind, value) {
        (_, Value::Nil) => borrowed(ValueRef::Null),
        (_, Value::Bool(b)) => borrowed(ValueRef::Integer(i64::from(*b))),
        (ValueKind::Timestamptz, Value::Int(i)) => text(text::format_timestamptz(*i)),
        (ValueKind::Timestamp, Value::Int(i)) => text(text::format_timestamp(*i)),
        (ValueKind::Date, Value::Int(i)) => text(text::format_date(*i)),
        (ValueKind::Time, Value::Int(i)) => text(text::format_time(*i)),
        (_, Value::Int(i)) => borrowed(ValueRef::Integer(*i)),
        (_, Value::F32(f)) => float_to_sql(f64::from(*f)),
        (_, Value::F64(f)) => float_to_sql(*f),
        (_, Value::Str(s)) => borrowed(ValueRef::Text(s.as_bytes())),
        (ValueKind::Uuid, Value::Bin(b)) => {
            text::format_uuid(b).map_or(borrowed(ValueRef::Blob(b)), text)
        }
        (_, Value::Bin(b)) => borrowed(ValueRef::Blob(b)),
        (_, Value::Array(_) | Value::Map(_)) => text(json::value_json(kind, value).to_string()),
    }
}

fn float_to_sql(value: f64) -> ToSqlOutput<'static> {
    ToSqlOutput::Borrowed(if value.is_nan() {
        ValueRef::Text(b"NaN")
    } else {
        ValueRef::Real(value)
    })
}
