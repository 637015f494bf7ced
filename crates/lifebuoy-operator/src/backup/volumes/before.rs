//! What was saved of the same volumes before: only what has changed is read again.

use std::collections::BTreeMap;

use lifebuoy_api::PointCluster;
use lifebuoy_engine::{
    archive::{Archive, ObjectKey},
    point::points,
    volumes::SavedData,
};
use lifebuoy_repo::Repository;

/// Points that are looked into: the newest that has a volume counts, and one that lacks
/// it is an exception.
const POINTS_MAX: usize = 8;

/// The newest data of each claim of this cluster. Nothing, where that cannot be read:
/// it costs time.
pub(super) async fn of(
    repo: &Repository,
    cluster: &PointCluster,
) -> BTreeMap<ObjectKey, SavedData> {
    let mut found = BTreeMap::new();
    let listed = match points(repo).await {
        Ok(listed) => listed.points,
        Err(error) => {
            tracing::warn!(%error, "what was saved before is not known: everything is read");
            return found;
        }
    };
    let mut own: Vec<_> = listed
        .into_iter()
        .filter(|point| point.summary.cluster == *cluster)
        .collect();
    own.sort_by_key(|point| std::cmp::Reverse(point.snapshot.seq));
    for point in own.iter().take(POINTS_MAX) {
        let archive = match Archive::open(repo, point.snapshot.session).await {
            Ok(archive) => archive,
            Err(error) => {
                tracing::warn!(%error, "a recovery point before cannot be read");
                continue;
            }
        };
        for record in archive.manifest.volumes_saved {
            let data = record.saved.data().clone();
            found.entry(record.claim).or_insert(data);
        }
    }
    found
}
