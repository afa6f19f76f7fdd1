//! Checks whether a value that a guest writes fits the type of its column.
//!
//! The gateway and the test kit both use these functions: a value that passes in a test passes in
//! the gateway. Messages describe what is wrong and never contain the value, because the data of a
//! guest must not reach a log. This module does not know the column.

use std::fmt;

use crate::Type;

/// Why a value does not fit its column.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Misfit {
    /// The integer is outside the range of the type.
    IntegerRange,
    /// The number is outside the range of the type.
    FloatRange,
    /// The text is not a numeric.
    NotNumeric,
    /// The text is not JSON.
    NotJson,
    /// The text contains a NUL character.
    Nul,
    /// The time is outside the range of the type.
    TimeRange,
    /// The value is NULL, and the column is NOT NULL.
    Null,
    /// The guest did not set the value, and the column changes its type.
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

/// Days from 1970-01-01 to 2000-01-01, the epoch of Postgres.
pub const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;
/// Microseconds from 1970-01-01 to 2000-01-01, the epoch of Postgres.
pub const EPOCH_MICROS: i64 = EPOCH_DAYS * DAY_MICROS;
/// 4713-11-24 BC in days since 2000, Postgres' `DATETIME_MIN_JULIAN`.
///
/// There is no upper limit for timestamps: Postgres' last one exceeds 64 bits of µs since 1970.
const MIN_DAYS: i64 = -2_451_545;
const MIN_MICROS: i64 = MIN_DAYS * DAY_MICROS;
/// 5874898-01-01 in days since 2000: `DATE_END_JULIAN`.
const END_DAYS: i64 = 2_147_483_494 - 2_451_545;
/// Most digits of a numeric before and after its point.
const NUMERIC_DIGITS_MAX: (usize, usize) = (131_072, 16_383);

/// Checks an integer, or a time as it is laid out: days or µs since 1970, or µs since midnight.
///
/// The largest and the smallest number are the infinities of timestamps and dates.
///
/// # Errors
/// If the value is outside the range of `ty`.
pub fn check_integer(ty: Type, value: i64) -> Result<(), Misfit> {
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

/// Checks a float.
///
/// # Errors
/// If the value is finite and overflows `ty`.
pub fn check_float(ty: Type, value: f64) -> Result<(), Misfit> {
    let overflows = ty == Type::Float4 && value.is_finite() && (value as f32).is_infinite();
    if overflows { Err(Misfit::FloatRange) } else { Ok(()) }
}

/// Checks a value that is transferred as text.
///
/// # Errors
/// If Postgres would not print such a text for a value of `ty`.
pub fn check_text(ty: Type, text: &str) -> Result<(), Misfit> {
    match ty {
        Type::Numeric if !is_numeric(text) => Err(Misfit::NotNumeric),
        Type::Text if text.as_bytes().contains(&0) => Err(Misfit::Nul),
        Type::Json | Type::Jsonb if !is_json(text) => Err(Misfit::NotJson),
        Type::Jsonb if escapes_nul(text) => Err(Misfit::Nul),
        _ => Ok(()),
    }
}

/// Whether Postgres prints a numeric like this: without exponent, plus or leading zeros.
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

/// Parses the text without building a value.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Whether valid JSON contains the escape `\u0000`, which jsonb refuses.
fn escapes_nul(json: &str) -> bool {
    let escaped = |at: usize| {
        json.as_bytes()[..at].iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 0
    };
    json.match_indices("\\u0000").any(|(at, _)| escaped(at))
}
