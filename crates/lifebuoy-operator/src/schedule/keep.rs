//! What a Schedule keeps: recovery points by `retention`, Backup objects by its
//! history limits. Pure.

use chrono::{DateTime, Utc};
use lifebuoy_api::{Backup, Completeness, ConditionType, PointCluster, is_true, time::from_kube};
use lifebuoy_engine::point::{Point, Points};
use lifebuoy_repo::SessionId;

use crate::backup::ended;

/// The points of one lineage that are not kept: complete ones beyond the newest
/// `keep_last`, and partial ones older than the oldest complete one that stays.
///
/// None, unless the newest point of the lineage is complete, and none while
/// anything in the repository cannot be read. Newest is the highest sequence,
/// whatever any clock said.
pub(crate) fn forgettable(
    points: &Points,
    cluster: &PointCluster,
    schedule: &str,
    keep_last: usize,
) -> Vec<SessionId> {
    if !points.unreadable.is_empty() || keep_last == 0 {
        return Vec::new();
    }
    let mut lineage: Vec<&Point> = points
        .points
        .iter()
        .filter(|point| point.summary.cluster == *cluster && point.summary.schedule == schedule)
        .collect();
    lineage.sort_by_key(|point| std::cmp::Reverse(point.snapshot.seq));
    let complete = |point: &&Point| point.summary.completeness == Completeness::Complete;
    if !lineage.first().is_some_and(complete) {
        return Vec::new();
    }
    let kept = lineage
        .iter()
        .copied()
        .filter(complete)
        .take(keep_last)
        .last();
    let Some(oldest) = kept.map(|point| point.snapshot.seq) else {
        return Vec::new();
    };
    lineage
        .into_iter()
        .filter(|point| point.snapshot.seq < oldest)
        .map(|point| point.snapshot.session)
        .collect()
}

/// The Backups whose objects are history: those that ended, beyond the newest
/// `successful` and `failed` ones.
pub(crate) fn history(backups: &[Backup], successful: usize, failed: usize) -> Vec<&Backup> {
    let conditions = |backup: &&Backup, kind: ConditionType| {
        backup
            .status
            .as_ref()
            .is_some_and(|status| is_true(&status.conditions, kind))
    };
    let done = |backup: &&Backup| conditions(backup, ConditionType::Complete);
    let over = |backup: &&Backup| ended(backup) || conditions(backup, ConditionType::Stalled);
    let mut newest: Vec<&Backup> = backups.iter().filter(over).collect();
    newest.sort_by_key(|backup| std::cmp::Reverse((created(backup), backup.metadata.name.clone())));
    let (good, bad): (Vec<&Backup>, Vec<&Backup>) = newest.into_iter().partition(done);
    good.into_iter()
        .skip(successful)
        .chain(bad.into_iter().skip(failed))
        .collect()
}

fn created(backup: &Backup) -> Option<DateTime<Utc>> {
    backup.metadata.creation_timestamp.as_ref().map(from_kube)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lifebuoy_api::{Consistency, Reason, condition, time::to_kube};
    use lifebuoy_engine::point::PointSummary;
    use lifebuoy_repo::{ChunkId, ClusterKey, Snapshot};

    use super::*;

    fn cluster() -> PointCluster {
        PointCluster {
            name: "a".into(),
            uid: "u".into(),
        }
    }

    /// `C` complete, `p` partial; the first is the oldest.
    fn lineage(text: &str) -> Points {
        let point = |(at, letter): (usize, char)| Point {
            snapshot: Snapshot {
                session: SessionId::from_bytes([at as u8; 16]),
                cluster: ClusterKey::from_bytes([1; 16]),
                seq: at as u64,
                root: ChunkId::from_bytes([2; 32]),
                summary: Bytes::new(),
                forgotten: false,
                pinned: false,
            },
            summary: PointSummary {
                version: 1,
                cluster: cluster(),
                schedule: "nightly".into(),
                backup: "b".into(),
                backup_uid: "u".into(),
                // A clock that runs backwards must not matter.
                taken_at: DateTime::from_timestamp(1000 - at as i64, 0).unwrap(),
                completeness: match letter {
                    'C' => Completeness::Complete,
                    _ => Completeness::Partial,
                },
                consistency: Consistency::Exact,
                objects: 1,
                kubernetes_version: String::new(),
            },
        };
        Points {
            points: text.chars().enumerate().map(point).collect(),
            unreadable: vec![],
        }
    }

    fn forgotten(text: &str, keep: usize) -> String {
        let points = lineage(text);
        let gone = forgettable(&points, &cluster(), "nightly", keep);
        points
            .points
            .iter()
            .map(|point| {
                if gone.contains(&point.snapshot.session) {
                    '-'
                } else {
                    '+'
                }
            })
            .collect()
    }

    #[test]
    fn the_newest_complete_points_are_kept() {
        for (points, keep, expected) in [
            ("", 2, ""),
            ("C", 2, "+"),
            ("CCCC", 2, "--++"),
            // Partial ones stay as long as they are newer than the oldest kept.
            ("pCpCpC", 2, "---+++"),
            ("CpC", 2, "+++"),
            // The newest is partial: nothing is forgotten.
            ("CCCCp", 1, "+++++"),
            ("ppp", 1, "+++"),
            ("CCC", 0, "+++"),
        ] {
            assert_eq!(forgotten(points, keep), expected, "{points} keep {keep}");
        }
    }

    #[test]
    fn other_lineages_and_unreadable_records_are_safe() {
        let mut points = lineage("CCCC");
        assert!(forgettable(&points, &cluster(), "hourly", 1).is_empty());
        let other = PointCluster {
            uid: "other".into(),
            ..cluster()
        };
        assert!(forgettable(&points, &other, "nightly", 1).is_empty());
        points.unreadable.push(("end/x".into(), "damaged".into()));
        assert!(forgettable(&points, &cluster(), "nightly", 1).is_empty());
    }

    #[test]
    fn history_keeps_the_newest_of_each_kind_and_whatever_runs() {
        let backup = |name: &str, kind: Option<ConditionType>| {
            let mut backup: Backup = serde_json::from_value(serde_json::json!({
                "metadata": {"name": name}, "spec": {"repository": "main"}, "status": {},
            }))
            .unwrap();
            let second = name.bytes().map(i64::from).sum();
            let at = DateTime::from_timestamp(second, 0).unwrap();
            backup.metadata.creation_timestamp = Some(to_kube(at));
            if let (Some(kind), Some(status)) = (kind, backup.status.as_mut()) {
                let now = DateTime::UNIX_EPOCH;
                status.conditions = vec![condition(kind, true, Reason::Succeeded, "", None, now)];
            }
            backup
        };
        let all = [
            backup("a", Some(ConditionType::Complete)),
            backup("b", Some(ConditionType::Failed)),
            backup("c", Some(ConditionType::Complete)),
            backup("d", None),
            backup("e", Some(ConditionType::Stalled)),
        ];
        let mut names: Vec<_> = history(&all, 1, 1)
            .iter()
            .map(|b| b.metadata.name.clone().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(history(&all, 0, 0).len(), 4);
    }
}
