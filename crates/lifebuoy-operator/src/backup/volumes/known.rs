//! What a repository has of this cluster when an attempt begins, from one list of it.
//!
//! A mover's snapshot is only there until a recovery point keeps its data. The next
//! backup takes it away, so that lists do not grow with the number of volumes.

use lifebuoy_api::PointCluster;
use lifebuoy_engine::point::{Point, Points};
use lifebuoy_repo::{ClusterKey, Repository, SessionId};

/// What there is.
pub(in crate::backup) struct Known {
    /// The points of the cluster, the newest first.
    pub(super) points: Vec<SessionId>,
    /// Snapshots of its movers: of points before, which lead to the data themselves, and
    /// what killed attempts have left.
    movers: Vec<SessionId>,
}

impl Known {
    /// Of the cluster with this key.
    pub(in crate::backup) fn new(listed: Points, cluster: &PointCluster, key: ClusterKey) -> Self {
        let is_own = |point: &Point| point.summary.cluster == *cluster;
        let mut own: Vec<_> = listed.points.into_iter().filter(is_own).collect();
        own.sort_by_key(|point| std::cmp::Reverse(point.snapshot.seq));
        let movers = listed.data.into_iter();
        let movers = movers.filter(|one| one.cluster == key && !one.forgotten);
        Self {
            points: own.iter().map(|point| point.snapshot.session).collect(),
            movers: movers.map(|one| one.session).collect(),
        }
    }

    /// Forgets the snapshots of movers, now that there is a point after them. Those of
    /// this point stay until the next: whoever lists the repository at this moment sees
    /// the one or the other.
    pub(in crate::backup) async fn forget_movers(&self, repo: &Repository) {
        for session in &self.movers {
            let reason = "recovery points keep the data of volumes";
            if let Err(error) = repo.forget(*session, reason).await {
                tracing::warn!(%error, "snapshots of movers are left to the next backup");
                return;
            }
        }
    }
}
