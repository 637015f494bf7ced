//! Hours, days, weeks, months and years in a time zone. Pure, and no time is
//! too far away: what a repository says may be anything.

use chrono::{DateTime, Datelike, NaiveDateTime, Offset, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

/// What a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// One hour, day, week, month or year. Two of one kind are equal exactly when
/// they are the same.
pub(super) type Key = (i64, i64);

impl Period {
    /// The field of the rule that counts these.
    pub(super) const fn field(self) -> &'static str {
        match self {
            Self::Hour => "keepHourly",
            Self::Day => "keepDaily",
            Self::Week => "keepWeekly",
            Self::Month => "keepMonthly",
            Self::Year => "keepYearly",
        }
    }

    /// The one of these that an instant lies in.
    pub(super) fn of(self, at: DateTime<Utc>, zone: Tz) -> Key {
        let (local, offset) = local(at, zone);
        let day = i64::from(local.num_days_from_ce());
        match self {
            // With the offset, the hour that the clocks repeat is two.
            Self::Hour => (day * 24 + i64::from(local.hour()), offset),
            Self::Day => (day, 0),
            // Day 1 of the common era was a Monday.
            Self::Week => ((day - 1).div_euclid(7), 0),
            Self::Month => (i64::from(local.year()), i64::from(local.month())),
            Self::Year => (i64::from(local.year()), 0),
        }
    }
}

/// What clocks in the zone show, and by how many seconds they are ahead of UTC.
/// At the ends of what can be represented, UTC.
fn local(at: DateTime<Utc>, zone: Tz) -> (NaiveDateTime, i64) {
    let utc = at.naive_utc();
    let offset = zone.offset_from_utc_datetime(&utc).fix();
    match utc.checked_add_offset(offset) {
        Some(local) => (local, i64::from(offset.local_minus_utc())),
        None => (utc, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(period: Period, zone: &str, one: &str, two: &str) -> bool {
        let zone: Tz = zone.parse().unwrap();
        let of = |text: &str| period.of(text.parse().unwrap(), zone);
        of(one) == of(two)
    }

    #[test]
    fn periods_are_those_of_the_calendar_in_the_zone() {
        use Period::{Day, Hour, Month, Week, Year};
        for (period, zone, one, two, expected) in [
            (
                Hour,
                "Etc/UTC",
                "2026-11-23T10:00:00Z",
                "2026-11-23T10:59:59Z",
                true,
            ),
            (
                Hour,
                "Etc/UTC",
                "2026-11-23T10:59:59Z",
                "2026-11-23T11:00:00Z",
                false,
            ),
            (
                Hour,
                "Etc/UTC",
                "2026-11-23T10:00:00Z",
                "2026-11-24T10:00:00Z",
                false,
            ),
            // Hours of zones that are half an hour off begin there.
            (
                Hour,
                "Asia/Kolkata",
                "2026-11-23T10:29:00Z",
                "2026-11-23T10:31:00Z",
                false,
            ),
            (
                Hour,
                "Asia/Kolkata",
                "2026-11-23T10:31:00Z",
                "2026-11-23T11:29:00Z",
                true,
            ),
            // 23:30 and 00:30 in Berlin.
            (
                Day,
                "Etc/UTC",
                "2026-11-23T22:30:00Z",
                "2026-11-23T23:30:00Z",
                true,
            ),
            (
                Day,
                "Europe/Berlin",
                "2026-11-23T22:30:00Z",
                "2026-11-23T23:30:00Z",
                false,
            ),
            (
                Month,
                "Europe/Berlin",
                "2026-11-30T22:30:00Z",
                "2026-11-30T23:30:00Z",
                false,
            ),
            (
                Year,
                "Europe/Berlin",
                "2026-12-31T22:30:00Z",
                "2026-12-31T23:30:00Z",
                false,
            ),
            (
                Year,
                "America/New_York",
                "2027-01-01T04:59:00Z",
                "2026-06-01T00:00:00Z",
                true,
            ),
            // Weeks begin on Monday, also where a year does in the middle of one.
            (
                Week,
                "Etc/UTC",
                "2026-11-29T23:59:59Z",
                "2026-11-30T00:00:00Z",
                false,
            ),
            (
                Week,
                "Etc/UTC",
                "2026-12-28T00:00:00Z",
                "2027-01-03T23:59:59Z",
                true,
            ),
            (
                Week,
                "Etc/UTC",
                "2027-01-03T23:59:59Z",
                "2027-01-04T00:00:00Z",
                false,
            ),
            // The same month of two years, and the same day of two months.
            (
                Month,
                "Etc/UTC",
                "2026-11-23T10:00:00Z",
                "2027-11-23T10:00:00Z",
                false,
            ),
            (
                Day,
                "Etc/UTC",
                "2026-10-23T10:00:00Z",
                "2026-11-23T10:00:00Z",
                false,
            ),
        ] {
            assert_eq!(
                same(period, zone, one, two),
                expected,
                "{period:?} {zone} {one} {two}"
            );
        }
    }

    #[test]
    fn the_hour_that_comes_twice_is_two_and_the_days_around_it_are_whole() {
        use Period::{Day, Hour};
        for (period, zone, one, two, expected) in [
            // Berlin: 02:30 comes twice on 2026-10-25, a day of 25 hours.
            (
                Hour,
                "Europe/Berlin",
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
                false,
            ),
            (
                Hour,
                "Europe/Berlin",
                "2026-10-25T01:10:00Z",
                "2026-10-25T01:50:00Z",
                true,
            ),
            (
                Day,
                "Europe/Berlin",
                "2026-10-24T22:00:00Z",
                "2026-10-25T22:59:59Z",
                true,
            ),
            (
                Day,
                "Europe/Berlin",
                "2026-10-25T22:59:59Z",
                "2026-10-25T23:00:00Z",
                false,
            ),
            // Berlin: 2027-03-28 has 23 hours, and none that begins at 02:00.
            (
                Hour,
                "Europe/Berlin",
                "2027-03-28T00:59:59Z",
                "2027-03-28T01:00:00Z",
                false,
            ),
            (
                Day,
                "Europe/Berlin",
                "2027-03-27T23:00:00Z",
                "2027-03-28T21:59:59Z",
                true,
            ),
            (
                Day,
                "Europe/Berlin",
                "2027-03-28T21:59:59Z",
                "2027-03-28T22:00:00Z",
                false,
            ),
            // Lord Howe Island puts its clocks back by half an hour.
            (
                Hour,
                "Australia/Lord_Howe",
                "2027-04-03T14:45:00Z",
                "2027-04-03T15:15:00Z",
                false,
            ),
            // Samoa had no 30 December 2011.
            (
                Day,
                "Pacific/Apia",
                "2011-12-30T09:59:59Z",
                "2011-12-30T10:00:00Z",
                false,
            ),
        ] {
            assert_eq!(
                same(period, zone, one, two),
                expected,
                "{period:?} {zone} {one} {two}"
            );
        }
    }

    #[test]
    fn leap_days_belong_to_their_month_and_leap_seconds_to_their_minute() {
        use Period::{Day, Hour, Month, Week};
        for (period, one, two, expected) in [
            (Day, "2028-02-29T12:00:00Z", "2028-03-01T12:00:00Z", false),
            (Day, "2028-02-28T12:00:00Z", "2028-02-29T12:00:00Z", false),
            (Month, "2028-02-01T00:00:00Z", "2028-02-29T23:59:59Z", true),
            (Month, "2028-02-29T23:59:59Z", "2028-03-01T00:00:00Z", false),
            // A Monday and the Sunday after it.
            (Week, "2028-02-28T00:00:00Z", "2028-03-05T23:59:59Z", true),
            (Hour, "2016-12-31T23:59:60Z", "2016-12-31T23:00:00Z", true),
            (Day, "2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z", false),
        ] {
            assert_eq!(
                same(period, "Etc/UTC", one, two),
                expected,
                "{period:?} {one} {two}"
            );
        }
    }

    #[test]
    fn no_time_is_too_far_away() {
        for zone in ["Etc/UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
            let zone: Tz = zone.parse().unwrap();
            for at in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
                for period in [
                    Period::Hour,
                    Period::Day,
                    Period::Week,
                    Period::Month,
                    Period::Year,
                ] {
                    assert_eq!(period.of(at, zone), period.of(at, zone));
                }
            }
        }
    }
}
