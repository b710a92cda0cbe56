//! Dates for the real-time clock: seconds since 1970 and the Gregorian calendar, without time zones.

/// Seconds in one day.
const DAY: i64 = 86_400;

/// A date and time of day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DateTime {
    pub(crate) year: i64,
    /// 1..=12
    pub(crate) month: u8,
    /// 1..=31
    pub(crate) day: u8,
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
}

impl DateTime {
    /// The date `seconds` after 1970-01-01 00:00:00.
    pub(super) fn from_unix(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // Years are counted from March, so that the leap day comes last; 719468 days lie before 1970-01-01.
        let days = days + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self {
            year,
            month: month as u8,
            day: day as u8,
            hour: (rest / 3600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        }
    }

    /// Seconds since 1970-01-01. Fields beyond their range carry into the next larger one.
    pub(crate) fn to_unix(self) -> i64 {
        let month = i64::from(self.month.clamp(1, 12));
        let year = self.year - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let month_from_march = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        days * DAY + i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second)
    }

    /// 1 for Sunday to 7 for Saturday.
    pub(super) fn day_of_week(self) -> u8 {
        // 1970-01-01 was a Thursday, day 5.
        ((self.to_unix().div_euclid(DAY) + 4).rem_euclid(7) + 1) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        let leap_day = DateTime { year: 2024, month: 2, day: 29, hour: 12, minute: 34, second: 56 };
        assert_eq!(DateTime::from_unix(1_709_210_096), leap_day);
        assert_eq!(leap_day.day_of_week(), 5);
        let start = DateTime::from_unix(0);
        assert_eq!((start.year, start.month, start.day, start.day_of_week()), (1970, 1, 1, 5));
    }

    #[test]
    fn days_convert_both_ways() {
        for day in 0..100_000 {
            let seconds = day * DAY + day % DAY;
            assert_eq!(DateTime::from_unix(seconds).to_unix(), seconds);
        }
    }

    #[test]
    fn fields_out_of_range_carry() {
        let date = DateTime { year: 2023, month: 2, day: 30, hour: 0, minute: 0, second: 0 };
        assert_eq!(DateTime::from_unix(date.to_unix()).month, 3);
    }
}
