//! Which recovery points of one lineage are kept. Pure: it reads no clock, and
//! forgets nothing itself.
//!
//! Order comes from sequence numbers, never from a clock. What a point says of
//! its time is taken for what it is, a claim that may be wrong:
//!
//! - `keepLast` does not look at it.
//! - A rule of periods goes from the newest point to the oldest and keeps the
//!   first that it meets of each period, until it has met as many as it counts.
//!   So a point with a wrong time costs a rule at most one other point, and then
//!   stays in its place and is newer; and a rule keeps fewer points than it
//!   counts only when the points show fewer periods.
//! - `keepWithin` measures ages by the lowest time on the way from the newest
//!   point, and leaves out the longest step of that way. So a time in the future
//!   has no effect behind newer points, a time in the past only keeps more, and
//!   when the clock has jumped, by whatever length and for however many points,
//!   every point stays that is within the time by a clock that did not jump.
//!
//! Each rule keeps what it keeps whatever the other rules do, and a point stays
//! when one of them keeps it: more rules, or larger ones, never let more go.
//! Asked again about what stayed, they let nothing go.

mod period;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use lifebuoy_api::{Completeness, PointCluster, Retention, TimeSpan};
use lifebuoy_repo::SessionId;

use crate::point::{Point, Points};
use period::Period;

/// The newest complete points that stay whatever the rules say.
const KEEP_AT_LEAST: usize = 1;

/// The rules of a Schedule, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    last: Option<usize>,
    periods: Vec<(Period, usize)>,
    within: Option<TimeSpan>,
    zone: Tz,
}

/// A recovery point, as far as it matters for keeping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The session that committed it.
    pub session: SessionId,
    /// Its place in the lineage: the higher the newer.
    pub seq: u64,
    /// When it was taken, by the clock of the cluster that was saved.
    pub taken_at: DateTime<Utc>,
    /// Whether everything in the selection was saved.
    pub complete: bool,
    /// Whether a person said that it stays.
    pub pinned: bool,
}

/// The points of one cluster and schedule that are not forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The points, in any order.
    pub points: Vec<Candidate>,
    /// Whether there may be more points than these: something in the repository
    /// cannot be read.
    pub unreadable: bool,
}

impl Lineage {
    /// The lineage of a cluster and schedule among all that a repository lists.
    #[must_use]
    pub fn of(points: &Points, cluster: &PointCluster, schedule: &str) -> Self {
        let ours = |point: &&Point| {
            point.summary.cluster == *cluster
                && point.summary.schedule == schedule
                && !point.snapshot.forgotten
        };
        Self {
            points: points.points.iter().filter(ours).map(candidate).collect(),
            unreadable: !points.unreadable.is_empty(),
        }
    }
}

fn candidate(point: &Point) -> Candidate {
    Candidate {
        session: point.snapshot.session,
        seq: point.snapshot.seq,
        taken_at: point.summary.taken_at,
        complete: point.summary.completeness == Completeness::Complete,
        pinned: point.snapshot.pinned,
    }
}

impl Rules {
    /// Parses the rules of a Schedule in its time zone. A count below one, which
    /// no schema lets pass, is no rule.
    #[must_use]
    pub fn new(retention: &Retention, zone: Tz) -> Self {
        let Retention {
            keep_last,
            keep_hourly,
            keep_daily,
            keep_weekly,
            keep_monthly,
            keep_yearly,
            keep_within,
        } = retention;
        let count = |value: &Option<i64>| {
            let value = value.filter(|count| *count > 0)?;
            Some(usize::try_from(value).unwrap_or(usize::MAX))
        };
        let periods = [
            (Period::Hour, keep_hourly),
            (Period::Day, keep_daily),
            (Period::Week, keep_weekly),
            (Period::Month, keep_monthly),
            (Period::Year, keep_yearly),
        ];
        Self {
            last: count(keep_last),
            periods: periods
                .into_iter()
                .filter_map(|(period, value)| Some((period, count(value)?)))
                .collect(),
            within: *keep_within,
            zone,
        }
    }

    /// Whether there is no rule: then everything stays.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_none() && self.periods.is_empty() && self.within.is_none()
    }

    /// The points that do not stay, the oldest first.
    ///
    /// None, unless the newest point of the lineage is complete, and none while
    /// anything in the repository cannot be read. A partial point stays as long
    /// as the complete one before it; a pinned one stays.
    #[must_use]
    pub fn forgettable(&self, lineage: &Lineage) -> Vec<SessionId> {
        if self.is_empty() || lineage.unreadable {
            return Vec::new();
        }
        let mut points: Vec<&Candidate> = lineage.points.iter().collect();
        points.sort_by_key(|point| (point.seq, point.session));
        if !points.last().is_some_and(|newest| newest.complete) {
            return Vec::new();
        }
        let complete: Vec<&Candidate> = points
            .iter()
            .rev()
            .copied()
            .filter(|point| point.complete)
            .collect();
        let kept = self.kept(&complete);
        let mut stays = false;
        let mut gone = Vec::new();
        for point in points {
            if point.complete {
                stays = kept.contains(&point.session);
            }
            if !stays && !point.pinned {
                gone.push(point.session);
            }
        }
        gone
    }

    /// The points that some rule keeps, of complete ones from the newest to the
    /// oldest.
    fn kept(&self, complete: &[&Candidate]) -> BTreeSet<SessionId> {
        let last = self.last.unwrap_or_default().max(KEEP_AT_LEAST);
        let within = self
            .within
            .map_or(0, |span| within(complete, span.duration()));
        let mut kept: BTreeSet<SessionId> = complete
            .iter()
            .take(last.max(within))
            .map(|point| point.session)
            .collect();
        for (period, count) in &self.periods {
            let mut seen = BTreeSet::new();
            for point in complete {
                if seen.len() == *count {
                    break;
                }
                if seen.insert(period.of(point.taken_at, self.zone)) {
                    kept.insert(point.session);
                }
            }
        }
        kept
    }
}

/// How many points, from the newest on, are at most `span` older than it. Ages
/// only grow on the way, since they are measured by the lowest time that was
/// met; the longest step down is not counted.
fn within(complete: &[&Candidate], span: Duration) -> usize {
    let Some(newest) = complete.first().map(|point| point.taken_at) else {
        return 0;
    };
    // Longer than that is longer than any two times are apart.
    let span = TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX);
    let mut lowest = newest;
    let mut longest = TimeDelta::zero();
    complete
        .iter()
        .take_while(|point| {
            if point.taken_at < lowest {
                longest = longest.max(lowest - point.taken_at);
                lowest = point.taken_at;
            }
            (newest - lowest) - longest <= span
        })
        .count()
}

/// The rules as a person wrote them: `keepLast 3, keepDaily 7`.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.last.map(|count| format!("keepLast {count}"));
        let periods = self.periods.iter();
        let periods = periods.map(|(period, count)| format!("{} {count}", period.field()));
        let within = self.within.map(|span| format!("keepWithin {span}"));
        let all: Vec<String> = last.into_iter().chain(periods).chain(within).collect();
        f.write_str(&all.join(", "))
    }
}
