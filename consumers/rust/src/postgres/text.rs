//! Values in Postgres' text format, and fields in COPY's text format.

use walgate_wire::Value;

use crate::{ValueKind, json, text};

/// How a value that is not a scalar is written for the target column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextForm {
    /// `{1,2}`
    Array,
    /// `"a"=>"1"`
    Hstore,
    /// `[1,2]`, which pgvector reads; for all other types the value as JSON.
    Json,
}

impl TextForm {
    pub fn for_type(category: &str, type_name: &str) -> TextForm {
        match (category, type_name) {
            ("A", _) => TextForm::Array,
            (_, "hstore") => TextForm::Hstore,
            _ => TextForm::Json,
        }
    }
}

/// The value as text; none for NULL.
pub(super) fn postgres_text(form: TextForm, kind: &ValueKind, value: &Value<'_>) -> Option<String> {
    Some(match (kind, value) {
        (_, Value::Nil) => return None,
        (_, Value::Bool(b)) => if *b { "t" } else { "f" }.to_owned(),
        (ValueKind::Timestamptz, Value::Int(i)) => text::format_timestamptz(*i),
        (ValueKind::Timestamp, Value::Int(i)) => text::format_timestamp(*i),
        (ValueKind::Date, Value::Int(i)) => text::format_date(*i),
        (ValueKind::Time, Value::Int(i)) => text::format_time(*i),
        (_, Value::Int(i)) => i.to_string(),
        (_, Value::F32(f)) => text::format_float(*f),
        (_, Value::F64(f)) => text::format_float(*f),
        (_, Value::Str(s)) => (*s).to_owned(),
        (ValueKind::Uuid, Value::Bin(b)) => {
            text::format_uuid(b).unwrap_or_else(|| text::format_bytea(b))
        }
        (_, Value::Bin(b)) => text::format_bytea(b),
        (_, Value::Array(items)) if form == TextForm::Array => {
            let element =
                if let ValueKind::Array(element) = kind { element } else { &ValueKind::Other };
            let mut out = String::new();
            push_array(&mut out, element, items);
            out
        }
        (_, Value::Map(pairs)) if form == TextForm::Hstore => hstore_text(pairs),
        (_, Value::Array(_) | Value::Map(_)) => json::value_json(kind, value).to_string(),
    })
}

fn push_array(out: &mut String, element: &ValueKind, items: &[Value<'_>]) {
    out.push('{');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match item {
            Value::Array(items) => push_array(out, element, items),
            item => match postgres_text(TextForm::Json, element, item) {
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

fn hstore_text(pairs: &[(Value<'_>, Value<'_>)]) -> String {
    let mut out = String::new();
    for (i, (key, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_quoted(
            &mut out,
            &postgres_text(TextForm::Json, &ValueKind::Other, key).unwrap_or_default(),
        );
        out.push_str("=>");
        match postgres_text(TextForm::Json, &ValueKind::Other, value) {
            None => out.push_str("NULL"),
            Some(text) => push_quoted(&mut out, &text),
        }
    }
    out
}

/// Appends a field in COPY's text format.
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

    fn text(form: TextForm, kind: &ValueKind, value: Value<'_>) -> String {
        postgres_text(form, kind, &value).unwrap()
    }

    #[test]
    fn arrays_are_quoted_to_any_depth() {
        let array = Value::Array(vec![
            Value::Array(vec![Value::Str("a\"b\\c"), Value::Nil]),
            Value::Array(vec![Value::Str("NULL"), Value::Str("")]),
        ]);
        let kind = ValueKind::Array(Box::new(ValueKind::Other));
        assert_eq!(text(TextForm::Array, &kind, array), r#"{{"a\"b\\c",NULL},{"NULL",""}}"#);
        let times = Value::Array(vec![Value::Int(0), Value::Str("infinity")]);
        let kind = ValueKind::Array(Box::new(ValueKind::Timestamptz));
        assert_eq!(text(TextForm::Array, &kind, times), r#"{"1970-01-01 00:00:00+00","infinity"}"#);
        let bytes = Value::Array(vec![Value::Bin(&[0xde])]);
        let kind = ValueKind::Array(Box::new(ValueKind::Bytes));
        assert_eq!(text(TextForm::Array, &kind, bytes), r#"{"\\xde"}"#);
    }

    #[test]
    fn maps_are_hstore_or_json() {
        let map = || {
            Value::Map(vec![(Value::Str("a"), Value::Nil), (Value::Str("b\""), Value::Str("1"))])
        };
        assert_eq!(text(TextForm::Hstore, &ValueKind::Other, map()), r#""a"=>NULL,"b\""=>"1""#);
        assert_eq!(text(TextForm::Json, &ValueKind::Other, map()), r#"{"a":null,"b\"":"1"}"#);
        let vector = Value::Array(vec![Value::F32(0.1), Value::F32(2.0)]);
        assert_eq!(text(TextForm::Json, &ValueKind::Other, vector), "[0.1,2.0]");
    }

    #[test]
    fn copy_fields_are_escaped() {
        let mut out = Vec::new();
        push_copy_field(&mut out, Some("a\tb\\N\r\n"));
        push_copy_field(&mut out, None);
        assert_eq!(out, b"a\\tb\\\\N\\r\\n\\N");
    }
}
