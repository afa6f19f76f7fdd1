//! Values as text that Postgres reads, and as COPY wants it.

use walgate_wire::Value;

use crate::{Kind, json, text};

/// How a value that is not a scalar is written for the type that it goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `{1,2}`
    Array,
    /// `"a"=>"1"`
    Hstore,
    /// `[1,2]`, which is what pgvector reads; for all other types the value as JSON.
    Json,
}

impl Form {
    pub fn of(category: &str, type_name: &str) -> Form {
        match (category, type_name) {
            ("A", _) => Form::Array,
            (_, "hstore") => Form::Hstore,
            _ => Form::Json,
        }
    }
}

/// None for null.
pub(super) fn postgres_text(form: Form, kind: &Kind, value: &Value<'_>) -> Option<String> {
    Some(match (kind, value) {
        (_, Value::Nil) => return None,
        (_, Value::Bool(b)) => if *b { "t" } else { "f" }.to_owned(),
        (Kind::Timestamptz, Value::Int(i)) => text::timestamptz(*i),
        (Kind::Timestamp, Value::Int(i)) => text::timestamp(*i),
        (Kind::Date, Value::Int(i)) => text::date(*i),
        (Kind::Time, Value::Int(i)) => text::time(*i),
        (_, Value::Int(i)) => i.to_string(),
        (_, Value::F32(f)) => text::float(*f),
        (_, Value::F64(f)) => text::float(*f),
        (_, Value::Str(s)) => (*s).to_owned(),
        (Kind::Uuid, Value::Bin(b)) => text::uuid(b).unwrap_or_else(|| text::bytea(b)),
        (_, Value::Bin(b)) => text::bytea(b),
        (_, Value::Array(items)) if form == Form::Array => {
            let element = if let Kind::Array(element) = kind { element } else { &Kind::Other };
            let mut out = String::new();
            push_array(&mut out, element, items);
            out
        }
        (_, Value::Map(pairs)) if form == Form::Hstore => hstore(pairs),
        (_, Value::Array(_) | Value::Map(_)) => json::value_json(kind, value).to_string(),
    })
}

fn push_array(out: &mut String, element: &Kind, items: &[Value<'_>]) {
    out.push('{');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match item {
            Value::Array(items) => push_array(out, element, items),
            item => match postgres_text(Form::Json, element, item) {
                None => out.push_str("NULL"),
                Some(text) => push_quoted(out, &text),
            },
        }
    }
    out.push('}');
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn hstore(pairs: &[(Value<'_>, Value<'_>)]) -> String {
    let mut out = String::new();
    for (i, (key, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_quoted(&mut out, &postgres_text(Form::Json, &Kind::Other, key).unwrap_or_default());
        out.push_str("=>");
        match postgres_text(Form::Json, &Kind::Other, value) {
            None => out.push_str("NULL"),
            Some(text) => push_quoted(&mut out, &text),
        }
    }
    out
}

/// A field of COPY's text format.
pub(super) fn push_copy_field(out: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text else { return out.extend_from_slice(b"\\N") };
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(form: Form, kind: &Kind, value: Value<'_>) -> String {
        postgres_text(form, kind, &value).unwrap()
    }

    #[test]
    fn arrays_are_quoted_to_any_depth() {
        let array = Value::Array(vec![
            Value::Array(vec![Value::Str("a\"b\\c"), Value::Nil]),
            Value::Array(vec![Value::Str("NULL"), Value::Str("")]),
        ]);
        let kind = Kind::Array(Box::new(Kind::Other));
        assert_eq!(text(Form::Array, &kind, array), r#"{{"a\"b\\c",NULL},{"NULL",""}}"#);
        let times = Value::Array(vec![Value::Int(0), Value::Str("infinity")]);
        let kind = Kind::Array(Box::new(Kind::Timestamptz));
        assert_eq!(text(Form::Array, &kind, times), r#"{"1970-01-01 00:00:00+00","infinity"}"#);
        let bytes = Value::Array(vec![Value::Bin(&[0xde])]);
        let kind = Kind::Array(Box::new(Kind::Bytes));
        assert_eq!(text(Form::Array, &kind, bytes), r#"{"\\xde"}"#);
    }

    #[test]
    fn maps_are_hstore_or_json() {
        let map = || {
            Value::Map(vec![(Value::Str("a"), Value::Nil), (Value::Str("b\""), Value::Str("1"))])
        };
        assert_eq!(text(Form::Hstore, &Kind::Other, map()), r#""a"=>NULL,"b\""=>"1""#);
        assert_eq!(text(Form::Json, &Kind::Other, map()), r#"{"a":null,"b\"":"1"}"#);
        let vector = Value::Array(vec![Value::F32(0.1), Value::F32(2.0)]);
        assert_eq!(text(Form::Json, &Kind::Other, vector), "[0.1,2.0]");
    }

    #[test]
    fn copy_fields_are_escaped() {
        let mut out = Vec::new();
        push_copy_field(&mut out, Some("a\tb\\N\r\n"));
        push_copy_field(&mut out, None);
        assert_eq!(out, b"a\\tb\\\\N\\r\\n\\N");
    }
}
