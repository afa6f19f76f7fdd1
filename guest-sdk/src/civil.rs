//! The proleptic Gregorian calendar: days since 1970 from and to year, month and day.
//!
//! The algorithms are Howard Hinnant's `days_from_civil` and `civil_from_days`. This module does
//! not know times of day.

/// Days of 400 years.
const ERA: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const TO_1970: i64 = 719_468;

/// Days since 1970; `None` for a date that the calendar does not have.
pub(crate) fn days_from_civil(year: i64, month: u8, day: u8) -> Option<i64> {
    let in_range = (-6_000_000..=6_000_000).contains(&year);
    if !in_range || !(1..=12).contains(&month) || day == 0 || day > month_days(year, month) {
        return None;
    }
    let from_march = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (from_march.div_euclid(400), from_march.rem_euclid(400));
    let day_of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * ERA + day_of_era - TO_1970)
}

/// Year, month and day.
pub(crate) fn civil_from_days(days: i64) -> (i64, u8, u8) {
    let days = i128::from(days) + i128::from(TO_1970);
    let (era, day_of_era) = (days.div_euclid(ERA.into()), days.rem_euclid(ERA.into()) as i64);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * from_march + 2) / 5 + 1) as u8;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 } as u8;
    let year = era as i64 * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

fn month_days(year: i64, month: u8) -> u8 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + u8::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        for (date, number) in [
            ((1970, 1, 1), 0),
            ((2000, 3, 1), 11_017),
            ((2024, 2, 29), 19_782),
            ((1969, 12, 31), -1),
            ((0, 1, 1), -719_528),
        ] {
            assert_eq!(days_from_civil(date.0, date.1, date.2), Some(number));
            assert_eq!(civil_from_days(number), date);
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        civil_from_days(i64::MAX);
        civil_from_days(i64::MIN);
    }

    proptest::proptest! {
        #[test]
        fn there_and_back(number in -1_000_000_000i64..1_000_000_000) {
            let (year, month, day) = civil_from_days(number);
            assert_eq!(days_from_civil(year, month, day), Some(number));
        }
    }
}
