//! Values as JSON: for `walgate tail`, and for arrays and composites in targets without such types.
//!
//! Dates, times and UUIDs are written as Postgres prints them, `bytea` in hex, NaN and infinities
//! as strings. Members keep the order of columns and fields. Numerics stay strings. A json or jsonb
//! column is embedded as it is; its numbers lose digits that a 64-bit float cannot hold.

use serde_json::{Map, Value as Json, json};
use walgate_wire::{Change, Column, Op, Schema, Value};

use crate::{ValueKind, text};

/// The JSON form of a value in a column of this kind.
pub fn value_json(kind: &ValueKind, value: &Value<'_>) -> Json {
    match (kind, value) {
        (_, Value::Nil) => Json::Null,
        (_, Value::Bool(b)) => Json::Bool(*b),
        (ValueKind::Timestamptz, Value::Int(i)) => text::format_timestamptz(*i).into(),
        (ValueKind::Timestamp, Value::Int(i)) => text::format_timestamp(*i).into(),
        (ValueKind::Date, Value::Int(i)) => text::format_date(*i).into(),
        (ValueKind::Time, Value::Int(i)) => text::format_time(*i).into(),
        (_, Value::Int(i)) => (*i).into(),
        (_, Value::F32(f)) if f.is_finite() => {
            f.to_string().parse::<f64>().map_or(Json::Null, Json::from)
        }
        (_, Value::F32(f)) => text::format_float(*f).into(),
        (_, Value::F64(f)) if f.is_finite() => (*f).into(),
        (_, Value::F64(f)) => text::format_float(*f).into(),
        (ValueKind::Json, Value::Str(s)) => serde_json::from_str(s).unwrap_or_else(|_| (*s).into()),
        (_, Value::Str(s)) => (*s).into(),
        (ValueKind::Uuid, Value::Bin(b)) => {
            text::format_uuid(b).unwrap_or_else(|| text::format_bytea(b)).into()
        }
        (_, Value::Bin(b)) => text::format_bytea(b).into(),
        (ValueKind::Array(element), Value::Array(items)) => {
            items.iter().map(|item| element_json(kind, element, item)).collect()
        }
        (_, Value::Array(items)) => {
            items.iter().map(|item| value_json(&ValueKind::Other, item)).collect()
        }
        (_, Value::Map(pairs)) => {
            let pair = |(key, value): &(Value<'_>, Value<'_>)| {
                (key_text(key), value_json(&ValueKind::Other, value))
            };
            Json::Object(pairs.iter().map(pair).collect())
        }
    }
}

/// An array in an array has the same element type.
fn element_json(array: &ValueKind, element: &ValueKind, item: &Value<'_>) -> Json {
    value_json(if matches!(item, Value::Array(_)) { array } else { element }, item)
}

fn key_text(key: &Value<'_>) -> String {
    match value_json(&ValueKind::Other, key) {
        Json::String(text) => text,
        other => other.to_string(),
    }
}

/// A row as an object with a member for each column, in the order of the schema.
pub fn row_json(schema: &Schema, row: &[Value<'_>]) -> Json {
    json_object(schema.columns.iter().zip(row))
}

fn json_object<'a>(values: impl Iterator<Item = (&'a Column, &'a Value<'a>)>) -> Json {
    let member = |(column, value): (&Column, &Value<'_>)| {
        (column.name.clone(), value_json(&ValueKind::of_column(column), value))
    };
    Json::Object(values.map(member).collect())
}

/// A change as `{"table", "op", "lsn", "n", "xid", "at", "row"?, "unchanged"?, "old"?}`. Columns
/// whose values were not sent are missing in `row` and listed in `unchanged`.
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
    out.insert("at".into(), text::format_timestamptz(change.at).into());
    if let Some(row) = row {
        let columns = schema.columns.iter().zip(row).enumerate();
        let sent = columns.filter(|(index, _)| !unchanged.contains(index));
        out.insert("row".into(), json_object(sent.map(|(_, column)| column)));
        let name = |&index: &usize| schema.columns.get(index).map(|column| column.name.as_str());
        let unchanged: Vec<&str> = unchanged.iter().filter_map(name).collect();
        if !unchanged.is_empty() {
            out.insert("unchanged".into(), json!(unchanged));
        }
    }
    if let Some(old) = old {
        let columns = schema.old.iter().filter_map(|&index| schema.columns.get(index as usize));
        out.insert("old".into(), json_object(columns.zip(old)));
    }
    Json::Object(out)
}

#[cfg(test)]
mod tests {
    use walgate_wire::{Lsn, Position};

    use super::*;
    use crate::test_support::schema;

    #[test]
    fn members_keep_the_order_of_columns() {
        let columns = ["z", "b", "y", "a"].map(|name| (name, 25));
        let schema = Schema { old: vec![2, 0], ..schema(&columns) };
        let fields = vec![(Value::Str("late"), Value::Nil), (Value::Str("early"), Value::Int(1))];
        let row = vec![Value::Str("1"), Value::Nil, Value::Map(fields), Value::Nil];
        let old = Some(vec![Value::Str("3"), Value::Str("2")]);
        let op = Op::Update { row, unchanged: vec![1], old };
        let change = Change { position: Position::new(Lsn(1), 2), xid: 3, at: 0, op };
        let json = change_json(&schema, &change).to_string();
        let expected = r#"{"table":"public.t","op":"update","lsn":"0/1","n":2,"xid":3,"at":"1970-01-01 00:00:00+00","row":{"z":"1","y":{"late":null,"early":1},"a":null},"unchanged":["b"],"old":{"y":"3","z":"2"}}"#;
        assert_eq!(json, expected);
    }
}
