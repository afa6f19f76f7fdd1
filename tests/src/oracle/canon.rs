//! One canonical text for each value, the same from both sides: how types look in a copy.
//!
//! | type | in SQLite |
//! |---|---|
//! | bool, integers, oid, domains over them | INTEGER |
//! | float4, float8 | REAL; NaN is TEXT; −0 is 0 |
//! | bytea | BLOB |
//! | arrays, composites, hstore, vector | TEXT: JSON |
//! | money | TEXT, a plain decimal |
//! | all else | TEXT as Postgres prints it |

use rusqlite::types::ValueRef;
use serde_json::Value as Json;

use super::{
    parse::{Tree, parse_tree},
    shape::Type,
};

const NULL: &str = "∅";

/// The canonical text of a value that the source prints.
pub fn source(ty: &Type, text: Option<&str>) -> String {
    let Some(text) = text else { return NULL.to_owned() };
    match ty {
        Type::Array(_) | Type::Composite(_) | Type::Hstore | Type::Vector => {
            format!("text {}", nested_text(&parse_tree(ty, text)))
        }
        Type::Bool => format!("integer {}", u8::from(text == "t")),
        Type::Int => format!("integer {text}"),
        Type::Float4 | Type::Float8 => float_text(parse_float(ty, text)),
        Type::Bytes => format!("blob {}", text.trim_start_matches("\\x")),
        Type::Money => format!("text {}", text.replace(['$', ','], "")),
        Type::IntOrText if text.parse::<i64>().is_ok() => format!("integer {text}"),
        Type::Json | Type::Text | Type::IntOrText => format!("text {text}"),
    }
}

/// The canonical text of a value in SQLite.
pub fn sqlite(ty: &Type, value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => NULL.to_owned(),
        ValueRef::Integer(i) => format!("integer {i}"),
        // A float4 is published exactly; the source prints fewer digits of the same number.
        ValueRef::Real(f) if *ty == Type::Float4 => float_text(f64::from(f as f32)),
        ValueRef::Real(f) => float_text(f),
        ValueRef::Blob(bytes) => format!("blob {}", walgate_wire::hex::encode(bytes)),
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text);
            match ty {
                Type::Array(_) | Type::Composite(_) | Type::Hstore | Type::Vector => {
                    json_text(ty, &text)
                }
                _ => format!("text {text}"),
            }
        }
    }
}

/// The canonical text of a nested value in JSON.
pub fn json_text(ty: &Type, text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(json) => format!("text {}", nested_text(&json_tree(ty, &json))),
        Err(_) => format!("not JSON: {text}"),
    }
}

fn parse_float(ty: &Type, text: &str) -> f64 {
    match ty {
        Type::Float4 => text.parse::<f32>().map(f64::from),
        _ => text.parse(),
    }
    .unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn float_text(f: f64) -> String {
    // SQLite stores whole numbers of a REAL column as integers, which have no −0.
    if f.is_nan() {
        "text NaN".to_owned()
    } else {
        format!("real {:?}", if f == 0.0 { 0.0 } else { f })
    }
}

fn nested_text(tree: &Tree) -> String {
    match tree {
        Tree::Null => NULL.to_owned(),
        Tree::Leaf(ty @ (Type::Float4 | Type::Float8), text) => float_text(parse_float(ty, text)),
        // In JSON, the JSON null inside an array looks like NULL.
        Tree::Leaf(Type::Json, text) if text == "null" => NULL.to_owned(),
        Tree::Leaf(Type::Json, text) => match serde_json::from_str::<Json>(text) {
            Ok(json) => json.to_string(),
            Err(_) => format!("not JSON: {text}"),
        },
        Tree::Leaf(_, text) => format!("{text:?}"),
        Tree::List(items) => {
            format!("[{}]", items.iter().map(nested_text).collect::<Vec<_>>().join(", "))
        }
        Tree::Map(pairs) => {
            let mut pairs: Vec<_> = pairs
                .iter()
                .map(|(key, value)| format!("{key:?}: {}", nested_text(value)))
                .collect();
            pairs.sort();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

/// The same tree, with leaves as Postgres would print them.
fn json_tree(ty: &Type, json: &Json) -> Tree {
    let odd = || Tree::Leaf(Type::Text, format!("unexpected: {json}"));
    match (ty, json) {
        (Type::Json, json) => Tree::Leaf(Type::Json, json.to_string()),
        (_, Json::Null) => Tree::Null,
        // Postgres has no separate type for arrays of arrays.
        (Type::Array(element), Json::Array(items)) => {
            let inner = |item: &Json| match (item, &**element) {
                (Json::Array(_), Type::Array(_) | Type::Vector | Type::Json) => {
                    json_tree(element, item)
                }
                (Json::Array(_), _) => json_tree(ty, item),
                _ => json_tree(element, item),
            };
            Tree::List(items.iter().map(inner).collect())
        }
        (Type::Vector, Json::Array(items)) => {
            Tree::List(items.iter().map(|item| json_tree(&Type::Float4, item)).collect())
        }
        (Type::Composite(fields), Json::Object(members)) if members.len() == fields.len() => {
            let field = |(name, ty): &(String, Type)| {
                let value = members.get(name).map_or_else(odd, |member| json_tree(ty, member));
                (name.clone(), value)
            };
            Tree::Map(fields.iter().map(field).collect())
        }
        (Type::Hstore, Json::Object(members)) => {
            let pair =
                |(key, value): (&String, &Json)| (key.clone(), json_tree(&Type::Text, value));
            Tree::Map(members.iter().map(pair).collect())
        }
        (Type::Bool, Json::Bool(b)) => {
            Tree::Leaf(Type::Bool, if *b { "t" } else { "f" }.to_owned())
        }
        (Type::Int | Type::Float4 | Type::Float8, Json::Number(n)) => {
            Tree::Leaf(ty.clone(), n.to_string())
        }
        (Type::Float4 | Type::Float8 | Type::Text | Type::Bytes, Json::String(s)) => {
            Tree::Leaf(ty.clone(), s.clone())
        }
        _ => odd(),
    }
}
