//! One round of care: repack, collect, check. Touches no status.

use std::{num::NonZeroU32, time::Instant};

use chrono::{DateTime, Utc};
use lifebuoy_api::{
    CheckLevel, Maintenance, Problem, Reason, RepositoryCheck, RepositoryCollection,
    RepositoryStatus, RepositoryStorage, Severity, bounded, time::to_kube,
};
use lifebuoy_engine::archive::ArchiveContents;
use lifebuoy_repo::{
    CheckLevel as Level, CheckOptions, CheckReport, ClusterKey, CollectOptions, CollectReport,
    Error as RepoError, Repository,
};

use super::told::{Told, message_of, reason_of};

/// Bytes that one round copies at most out of packs with little that lives.
const REPACK_BYTES_MAX: u64 = 1 << 30;
const PROBLEMS_MAX: usize = 20;
const PROBLEM_BYTES_MAX: usize = 256;
const SECONDS_PER_DAY: i64 = 24 * 3600;

/// What a round works on.
pub(super) struct Round<'a> {
    pub(super) repository: &'a Repository,
    pub(super) cluster: ClusterKey,
    pub(super) rules: &'a Maintenance,
    /// Whether anything may be deleted.
    pub(super) deletes: bool,
    pub(super) last: Option<&'a RepositoryStatus>,
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
        let (part, of) = self.share();
        let level = match NonZeroU32::new(of) {
            None => Level::Structure,
            Some(of) => Level::Share { part, of },
        };
        let options = CheckOptions::new(level);
        let checked = self.repository.check(&ArchiveContents, &options).await;
        told.check = Some(self.check(&checked, part, of));
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
                .repack(&ArchiveContents, self.cluster, below, REPACK_BYTES_MAX)
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
        self.repository.collect(&ArchiveContents, &options).await
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

    /// Which share of the data is read in this round, of how many: the day of the
    /// clock counts, so that it goes on where it was after a restart.
    fn share(&self) -> (u32, u32) {
        let days = u32::try_from(self.rules.check.read_all_in_days).unwrap_or(0);
        if days == 0 {
            return (0, 0);
        }
        let interval = i64::try_from(self.rules.interval.duration().as_secs()).unwrap_or(i64::MAX);
        // Rounds that come less often than daily read more in each.
        let rounds = (i64::from(days) * SECONDS_PER_DAY / interval.max(1)).clamp(1, 100_000);
        let of = u32::try_from(rounds).unwrap_or(1);
        let now = (self.clock)().timestamp() / interval.max(1);
        (u32::try_from(now.rem_euclid(rounds)).unwrap_or(0), of)
    }

    fn check(
        &self,
        checked: &Result<CheckReport, RepoError>,
        part: u32,
        of: u32,
    ) -> RepositoryCheck {
        let now = to_kube((self.clock)());
        let level = if of == 0 {
            CheckLevel::Structure
        } else {
            CheckLevel::Share
        };
        let last = self.last.and_then(|last| last.last_check.as_ref());
        let mut told = RepositoryCheck {
            time: now.clone(),
            level,
            outcome: Reason::NotChecked.as_str().to_owned(),
            message: String::new(),
            objects_checked: 0,
            bytes_checked: 0,
            problem_count: 0,
            problems: Vec::new(),
            read_through_time: last.and_then(|last| last.read_through_time.clone()),
        };
        let report = match checked {
            Ok(report) => report,
            Err(error) => {
                told.outcome = reason_of(error).as_str().to_owned();
                told.message = message_of(error);
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
        if of == 1 || (of > 1 && part + 1 == of) {
            told.read_through_time = Some(now);
        }
        told
    }
}

fn problems(report: &CheckReport) -> Vec<Problem> {
    let some = report.problems.iter().take(PROBLEMS_MAX);
    some.map(|problem| Problem {
        severity: Severity::Error,
        reason: Reason::CheckFailed.as_str().to_owned(),
        subject: problem.key.clone(),
        message: bounded(&problem.message, PROBLEM_BYTES_MAX),
    })
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
