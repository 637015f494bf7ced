//! Which points are mirrored, and what they are called. Pure: what is in a
//! summary was written by some cluster, and is taken for no more than text.

use std::collections::{BTreeMap, BTreeSet};

use lifebuoy_api::{PointCluster, RecoveryPoint};
use lifebuoy_engine::point::Point;

/// How many points of one lineage of the own cluster are mirrored.
const OWN_MAX: usize = 1000;
/// How many points of one lineage of another cluster are mirrored.
const OTHERS_MAX: usize = 5;
/// The longest name of an object.
const NAME_BYTES_MAX: usize = 253;
/// How many digits of the snapshot are in a name.
const ID_DIGITS: usize = 8;

/// What has to be done.
#[derive(Debug)]
pub(crate) struct Changes<'a> {
    pub(crate) create: Vec<&'a Point>,
    pub(crate) delete: Vec<&'a RecoveryPoint>,
    /// Points whose object is there, but was not marked as ready.
    pub(crate) mark: Vec<&'a RecoveryPoint>,
}

/// The points that are to be mirrored. `points` are the newest first within a
/// lineage, as the engine lists them.
pub(crate) fn wanted<'a>(
    points: &'a [Point],
    own: &PointCluster,
    others: &[String],
) -> Vec<&'a Point> {
    let mut taken: BTreeMap<(&PointCluster, &str), usize> = BTreeMap::new();
    points
        .iter()
        .filter(|point| {
            let summary = &point.summary;
            let limit = if summary.cluster == *own {
                OWN_MAX
            } else if others.contains(&summary.cluster.name) {
                OTHERS_MAX
            } else {
                return false;
            };
            let count = taken
                .entry((&summary.cluster, &summary.schedule))
                .or_default();
            *count += 1;
            *count <= limit
        })
        .collect()
}

/// What makes the mirror show `wanted`. Nothing is deleted while records of
/// the repository cannot be read: their points may still be there.
pub(crate) fn changes<'a>(
    wanted: Vec<&'a Point>,
    existing: &'a [RecoveryPoint],
    unreadable: bool,
) -> Changes<'a> {
    let names: BTreeMap<String, &Point> = wanted
        .into_iter()
        .map(|point| (name(point), point))
        .collect();
    let shown: BTreeSet<&str> = existing
        .iter()
        .filter_map(|object| object.metadata.name.as_deref())
        .collect();
    let ours = |object: &&RecoveryPoint| {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        names
            .get(name)
            .is_some_and(|point| point.snapshot.session.to_string() == object.spec.snapshot)
    };
    let mark = existing.iter().filter(ours).filter(|object| {
        object
            .status
            .as_ref()
            .is_none_or(|status| status.conditions.is_empty())
    });
    let delete = existing.iter().filter(|object| !ours(object));
    Changes {
        create: names
            .iter()
            .filter(|(name, _)| !shown.contains(name.as_str()))
            .map(|(_, point)| *point)
            .collect(),
        delete: if unreadable {
            Vec::new()
        } else {
            delete.collect()
        },
        mark: mark.collect(),
    }
}

/// How many points each cluster has.
pub(crate) fn counts(points: &[Point]) -> BTreeMap<&str, i64> {
    let mut counts = BTreeMap::new();
    for point in points {
        *counts
            .entry(point.summary.cluster.name.as_str())
            .or_default() += 1;
    }
    counts
}

/// `<cluster>-<schedule or backup>-<time>-<id>`: a name that sorts and is valid
/// whatever the summary says.
pub(crate) fn name(point: &Point) -> String {
    let summary = &point.summary;
    let what = if summary.schedule.is_empty() {
        &summary.backup
    } else {
        &summary.schedule
    };
    let id: String = point
        .snapshot
        .session
        .to_string()
        .chars()
        .take(ID_DIGITS)
        .collect();
    let tail = format!("-{}-{id}", summary.taken_at.format("%Y%m%d%H%M%S"));
    let mut head = format!("{}-{}", label(&summary.cluster.name), label(what));
    head.truncate(NAME_BYTES_MAX - tail.len());
    let head = head.trim_end_matches(['-', '.']);
    let tail: String = tail
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    format!("{head}{tail}")
}

/// A text as lower-case ASCII that a DNS name may hold, beginning and ending
/// with a letter or digit.
fn label(text: &str) -> String {
    let mapped: String = text
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => c,
            _ => '-',
        })
        .collect();
    let trimmed = mapped.trim_matches('-');
    if trimmed.is_empty() {
        "x".to_owned()
    } else {
        trimmed.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::DateTime;
    use lifebuoy_api::{Completeness, Consistency};
    use lifebuoy_engine::point::PointSummary;
    use lifebuoy_repo::{ChunkId, ClusterKey, SessionId, Snapshot};

    use super::*;

    fn point(cluster: &str, schedule: &str, seq: u64) -> Point {
        let mut session = [0; 16];
        session[..8].copy_from_slice(&seq.rotate_left(32).to_be_bytes());
        session[8] = cluster.len() as u8;
        Point {
            snapshot: Snapshot {
                session: SessionId::from_bytes(session),
                cluster: ClusterKey::from_bytes([1; 16]),
                seq,
                root: ChunkId::from_bytes([2; 32]),
                summary: Bytes::new(),
                forgotten: false,
                pinned: false,
            },
            summary: PointSummary {
                version: 1,
                cluster: PointCluster {
                    name: cluster.into(),
                    uid: format!("uid-{cluster}"),
                },
                schedule: schedule.into(),
                backup: "by-hand".into(),
                backup_uid: "u".into(),
                taken_at: DateTime::from_timestamp(1_795_474_800, 0).unwrap(),
                completeness: Completeness::Complete,
                consistency: Consistency::Exact,
                objects: 1,
                kubernetes_version: "v1.36.0".into(),
            },
        }
    }

    #[test]
    fn own_points_are_mirrored_and_the_newest_five_of_listed_clusters() {
        let own = PointCluster {
            name: "a".into(),
            uid: "uid-a".into(),
        };
        let mut points = Vec::new();
        for cluster in ["a", "bb", "ccc"] {
            points.extend((0..8).rev().map(|seq| point(cluster, "nightly", seq)));
        }
        let taken: Vec<(String, u64)> = wanted(&points, &own, &["bb".to_owned()])
            .into_iter()
            .map(|point| (point.summary.cluster.name.clone(), point.snapshot.seq))
            .collect();
        assert_eq!(taken.iter().filter(|(name, _)| name == "a").count(), 8);
        let of_b: Vec<u64> = taken
            .iter()
            .filter(|(name, _)| name == "bb")
            .map(|(_, seq)| *seq)
            .collect();
        assert_eq!(of_b, [7, 6, 5, 4, 3]);
        assert!(taken.iter().all(|(name, _)| name != "ccc"));
    }

    #[test]
    fn a_cluster_with_our_name_and_another_uid_is_another_cluster() {
        let own = PointCluster {
            name: "a".into(),
            uid: "uid-of-now".into(),
        };
        assert!(wanted(&[point("a", "", 1)], &own, &[]).is_empty());
    }

    #[test]
    fn names_are_valid_whatever_a_summary_says() {
        let mut odd = point("Ä/../x", "a_b.C", 0x9abc_def0_1234_5678);
        assert_eq!(
            name(&odd),
            "x-a-b-c-20261123230000-12345678".replace("230000", &time(&odd))
        );
        odd.summary.schedule = "s".repeat(400);
        let long = name(&odd);
        assert!(long.len() <= 253 && long.ends_with("-12345678"), "{long}");
        odd.summary.cluster.name = "///".into();
        assert!(name(&odd).starts_with("x-sss"));
    }

    fn time(point: &Point) -> String {
        point.summary.taken_at.format("%H%M%S").to_string()
    }

    #[test]
    fn what_is_gone_is_deleted_unless_something_cannot_be_read() {
        let points = [point("a", "", 2), point("a", "", 3)];
        let object = |point: &Point| {
            let mut object: RecoveryPoint = serde_json::from_value(serde_json::json!({
                "metadata": {"name": name(point)},
                "spec": {
                    "repository": "main",
                    "snapshot": point.snapshot.session.to_string(),
                    "cluster": {"name": "a", "uid": "uid-a"},
                    "backup": "b", "takenAt": "2026-11-23T23:00:00Z", "objects": 1,
                    "completeness": "Complete", "consistency": "Exact",
                },
            }))
            .unwrap();
            object.metadata.uid = Some("u".into());
            object
        };
        let existing = [object(&point("a", "", 1)), object(&points[0])];
        let some = changes(points.iter().collect(), &existing, false);
        assert_eq!(some.create.len(), 1);
        assert_eq!(some.create[0].snapshot.seq, 3);
        assert_eq!(some.delete.len(), 1);
        assert_eq!(some.mark.len(), 1);
        assert!(
            changes(points.iter().collect(), &existing, true)
                .delete
                .is_empty()
        );
    }
}
