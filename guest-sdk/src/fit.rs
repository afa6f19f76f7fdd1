//! Whether a value that a guest writes fits the type of its column. The gateway asks here, and so does the kit that
//! tests guests natively: what passes there passes live.
//!
//! A value that does not fit is described by what is wrong with it, never by itself: what guests handle must not
//! reach a log. Which column it is for is not known here.

use std::fmt;

use crate::Type;

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Misfit {
    IntegerRange,
    FloatRange,
    NotNumeric,
    NotJson,
    Nul,
    TimeRange,
    Null,
    /// Left as it was, in a column that changes its type.
    Untouched,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Misfit::IntegerRange => "is an integer beyond the type's range",
            Misfit::FloatRange => "is a number beyond the type's range",
            Misfit::NotNumeric => {
                "is not a number as Postgres prints it (12.50, -3, NaN, Infinity)"
            }
            Misfit::NotJson => "is not JSON",
            Misfit::Nul => "has a NUL character, which Postgres' types cannot hold",
            Misfit::TimeRange => "is a time beyond the type's range",
            Misfit::Null => "is null, but the guest's plan says that the column never is",
            Misfit::Untouched => {
                "was left untouched, but the column's type changes, so that every row needs a value"
            }
        })
    }
}

impl std::error::Error for Misfit {}

/// From 1970-01-01 to 2000-01-01, where Postgres counts from.
pub const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;
pub const EPOCH_MICROS: i64 = EPOCH_DAYS * DAY_MICROS;
/// 4713-11-24 BC in days and microseconds since 2000: `DATETIME_MIN_JULIAN`. The last timestamp lies beyond what
/// microseconds since 1970 can say.
const MIN_DAYS: i64 = -2_451_545;
const MIN_MICROS: i64 = MIN_DAYS * DAY_MICROS;
/// 5874898-01-01 in days since 2000: `DATE_END_JULIAN`.
const END_DAYS: i64 = 2_147_483_494 - 2_451_545;
/// What numeric holds before and after its point.
const NUMERIC_DIGITS_MAX: (usize, usize) = (131_072, 16_383);

/// An integer, or a time as it is laid out: since 1970 or midnight, the largest and smallest being infinities.
pub fn integer(ty: Type, value: i64) -> Result<(), Misfit> {
    let infinite = value == i64::MAX || value == i64::MIN;
    let (fits, misfit) = match ty {
        Type::Int2 => (i16::try_from(value).is_ok(), Misfit::IntegerRange),
        Type::Int4 => (i32::try_from(value).is_ok(), Misfit::IntegerRange),
        Type::Timestamp | Type::Timestamptz => {
            let since_2000 = value.checked_sub(EPOCH_MICROS);
            (infinite || since_2000.is_some_and(|at| at >= MIN_MICROS), Misfit::TimeRange)
        }
        Type::Date => {
            let since_2000 = value.checked_sub(EPOCH_DAYS);
            let fits = since_2000.is_some_and(|day| (MIN_DAYS..END_DAYS).contains(&day));
            (infinite || fits, Misfit::TimeRange)
        }
        Type::Time => ((0..=DAY_MICROS).contains(&value), Misfit::TimeRange),
        _ => return Ok(()),
    };
    if fits { Ok(()) } else { Err(misfit) }
}

pub fn float(ty: Type, value: f64) -> Result<(), Misfit> {
    let overflows = ty == Type::Float4 && value.is_finite() && (value as f32).is_infinite();
    if overflows { Err(Misfit::FloatRange) } else { Ok(()) }
}

/// Of everything that is carried as a string.
pub fn text(ty: Type, text: &str) -> Result<(), Misfit> {
    match ty {
        Type::Numeric if !is_numeric(text) => Err(Misfit::NotNumeric),
        Type::Text if text.as_bytes().contains(&0) => Err(Misfit::Nul),
        Type::Json | Type::Jsonb if !is_json(text) => Err(Misfit::NotJson),
        Type::Jsonb if escapes_nul(text) => Err(Misfit::Nul),
        _ => Ok(()),
    }
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

/// Reads through it and keeps nothing.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Whether valid JSON has the escape `\u0000`, which jsonb refuses.
fn escapes_nul(json: &str) -> bool {
    let escaped = |at: usize| {
        json.as_bytes()[..at].iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 0
    };
    json.match_indices("\\u0000").any(|(at, _)| escaped(at))
}
