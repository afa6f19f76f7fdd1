//! Parses times and bytes as users and Postgres write them.

use crate::times::{DAY, SECOND};
use crate::{Date, Time, Timestamp};

/// Parses a timestamp; without an offset it is in UTC. `None` for any other text.
///
/// Examples: `2024-05-01T10:00:00.5Z`, `2024-05-01 10:00:00+02`, `2024-05-01 10:00`,
/// `0044-03-15 10:00:00 BC`, `infinity`.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    let (text, era) = split_era(text);
    if let Some(date) = parse_day(text, era) {
        return Some(date.midnight());
    }
    let (date, rest) = text.split_once(['T', ' '])?;
    let (clock, offset) = match rest.rfind(['Z', '+', '-']) {
        Some(at) => (&rest[..at], parse_offset(&rest[at..])?),
        None => (rest, 0),
    };
    let midnight =
        i128::from(parse_day(date, era).filter(|day| day.is_finite())?.0) * i128::from(DAY);
    let micros = midnight + i128::from(time(clock)?.0 - offset);
    // Timestamps of the last 30 years before 294277 exceed 64 bits and become one value.
    i64::try_from(micros.min(i128::from(i64::MAX - 1))).ok().map(Timestamp)
}

/// Parses `2024-05-01`, `0044-03-15 BC`, `infinity` or `-infinity`.
pub fn date(text: &str) -> Option<Date> {
    let (text, era) = split_era(text);
    parse_day(text, era)
}

#[derive(Clone, Copy, PartialEq)]
enum Era {
    Ad,
    Bc,
}

fn split_era(text: &str) -> (&str, Era) {
    text.strip_suffix(" BC").map_or((text, Era::Ad), |text| (text, Era::Bc))
}

fn parse_day(text: &str, era: Era) -> Option<Date> {
    match text {
        "infinity" => return Some(Date::INFINITY),
        "-infinity" => return Some(Date::NEG_INFINITY),
        _ => {}
    }
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    // The year before 1 AD is 1 BC.
    let year = if era == Era::Bc { 1 - parse_digits(year)? } else { parse_digits(year)? };
    Date::from_ymd(year, parse_digits(month)?.try_into().ok()?, parse_digits(day)?.try_into().ok()?)
}

/// Parses `10:11`, `10:11:12` or `10:11:12.125`.
pub fn time(text: &str) -> Option<Time> {
    let mut parts = text.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0"));
    if parts.next().is_some() {
        return None;
    }
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    if fraction.len() > 6 {
        return None;
    }
    let (hours, minutes, seconds) =
        (parse_digits(hours)?, parse_digits(minutes)?, parse_digits(seconds)?);
    let micros = parse_digits(&format!("{fraction:0<6}"))?;
    let all = ((hours * 60 + minutes) * 60 + seconds) * SECOND + micros;
    (minutes < 60 && seconds < 60 && all <= DAY).then_some(Time(all))
}

/// Parses `Z`, `+02` or `-05:30`, in microseconds.
fn parse_offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, digits) = text.split_at(1);
    let (hours, minutes) = digits.split_once(':').unwrap_or((digits, "0"));
    let micros = (parse_digits(hours)? * 60 + parse_digits(minutes)?) * 60 * SECOND;
    Some(if sign == "-" { -micros } else { micros })
}

/// Parses a number of at most seven digits, without a sign.
fn parse_digits(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.len() <= 7 && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Parses pairs of hex digits.
pub fn hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

/// Prints bytes as Postgres prints a bytea: `\x00ff`.
pub fn to_hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\\x{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for text in ["2024-05-01T10:11:12.125Z", "1969-12-31T23:59:59Z", "infinity", "-infinity"] {
            assert_eq!(timestamp(text).unwrap().to_string(), text);
        }
        assert_eq!(
            timestamp("2024-05-01 12:00:00+02").unwrap().to_string(),
            "2024-05-01T10:00:00Z"
        );
        assert_eq!(
            timestamp("2024-05-01 04:30-05:30").unwrap().to_string(),
            "2024-05-01T10:00:00Z"
        );
        assert_eq!(timestamp("2024-05-01").unwrap().to_string(), "2024-05-01T00:00:00Z");
        assert_eq!(timestamp("0001-12-31 24:00:00+00 BC"), timestamp("0001-01-01"));
        assert_eq!(date("0001-12-31 BC"), date("0001-01-01").map(|day| Date(day.0 - 1)));
        assert_eq!(time("24:00:00"), Some(Time(DAY)));
    }

    #[test]
    fn what_is_no_time() {
        for text in
            ["", "2024-13-01", "2024-02-30 10:00", "2024-05-01 25:00", "2024-05-01 10:61", "now"]
        {
            assert_eq!(timestamp(text), None, "{text}");
        }
        assert_eq!(hex("0"), None);
        assert_eq!(hex("zz"), None);
    }
}
