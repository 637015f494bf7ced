//! Recovery points as a repository holds them: a snapshot, and what its summary
//! says. Never reads an archive's objects, and never trusts a mirrored
//! RecoveryPoint.

use std::collections::BTreeSet;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use lifebuoy_api::{Completeness, Consistency, PointCluster};
use lifebuoy_data::DataSummary;
use lifebuoy_repo::{Hold, Repository, SessionId, Snapshot};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The newest version of the summary that this program reads.
pub const SUMMARY_VERSION: u32 = 1;

/// What a snapshot's end record says of it, without reading anything else.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PointSummary {
    /// The version of this record.
    pub version: u32,
    /// The cluster that was saved.
    pub cluster: PointCluster,
    /// The Schedule that asked for it; empty for a Backup made by hand.
    pub schedule: String,
    /// The Backup that asked for it.
    pub backup: String,
    /// The uid of that Backup.
    pub backup_uid: String,
    /// When the capture began, by the clock of the cluster that was saved.
    pub taken_at: DateTime<Utc>,
    /// Whether everything in the selection was saved.
    pub completeness: Completeness,
    /// Whether all types were read at one revision.
    pub consistency: Consistency,
    /// How many objects it holds.
    pub objects: u64,
    /// The Git version of the cluster that was saved.
    pub kubernetes_version: String,
}

impl PointSummary {
    /// The summary as it goes into the end record.
    ///
    /// # Errors
    /// None in practice: every field has a JSON form.
    pub fn to_bytes(&self) -> Result<Bytes, Error> {
        serde_json::to_vec(self)
            .map(Bytes::from)
            .map_err(|error| Error::Internal(format!("cannot write a summary: {error}")))
    }

    /// Reads a summary.
    ///
    /// # Errors
    /// [`Error::TooNew`] for a newer version, [`Error::Damaged`] for anything
    /// that is no summary.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged =
            |error: serde_json::Error| Error::damaged("a snapshot's summary", error.to_string());
        let found: Versioned = serde_json::from_slice(bytes).map_err(damaged)?;
        if found.version > SUMMARY_VERSION {
            return Err(Error::TooNew {
                what: "a snapshot's summary".to_owned(),
                found: found.version,
                known: SUMMARY_VERSION,
            });
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }
}

/// One recovery point.
#[derive(Clone, Debug)]
pub struct Point {
    /// The snapshot in the repository.
    pub snapshot: Snapshot,
    /// What it says of itself.
    pub summary: PointSummary,
}

/// What a repository lists.
#[derive(Clone, Debug, Default)]
pub struct Points {
    /// Readable points that are not forgotten, or pinned all the same: by cluster, schedule, and within
    /// such a lineage the newest first, by sequence and never by a clock.
    pub points: Vec<Point>,
    /// Snapshots of files and devices, those of movers among them; not forgotten, or
    /// pinned all the same.
    pub data: Vec<Snapshot>,
    /// What could not be read: the record's name and why.
    pub unreadable: Vec<(String, String)>,
}

/// Lists the points of every cluster in the repository.
///
/// # Errors
/// [`Error::Repo`] when the repository cannot be listed. A single unreadable
/// record is part of the result.
pub async fn points(repo: &Repository) -> Result<Points, Error> {
    let listed = repo.snapshots().await?;
    let mut unreadable = listed
        .unreadable
        .iter()
        .map(|(key, error)| (key.to_string(), error.to_string()))
        .collect::<Vec<_>>();
    let (mut points, mut data) = (Vec::new(), Vec::new());
    for snapshot in listed.snapshots {
        if snapshot.is_leaving() {
            continue;
        }
        if DataSummary::is_one(&snapshot.summary) {
            data.push(snapshot);
            continue;
        }
        match PointSummary::from_bytes(&snapshot.summary) {
            Ok(summary) => points.push(Point { snapshot, summary }),
            Err(error) => unreadable.push((snapshot.session.to_string(), error.to_string())),
        }
    }
    sort_newest_first(&mut points);
    Ok(Points {
        points,
        data,
        unreadable,
    })
}

/// By cluster, schedule, and falling sequence.
fn sort_newest_first(points: &mut [Point]) {
    points.sort_by(|a, b| {
        let lineage = |p: &Point| (p.summary.cluster.clone(), p.summary.schedule.clone());
        lineage(a)
            .cmp(&lineage(b))
            .then_with(|| b.snapshot.seq.cmp(&a.snapshot.seq))
            .then_with(|| a.snapshot.session.cmp(&b.snapshot.session))
    });
}

/// The newest complete point of a cluster, of one schedule if one is named, that
/// nobody asked to forget. Newest is the highest sequence, whatever any clock said.
///
/// # Errors
/// [`Error::NoPoint`] when there is none, [`Error::AmbiguousCluster`] when two
/// clusters carry the name.
pub async fn newest_complete(
    repo: &Repository,
    cluster_name: &str,
    schedule: Option<&str>,
) -> Result<Point, Error> {
    choose_newest(points(repo).await?.points, cluster_name, schedule)
}

fn choose_newest(
    points: Vec<Point>,
    cluster_name: &str,
    schedule: Option<&str>,
) -> Result<Point, Error> {
    let candidates: Vec<Point> = points
        .into_iter()
        .filter(|p| p.summary.cluster.name == cluster_name)
        .filter(|p| schedule.is_none_or(|name| p.summary.schedule == name))
        .filter(|p| p.summary.completeness == Completeness::Complete && !p.snapshot.forgotten)
        .collect();
    let uids: BTreeSet<&str> = candidates
        .iter()
        .map(|p| p.summary.cluster.uid.as_str())
        .collect();
    if uids.len() > 1 {
        return Err(Error::AmbiguousCluster {
            cluster: cluster_name.to_owned(),
            uids: uids.into_iter().map(str::to_owned).collect(),
        });
    }
    candidates
        .into_iter()
        .max_by_key(|p| p.snapshot.seq)
        .ok_or_else(|| Error::NoPoint {
            cluster: cluster_name.to_owned(),
            schedule: schedule.map(str::to_owned),
        })
}

/// The point of one session.
///
/// # Errors
/// [`Error::Repo`] when it does not exist, was forgotten or never ended;
/// [`Error::TooNew`] when its summary is of a newer version.
pub async fn find(repo: &Repository, session: SessionId) -> Result<Point, Error> {
    let snapshot = repo.snapshot(session).await?;
    let summary = PointSummary::from_bytes(&snapshot.summary)?;
    Ok(Point { snapshot, summary })
}

/// Holds a point while it is restored: no collection of garbage takes it away.
/// `None` where that cannot be, because nothing may be written or the format is
/// older; the grace of forgetting must then do.
///
/// # Errors
/// [`Error::Repo`], above all when the point was forgotten.
pub async fn hold(
    repo: &Repository,
    snapshot: SessionId,
    cluster_uid: &str,
) -> Result<Option<Hold>, Error> {
    let cluster = repo.cluster_key(cluster_uid);
    where_allowed(|| repo.hold(snapshot, cluster)).await
}

/// Holds all snapshots, as [`hold`] does one.
///
/// # Errors
/// [`Error::Repo`].
pub async fn hold_all(repo: &Repository, cluster_uid: &str) -> Result<Option<Hold>, Error> {
    let cluster = repo.cluster_key(cluster_uid);
    where_allowed(|| repo.hold_all(cluster)).await
}

async fn where_allowed<F>(hold: impl Fn() -> F) -> Result<Option<Hold>, Error>
where
    F: Future<Output = Result<Hold, lifebuoy_repo::Error>>,
{
    use lifebuoy_repo::Error as Repo;
    loop {
        match hold().await {
            Ok(hold) => return Ok(Some(hold)),
            Err(Repo::ReadOnly { .. } | Repo::UpgradeNeeded { .. } | Repo::Denied { .. }) => {
                return Ok(None);
            }
            // A collection began at the same moment: another session it is.
            Err(Repo::Outdated { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use lifebuoy_repo::{ChunkId, ClusterKey};

    use super::*;
    use crate::testing::summary;

    fn point(seq: u64, change: impl FnOnce(&mut PointSummary)) -> Point {
        let mut summary = summary();
        change(&mut summary);
        let snapshot = Snapshot {
            session: SessionId::from_bytes([u8::try_from(seq).unwrap(); 16]),
            cluster: ClusterKey::from_bytes([0; 16]),
            seq,
            root: ChunkId::from_bytes([0; 32]),
            summary: Bytes::new(),
            forgotten: false,
            pinned: false,
        };
        Point { snapshot, summary }
    }

    #[test]
    fn the_newest_point_is_the_highest_sequence_whatever_the_clock_said() {
        let late = DateTime::from_timestamp(4_000_000_000, 0).unwrap();
        let points = || {
            vec![
                point(1, |s| s.taken_at = late),
                point(2, |s| s.schedule = "nightly".to_owned()),
                point(3, |s| s.completeness = Completeness::Partial),
            ]
        };
        let seq = |schedule| choose_newest(points(), "a", schedule).unwrap().snapshot.seq;
        assert_eq!(seq(None), 2);
        assert_eq!(seq(Some("nightly")), 2);
        assert_eq!(seq(Some("")), 1);
        // A pin keeps what was forgotten; it does not make it the newest again.
        let mut kept = points();
        kept.push(point(5, |_| ()));
        kept[3].snapshot.forgotten = true;
        kept[3].snapshot.pinned = true;
        assert_eq!(choose_newest(kept, "a", None).unwrap().snapshot.seq, 2);
        assert!(matches!(
            choose_newest(points(), "b", None),
            Err(Error::NoPoint { .. })
        ));
        let mut twice = points();
        twice.push(point(4, |s| s.cluster.uid = "other".to_owned()));
        assert!(matches!(
            choose_newest(twice, "a", None),
            Err(Error::AmbiguousCluster { .. })
        ));
    }

    #[test]
    fn points_are_listed_newest_first_within_a_lineage() {
        let mut points = vec![
            point(1, |_| ()),
            point(2, |s| s.schedule = "nightly".to_owned()),
            point(3, |_| ()),
        ];
        sort_newest_first(&mut points);
        let seqs: Vec<_> = points.iter().map(|p| p.snapshot.seq).collect();
        assert_eq!(seqs, [3, 1, 2]);
    }

    #[test]
    fn a_newer_summary_and_no_summary_are_told_apart() {
        let bytes = summary().to_bytes().unwrap();
        assert_eq!(PointSummary::from_bytes(&bytes).unwrap(), summary());
        let newer = PointSummary::from_bytes(br#"{"version":2,"all":"else"}"#).unwrap_err();
        assert!(matches!(newer, Error::TooNew { found: 2, .. }));
        let noise = PointSummary::from_bytes(b"noise").unwrap_err();
        assert!(matches!(noise, Error::Damaged { .. }));
    }
}
