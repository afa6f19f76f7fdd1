//! Timestamps, dates and times of day, counted from 1970 or from midnight.
//!
//! This module is pure arithmetic: it knows no clock and no time zones.

use std::fmt;

use crate::civil;

pub(crate) const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
pub(crate) const DAY: i64 = 24 * HOUR;

/// A timestamp: microseconds since 1970-01-01 00:00.
///
/// A `timestamp with time zone` counts in UTC. A `timestamp without time zone` counts in the
/// unknown zone of its own clock.
///
/// ```
/// use walgate_guest::Timestamp;
///
/// let at = Timestamp(1_714_557_599_900_000);
/// assert_eq!(at.to_string(), "2024-05-01T09:59:59.9Z");
/// assert_eq!(at.truncate_to_hour().to_string(), "2024-05-01T09:00:00Z");
/// assert_eq!(at.date().first_of_month().to_string(), "2024-05-01");
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(pub i64);

/// A date: days since 1970-01-01.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Date(pub i64);

/// A time of day: microseconds since midnight, up to and including 24:00.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(pub i64);

impl Timestamp {
    /// Postgres' `infinity`. The methods return it unchanged, unless they say otherwise.
    pub const INFINITY: Timestamp = Timestamp(i64::MAX);
    /// Postgres' `-infinity`. The methods return it unchanged, unless they say otherwise.
    pub const NEG_INFINITY: Timestamp = Timestamp(i64::MIN);

    /// Whether the timestamp is not infinite.
    pub fn is_finite(self) -> bool {
        self != Self::INFINITY && self != Self::NEG_INFINITY
    }

    /// The start of its hour.
    pub fn truncate_to_hour(self) -> Timestamp {
        self.truncate(HOUR)
    }

    /// The start of its day, midnight UTC.
    pub fn truncate_to_day(self) -> Timestamp {
        self.truncate(DAY)
    }

    /// Rounds down to a multiple of `step_micros` since 1970. A step of 0 or less changes nothing.
    pub fn truncate(self, step_micros: i64) -> Timestamp {
        if !self.is_finite() || step_micros <= 0 {
            return self;
        }
        Timestamp(self.0.saturating_sub(self.0.rem_euclid(step_micros)))
    }

    /// Its date.
    pub fn date(self) -> Date {
        match self {
            Self::INFINITY => Date::INFINITY,
            Self::NEG_INFINITY => Date::NEG_INFINITY,
            Timestamp(micros) => Date(micros.div_euclid(DAY)),
        }
    }

    /// Its time of day; `None` for an infinity.
    pub fn time(self) -> Option<Time> {
        self.is_finite().then(|| Time(self.0.rem_euclid(DAY)))
    }
}

impl Date {
    /// Postgres' `infinity`. The methods return it unchanged, unless they say otherwise.
    pub const INFINITY: Date = Date(i64::MAX);
    /// Postgres' `-infinity`. The methods return it unchanged, unless they say otherwise.
    pub const NEG_INFINITY: Date = Date(i64::MIN);

    /// Whether the date is not infinite.
    pub fn is_finite(self) -> bool {
        self != Self::INFINITY && self != Self::NEG_INFINITY
    }

    /// The date of a year, month and day; `None` if the calendar does not have it. Year 0 is 1 BC.
    pub fn from_ymd(year: i64, month: u8, day: u8) -> Option<Date> {
        civil::days_from_civil(year, month, day).map(Date)
    }

    /// Year, month from 1, and day from 1; `None` for an infinity.
    pub fn ymd(self) -> Option<(i64, u8, u8)> {
        self.is_finite().then(|| civil::civil_from_days(self.0))
    }

    /// The first day of its month.
    pub fn first_of_month(self) -> Date {
        self.ymd().map_or(self, |(_, _, day)| Date(self.0 - i64::from(day) + 1))
    }

    /// The first day of its year.
    pub fn first_of_year(self) -> Date {
        self.ymd().and_then(|(year, _, _)| Date::from_ymd(year, 1, 1)).unwrap_or(self)
    }

    /// Its start, midnight UTC.
    pub fn midnight(self) -> Timestamp {
        match self {
            Self::INFINITY => Timestamp::INFINITY,
            Self::NEG_INFINITY => Timestamp::NEG_INFINITY,
            Date(days) => Timestamp(days.saturating_mul(DAY)),
        }
    }
}

/// `2024-05-01T10:00:00Z`, `2024-05-01T10:00:00.125Z`, `infinity`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.time() {
            Some(time) => write!(f, "{}T{time}Z", self.date()),
            None => write!(f, "{}", self.date()),
        }
    }
}

/// `2024-05-01`, `infinity`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self, self.ymd()) {
            (_, Some((year, month, day))) => write!(f, "{year:04}-{month:02}-{day:02}"),
            (Date::INFINITY, None) => f.write_str("infinity"),
            (_, None) => f.write_str("-infinity"),
        }
    }
}

/// `10:11:12`, `10:11:12.125`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0.div_euclid(SECOND), self.0.rem_euclid(SECOND));
        write!(f, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
        if micros == 0 {
            return Ok(());
        }
        let digits = format!("{micros:06}");
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_goes_back_in_time_before_1970_too() {
        let before = Timestamp(-1);
        assert_eq!(before.truncate_to_hour(), Timestamp(-HOUR));
        assert_eq!(before.truncate_to_day().to_string(), "1969-12-31T00:00:00Z");
        assert_eq!(Timestamp::INFINITY.truncate_to_day(), Timestamp::INFINITY);
        assert_eq!(Timestamp(i64::MIN + 1).truncate_to_day().0, i64::MIN);
    }

    #[test]
    fn texts() {
        let may = Date::from_ymd(2024, 5, 17).unwrap();
        assert_eq!(may.first_of_month().to_string(), "2024-05-01");
        assert_eq!(may.first_of_year().to_string(), "2024-01-01");
        assert_eq!(
            Timestamp(may.midnight().0 + 36_672_125_000).to_string(),
            "2024-05-17T10:11:12.125Z"
        );
        assert_eq!(Date::NEG_INFINITY.to_string(), "-infinity");
        assert_eq!(Timestamp::INFINITY.to_string(), "infinity");
        assert_eq!(Time(DAY).to_string(), "24:00:00");
        assert_eq!(Date::from_ymd(2023, 2, 29), None);
    }
}
