//! Points in time as Postgres counts them from 1970. Pure arithmetic: no clock and no time zones are here.

use std::fmt;

use crate::civil;

pub(crate) const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
pub(crate) const DAY: i64 = 24 * HOUR;

/// A timestamp, with or without time zone: µs since 1970-01-01 00:00 (UTC; without time zone: of its own
/// clock).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(pub i64);

/// Days since 1970-01-01.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Date(pub i64);

/// µs since midnight, up to and with 24:00.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(pub i64);

impl Timestamp {
    pub const INFINITY: Timestamp = Timestamp(i64::MAX);
    pub const NEG_INFINITY: Timestamp = Timestamp(i64::MIN);

    pub fn is_finite(self) -> bool {
        self != Self::INFINITY && self != Self::NEG_INFINITY
    }

    /// The hour in which it lies. Infinity stays infinity, here and below.
    pub fn hour(self) -> Timestamp {
        self.truncate(HOUR)
    }

    /// The midnight (UTC) at or before it.
    pub fn day(self) -> Timestamp {
        self.truncate(DAY)
    }

    /// The beginning of the step of so many µs, counted from 1970, in which it lies. A step of 0 or less changes nothing.
    pub fn truncate(self, step_micros: i64) -> Timestamp {
        if !self.is_finite() || step_micros <= 0 {
            return self;
        }
        Timestamp(self.0.saturating_sub(self.0.rem_euclid(step_micros)))
    }

    pub fn date(self) -> Date {
        match self {
            Self::INFINITY => Date::INFINITY,
            Self::NEG_INFINITY => Date::NEG_INFINITY,
            Timestamp(micros) => Date(micros.div_euclid(DAY)),
        }
    }

    /// The time of day; of infinity there is none.
    pub fn time(self) -> Option<Time> {
        self.is_finite().then(|| Time(self.0.rem_euclid(DAY)))
    }
}

impl Date {
    pub const INFINITY: Date = Date(i64::MAX);
    pub const NEG_INFINITY: Date = Date(i64::MIN);

    pub fn is_finite(self) -> bool {
        self != Self::INFINITY && self != Self::NEG_INFINITY
    }

    /// `None` for a day that the calendar does not have. Year 0 is 1 BC.
    pub fn of(year: i64, month: u8, day: u8) -> Option<Date> {
        civil::days(year, month, day).map(Date)
    }

    /// Year, month from 1, day from 1; `None` for infinity.
    pub fn ymd(self) -> Option<(i64, u8, u8)> {
        self.is_finite().then(|| civil::ymd(self.0))
    }

    /// The first of the month.
    pub fn month(self) -> Date {
        self.ymd().map_or(self, |(_, _, day)| Date(self.0 - i64::from(day) + 1))
    }

    /// The first of January.
    pub fn year(self) -> Date {
        self.ymd().and_then(|(year, _, _)| Date::of(year, 1, 1)).unwrap_or(self)
    }

    /// Its midnight (UTC).
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
        assert_eq!(before.hour(), Timestamp(-HOUR));
        assert_eq!(before.day().to_string(), "1969-12-31T00:00:00Z");
        assert_eq!(Timestamp::INFINITY.day(), Timestamp::INFINITY);
        assert_eq!(Timestamp(i64::MIN + 1).day().0, i64::MIN);
    }

    #[test]
    fn texts() {
        let may = Date::of(2024, 5, 17).unwrap();
        assert_eq!(may.month().to_string(), "2024-05-01");
        assert_eq!(may.year().to_string(), "2024-01-01");
        assert_eq!(
            Timestamp(may.midnight().0 + 36_672_125_000).to_string(),
            "2024-05-17T10:11:12.125Z"
        );
        assert_eq!(Date::NEG_INFINITY.to_string(), "-infinity");
        assert_eq!(Timestamp::INFINITY.to_string(), "infinity");
        assert_eq!(Time(DAY).to_string(), "24:00:00");
        assert_eq!(Date::of(2023, 2, 29), None);
    }
}
