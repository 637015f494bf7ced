//! One round of care: repack, collect, check. Touches no status.

use std::{num::NonZeroU32, time::Instant};

use chrono::{DateTime, Utc};
use lifebuoy_api::{
    CheckLevel, MAX_PROBLEMS, Maintenance, Problem, Reason, RepositoryCheck, RepositoryCollection,
    RepositoryReading, RepositoryStorage, time::to_kube,
};
use lifebuoy_engine::AllContents;
use lifebuoy_repo::{
    CheckLevel as Level, CheckOptions, CheckReport, ClusterKey, CollectOptions, CollectReport,
    Error as RepoError, Repository,
};

use super::told::{Told, message_of, reason_of};

/// Bytes that one round copies at most out of packs with little that lives.
const REPACK_BYTES_MAX: u64 = 1 << 30;
const SECONDS_PER_DAY: i64 = 24 * 3600;
/// Shares into which all data is divided at most.
const SHARES_MAX: i64 = 100_000;

/// What a round works on.
pub(super) struct Round<'a> {
    pub(super) repository: &'a Repository,
    pub(super) cluster: ClusterKey,
    pub(super) rules: &'a Maintenance,
    /// Whether anything may be deleted.
    pub(super) deletes: bool,
    pub(super) last_check: Option<&'a RepositoryCheck>,
    pub(super) clock: fn() -> DateTime<Utc>,
}

impl Round<'_> {
    pub(super) async fn run(&self) -> Told {
        let began = Instant::now();
        let collected = self.collect().await;
        let mut told = Told {
            collection: Some(self.collection(&collected, began)),
            ..Told::default()
        };
        match &collected {
            Ok(report) => told.storage = Some(self.storage(report)),
            Err(error) => tracing::warn!(%error, "the collection stopped"),
        }
        let reading = reading(self.rules, self.last_check, (self.clock)());
        let options = options(reading.as_ref(), self.last_check);
        let checked = self.repository.check(&AllContents, &options).await;
        told.check = Some(self.check(&checked, reading));
        if let (Ok(report), Some(storage)) = (&checked, &mut told.storage) {
            storage.objects = count(report.objects);
        }
        told
    }

    async fn collect(&self) -> Result<CollectReport, RepoError> {
        let rules = self.rules;
        let percent = |value: i64| u8::try_from(value.clamp(0, 100)).unwrap_or(100);
        if self.deletes && rules.repack_below_percent > 0 {
            let below = percent(rules.repack_below_percent);
            let repacked = self
                .repository
                .repack(&AllContents, self.cluster, below, REPACK_BYTES_MAX)
                .await;
            match repacked {
                Ok(report) if report.packs > 0 => {
                    tracing::info!(packs = report.packs, bytes = report.freed_bytes, "repacked");
                }
                Ok(_) => {}
                // What is worth a collection does not hang on this.
                Err(error) => tracing::warn!(%error, "nothing was repacked"),
            }
        }
        let options = CollectOptions {
            delete: self.deletes,
            grace: rules.grace.duration(),
            keep_at_least: usize::try_from(rules.keep_at_least).unwrap_or(usize::MAX),
            delete_percent_max: percent(rules.delete_at_most_percent),
            ..CollectOptions::default()
        };
        self.repository.collect(&AllContents, &options).await
    }

    fn collection(
        &self,
        collected: &Result<CollectReport, RepoError>,
        began: Instant,
    ) -> RepositoryCollection {
        let seconds = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
        let (reason, message, report) = match collected {
            Ok(report) if self.deletes => (Reason::Collected, describe(report), report.clone()),
            Ok(report) => (Reason::Reported, describe(report), report.clone()),
            Err(error) => (
                reason_of(error),
                message_of(error),
                CollectReport::default(),
            ),
        };
        RepositoryCollection {
            time: to_kube((self.clock)()),
            generation: report.generation.map(count),
            outcome: reason.as_str().to_owned(),
            message,
            deleted_bytes: count(report.deleted_bytes),
            deleted_objects: count(report.deleted_packs + report.deleted_records),
            snapshots_forgotten: if self.deletes {
                count(report.forgotten)
            } else {
                0
            },
            duration_seconds: seconds,
        }
    }

    fn storage(&self, report: &CollectReport) -> RepositoryStorage {
        let left = |all: u64, gone: u64| count(all.saturating_sub(gone));
        RepositoryStorage {
            bytes: left(report.bytes, report.deleted_bytes),
            objects: count(report.packs),
            packs: left(report.packs, report.deleted_packs),
            plain_bytes: Some(count(report.plain_bytes)),
            garbage_bytes: left(report.garbage_bytes, report.deleted_bytes),
            garbage_packs: left(report.garbage_packs, report.deleted_packs),
            as_of: to_kube((self.clock)()),
        }
    }

    fn check(
        &self,
        checked: &Result<CheckReport, RepoError>,
        reading: Option<RepositoryReading>,
    ) -> RepositoryCheck {
        let mut told = RepositoryCheck {
            time: to_kube((self.clock)()),
            level: match reading {
                None => CheckLevel::Structure,
                Some(_) => CheckLevel::Share,
            },
            outcome: Reason::NotChecked.as_str().to_owned(),
            message: String::new(),
            objects_checked: 0,
            bytes_checked: 0,
            problem_count: 0,
            problems: Vec::new(),
            read_through_time: self
                .last_check
                .and_then(|last| last.read_through_time.clone()),
            reading,
        };
        let report = match checked {
            Ok(report) => report,
            Err(error) => {
                told.outcome = reason_of(error).as_str().to_owned();
                told.message = message_of(error);
                // What was damaged before is still the last that is known.
                if let Some(last) = self.last_check {
                    told.problem_count = last.problem_count;
                    told.problems.clone_from(&last.problems);
                }
                return told;
            }
        };
        told.objects_checked = count(report.objects);
        told.bytes_checked = count(report.bytes_read);
        told.problem_count = count(report.problems_total);
        told.problems = problems(report);
        let passed = report.problems_total == 0;
        let outcome = if passed {
            Reason::CheckPassed
        } else {
            Reason::CheckFailed
        };
        told.outcome = outcome.as_str().to_owned();
        told.message = match told.problems.first() {
            None => format!("{} objects were checked", report.objects),
            Some(first) => format!(
                "{} problems, such as {}: {}; {} recovery points are affected; see `lifebuoy repo \
                 check` and `lifebuoy repo repair`",
                report.problems_total,
                first.subject,
                first.message,
                report.affected.len()
            ),
        };
        if let Some(reading) = &mut told.reading {
            reading.read += 1;
            if reading.read == reading.shares {
                told.read_through_time = Some(reading.since.clone());
            }
        }
        told
    }
}

/// The turn of reading that this round goes on with, or begins; `None` when no
/// data is read. A share that could not be read is read in the next round, so
/// that a turn leaves nothing out.
fn reading(
    rules: &Maintenance,
    last: Option<&RepositoryCheck>,
    now: DateTime<Utc>,
) -> Option<RepositoryReading> {
    let days = rules.check.read_all_in_days;
    if days <= 0 {
        return None;
    }
    let interval = i64::try_from(rules.interval.duration().as_secs()).unwrap_or(i64::MAX);
    // Rounds that come less often than daily read more in each.
    let shares = (days.saturating_mul(SECONDS_PER_DAY) / interval.max(1)).clamp(1, SHARES_MAX);
    let goes_on = |reading: &&RepositoryReading| {
        reading.shares == shares && (0..shares).contains(&reading.read)
    };
    let last = last.and_then(|last| last.reading.as_ref());
    Some(last.filter(goes_on).cloned().unwrap_or(RepositoryReading {
        since: to_kube(now),
        shares,
        read: 0,
    }))
}

/// What a check reads: its share, and once more what the last check found, so
/// that no problem is over because another share is clean. Where the last check
/// found more than it could name, everything is read.
fn options(reading: Option<&RepositoryReading>, last: Option<&RepositoryCheck>) -> CheckOptions {
    let found = last.map_or(&[][..], |last| &last.problems);
    let named = i64::try_from(found.len()).unwrap_or(i64::MAX);
    let has_more = last.is_some_and(|last| last.problem_count > named);
    let mut options = CheckOptions::new(if has_more { Level::All } else { level(reading) });
    options.again = found
        .iter()
        .map(|problem| problem.subject.clone())
        .collect();
    options
}

fn level(reading: Option<&RepositoryReading>) -> Level {
    let share = reading.and_then(|reading| {
        let of = u32::try_from(reading.shares)
            .ok()
            .and_then(NonZeroU32::new)?;
        Some((u32::try_from(reading.read).ok()?, of))
    });
    match share {
        None => Level::Structure,
        Some((part, of)) => Level::Share { part, of },
    }
}

fn problems(report: &CheckReport) -> Vec<Problem> {
    let some = report.problems.iter().take(MAX_PROBLEMS);
    some.map(|problem| Problem::error(Reason::CheckFailed.as_str(), &problem.key, &problem.message))
        .collect()
}

fn describe(report: &CollectReport) -> String {
    if report.generation.is_some() {
        return format!(
            "{} packs of {} bytes were deleted; {} forgotten recovery points are gone for good",
            report.deleted_packs, report.deleted_bytes, report.forgotten
        );
    }
    format!(
        "{} of {} packs ({} of {} bytes) are needed by no recovery point",
        report.garbage_packs, report.packs, report.garbage_bytes, report.bytes
    )
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::TimeSpan;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn rules(days: i64, hours: u32) -> Maintenance {
        let mut rules = Maintenance {
            interval: TimeSpan::hours(hours),
            ..Maintenance::default()
        };
        rules.check.read_all_in_days = days;
        rules
    }

    fn check(reading: Option<RepositoryReading>) -> RepositoryCheck {
        RepositoryCheck {
            time: to_kube(at(0)),
            level: CheckLevel::Share,
            outcome: String::new(),
            message: String::new(),
            objects_checked: 0,
            bytes_checked: 0,
            problem_count: 0,
            problems: Vec::new(),
            read_through_time: None,
            reading,
        }
    }

    #[test]
    fn what_the_last_check_found_is_read_again_and_everything_if_it_found_too_much() {
        let turn = RepositoryReading {
            since: to_kube(at(1)),
            shares: 30,
            read: 12,
        };
        let found = |count, keys: &[&str]| RepositoryCheck {
            problem_count: count,
            problems: keys
                .iter()
                .map(|key| Problem::error("CheckFailed", *key, ""))
                .collect(),
            ..check(Some(turn.clone()))
        };
        let of = |last: &RepositoryCheck| {
            let options = options(Some(&turn), Some(last));
            let again: Vec<String> = options.again.into_iter().collect();
            (options.level, again.join(" "))
        };
        let share = level(Some(&turn));
        assert_eq!(of(&found(0, &[])), (share, String::new()));
        assert_eq!(
            of(&found(2, &["packs/a", "packs/b"])),
            (share, "packs/a packs/b".to_owned())
        );
        assert_eq!(
            of(&found(3, &["packs/a"])),
            (Level::All, "packs/a".to_owned())
        );
        assert_eq!(options(None, None).level, Level::Structure);
    }

    #[test]
    fn a_turn_reads_each_share_once_whenever_the_rounds_come() {
        let rules = rules(3, 24);
        let mut last = None;
        let mut told = Vec::new();
        // A clock that stands still, jumps and goes back.
        for second in [7, 7, 900_000, 5, 6] {
            let mut turn = reading(&rules, last.as_ref(), at(second)).unwrap();
            let Level::Share { part, of } = level(Some(&turn)) else {
                panic!("no share");
            };
            told.push((part, of.get(), turn.since.0.as_second()));
            turn.read += 1;
            last = Some(check(Some(turn)));
        }
        assert_eq!(
            told,
            [(0, 3, 7), (1, 3, 7), (2, 3, 7), (0, 3, 5), (1, 3, 5)]
        );
    }

    #[test]
    fn another_number_of_shares_is_another_turn() {
        let begun = RepositoryReading {
            since: to_kube(at(1)),
            shares: 30,
            read: 12,
        };
        let last = check(Some(begun.clone()));
        let of = |rules| reading(&rules, Some(&last), at(9)).map(|turn| (turn.read, turn.shares));
        assert_eq!(of(rules(30, 24)), Some((12, 30)));
        assert_eq!(of(rules(30, 12)), Some((0, 60)));
        assert_eq!(of(rules(1, 8760)), Some((0, 1)));
        assert_eq!(of(rules(0, 24)), None);
        for read in [-1, 30, i64::MAX] {
            let last = check(Some(RepositoryReading {
                read,
                ..begun.clone()
            }));
            let turn = reading(&rules(30, 24), Some(&last), at(9)).unwrap();
            assert_eq!(turn.read, 0, "{read}");
        }
    }
}
