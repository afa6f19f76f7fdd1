//! Whether a written value fits its type, as the gateway checks it.

use crate::{Output, Table, Type};

use super::Value;

pub fn value(table: &Table, output: &Output, value: &Value) -> Result<(), String> {
    let column = &output.column;
    let type_of = match output.type_name.as_str() {
        "" => table.find(column).and_then(|own| Type::kept(&own.type_name)),
        name => Type::parse(name),
    };
    let wrong = |what: String| Err(format!("the guest sets {column} to {what}"));
    match (type_of, value) {
        (_, Value::Null) if !output.nullable => wrong("NULL, and it is NOT NULL".into()),
        (_, Value::Text(text)) if text.contains('\0') => {
            wrong("a text with a NUL byte, which Postgres has not".into())
        }
        (Some(Type::Numeric), Value::Text(text)) if !is_numeric(text) => {
            wrong(format!("{text:?}, which is no numeric"))
        }
        (Some(Type::Json | Type::Jsonb), Value::Text(text)) => {
            let json = serde_json::from_str::<serde_json::Value>(text);
            json.map(drop).or_else(|error| wrong(format!("{text:?}, which is no JSON: {error}")))
        }
        (Some(Type::Int2), Value::Integer(n)) if i16::try_from(*n).is_err() => {
            wrong(format!("{n}, which is no int2"))
        }
        (Some(Type::Int4), Value::Integer(n)) if i32::try_from(*n).is_err() => {
            wrong(format!("{n}, which is no int4"))
        }
        _ => Ok(()),
    }
}

/// `-12.30`, `NaN`, `Infinity`; as Postgres prints them, which is without exponents.
pub fn is_numeric(text: &str) -> bool {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return true;
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    all_digits(whole) && all_digits(fraction)
}

#[cfg(test)]
mod tests {
    use super::is_numeric;

    #[test]
    fn numerics() {
        for good in ["0", "-12.30", "NaN", "-Infinity", "123456789012345678901234567890.5"] {
            assert!(is_numeric(good), "{good}");
        }
        for bad in ["", "-", ".5", "5.", "1e5", "+1", "1.2.3", "nan"] {
            assert!(!is_numeric(bad), "{bad}");
        }
    }
}
