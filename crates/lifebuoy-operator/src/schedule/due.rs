//! Whether a Backup is due. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use super::timetable::Timetable;

/// How many missed ticks are counted; beyond that, more do not matter.
const MISSED_MAX: u32 = 100_000;
/// A last tick that is further in the future than this was set by a clock that
/// was wrong: it is taken for no tick at all.
const AHEAD_MAX: TimeDelta = TimeDelta::hours(25);

/// What the ticks until now lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// None has come. The next one does at `next`.
    Wait {
        /// `None` when there never will be one.
        next: Option<DateTime<Utc>>,
    },
    /// The Backup of `tick` is due; `missed` ticks before it get none.
    Run {
        /// The newest tick that has come.
        tick: DateTime<Utc>,
        /// Ticks since the last one that are older than `tick`.
        missed: u32,
    },
    /// The newest tick came too long ago for `startingDeadlineSeconds`.
    TooLate {
        /// The newest tick that has come.
        tick: DateTime<Utc>,
        /// Ticks that get no Backup, this one included.
        missed: u32,
    },
}

/// What is due at `now`, when `last` is the tick that was dealt with last (or
/// the moment at which the Schedule was created).
///
/// A clock that jumps back brings nothing twice: only ticks after `last` count.
pub(crate) fn due(
    timetable: &Timetable,
    last: DateTime<Utc>,
    now: DateTime<Utc>,
    starting_deadline: Option<TimeDelta>,
) -> Decision {
    let last = if last > now + AHEAD_MAX { now } else { last };
    let mut newest = None;
    let mut count = 0;
    let mut at = last;
    while let Some(tick) = timetable.next_after(at) {
        if tick > now {
            break;
        }
        newest = Some(tick);
        count += 1;
        at = tick;
        if count == MISSED_MAX {
            // Years of downtime: the newest tick is found from the other end.
            at = now - TimeDelta::minutes(1) - AHEAD_MAX;
        }
        if count == MISSED_MAX * 2 {
            break;
        }
    }
    let Some(tick) = newest else {
        return Decision::Wait {
            next: timetable.next_after(last),
        };
    };
    let missed = (count - 1).min(MISSED_MAX);
    match starting_deadline {
        Some(deadline) if now - tick > deadline => Decision::TooLate {
            tick,
            missed: missed + 1,
        },
        _ => Decision::Run { tick, missed },
    }
}

/// The name of the Backup of a tick: the same whenever it is asked for, so that
/// one tick never gets two Backups.
pub(crate) fn backup_name(schedule: &str, tick: DateTime<Utc>) -> String {
    format!("{schedule}-{}", tick.timestamp().div_euclid(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn timetable(cron: &str) -> Timetable {
        Timetable::parse(cron, "Etc/UTC", at("2026-01-01T00:00:00Z")).unwrap()
    }

    fn told(cron: &str, last: &str, now: &str, deadline: Option<i64>) -> String {
        let deadline = deadline.map(TimeDelta::seconds);
        match due(&timetable(cron), at(last), at(now), deadline) {
            Decision::Wait { next } => format!("wait {}", next.unwrap().format("%dT%H:%M")),
            Decision::Run { tick, missed } => format!("run {} {missed}", tick.format("%dT%H:%M")),
            Decision::TooLate { tick, missed } => {
                format!("late {} {missed}", tick.format("%dT%H:%M"))
            }
        }
    }

    #[test]
    fn ticks_lead_to_at_most_one_backup() {
        let hourly = "0 * * * *";
        for (last, now, deadline, expected) in [
            (
                "2026-11-23T10:00:00Z",
                "2026-11-23T10:59:59Z",
                None,
                "wait 23T11:00",
            ),
            (
                "2026-11-23T10:00:00Z",
                "2026-11-23T11:00:00Z",
                None,
                "run 23T11:00 0",
            ),
            (
                "2026-11-23T10:00:00Z",
                "2026-11-23T11:59:00Z",
                None,
                "run 23T11:00 0",
            ),
            // Downtime: one Backup, and the others are counted.
            (
                "2026-11-23T10:00:00Z",
                "2026-11-23T15:30:00Z",
                None,
                "run 23T15:00 4",
            ),
            // The starting deadline counts from the newest tick.
            (
                "2026-11-23T10:00:00Z",
                "2026-11-23T15:01:00Z",
                Some(60),
                "run 23T15:00 4",
            ),
            (
                "2026-11-23T10:00:00Z",
                "2026-11-23T15:01:01Z",
                Some(60),
                "late 23T15:00 5",
            ),
            // The clock jumps back an hour after the tick of 11:00 was dealt with.
            (
                "2026-11-23T11:00:00Z",
                "2026-11-23T10:00:30Z",
                None,
                "wait 23T12:00",
            ),
            (
                "2026-11-23T11:00:00Z",
                "2026-11-23T11:30:00Z",
                None,
                "wait 23T12:00",
            ),
            // The clock was years ahead when the last tick was written.
            (
                "2031-01-01T00:00:00Z",
                "2026-11-23T10:30:00Z",
                None,
                "wait 23T11:00",
            ),
        ] {
            assert_eq!(
                told(hourly, last, now, deadline),
                expected,
                "{last} {now} {deadline:?}"
            );
        }
    }

    #[test]
    fn years_of_downtime_end_with_the_newest_tick() {
        let told = told(
            "* * * * *",
            "2020-01-01T00:00:00Z",
            "2026-11-23T10:30:20Z",
            None,
        );
        assert_eq!(told, "run 23T10:30 100000");
    }

    #[test]
    fn a_tick_has_one_name() {
        let tick = at("2026-11-23T10:00:00Z");
        assert_eq!(backup_name("nightly", tick), "nightly-29923800");
        assert_eq!(
            backup_name("nightly", tick + TimeDelta::seconds(59)),
            "nightly-29923800"
        );
    }
}
