//! What was saved of the same volumes before: only what has changed is read again.

use std::collections::BTreeMap;

use lifebuoy_engine::{
    archive::{Archive, ObjectKey},
    volumes::SavedData,
};
use lifebuoy_repo::{Repository, SessionId};

/// Points that are looked into: the newest that has a volume counts, and one that lacks
/// it is an exception.
const POINTS_MAX: usize = 8;

/// The newest data of each of these claims in `points`, the newest of which is the first.
/// Nothing, where that cannot be read: it costs time.
pub(super) async fn of(
    repo: &Repository,
    points: &[SessionId],
    claims: impl Iterator<Item = &ObjectKey>,
) -> BTreeMap<ObjectKey, SavedData> {
    let mut wanted: Vec<&ObjectKey> = claims.collect();
    let mut found = BTreeMap::new();
    for point in points.iter().take(POINTS_MAX) {
        if wanted.is_empty() {
            break;
        }
        let archive = match Archive::open(repo, *point).await {
            Ok(archive) => archive,
            Err(error) => {
                tracing::warn!(%error, "a recovery point before cannot be read");
                continue;
            }
        };
        for record in archive.manifest.volumes_saved {
            // What stayed in the storage system was not read.
            if let Some(data) = record.saved.data()
                && let Some(at) = wanted.iter().position(|claim| **claim == record.claim)
            {
                wanted.swap_remove(at);
                found.insert(record.claim, data.clone());
            }
        }
    }
    found
}
