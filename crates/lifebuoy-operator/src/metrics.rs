//! What Prometheus is told. Labels are names of our own objects and reasons:
//! bounded by what people declare, never by what is backed up.

use std::time::Duration;

use chrono::{DateTime, Utc};
use lifebuoy_api::{BackupProgress, Reason, RestoreCounts, time::from_kube};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::keeper::Told;

/// The upper bounds of durations, in seconds: from one second to four hours.
const DURATION_BUCKETS: [f64; 13] = [
    1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    schedule: String,
    outcome: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfSchedule {
    schedule: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfRepository {
    repository: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfRepositoryOutcome {
    repository: String,
    outcome: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfCluster {
    repository: String,
    cluster: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKind {
    kind: String,
}

/// Everything that is measured.
pub(crate) struct Metrics {
    registry: Registry,
    backups: Family<Ended, Counter>,
    backup_seconds: Histogram,
    last_success: Family<OfSchedule, Gauge>,
    last_objects: Family<OfSchedule, Gauge>,
    last_bytes: Family<OfSchedule, Gauge>,
    stored_bytes: Counter,
    points: Family<OfCluster, Gauge>,
    repository_ready: Family<OfRepository, Gauge>,
    repository_healthy: Family<OfRepository, Gauge>,
    stored: Family<OfRepository, Gauge>,
    garbage: Family<OfRepository, Gauge>,
    collections: Family<OfRepositoryOutcome, Counter>,
    last_check: Family<OfRepository, Gauge>,
    restores: Family<Outcome, Counter>,
    restore_seconds: Histogram,
    restored: Family<Outcome, Counter>,
    errors: Family<OfKind, Counter>,
    leader: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("lifebuoy"),
            backups: Family::default(),
            backup_seconds: Histogram::new(DURATION_BUCKETS),
            last_success: Family::default(),
            last_objects: Family::default(),
            last_bytes: Family::default(),
            stored_bytes: Counter::default(),
            points: Family::default(),
            repository_ready: Family::default(),
            repository_healthy: Family::default(),
            stored: Family::default(),
            garbage: Family::default(),
            collections: Family::default(),
            last_check: Family::default(),
            restores: Family::default(),
            restore_seconds: Histogram::new(DURATION_BUCKETS),
            restored: Family::default(),
            errors: Family::default(),
            leader: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "backups",
            "Backups that have ended, by outcome",
            self.backups.clone(),
        );
        r.register(
            "backup_duration_seconds",
            "How long Backups took",
            self.backup_seconds.clone(),
        );
        r.register(
            "backup_last_success_timestamp_seconds",
            "When a Backup of the schedule last completed; empty schedule: by hand",
            self.last_success.clone(),
        );
        r.register(
            "backup_last_objects",
            "Objects in the last Backup",
            self.last_objects.clone(),
        );
        r.register(
            "backup_last_bytes",
            "Bytes of JSON in the last Backup",
            self.last_bytes.clone(),
        );
        r.register(
            "backup_stored_bytes",
            "Bytes that Backups added",
            self.stored_bytes.clone(),
        );
        r.register(
            "recovery_points",
            "Points that can be restored",
            self.points.clone(),
        );
        r.register(
            "repository_ready",
            "Whether it can be used",
            self.repository_ready.clone(),
        );
        r.register(
            "repository_healthy",
            "Whether no damage is known; missing where that is not known",
            self.repository_healthy.clone(),
        );
        r.register(
            "repository_stored_bytes",
            "Bytes of packs in the store",
            self.stored.clone(),
        );
        r.register(
            "repository_garbage_bytes",
            "Bytes of packs that no recovery point needs",
            self.garbage.clone(),
        );
        r.register(
            "repository_collections",
            "Rounds of garbage collection that have ended, by outcome",
            self.collections.clone(),
        );
        r.register(
            "repository_last_check_timestamp_seconds",
            "When a check last ended",
            self.last_check.clone(),
        );
        r.register(
            "restores",
            "Restores that have ended, by outcome",
            self.restores.clone(),
        );
        r.register(
            "restore_duration_seconds",
            "How long Restores took",
            self.restore_seconds.clone(),
        );
        r.register(
            "restored_objects",
            "Objects of Restores, by outcome",
            self.restored.clone(),
        );
        r.register(
            "reconcile_errors",
            "Reconciliations that failed",
            self.errors.clone(),
        );
        r.register("leader", "Whether this replica works", self.leader.clone());
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// None in practice: a string can always grow.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    pub(crate) fn backup_ended(
        &self,
        schedule: &str,
        reason: Reason,
        complete: bool,
        took: Option<Duration>,
        progress: &BackupProgress,
        now: DateTime<Utc>,
    ) {
        let ended = Ended {
            schedule: schedule.to_owned(),
            outcome: reason.as_str().to_owned(),
        };
        self.backups.get_or_create(&ended).inc();
        if let Some(took) = took {
            self.backup_seconds.observe(took.as_secs_f64());
        }
        self.stored_bytes
            .inc_by(u64::try_from(progress.bytes_stored).unwrap_or(0));
        let schedule = OfSchedule {
            schedule: schedule.to_owned(),
        };
        if complete {
            self.last_success
                .get_or_create(&schedule)
                .set(now.timestamp());
            self.last_objects
                .get_or_create(&schedule)
                .set(progress.objects);
            self.last_bytes.get_or_create(&schedule).set(progress.bytes);
        }
    }

    pub(crate) fn restore_ended(
        &self,
        reason: Reason,
        took: Option<Duration>,
        counts: &RestoreCounts,
    ) {
        let outcome = |word: &str| Outcome {
            outcome: word.to_owned(),
        };
        self.restores.get_or_create(&outcome(reason.as_str())).inc();
        if let Some(took) = took {
            self.restore_seconds.observe(took.as_secs_f64());
        }
        for (word, count) in [
            ("created", counts.created),
            ("merged", counts.merged),
            ("replaced", counts.replaced),
            ("skipped", counts.skipped),
            ("withheld", counts.withheld),
            ("failed", counts.failed),
        ] {
            let count = u64::try_from(count).unwrap_or(0);
            self.restored.get_or_create(&outcome(word)).inc_by(count);
        }
    }

    pub(crate) fn repository(&self, name: &str, ready: bool) {
        let label = OfRepository {
            repository: name.to_owned(),
        };
        self.repository_ready
            .get_or_create(&label)
            .set(ready.into());
    }

    /// Whether damage is known; nothing is said where that is not known.
    pub(crate) fn healthy(&self, name: &str, healthy: Option<bool>) {
        let label = OfRepository {
            repository: name.to_owned(),
        };
        match healthy {
            Some(healthy) => {
                self.repository_healthy
                    .get_or_create(&label)
                    .set(healthy.into());
            }
            None => drop(self.repository_healthy.remove(&label)),
        }
    }

    /// What a round of care found.
    pub(crate) fn cared_for(&self, name: &str, told: &Told) {
        let label = OfRepository {
            repository: name.to_owned(),
        };
        if let Some(storage) = &told.storage {
            self.stored.get_or_create(&label).set(storage.bytes);
            self.garbage
                .get_or_create(&label)
                .set(storage.garbage_bytes);
        }
        if let Some(collection) = &told.collection {
            let label = OfRepositoryOutcome {
                repository: name.to_owned(),
                outcome: collection.outcome.clone(),
            };
            self.collections.get_or_create(&label).inc();
        }
        if let Some(check) = &told.check {
            let at = from_kube(&check.time).timestamp();
            self.last_check.get_or_create(&label).set(at);
        }
    }

    pub(crate) fn points(&self, repository: &str, cluster: &str, count: i64) {
        let label = OfCluster {
            repository: repository.to_owned(),
            cluster: cluster.to_owned(),
        };
        self.points.get_or_create(&label).set(count);
    }

    pub(crate) fn reconcile_error(&self, kind: &str) {
        self.errors
            .get_or_create(&OfKind {
                kind: kind.to_owned(),
            })
            .inc();
    }

    pub(crate) fn leading(&self, leads: bool) {
        self.leader.set(leads.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_can_be_read_from_the_text() {
        let metrics = Metrics::new();
        let progress = BackupProgress {
            objects: 12,
            bytes: 345,
            ..BackupProgress::default()
        };
        let now = DateTime::from_timestamp(1_795_474_800, 0).unwrap();
        let took = Some(Duration::from_secs(2));
        metrics.backup_ended("nightly", Reason::Succeeded, true, took, &progress, now);
        metrics.repository("main", true);
        metrics.leading(true);
        let text = metrics.text().unwrap();
        for line in [
            "lifebuoy_backups_total{schedule=\"nightly\",outcome=\"Succeeded\"} 1",
            "lifebuoy_backup_last_success_timestamp_seconds{schedule=\"nightly\"} 1795474800",
            "lifebuoy_backup_last_objects{schedule=\"nightly\"} 12",
            "lifebuoy_backup_duration_seconds_count 1",
            "lifebuoy_repository_ready{repository=\"main\"} 1",
            "lifebuoy_leader 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
