//! A mover's snapshot is only there until a recovery point keeps its data. Later backups
//! take it away, so that listings do not grow with the number of volumes.

use std::collections::BTreeSet;

use lifebuoy_api::PointCluster;
use lifebuoy_data::DataSummary;
use lifebuoy_engine::archive::Archive;
use lifebuoy_repo::{Repository, SessionId};

/// Forgets the snapshots of movers of this cluster that `point` does not lead to: those
/// of points before, which lead to the data themselves, and what killed attempts left.
/// Only while no other backup of the cluster runs. Those of the newest point stay until
/// the next: whoever lists the repository at this moment sees the one or the other.
pub(in crate::backup) async fn forget(repo: &Repository, cluster: &PointCluster, point: SessionId) {
    if let Err(error) = try_to_forget(repo, cluster, point).await {
        tracing::warn!(%error, "snapshots of movers are left to the next backup");
    }
}

async fn try_to_forget(
    repo: &Repository,
    cluster: &PointCluster,
    point: SessionId,
) -> Result<(), lifebuoy_engine::Error> {
    let archive = Archive::open(repo, point).await?;
    let kept: BTreeSet<SessionId> = archive
        .manifest
        .volumes_saved
        .iter()
        .map(|of| of.saved.data().session)
        .collect();
    let own = repo.cluster_key(&cluster.uid);
    for snapshot in repo.snapshots().await?.snapshots {
        let is_movers = snapshot.cluster == own && DataSummary::is_one(&snapshot.summary);
        if is_movers && !snapshot.forgotten && !kept.contains(&snapshot.session) {
            repo.forget(snapshot.session, "recovery points keep the data of volumes")
                .await?;
        }
    }
    Ok(())
}
