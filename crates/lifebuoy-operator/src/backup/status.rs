//! What the status of a Backup says. Pure.

use chrono::{DateTime, Utc};
use lifebuoy_api::{BackupStatus, Completeness, Reason, time::to_kube};
use lifebuoy_repo::SessionId;

use super::capture::Saved;
use crate::{
    request::stand,
    status::{Standing, errors, listed},
};

/// An attempt begins in this session.
pub(crate) fn begin(
    status: &mut BackupStatus,
    session: SessionId,
    generation: Option<i64>,
    now: DateTime<Utc>,
) {
    status.session = Some(session.to_string());
    status.attempts += 1;
    status.start_time.get_or_insert_with(|| to_kube(now));
    status.progress = lifebuoy_api::BackupProgress::default();
    stand(
        status,
        &Standing::Running("the cluster is being read".to_owned()),
        generation,
        now,
    );
}

/// A snapshot is committed. Only a complete one is called complete.
pub(crate) fn saved(
    status: &mut BackupStatus,
    saved: &Saved,
    recovery_point: Option<String>,
) -> Standing {
    let summary = &saved.point.summary;
    status.session = Some(saved.point.snapshot.session.to_string());
    status.snapshot = status.session.clone();
    status.recovery_point = recovery_point;
    status.consistency = Some(summary.consistency);
    status.progress = saved.progress.clone();
    let missing = errors(&saved.problems);
    (status.problem_count, status.problems) = listed(saved.problems.clone());
    let objects = summary.objects;
    match summary.completeness {
        Completeness::Complete => {
            Standing::Complete(Reason::Succeeded, format!("{objects} objects are saved"))
        }
        Completeness::Partial => Standing::Failed(
            Reason::Partial,
            format!(
                "{objects} objects are saved and can be restored, but something that was asked \
                 for is missing: {}",
                status.problems.first().filter(|_| missing > 0).map_or_else(
                    || "see the problems".to_owned(),
                    |problem| format!("{} ({missing} in all)", problem.message)
                )
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lifebuoy_api::{BackupProgress, Consistency, PointCluster, Problem};
    use lifebuoy_engine::point::{Point, PointSummary};
    use lifebuoy_repo::{ChunkId, ClusterKey, Snapshot};

    use super::*;

    fn result(completeness: Completeness, problems: Vec<Problem>) -> Saved {
        Saved {
            point: Point {
                snapshot: Snapshot {
                    session: SessionId::from_bytes([7; 16]),
                    cluster: ClusterKey::from_bytes([1; 16]),
                    seq: 1,
                    root: ChunkId::from_bytes([2; 32]),
                    summary: Bytes::new(),
                    forgotten: false,
                    pinned: false,
                },
                summary: PointSummary {
                    version: 1,
                    cluster: PointCluster {
                        name: "a".into(),
                        uid: "u".into(),
                    },
                    schedule: String::new(),
                    backup: "b".into(),
                    backup_uid: "u".into(),
                    taken_at: DateTime::UNIX_EPOCH,
                    completeness,
                    consistency: Consistency::Exact,
                    objects: 42,
                    kubernetes_version: String::new(),
                },
            },
            problems,
            progress: BackupProgress {
                objects: 42,
                ..BackupProgress::default()
            },
        }
    }

    #[test]
    fn nothing_partial_is_called_complete() {
        let mut status = BackupStatus::default();
        begin(
            &mut status,
            SessionId::from_bytes([7; 16]),
            Some(1),
            DateTime::UNIX_EPOCH,
        );
        assert_eq!((status.attempts, status.phase.as_str()), (1, "Running"));
        let standing = saved(&mut status, &result(Completeness::Complete, vec![]), None);
        assert_eq!(
            standing,
            Standing::Complete(Reason::Succeeded, "42 objects are saved".into())
        );
        let lost = Problem::error("TypeUnavailable", "tickets.example.com", "cannot be read");
        let standing = saved(
            &mut status,
            &result(Completeness::Partial, vec![lost]),
            None,
        );
        stand(&mut status, &standing, Some(1), DateTime::UNIX_EPOCH);
        assert_eq!(status.phase, "Partial");
        assert!(crate::status::has_ended(&status.conditions));
        assert!(matches!(standing, Standing::Failed(Reason::Partial, text)
            if text.contains("cannot be read (1 in all)")));
        assert_eq!(status.snapshot.as_deref(), Some("07".repeat(16).as_str()));
    }
}
