//! Values from the wire as JSON: one form for test vectors, for Python and for comparisons.
//!
//! Values that JSON lacks are one-key objects: `{"bin": hex}`, `{"float": "NaN"}`, `{"map": [[k,
//! v], …]}`.

use serde_json::{Value as Json, json};
use walgate_wire::{Change, Chunk, Op, Value, hex};

pub fn value(value: &Value<'_>) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Bool(b) => json!(b),
        Value::Int(i) => json!(i),
        Value::F32(f) => float_json(f64::from(*f)),
        Value::F64(f) => float_json(*f),
        Value::Str(s) => json!(s),
        Value::Bin(b) => json!({ "bin": hex::encode(b) }),
        Value::Array(items) => items.iter().map(self::value).collect(),
        Value::Map(pairs) => {
            let pairs: Json =
                pairs.iter().map(|(k, v)| json!([self::value(k), self::value(v)])).collect();
            json!({ "map": pairs })
        }
    }
}

/// Whole numbers keep a decimal point, so that 1 and 1.0 differ.
fn float_json(f: f64) -> Json {
    if f.is_finite() { json!(f) } else { json!({ "float": f.to_string() }) }
}

pub fn row(values: &[Value<'_>]) -> Json {
    values.iter().map(value).collect()
}

pub fn change(change: &Change<'_>) -> Json {
    let mut json = json!({
        "lsn": change.position.commit_lsn.0,
        "n": change.position.ordinal,
        "xid": change.xid,
        "at": change.at,
        "op": operation(&change.op),
    });
    match &change.op {
        Op::Insert { row: new } => json["row"] = row(new),
        Op::Update { row: new, unchanged, old } => {
            json["row"] = row(new);
            json["unchanged"] = json!(unchanged);
            json["old"] = old.as_ref().map_or(Json::Null, |old| row(old));
        }
        Op::Delete { old } => json["old"] = row(old),
        Op::Truncate => {}
    }
    json
}

pub fn operation(op: &Op<'_>) -> char {
    match op {
        Op::Insert { .. } => 'i',
        Op::Update { .. } => 'u',
        Op::Delete { .. } => 'd',
        Op::Truncate => 't',
    }
}

pub fn chunk(chunk: Chunk<'_>) -> Json {
    chunk.into_rows().map(|values| row(&values)).collect()
}
