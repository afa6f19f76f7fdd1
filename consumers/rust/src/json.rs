//! Values as JSON: for `walgate tail`, and for arrays and composites where the local copy has no such types.
//!
//! Dates, times and UUIDs are written as Postgres prints them, `bytea` in hex, NaN and infinities as strings.
//! Numerics stay strings. A column of type json or jsonb is put in as it is; its numbers lose digits that a
//! 64-bit float cannot hold.

use serde_json::{Map, Value as Json, json};
use walgate_wire::{Change, Op, Schema, Value};

use crate::{Kind, text};

/// A value of a column of this kind.
pub fn value_json(kind: &Kind, value: &Value<'_>) -> Json {
    match (kind, value) {
        (_, Value::Nil) => Json::Null,
        (_, Value::Bool(b)) => Json::Bool(*b),
        (Kind::Timestamptz, Value::Int(i)) => text::timestamptz(*i).into(),
        (Kind::Timestamp, Value::Int(i)) => text::timestamp(*i).into(),
        (Kind::Date, Value::Int(i)) => text::date(*i).into(),
        (Kind::Time, Value::Int(i)) => text::time(*i).into(),
        (_, Value::Int(i)) => (*i).into(),
        (_, Value::F32(f)) if f.is_finite() => {
            f.to_string().parse::<f64>().map_or(Json::Null, Json::from)
        }
        (_, Value::F32(f)) => text::float(*f).into(),
        (_, Value::F64(f)) if f.is_finite() => (*f).into(),
        (_, Value::F64(f)) => text::float(*f).into(),
        (Kind::Json, Value::Str(s)) => serde_json::from_str(s).unwrap_or_else(|_| (*s).into()),
        (_, Value::Str(s)) => (*s).into(),
        (Kind::Uuid, Value::Bin(b)) => text::uuid(b).unwrap_or_else(|| text::bytea(b)).into(),
        (_, Value::Bin(b)) => text::bytea(b).into(),
        (Kind::Array(element), Value::Array(items)) => {
            items.iter().map(|item| element_json(kind, element, item)).collect()
        }
        (_, Value::Array(items)) => {
            items.iter().map(|item| value_json(&Kind::Other, item)).collect()
        }
        (_, Value::Map(pairs)) => {
            let pair = |(key, value): &(Value<'_>, Value<'_>)| {
                (key_text(key), value_json(&Kind::Other, value))
            };
            Json::Object(pairs.iter().map(pair).collect())
        }
    }
}

/// An array in an array has the same element type.
fn element_json(array: &Kind, element: &Kind, item: &Value<'_>) -> Json {
    value_json(if matches!(item, Value::Array(_)) { array } else { element }, item)
}

fn key_text(key: &Value<'_>) -> String {
    match value_json(&Kind::Other, key) {
        Json::String(text) => text,
        other => other.to_string(),
    }
}

/// An object with a member for each column.
pub fn row_json(schema: &Schema, row: &[Value<'_>]) -> Json {
    let columns = schema.columns.iter().zip(row);
    Json::Object(
        columns.map(|(c, value)| (c.name.clone(), value_json(&Kind::of(c), value))).collect(),
    )
}

/// One change: `{"table", "op", "lsn", "n", "xid", "at", "row"?, "unchanged"?, "old"?}`. Columns that did not
/// travel are missing from `row` and named in `unchanged`.
pub fn change_json(schema: &Schema, change: &Change<'_>) -> Json {
    let mut out = Map::new();
    let (op, row, unchanged, old) = match &change.op {
        Op::Insert { row } => ("insert", Some(row), &[][..], None),
        Op::Update { row, unchanged, old } => ("update", Some(row), &unchanged[..], old.as_ref()),
        Op::Delete { old } => ("delete", None, &[][..], Some(old)),
        Op::Truncate => ("truncate", None, &[][..], None),
    };
    out.insert("table".into(), schema.table.clone().into());
    out.insert("op".into(), op.into());
    out.insert("lsn".into(), change.position.commit_lsn.to_string().into());
    out.insert("n".into(), change.position.ordinal.into());
    out.insert("xid".into(), change.xid.into());
    out.insert("at".into(), text::timestamptz(change.at).into());
    if let Some(row) = row {
        let mut row = row_json(schema, row);
        let name = |&index: &usize| schema.columns.get(index).map(|column| column.name.clone());
        let unchanged: Vec<String> = unchanged.iter().filter_map(name).collect();
        if let Json::Object(members) = &mut row {
            unchanged.iter().for_each(|name| drop(members.remove(name)));
        }
        out.insert("row".into(), row);
        if !unchanged.is_empty() {
            out.insert("unchanged".into(), json!(unchanged));
        }
    }
    if let Some(old) = old {
        let columns = schema.old.iter().filter_map(|&index| schema.columns.get(index as usize));
        let member = |(column, value): (&walgate_wire::Column, &Value<'_>)| {
            (column.name.clone(), value_json(&Kind::of(column), value))
        };
        out.insert("old".into(), Json::Object(columns.zip(old).map(member).collect()));
    }
    Json::Object(out)
}
