//! Five-field cron in a time zone. Pure.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};

/// When a Schedule ticks.
#[derive(Clone, Debug)]
pub(crate) struct Timetable {
    cron: Cron,
    zone: Tz,
}

impl Timetable {
    /// Parses the two fields of a spec; `now` decides whether there is any tick
    /// to come.
    ///
    /// # Errors
    /// A sentence that begins with the field.
    pub(crate) fn parse(cron: &str, time_zone: &str, now: DateTime<Utc>) -> Result<Self, String> {
        let zone: Tz = time_zone.parse().map_err(|_| {
            format!(
                "spec.timeZone: `{time_zone}` is not a name of the IANA time zone database, such \
                 as `Europe/Berlin`"
            )
        })?;
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let parsed = parser.parse(cron).map_err(|error| {
            format!(
                "spec.cron: `{cron}` is not a cron expression of five fields (minute hour day \
                 month weekday): {error}"
            )
        })?;
        let timetable = Self { cron: parsed, zone };
        if timetable.next_after(now).is_none() {
            return Err(format!(
                "spec.cron: `{cron}` never comes: no such day exists"
            ));
        }
        Ok(timetable)
    }

    /// The zone in which it ticks.
    pub(crate) fn zone(&self) -> Tz {
        self.zone
    }

    /// The first tick after `at`. A tick in the hour that the clocks skip comes
    /// right after it; one in the hour that comes twice comes once.
    pub(crate) fn next_after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = at.with_timezone(&self.zone);
        let next = self
            .cron
            .find_next_occurrence(&local, false)
            .ok()?
            .with_timezone(&Utc);
        // What does not move forward would tick for ever.
        (next > at).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn ticks(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let timetable = Timetable::parse(cron, zone, at(from)).unwrap();
        let mut now = at(from);
        (0..count)
            .map(|_| {
                now = timetable.next_after(now).unwrap();
                now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
            })
            .collect()
    }

    #[test]
    fn cron_is_that_of_cronjobs() {
        for (cron, zone, from, expected) in [
            (
                "*/15 * * * *",
                "Etc/UTC",
                "2026-11-23T10:01:00Z",
                "2026-11-23T10:15:00Z",
            ),
            (
                "0 3 * * *",
                "Europe/Berlin",
                "2026-11-23T10:00:00Z",
                "2026-11-24T02:00:00Z",
            ),
            // Sunday is 0 and 7.
            (
                "0 0 * * 0",
                "Etc/UTC",
                "2026-11-23T00:00:00Z",
                "2026-11-29T00:00:00Z",
            ),
            (
                "0 0 * * 7",
                "Etc/UTC",
                "2026-11-23T00:00:00Z",
                "2026-11-29T00:00:00Z",
            ),
            (
                "0 0 * * MON-FRI",
                "Etc/UTC",
                "2026-11-28T00:00:00Z",
                "2026-11-30T00:00:00Z",
            ),
            // Day of month OR weekday, as cron has it.
            (
                "0 0 1 * 3",
                "Etc/UTC",
                "2026-11-23T00:00:00Z",
                "2026-11-25T00:00:00Z",
            ),
            (
                "@daily",
                "Etc/UTC",
                "2026-11-23T10:00:00Z",
                "2026-11-24T00:00:00Z",
            ),
            (
                "0 0 29 2 *",
                "Etc/UTC",
                "2026-11-23T10:00:00Z",
                "2028-02-29T00:00:00Z",
            ),
        ] {
            assert_eq!(ticks(cron, zone, from, 1), [expected], "{cron}");
        }
    }

    #[test]
    fn a_daily_tick_comes_once_a_day_when_the_clocks_change() {
        // Clocks in Berlin skip 02:00–03:00 on 2027-03-28 and repeat it on 2026-10-25.
        assert_eq!(
            ticks("30 2 * * *", "Europe/Berlin", "2027-03-26T12:00:00Z", 3),
            [
                "2027-03-27T01:30:00Z",
                "2027-03-28T01:00:00Z",
                "2027-03-29T00:30:00Z"
            ]
        );
        assert_eq!(
            ticks("30 2 * * *", "Europe/Berlin", "2026-10-23T12:00:00Z", 3),
            [
                "2026-10-24T00:30:00Z",
                "2026-10-25T00:30:00Z",
                "2026-10-26T01:30:00Z"
            ]
        );
    }

    #[test]
    fn an_invalid_field_is_named() {
        for (cron, zone, word) in [
            ("61 * * * *", "Etc/UTC", "spec.cron"),
            ("* * * * * *", "Etc/UTC", "spec.cron"),
            ("0 0 30 2 *", "Etc/UTC", "spec.cron"),
            ("nonsense", "Etc/UTC", "spec.cron"),
            ("0 * * * *", "Europe/Nowhere", "spec.timeZone"),
        ] {
            let said = Timetable::parse(cron, zone, at("2026-11-23T00:00:00Z")).unwrap_err();
            assert!(said.starts_with(word), "{said}");
        }
    }
}
