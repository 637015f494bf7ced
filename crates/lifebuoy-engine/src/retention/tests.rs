//! Retention as people expect it, and what holds whatever the clocks say.

use bytes::Bytes;
use lifebuoy_repo::{ChunkId, ClusterKey, Snapshot};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::json;

use super::*;
use crate::{point::PointSummary, testing::summary};

fn rules(retention: serde_json::Value) -> Rules {
    in_zone(retention, "Etc/UTC")
}

fn in_zone(retention: serde_json::Value, zone: &str) -> Rules {
    let retention: Retention = serde_json::from_value(retention).unwrap();
    Rules::new(&retention, zone.parse().unwrap())
}

fn session(seq: usize) -> SessionId {
    SessionId::from_bytes(u128::try_from(seq).unwrap().to_be_bytes())
}

fn point(seq: usize, taken_at: DateTime<Utc>) -> Candidate {
    Candidate {
        session: session(seq),
        seq: u64::try_from(seq).unwrap(),
        taken_at,
        complete: true,
        pinned: false,
    }
}

fn lineage(points: Vec<Candidate>) -> Lineage {
    Lineage {
        points,
        unreadable: false,
    }
}

/// Complete points at these times; the first is the oldest.
fn taken(times: &[&str]) -> Lineage {
    let at = |text: &&str| text.parse().unwrap();
    let times = times.iter().map(at).enumerate();
    lineage(times.map(|(seq, at)| point(seq, at)).collect())
}

/// `C` complete, `p` partial, `P` partial and pinned, `X` complete and pinned,
/// an hour apart by a clock that runs backwards; the first is the oldest.
fn letters(text: &str) -> Lineage {
    let points = text.chars().enumerate().map(|(seq, letter)| {
        let hours = i64::try_from(seq).unwrap();
        Candidate {
            complete: "CX".contains(letter),
            pinned: "PX".contains(letter),
            ..point(seq, DateTime::UNIX_EPOCH - TimeDelta::hours(hours))
        }
    });
    lineage(points.collect())
}

/// `-` for each point that goes, `+` for each that stays, the oldest first.
fn told(rules: &Rules, lineage: &Lineage) -> String {
    let gone = rules.forgettable(lineage);
    let mut points = lineage.points.clone();
    points.sort_by_key(|point| point.seq);
    let sign = |point: &Candidate| {
        if gone.contains(&point.session) {
            '-'
        } else {
            '+'
        }
    };
    points.iter().map(sign).collect()
}

#[test]
fn the_newest_complete_points_are_kept_whatever_the_clock_said() {
    for (points, keep, expected) in [
        ("", 2, ""),
        ("C", 2, "+"),
        ("CCCC", 2, "--++"),
        // A partial point stays as long as the complete one before it.
        ("pCpCpC", 2, "---+++"),
        ("CpC", 2, "+++"),
        ("CpCppC", 1, "-----+"),
        // The newest is partial: nothing is forgotten.
        ("CCCCp", 1, "+++++"),
        ("ppp", 1, "+++"),
        ("CCCCP", 1, "+++++"),
        // Pinned points stay, and count as if they were not.
        ("XCCC", 1, "+--+"),
        ("CXCX", 2, "-+++"),
        ("PpCC", 1, "+--+"),
        ("XpC", 1, "+-+"),
    ] {
        let rules = rules(json!({"keepLast": keep}));
        assert_eq!(
            told(&rules, &letters(points)),
            expected,
            "{points} keep {keep}"
        );
    }
}

#[test]
fn without_a_rule_and_with_anything_unreadable_all_stay() {
    let mut points = letters("CCCC");
    assert!(rules(json!({})).is_empty());
    assert_eq!(told(&rules(json!({})), &points), "++++");
    let last = rules(json!({"keepLast": 1}));
    assert_eq!(told(&last, &points), "---+");
    points.unreadable = true;
    assert_eq!(told(&last, &points), "++++");
}

#[test]
fn a_count_that_no_schema_lets_pass_is_no_rule() {
    let zone = chrono_tz::UTC;
    for keep_last in [0, -1, i64::MIN] {
        let retention = Retention {
            keep_last: Some(keep_last),
            ..Retention::default()
        };
        assert!(Rules::new(&retention, zone).is_empty());
    }
    let retention = Retention {
        keep_daily: Some(i64::MAX),
        ..Retention::default()
    };
    assert_eq!(told(&Rules::new(&retention, zone), &letters("CCC")), "+-+");
}

#[test]
fn each_rule_keeps_the_newest_of_the_last_periods_that_have_one() {
    let points = taken(&[
        "2025-12-31T12:00:00Z", // Wednesday
        "2026-01-01T12:00:00Z", // Thursday of the same week
        "2026-10-05T12:00:00Z",
        "2026-11-16T08:00:00Z", // Monday
        "2026-11-16T20:00:00Z",
        "2026-11-22T20:00:00Z", // Sunday of that week
        "2026-11-23T10:10:00Z",
        "2026-11-23T10:50:00Z",
        "2026-11-23T11:10:00Z",
    ]);
    for (retention, expected) in [
        (json!({"keepLast": 3}), "------+++"),
        (json!({"keepHourly": 1}), "--------+"),
        // Hours, days, … without a point do not count.
        (json!({"keepHourly": 3}), "-----+-++"),
        (json!({"keepDaily": 3}), "----++--+"),
        (json!({"keepWeekly": 2}), "-----+--+"),
        (json!({"keepWeekly": 4}), "-++--+--+"),
        (json!({"keepMonthly": 3}), "-++-----+"),
        (json!({"keepYearly": 2}), "+-------+"),
        // More than there are.
        (json!({"keepYearly": 9}), "+-------+"),
        (json!({"keepWithin": "1m"}), "-------++"),
        // Rules add up.
        (
            json!({"keepLast": 2, "keepDaily": 3, "keepYearly": 2}),
            "+---++-++",
        ),
    ] {
        assert_eq!(
            told(&rules(retention.clone()), &points),
            expected,
            "{retention}"
        );
    }
}

#[test]
fn a_day_is_one_of_the_time_zone() {
    let points = taken(&[
        "2026-11-22T22:30:00Z",
        "2026-11-22T23:30:00Z",
        "2026-11-23T22:30:00Z",
    ]);
    let days = json!({"keepDaily": 2});
    assert_eq!(told(&in_zone(days.clone(), "Etc/UTC"), &points), "-++");
    assert_eq!(
        told(&in_zone(days.clone(), "Europe/Berlin"), &points),
        "+-+"
    );
    let days = json!({"keepDaily": 3});
    assert_eq!(told(&in_zone(days, "America/New_York"), &points), "-++");
}

#[test]
fn every_point_stays_that_is_within_the_time() {
    for (times, within, expected) in [
        // One pause, the longest, is not counted: here of an hour.
        (&["10:00", "11:00", "12:00", "13:00"][..], "1h", "-+++"),
        (&["10:00", "11:00", "12:00", "13:00"], "59m", "--++"),
        (&["10:00", "11:00", "12:00", "13:00"], "2h", "++++"),
        // The Schedule was suspended: what was kept before it stays at first.
        (&["01:00", "01:30", "02:00", "23:00"], "30m", "-+++"),
        (
            &["01:00", "01:30", "02:00", "22:40", "23:00"],
            "30m",
            "--+++",
        ),
        (
            &["01:00", "01:30", "02:00", "22:20", "23:00"],
            "30m",
            "---++",
        ),
        (&["12:00"], "1m", "+"),
        (&["12:00", "12:00"], "1m", "++"),
    ] {
        let times: Vec<String> = times
            .iter()
            .map(|time| format!("2026-11-23T{time}:00Z"))
            .collect();
        let times: Vec<&str> = times.iter().map(String::as_str).collect();
        let rules = rules(json!({"keepWithin": within}));
        assert_eq!(told(&rules, &taken(&times)), expected, "{times:?} {within}");
    }
}

#[test]
fn a_clock_that_was_wrong_for_a_while_lets_nothing_go_that_would_stay() {
    // Hourly; at the end the clock is in 2099 for three points, and right again.
    let mut points = taken(&[
        "2026-11-23T08:00:00Z",
        "2026-11-23T09:00:00Z",
        "2026-11-23T10:00:00Z",
        "2099-01-01T00:00:00Z",
        "2099-01-01T01:00:00Z",
        "2099-01-01T02:00:00Z",
        "2026-11-23T14:00:00Z",
        "2026-11-23T15:00:00Z",
    ]);
    let within = rules(json!({"keepWithin": "2h"}));
    let days = rules(json!({"keepDaily": 2}));
    assert_eq!(told(&within, &points), "-+++++++");
    assert_eq!(told(&days, &points), "-----+-+");
    points.points.truncate(6);
    assert_eq!(told(&within, &points), "--++++");
    assert_eq!(told(&days, &points), "--+--+");
    // A clock that begins in 1970 after each start.
    for point in &mut points.points[3..] {
        point.taken_at = DateTime::UNIX_EPOCH;
    }
    assert_eq!(told(&within, &points), "++++++");
    assert_eq!(told(&days, &points), "--+--+");
    // A clock that stands still shows one period: other rules must hold.
    for point in &mut points.points {
        point.taken_at = DateTime::UNIX_EPOCH;
    }
    assert_eq!(told(&days, &points), "-----+");
    assert_eq!(told(&within, &points), "++++++");
}

#[test]
fn rules_are_written_as_their_fields() {
    let rules = rules(json!({
        "keepLast": 3, "keepHourly": 24, "keepDaily": 7, "keepWeekly": 5, "keepMonthly": 12,
        "keepYearly": 10, "keepWithin": "48h",
    }));
    assert_eq!(
        rules.to_string(),
        "keepLast 3, keepHourly 24, keepDaily 7, keepWeekly 5, keepMonthly 12, keepYearly 10, \
         keepWithin 48h"
    );
}

/// What a clock says of a point, when the true time is the argument.
#[derive(Clone, Copy, Debug)]
enum Clock {
    Right,
    OffBy(i64),
    At(i64),
    Extreme(bool),
}

impl Clock {
    fn says(self, at: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Right => at,
            Self::OffBy(seconds) => at + TimeDelta::seconds(seconds),
            Self::At(second) => DateTime::from_timestamp(second, 0).unwrap(),
            Self::Extreme(false) => DateTime::<Utc>::MIN_UTC,
            Self::Extreme(true) => DateTime::<Utc>::MAX_UTC,
        }
    }
}

/// A hundred years, in seconds.
const CENTURY: i64 = 100 * 365 * 24 * 3600;

fn clock() -> impl Strategy<Value = Clock> {
    prop_oneof![
        6 => Just(Clock::Right),
        2 => (-CENTURY..CENTURY).prop_map(Clock::OffBy),
        1 => (-CENTURY..CENTURY).prop_map(Clock::At),
        1 => any::<bool>().prop_map(Clock::Extreme),
    ]
}

/// Seconds between two points: from moments to years.
fn gap() -> impl Strategy<Value = i64> {
    prop_oneof![
        0..600_i64,
        3000..4000_i64,
        80_000..90_000_i64,
        0..50_000_000_i64
    ]
}

/// One time or more, the oldest first.
fn true_times() -> impl Strategy<Value = Vec<DateTime<Utc>>> {
    vec(gap(), 1..40).prop_map(|gaps| {
        let mut at = DateTime::from_timestamp(1_600_000_000, 0).unwrap();
        gaps.into_iter()
            .map(|gap| {
                at += TimeDelta::seconds(gap);
                at
            })
            .collect()
    })
}

/// Anything a repository may list, in any order.
fn any_lineage() -> impl Strategy<Value = Lineage> {
    let flags = (
        clock(),
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.1),
    );
    (true_times(), vec(flags, 40))
        .prop_map(|(times, flags)| {
            let points = times.into_iter().zip(flags).enumerate();
            let points = points.map(|(seq, (at, (clock, complete, pinned)))| Candidate {
                complete,
                pinned,
                ..point(seq, clock.says(at))
            });
            points.collect::<Vec<_>>()
        })
        .prop_shuffle()
        .prop_map(lineage)
}

/// Complete points with the right time.
fn right_lineage() -> impl Strategy<Value = Lineage> {
    true_times().prop_map(|times| {
        let points = times.into_iter().enumerate();
        lineage(points.map(|(seq, at)| point(seq, at)).collect())
    })
}

fn any_retention() -> impl Strategy<Value = Retention> {
    let count = || prop::option::of(1..12_i64);
    (
        (count(), count(), count(), count(), count(), count()),
        prop::option::of(1..2000_u32),
    )
        .prop_map(
            |((last, hourly, daily, weekly, monthly, yearly), within)| Retention {
                keep_last: last,
                keep_hourly: hourly,
                keep_daily: daily,
                keep_weekly: weekly,
                keep_monthly: monthly,
                keep_yearly: yearly,
                keep_within: within.map(TimeSpan::hours),
            },
        )
}

fn zone() -> impl Strategy<Value = Tz> {
    prop::sample::select(vec![
        chrono_tz::UTC,
        chrono_tz::Europe::Berlin,
        chrono_tz::Australia::Lord_Howe,
        chrono_tz::Pacific::Kiritimati,
        chrono_tz::America::St_Johns,
    ])
}

fn any_rules() -> impl Strategy<Value = Rules> {
    (any_retention(), zone()).prop_map(|(retention, zone)| Rules::new(&retention, zone))
}

/// The count, or one that is at least as large.
fn more(count: Option<i64>, by: i64) -> Option<i64> {
    match count {
        Some(count) => Some(count + by),
        None => (by > 0).then_some(by),
    }
}

fn gone(rules: &Rules, lineage: &Lineage) -> BTreeSet<SessionId> {
    rules.forgettable(lineage).into_iter().collect()
}

fn without(lineage: &Lineage, gone: &BTreeSet<SessionId>) -> Lineage {
    let stays = |point: &&Candidate| !gone.contains(&point.session);
    Lineage {
        points: lineage.points.iter().filter(stays).copied().collect(),
        ..*lineage
    }
}

/// `keepLast` as the first version had it: all that is older than the oldest
/// complete point that is kept goes.
fn older_than_the_oldest_kept(keep: usize, lineage: &Lineage) -> BTreeSet<SessionId> {
    let mut points = lineage.points.clone();
    points.sort_by_key(|point| std::cmp::Reverse(point.seq));
    if !points.first().is_some_and(|point| point.complete) {
        return BTreeSet::new();
    }
    let complete = points.iter().filter(|point| point.complete);
    let oldest = complete.take(keep).last().map_or(0, |point| point.seq);
    let older = |point: &&Candidate| point.seq < oldest && !point.pinned;
    points
        .iter()
        .filter(older)
        .map(|point| point.session)
        .collect()
}

proptest! {
    #[test]
    fn the_newest_complete_point_and_all_pinned_ones_stay(
        rules in any_rules(), lineage in any_lineage(),
    ) {
        let gone = gone(&rules, &lineage);
        let complete = lineage.points.iter().filter(|point| point.complete);
        if let Some(newest) = complete.max_by_key(|point| point.seq) {
            prop_assert!(!gone.contains(&newest.session));
        }
        for point in lineage.points.iter().filter(|point| point.pinned) {
            prop_assert!(!gone.contains(&point.session));
        }
        let newest = lineage.points.iter().max_by_key(|point| point.seq);
        if newest.is_some_and(|point| !point.complete) {
            prop_assert!(gone.is_empty());
        }
    }

    #[test]
    fn nothing_goes_while_anything_is_unreadable(
        rules in any_rules(), lineage in any_lineage(),
    ) {
        let unreadable = Lineage { unreadable: true, ..lineage };
        prop_assert_eq!(rules.forgettable(&unreadable), vec![]);
    }

    #[test]
    fn more_rules_and_larger_ones_let_no_more_go(
        retention in any_retention(), by in vec(0..5_i64, 7), zone in zone(),
        lineage in any_lineage(),
    ) {
        let fewer = Rules::new(&retention, zone);
        // No rule at all keeps everything.
        prop_assume!(!fewer.is_empty());
        let within = retention.keep_within.map_or(0, |span| span.duration().as_secs() / 3600);
        let within = u32::try_from(within).unwrap() + u32::try_from(by[6]).unwrap() * 100;
        let larger = Retention {
            keep_last: more(retention.keep_last, by[0]),
            keep_hourly: more(retention.keep_hourly, by[1]),
            keep_daily: more(retention.keep_daily, by[2]),
            keep_weekly: more(retention.keep_weekly, by[3]),
            keep_monthly: more(retention.keep_monthly, by[4]),
            keep_yearly: more(retention.keep_yearly, by[5]),
            keep_within: (within > 0).then(|| TimeSpan::hours(within)),
        };
        let larger = gone(&Rules::new(&larger, zone), &lineage);
        prop_assert!(larger.is_subset(&gone(&fewer, &lineage)));
    }

    #[test]
    fn asked_again_about_what_stayed_nothing_goes(
        rules in any_rules(), lineage in any_lineage(),
    ) {
        let left = without(&lineage, &gone(&rules, &lineage));
        prop_assert_eq!(rules.forgettable(&left), vec![]);
    }

    #[test]
    fn a_pin_keeps_its_point_and_changes_nothing_else(
        rules in any_rules(), lineage in any_lineage(), which in any::<Index>(),
    ) {
        let mut pinned = lineage.clone();
        let at = which.index(pinned.points.len());
        pinned.points[at].pinned = true;
        let mut expected = gone(&rules, &lineage);
        expected.remove(&pinned.points[at].session);
        prop_assert_eq!(gone(&rules, &pinned), expected);
    }

    #[test]
    fn keep_last_is_what_it_always_was(keep in 1..50_i64, lineage in any_lineage()) {
        let retention = Retention { keep_last: Some(keep), ..Retention::default() };
        let rules = Rules::new(&retention, chrono_tz::UTC);
        let keep = usize::try_from(keep).unwrap();
        prop_assert_eq!(gone(&rules, &lineage), older_than_the_oldest_kept(keep, &lineage));
    }

    #[test]
    fn a_rule_of_periods_keeps_as_many_as_it_counts_or_one_of_each(
        count in 1..12_i64, period in 0..5_usize, zone in zone(), lineage in any_lineage(),
    ) {
        let (rules, period) = counting(count, period, zone);
        let complete = complete(&lineage);
        let periods: BTreeSet<_> = complete
            .iter()
            .map(|point| period.of(point.taken_at, zone))
            .collect();
        let expected = periods.len().min(usize::try_from(count).unwrap());
        prop_assert_eq!(rules.kept(&complete).len(), expected);
    }

    #[test]
    fn one_wrong_clock_costs_a_rule_at_most_one_point_for_a_newer_one(
        count in 1..12_i64, period in 0..5_usize, zone in zone(),
        lineage in right_lineage(), which in any::<Index>(), clock in clock(),
    ) {
        let (rules, _) = counting(count, period, zone);
        let mut points = lineage.points;
        let at = which.index(points.len());
        points[at].taken_at = clock.says(points[at].taken_at);
        let wrong = points[at];
        let with = Lineage { points: points.clone(), unreadable: false };
        points.remove(at);
        let without = Lineage { points, unreadable: false };
        let kept_with = rules.kept(&complete(&with));
        let kept_without = rules.kept(&complete(&without));
        let lost: Vec<_> = kept_without.difference(&kept_with).collect();
        prop_assert!(lost.len() <= 1);
        if let Some(lost) = lost.first() {
            prop_assert!(kept_with.contains(&wrong.session));
            prop_assert!(**lost < wrong.session, "sessions rise with their sequence here");
        }
    }

    #[test]
    fn a_clock_that_jumps_lets_nothing_go_that_is_within_the_time(
        hours in 1..2000_u32, lineage in right_lineage(), from in any::<Index>(),
        jump in -CENTURY..CENTURY,
    ) {
        let span = TimeSpan::hours(hours);
        let rules = Rules::new(
            &Retention { keep_within: Some(span), ..Retention::default() }, chrono_tz::UTC,
        );
        let newest = lineage.points.last().unwrap().taken_at;
        let young = |point: &&Candidate| {
            (newest - point.taken_at).to_std().unwrap() <= span.duration()
        };
        let young: Vec<_> = lineage.points.iter().filter(young).map(|p| p.session).collect();
        let mut jumped = lineage.clone();
        let from = from.index(jumped.points.len());
        for point in &mut jumped.points[from..] {
            point.taken_at += TimeDelta::seconds(jump);
        }
        for lineage in [lineage, jumped] {
            let gone = gone(&rules, &lineage);
            prop_assert!(young.iter().all(|session| !gone.contains(session)));
        }
    }
}

/// One rule that counts one kind of period.
fn counting(count: i64, period: usize, zone: Tz) -> (Rules, Period) {
    let period = [
        Period::Hour,
        Period::Day,
        Period::Week,
        Period::Month,
        Period::Year,
    ][period];
    let retention = serde_json::from_value(json!({ period.field(): count })).unwrap();
    (Rules::new(&retention, zone), period)
}

/// The complete points, the newest first.
fn complete(lineage: &Lineage) -> Vec<&Candidate> {
    let mut points: Vec<&Candidate> = lineage.points.iter().filter(|p| p.complete).collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.seq));
    points
}

#[test]
fn a_lineage_is_one_cluster_and_one_schedule() {
    let point = |seq: u64, change: &dyn Fn(&mut PointSummary)| {
        let mut summary = summary();
        change(&mut summary);
        Point {
            snapshot: Snapshot {
                session: session(usize::try_from(seq).unwrap()),
                cluster: ClusterKey::from_bytes([1; 16]),
                seq,
                root: ChunkId::from_bytes([2; 32]),
                summary: Bytes::new(),
                forgotten: seq == 6,
                pinned: seq == 2 || seq == 6,
            },
            summary,
        }
    };
    let mut points = Points {
        points: vec![
            point(1, &|_| ()),
            point(2, &|summary| summary.completeness = Completeness::Partial),
            point(3, &|summary| summary.schedule = "hourly".to_owned()),
            point(4, &|summary| summary.cluster.name = "b".to_owned()),
            point(5, &|summary| summary.cluster.uid = "another".to_owned()),
            // A pin keeps it, and it takes no other point's place.
            point(6, &|_| ()),
        ],
        data: Vec::new(),
        unreadable: vec![],
    };
    let cluster = summary().cluster;
    let of = |points: &Points, schedule: &str| {
        let lineage = Lineage::of(points, &cluster, schedule);
        let points = lineage.points.iter();
        let points: Vec<_> = points.map(|p| (p.seq, p.complete, p.pinned)).collect();
        (points, lineage.unreadable)
    };
    assert_eq!(
        of(&points, ""),
        (vec![(1, true, false), (2, false, true)], false)
    );
    assert_eq!(of(&points, "hourly"), (vec![(3, true, false)], false));
    assert_eq!(of(&points, "daily"), (vec![], false));
    points.unreadable.push(("end/x".into(), "damaged".into()));
    assert_eq!(of(&points, "hourly"), (vec![(3, true, false)], true));
}
