//! Dates and times → integers since 1970, or the strings that Postgres prints.
//!
//! Strings are used where an integer would not do: ±infinity, years before 1, timestamps beyond 64
//! bits, `timetz` and `interval`. Postgres counts from 2000-01-01 in microseconds or days. Strings
//! are in ISO style and UTC. See timestamp.c, datetime.c.

use std::io::Write;

use walgate_wire::pack;

use crate::encode::{PackError, fixed_bytes};

/// From 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;
const EPOCH_MICROS: i64 = EPOCH_DAYS * DAY_MICROS;
/// 0001-01-01 in days since 1970; earlier days are BC.
const YEAR_1_DAYS: i64 = -719_162;
/// The longest text, an interval of nine-digit parts, stays well below this.
const TEXT_BYTES_MAX: usize = 128;

/// Microseconds since 1970; none if the value needs a string.
#[inline]
pub(super) fn unix_micros(bytes: &[u8]) -> Result<Option<i64>, PackError> {
    let micros = i64::from_be_bytes(fixed_bytes(bytes)?);
    if micros == i64::MAX {
        return Ok(None);
    }
    Ok(micros.checked_add(EPOCH_MICROS).filter(|&micros| micros >= YEAR_1_DAYS * DAY_MICROS))
}

/// Days since 1970; none if the value needs a string.
#[inline]
pub(super) fn unix_days(bytes: &[u8]) -> Result<Option<i64>, PackError> {
    let days = i32::from_be_bytes(fixed_bytes(bytes)?);
    if days == i32::MAX {
        return Ok(None);
    }
    let days = i64::from(days) + EPOCH_DAYS;
    Ok((days >= YEAR_1_DAYS).then_some(days))
}

/// Microseconds since midnight; 24:00 is allowed.
#[inline]
pub(super) fn micros_of_day(bytes: &[u8]) -> Result<i64, PackError> {
    let micros = i64::from_be_bytes(fixed_bytes(bytes)?);
    if (0..=DAY_MICROS).contains(&micros) { Ok(micros) } else { Err(PackError::BadTime) }
}

#[cold]
pub(super) fn pack_timestamp_text(
    bytes: &[u8],
    zone: &str,
    out: &mut Vec<u8>,
) -> Result<(), PackError> {
    let micros = i64::from_be_bytes(fixed_bytes(bytes)?);
    if let Some(text) = infinity_text(micros == i64::MAX, micros == i64::MIN) {
        pack::str(out, text);
        return Ok(());
    }
    let mut text = Text::new();
    let era = text.push_date(micros.div_euclid(DAY_MICROS) + EPOCH_DAYS);
    text.push(format_args!(" "));
    text.push_clock(micros.rem_euclid(DAY_MICROS));
    text.push(format_args!("{zone}{era}"));
    text.pack(out);
    Ok(())
}

#[cold]
pub(super) fn pack_date_text(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
    let days = i32::from_be_bytes(fixed_bytes(bytes)?);
    if let Some(text) = infinity_text(days == i32::MAX, days == i32::MIN) {
        pack::str(out, text);
        return Ok(());
    }
    let mut text = Text::new();
    let era = text.push_date(i64::from(days) + EPOCH_DAYS);
    text.push(format_args!("{era}"));
    text.pack(out);
    Ok(())
}

pub(super) fn pack_time_text(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
    let mut text = Text::new();
    text.push_clock(micros_of_day(bytes)?);
    text.pack(out);
    Ok(())
}

fn infinity_text(positive: bool, negative: bool) -> Option<&'static str> {
    if positive { Some("infinity") } else { negative.then_some("-infinity") }
}

/// `10:11:12.5+02`: the time, then seconds west of UTC.
pub(super) fn pack_timetz(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PackError> {
    let bytes: [u8; 12] = fixed_bytes(bytes)?;
    let (micros, zone) = bytes.split_at(8);
    let micros = micros_of_day(micros)?;
    let west = i64::from(i32::from_be_bytes(fixed_bytes(zone)?));
    let mut text = Text::new();
    text.push_clock(micros);
    let (hours, minutes, seconds) = (west.abs() / 3600, west.abs() / 60 % 60, west.abs() % 60);
    text.push(format_args!("{}{hours:02}", if west <= 0 { '+' } else { '-' }));
    match (minutes, seconds) {
        (0, 0) => {}
        (_, 0) => text.push(format_args!(":{minutes:02}")),
        _ => text.push(format_args!(":{minutes:02}:{seconds:02}")),
    }
    text.pack(out);
    Ok(())
}

/// As `intervalstyle = postgres` prints it (`EncodeInterval`). For the extremes it returns false
/// and writes nothing: since Postgres 17 they are infinities, before they are numbers.
pub(super) fn pack_interval(bytes: &[u8], out: &mut Vec<u8>) -> Result<bool, PackError> {
    let bytes: [u8; 16] = fixed_bytes(bytes)?;
    let (micros, rest) = bytes.split_at(8);
    let (days, months) = rest.split_at(4);
    let micros = i64::from_be_bytes(fixed_bytes(micros)?);
    let days = i32::from_be_bytes(fixed_bytes(days)?);
    let months = i32::from_be_bytes(fixed_bytes(months)?);
    let extremes = [(i64::MAX, i32::MAX), (i64::MIN, i32::MIN)];
    if extremes.iter().any(|&(wide, narrow)| micros == wide && days == narrow && months == narrow) {
        return Ok(false);
    }
    let mut text = Text::new();
    let mut after_negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value != 0 {
            let space = if text.len == 0 { "" } else { " " };
            let plus = if after_negative && value > 0 { "+" } else { "" };
            let plural = if value == 1 { "" } else { "s" };
            text.push(format_args!("{space}{plus}{value} {unit}{plural}"));
            after_negative = value < 0;
        }
    }
    if micros != 0 || text.len == 0 {
        let space = if text.len == 0 { "" } else { " " };
        let sign = match (micros < 0, after_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        text.push(format_args!("{space}{sign}"));
        text.push_clock(micros);
    }
    text.pack(out);
    Ok(true)
}

/// A short text on the stack.
struct Text {
    bytes: [u8; TEXT_BYTES_MAX],
    len: usize,
}

impl Text {
    fn new() -> Self {
        Text { bytes: [0; TEXT_BYTES_MAX], len: 0 }
    }

    fn push(&mut self, part: std::fmt::Arguments<'_>) {
        let mut rest = &mut self.bytes[self.len..];
        let before = rest.len();
        let fits = rest.write_fmt(part).is_ok();
        debug_assert!(fits, "every text of this module is shorter than the buffer");
        self.len += before - rest.len();
    }

    /// `HH:MM:SS` of the absolute value, with as many decimals as it needs.
    fn push_clock(&mut self, micros: i64) {
        let micros = micros.unsigned_abs();
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        self.push(format_args!("{hours:02}:{minutes:02}:{:02}", seconds % 60));
        if fraction != 0 {
            self.push(format_args!(".{fraction:06}"));
            while self.bytes[self.len - 1] == b'0' {
                self.len -= 1;
            }
        }
    }

    /// `YYYY-MM-DD` of the day since 1970; returns the end of the text.
    fn push_date(&mut self, days: i64) -> &'static str {
        let (year, month, day) = civil_date(days);
        let (year, era) = if year <= 0 { (1 - year, " BC") } else { (year, "") };
        self.push(format_args!("{year:04}-{month:02}-{day:02}"));
        era
    }

    fn pack(&self, out: &mut Vec<u8>) {
        pack::str_bytes(out, &self.bytes[..self.len]);
    }
}

/// Year (0 is 1 BC), month and day in the proleptic Gregorian calendar of a day since 1970.
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>
fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
