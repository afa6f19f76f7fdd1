//! Changes and rows as JSON, one change per line, as `walgate guest record` writes them.
//!
//! `{"op":"update","new":{"id":1,…},"old":{…},"unchanged":["bio"]}`

use serde_json::{Map, Value as Json};

use crate::{Column, Date, Kind, Op, Table, Time, Timestamp, Uuid};

use super::{Cells, Change, Value, pack, parse};

/// Parses a line with a change of a row of `table`.
///
/// # Errors
/// If the line is malformed. The message names the column or key.
pub fn parse_change(table: &Table, line: &str) -> Result<Change, String> {
    let json: Map<String, Json> = serde_json::from_str(line).map_err(|e| e.to_string())?;
    if let Some(key) =
        json.keys().find(|key| !["op", "new", "old", "unchanged"].contains(&key.as_str()))
    {
        return Err(format!("unknown key {key:?}; there are op, new, old and unchanged"));
    }
    let (op, takes_new) = match json.get("op").and_then(Json::as_str) {
        Some("snapshot") => (Op::Snapshot, true),
        Some("insert") => (Op::Insert, true),
        Some("update") => (Op::Update, true),
        Some("delete") => (Op::Delete, false),
        other => return Err(format!("op is {other:?}; it is snapshot, insert, update or delete")),
    };
    let row = |key: &str| match json.get(key) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Object(row)) => parse_row(table, row).map(Some),
        Some(_) => Err(format!("{key} is an object, a member for each column")),
    };
    let (mut new, old) = (row("new")?, row("old")?);
    if new.is_some() != takes_new || op == Op::Delete && old.is_none() {
        return Err("a delete has old; everything else has new".into());
    }
    for name in json.get("unchanged").and_then(Json::as_array).into_iter().flatten() {
        let column = name.as_str().and_then(|name| table.find(name));
        let column =
            column.ok_or_else(|| format!("unchanged names {name}; {}", table.list_columns()))?;
        new.get_or_insert_default().insert(column.name.clone(), Value::Unchanged);
    }
    Ok(Change { op, new, old })
}

/// Parses a row: an object with a member for each column.
///
/// # Errors
/// If a column is unknown, or if a value does not have the kind of its column.
pub fn parse_row(table: &Table, row: &Map<String, Json>) -> Result<Cells, String> {
    let cell = |(name, json): (&String, &Json)| {
        let column = table
            .find(name)
            .ok_or_else(|| format!("no column {name}: {}", table.list_columns()))?;
        let value = value_of(column, json).ok_or_else(|| {
            format!(
                "column {name} is {} and is given {json}; {}",
                column.type_name,
                expected_form(column.kind)
            )
        })?;
        Ok((name.clone(), value))
    };
    row.iter().map(cell).collect()
}

/// The kind of an array's elements. For other packed columns the JSON determines the kinds.
fn element_kind(column: &Column) -> Kind {
    column.type_name.strip_suffix("[]").map_or(Kind::Text, Kind::of_type)
}

fn expected_form(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "true or false is expected",
        Kind::Integer => "a whole number is expected",
        Kind::Float => "a number is expected, or \"NaN\", \"Infinity\", \"-Infinity\"",
        Kind::Text => "a string is expected",
        Kind::Bytes => "\"\\\\x\" and hex digits are expected",
        Kind::Uuid => "a UUID is expected",
        Kind::Timestamp => "\"2024-05-01T10:00:00Z\" is expected, or µs since 1970",
        Kind::Date => "\"2024-05-01\" is expected, or days since 1970",
        Kind::Time => "\"10:11:12\" is expected, or µs since midnight",
        Kind::Packed => "an array or an object is expected",
    }
}

fn value_of(column: &Column, json: &Json) -> Option<Value> {
    let is_json = matches!(column.type_name.as_str(), "json" | "jsonb");
    Some(match (column.kind, json) {
        (_, Json::Null) => Value::Null,
        (Kind::Boolean, Json::Bool(b)) => Value::Boolean(*b),
        (Kind::Integer, json) => Value::Integer(json.as_i64()?),
        (Kind::Float, Json::String(text)) => Value::Float(text.parse().ok()?),
        (Kind::Float, json) => Value::Float(json.as_f64()?),
        (Kind::Text, Json::String(text)) => Value::Text(text.clone()),
        // For lines written by hand. A string is already JSON text.
        (Kind::Text, json) if is_json => Value::Text(json.to_string()),
        (Kind::Bytes, Json::String(text)) => Value::Bytes(parse::hex(text.strip_prefix("\\x")?)?),
        (Kind::Uuid, Json::String(text)) => Value::Uuid(text.parse().ok()?),
        (Kind::Timestamp, Json::String(text)) => Value::Timestamp(parse::timestamp(text)?),
        (Kind::Timestamp, json) => Value::Timestamp(Timestamp(json.as_i64()?)),
        (Kind::Date, Json::String(text)) => Value::Date(parse::date(text)?),
        (Kind::Date, json) => Value::Date(Date(json.as_i64()?)),
        (Kind::Time, Json::String(text)) => Value::Time(parse::time(text)?),
        (Kind::Time, json) => Value::Time(Time(json.as_i64()?)),
        (Kind::Packed, json) => Value::Packed(pack::pack(json, element_kind(column))),
        _ => return None,
    })
}

/// Converts a value to JSON. An *unchanged* value becomes null; the caller lists it in `unchanged`.
pub fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Null | Value::Unchanged => Json::Null,
        Value::Boolean(b) => Json::Bool(*b),
        Value::Integer(n) => Json::from(*n),
        Value::Float(f) if f.is_finite() => Json::from(*f),
        Value::Float(f) if f.is_nan() => "NaN".into(),
        Value::Float(f) => if *f > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Value::Text(text) => text.as_str().into(),
        Value::Bytes(bytes) => parse::to_hex(bytes).into(),
        Value::Uuid(Uuid(bytes)) => Uuid(*bytes).to_string().into(),
        Value::Timestamp(at) => at.to_string().into(),
        Value::Date(day) => day.to_string().into(),
        Value::Time(at) => at.to_string().into(),
        Value::Packed(bytes) => {
            crate::Packed(bytes).value().map_or(Json::Null, |v| pack::unpack(&v))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn doubles_come_back_to_the_last_bit(bits: u64) {
            let float = f64::from_bits(bits);
            prop_assume!(!float.is_nan());
            let table = Table::new("t").column("f", "double precision").column("a", "double precision[]");
            let array = pack::pack(&Json::from(vec![value_to_json(&Value::Float(float))]), Kind::Float);
            let (value, packed) = (value_to_json(&Value::Float(float)), value_to_json(&Value::Packed(array.clone())));
            let line = serde_json::json!({"op": "insert", "new": {"f": value, "a": packed}}).to_string();
            let new = parse_change(&table, &line).unwrap().new.unwrap();
            let Value::Float(back) = new["f"] else { panic!("{:?}", new["f"]) };
            prop_assert_eq!(back.to_bits(), bits);
            prop_assert_eq!(&new["a"], &Value::Packed(array));
        }
    }
}
