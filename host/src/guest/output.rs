//! The types that a guest's own values may have, and how such a value becomes a cell.
//!
//! A value that does not fit its type is described by what is wrong with it, never by itself: what guests handle
//! must not reach a log. Which column it is for is not known here.

use serde::de::IgnoredAny;

use super::{decisions::Value, kind::Kind};
use crate::{
    batch::Cell,
    pack::Packer,
    source::catalog::{self, Type},
};

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("is an integer beyond the type's range")]
    IntegerRange,
    #[error("is a number beyond the type's range")]
    FloatRange,
    #[error("is not a number as Postgres prints it (12.50, -3, NaN, Infinity)")]
    NotNumeric,
    #[error("is not JSON")]
    NotJson,
    #[error("has a NUL character, which Postgres' types cannot hold")]
    Nul,
    #[error("is a time beyond the type's range")]
    TimeRange,
    #[error("is null, but the guest's plan says that the column never is")]
    Null,
    #[error("was left untouched, but the column's type changes, so that every row needs a value")]
    Untouched,
}

/// A type of the list in the interface's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputType {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytea,
    Uuid,
    Json,
    Jsonb,
    TimestampTz,
    Timestamp,
    Date,
    Time,
}

use OutputType::*;

/// Type, oid (src/include/catalog/pg_type.dat), name as `format_type` prints it, other names.
const TYPES: [(OutputType, u32, &str, &[&str]); 16] = [
    (Bool, 16, "boolean", &["bool"]),
    (Int2, 21, "smallint", &["int2"]),
    (Int4, 23, "integer", &["int4"]),
    (Int8, 20, "bigint", &["int8"]),
    (Float4, 700, "real", &["float4"]),
    (Float8, 701, "double precision", &["float8"]),
    (Numeric, 1700, "numeric", &[]),
    (Text, 25, "text", &[]),
    (Bytea, 17, "bytea", &[]),
    (Uuid, 2950, "uuid", &[]),
    (Json, 114, "json", &[]),
    (Jsonb, 3802, "jsonb", &[]),
    (TimestampTz, 1184, "timestamp with time zone", &["timestamptz"]),
    (Timestamp, 1114, "timestamp without time zone", &["timestamp"]),
    (Date, 1082, "date", &[]),
    (Time, 1083, "time without time zone", &["time"]),
];

/// From 1970-01-01 to 2000-01-01, where Postgres counts from.
const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;
const EPOCH_MICROS: i64 = EPOCH_DAYS * DAY_MICROS;
/// 4713-11-24 BC in days and microseconds since 2000: `DATETIME_MIN_JULIAN`. The last timestamp lies beyond what
/// microseconds since 1970 can say.
const MIN_DAYS: i64 = -2_451_545;
const MIN_MICROS: i64 = MIN_DAYS * DAY_MICROS;
/// 5874898-01-01 in days since 2000: `DATE_END_JULIAN`.
const END_DAYS: i64 = 2_147_483_494 - 2_451_545;
/// What numeric holds before and after its point.
const NUMERIC_DIGITS_MAX: (usize, usize) = (131_072, 16_383);

impl OutputType {
    pub fn parse(name: &str) -> Option<OutputType> {
        let name = name.trim().to_ascii_lowercase();
        let named = |(_, _, own, others): &&(_, _, &str, &[&str])| {
            *own == name || others.contains(&name.as_str())
        };
        TYPES.iter().find(named).map(|(ty, ..)| *ty)
    }

    /// The type of a column without its modifier; none if a guest cannot put it out.
    pub fn of(ty: &Type) -> Option<OutputType> {
        let own =
            TYPES.iter().find(|(_, oid, ..)| *oid == ty.oid && ty.kind == catalog::Kind::Base);
        match ty.oid {
            // name, char(n), varchar; citext and domains were resolved by the catalog.
            19 | 1042 | 1043 if ty.kind == catalog::Kind::Base => Some(Text),
            _ => own.map(|(ty, ..)| *ty),
        }
    }

    /// All names, for messages.
    pub fn names() -> String {
        TYPES.map(|(_, _, name, _)| name).join(", ")
    }

    pub fn oid(self) -> u32 {
        TYPES[self as usize].1
    }

    pub fn name(self) -> &'static str {
        TYPES[self as usize].2
    }

    pub fn kind(self) -> Kind {
        match self {
            Bool => Kind::Boolean,
            Int2 | Int4 | Int8 => Kind::Integer,
            Float4 | Float8 => Kind::Float,
            Numeric | Text | Json | Jsonb => Kind::Text,
            Bytea => Kind::Bytes,
            Uuid => Kind::Uuid,
            TimestampTz | Timestamp => Kind::Timestamp,
            Date => Kind::Date,
            Time => Kind::Time,
        }
    }

    /// Whether a value of type `own` can be left as it is in a column of this type.
    pub fn holds(self, own: &Type) -> bool {
        OutputType::of(own) == Some(self)
            || (self == Text && matches!(Packer::new(own), Packer::Text))
    }

    /// Appends the value's bytes. The decoder saw to it that the value is of this type's kind.
    pub fn cell(self, value: &Value<'_>, bytes: &mut Vec<u8>) -> Result<Cell, Misfit> {
        let start = bytes.len();
        match (self, *value) {
            (Bool, Value::Boolean(value)) => bytes.push(u8::from(value)),
            (Int2, Value::Integer(value)) => bytes.extend(ranged::<i16>(value)?.to_be_bytes()),
            (Int4, Value::Integer(value)) => bytes.extend(ranged::<i32>(value)?.to_be_bytes()),
            (Int8, Value::Integer(value)) => bytes.extend(value.to_be_bytes()),
            (Float4, Value::Float(value)) => bytes.extend(narrow(value)?.to_be_bytes()),
            (Float8, Value::Float(value)) => bytes.extend(value.to_be_bytes()),
            (Timestamp | TimestampTz, Value::Integer(micros)) => {
                bytes.extend(timestamp(micros)?.to_be_bytes());
            }
            (Date, Value::Integer(days)) => bytes.extend(date(days)?.to_be_bytes()),
            (Time, Value::Integer(micros)) => {
                let fits = (0..=DAY_MICROS).contains(&micros);
                bytes.extend(
                    if fits { micros } else { return Err(Misfit::TimeRange) }.to_be_bytes(),
                );
            }
            (Uuid | Bytea, Value::Bytes(value)) => bytes.extend_from_slice(value),
            (Numeric | Text | Json | Jsonb, Value::Text(text)) => {
                self.check_text(text)?;
                bytes.extend_from_slice(text.as_bytes());
                return Ok(Cell::Text { start: start as u32, len: text.len() as u32 });
            }
            _ => return Err(Misfit::Untouched),
        }
        Ok(Cell::Binary { start: start as u32, len: (bytes.len() - start) as u32 })
    }

    fn check_text(self, text: &str) -> Result<(), Misfit> {
        match self {
            Numeric if !is_numeric(text) => Err(Misfit::NotNumeric),
            Text if text.as_bytes().contains(&0) => Err(Misfit::Nul),
            Json | Jsonb if serde_json::from_str::<IgnoredAny>(text).is_err() => {
                Err(Misfit::NotJson)
            }
            Jsonb if escapes_nul(text) => Err(Misfit::Nul),
            _ => Ok(()),
        }
    }
}

fn ranged<T: TryFrom<i64>>(value: i64) -> Result<T, Misfit> {
    T::try_from(value).map_err(|_| Misfit::IntegerRange)
}

fn narrow(value: f64) -> Result<f32, Misfit> {
    let narrow = value as f32;
    if narrow.is_infinite() && value.is_finite() { Err(Misfit::FloatRange) } else { Ok(narrow) }
}

fn timestamp(micros: i64) -> Result<i64, Misfit> {
    if micros == i64::MAX || micros == i64::MIN {
        return Ok(micros);
    }
    let since_2000 = micros.checked_sub(EPOCH_MICROS);
    since_2000.filter(|micros| *micros >= MIN_MICROS).ok_or(Misfit::TimeRange)
}

fn date(days: i64) -> Result<i32, Misfit> {
    match days {
        i64::MAX => return Ok(i32::MAX),
        i64::MIN => return Ok(i32::MIN),
        _ => {}
    }
    let since_2000 =
        days.checked_sub(EPOCH_DAYS).filter(|days| (MIN_DAYS..END_DAYS).contains(days));
    since_2000.and_then(|days| i32::try_from(days).ok()).ok_or(Misfit::TimeRange)
}

/// As Postgres prints it: no exponent, no plus, no needless zeros in front.
fn is_numeric(text: &str) -> bool {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return true;
    }
    let digits = |part: &str, max: usize| {
        !part.is_empty() && part.len() <= max && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) =
        text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let (whole_max, fraction_max) = NUMERIC_DIGITS_MAX;
    digits(whole, whole_max)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && fraction.is_none_or(|fraction| digits(fraction, fraction_max))
}

/// Whether valid JSON has the escape `\u0000`, which jsonb refuses.
fn escapes_nul(json: &str) -> bool {
    let escaped = |at: usize| {
        json.as_bytes()[..at].iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 0
    };
    json.match_indices("\\u0000").any(|(at, _)| escaped(at))
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
