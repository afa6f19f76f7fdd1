//! Values as Postgres prints them in ISO style and UTC: dates, times, UUIDs, floats.

use std::fmt::Write;

use walgate_wire::hex;

const DAY_US: i64 = 86_400_000_000;

/// `2026-11-22 16:51:38.123456+00`; `micros` since 1970.
pub fn format_timestamptz(micros: i64) -> String {
    let (mut out, era) = format_date_and_time(micros);
    out.push_str("+00");
    out.push_str(era);
    out
}

/// `2026-11-22 16:51:38.123456`
pub fn format_timestamp(micros: i64) -> String {
    let (mut out, era) = format_date_and_time(micros);
    out.push_str(era);
    out
}

/// `2026-11-22`; `days` since 1970.
pub fn format_date(days: i64) -> String {
    let mut out = String::with_capacity(16);
    let era = push_date(&mut out, days);
    out.push_str(era);
    out
}

/// `16:51:38.123456`; `micros` since midnight, up to and with 24:00:00.
pub fn format_time(micros: i64) -> String {
    let mut out = String::with_capacity(16);
    push_time(&mut out, micros);
    out
}

fn format_date_and_time(micros: i64) -> (String, &'static str) {
    let mut out = String::with_capacity(32);
    let era = push_date(&mut out, micros.div_euclid(DAY_US));
    out.push(' ');
    push_time(&mut out, micros.rem_euclid(DAY_US));
    (out, era)
}

/// Returns the era that has to follow the time.
fn push_date(out: &mut String, days: i64) -> &'static str {
    let (year, month, day) = civil_date(days);
    let (shown, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    push_digits(out, shown.unsigned_abs(), 4);
    out.push('-');
    push_digits(out, month, 2);
    out.push('-');
    push_digits(out, day, 2);
    era
}

fn push_time(out: &mut String, micros: i64) {
    let micros = micros.unsigned_abs();
    let seconds = micros / 1_000_000;
    let fraction = micros % 1_000_000;
    push_digits(out, seconds / 3600, 2);
    out.push(':');
    push_digits(out, seconds / 60 % 60, 2);
    out.push(':');
    push_digits(out, seconds % 60, 2);
    if fraction > 0 {
        out.push('.');
        push_digits(out, fraction, 6);
        out.truncate(out.trim_end_matches('0').len());
    }
}

/// Decimal, padded with zeros to `width`.
fn push_digits(out: &mut String, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while value > 0 || digits.len() - at < width {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend(digits[at..].iter().map(|&digit| char::from(digit)));
}

/// Proleptic Gregorian year, month and day of a count of days since 1970
/// (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil_date(days: i64) -> (i64, u64, u64) {
    let days = i128::from(days) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    (year as i64, month as u64, day as u64)
}

/// `01234567-89ab-cdef-0123-456789abcdef`; none unless there are 16 bytes.
pub fn format_uuid(bytes: &[u8]) -> Option<String> {
    if bytes.len() != 16 {
        return None;
    }
    let mut out = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        hex::append_str(&mut out, &[*byte]);
    }
    Some(out)
}

/// `\xdeadbeef`
pub fn format_bytea(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 + bytes.len() * 2);
    out.push_str("\\x");
    hex::append_str(&mut out, bytes);
    out
}

/// The shortest text that parses to the same number; NaN and infinities as Postgres prints them.
pub fn format_float(value: impl Into<f64> + std::fmt::LowerExp + Copy) -> String {
    let wide: f64 = value.into();
    if wide.is_nan() {
        return "NaN".to_owned();
    }
    if wide.is_infinite() {
        return if wide > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let mut out = String::new();
    // Writing into a String does not fail.
    let _ = write!(out, "{value:e}");
    match out.strip_suffix("e0") {
        Some(plain) => plain.to_owned(),
        None => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_postgres_prints() {
        assert_eq!(format_timestamptz(1_795_366_298_123_456), "2026-11-22 16:51:38.123456+00");
        assert_eq!(format_timestamptz(1_795_366_298_100_000), "2026-11-22 16:51:38.1+00");
        assert_eq!(format_timestamp(0), "1970-01-01 00:00:00");
        assert_eq!(format_timestamp(-1), "1969-12-31 23:59:59.999999");
        assert_eq!(format_date(-719_162), "0001-01-01");
        assert_eq!(format_date(-719_163), "0001-12-31 BC");
        assert_eq!(format_date(10_957), "2000-01-01");
        assert_eq!(format_date(11_016), "2000-02-29");
        assert_eq!(format_date(2_932_897), "10000-01-01");
        assert_eq!(format_time(86_400_000_000), "24:00:00");
        assert_eq!(format_time(60_000_001), "00:01:00.000001");
        assert_eq!(format_uuid(&[0xab; 16]).unwrap(), "abababab-abab-abab-abab-abababababab");
        assert_eq!(format_uuid(&[0xab; 15]), None);
        assert_eq!(format_bytea(&[0xde, 0xad, 0]), "\\xdead00");
        assert_eq!(format_float(1.5f64), "1.5");
        assert_eq!(format_float(0.1f32), "1e-1");
        assert_eq!(format_float(f64::NEG_INFINITY), "-Infinity");
        assert_eq!(format_float(-0.0f64), "-0");
    }

    proptest! {
        #[test]
        fn dates_agree_with_another_calendar(days in -719_162i64..2_900_000) {
            let epoch = jiff::civil::date(1970, 1, 1);
            let expected = epoch.checked_add(jiff::Span::new().days(days)).unwrap();
            prop_assert_eq!(format_date(days), expected.to_string());
        }

        #[test]
        fn no_number_panics(n: i64) {
            let _ = (format_timestamptz(n), format_date(n), format_time(n));
        }

        #[test]
        fn floats_read_back(f: f64, g: f32) {
            prop_assert!(format_float(f).parse::<f64>().unwrap().to_bits() == f.to_bits() || f.is_nan());
            prop_assert!(format_float(g).parse::<f32>().unwrap().to_bits() == g.to_bits() || g.is_nan());
        }
    }
}
