//! Which SQLite value stands for which value on the wire.

use rusqlite::types::{ToSqlOutput, ValueRef};
use walgate_wire::{Column, Value};

use crate::{Kind, json, text};

/// What the sink stores for `value` in a column like this. Integers and booleans are INTEGER, floats REAL
/// (NaN, which SQLite has no number for, is TEXT), bytea BLOB; all else is TEXT, as Postgres prints it; arrays,
/// composites and hstore as JSON.
pub fn sqlite_value<'a>(column: &Column, value: &'a Value<'a>) -> ToSqlOutput<'a> {
    stored(&Kind::of(column), value)
}

pub(super) fn stored<'a>(kind: &Kind, value: &'a Value<'a>) -> ToSqlOutput<'a> {
    let borrowed = ToSqlOutput::Borrowed;
    let text = |text: String| ToSqlOutput::Owned(text.into());
    match (kind, value) {
        (_, Value::Nil) => borrowed(ValueRef::Null),
        (_, Value::Bool(b)) => borrowed(ValueRef::Integer(i64::from(*b))),
        (Kind::Timestamptz, Value::Int(i)) => text(text::timestamptz(*i)),
        (Kind::Timestamp, Value::Int(i)) => text(text::timestamp(*i)),
        (Kind::Date, Value::Int(i)) => text(text::date(*i)),
        (Kind::Time, Value::Int(i)) => text(text::time(*i)),
        (_, Value::Int(i)) => borrowed(ValueRef::Integer(*i)),
        (_, Value::F32(f)) => float(f64::from(*f)),
        (_, Value::F64(f)) => float(*f),
        (_, Value::Str(s)) => borrowed(ValueRef::Text(s.as_bytes())),
        (Kind::Uuid, Value::Bin(b)) => text::uuid(b).map_or(borrowed(ValueRef::Blob(b)), text),
        (_, Value::Bin(b)) => borrowed(ValueRef::Blob(b)),
        (_, Value::Array(_) | Value::Map(_)) => text(json::value_json(kind, value).to_string()),
    }
}

fn float(value: f64) -> ToSqlOutput<'static> {
    ToSqlOutput::Borrowed(if value.is_nan() {
        ValueRef::Text(b"NaN")
    } else {
        ValueRef::Real(value)
    })
}
