//! Keeps the snapshot of a volume in the storage system, for as long as the recovery point is.
//!
//! ```text
//! usable → a content of its own, known to the driver → the claim's content gives it away → …
//!                                                        … the claim's snapshot goes → commit
//! ```
//!
//! Killed anywhere, the snapshot has an owner that goes: the claim's content with the Backup,
//! the kept one with a session that never committed.

use lifebuoy_engine::volumes::KeptSnapshot;

use super::{
    Saving,
    cluster::Cluster,
    moving::Moving,
    snapshot::{USABLE_MAX, Usable, look, usable, wait},
};
use crate::{
    error::sentence,
    snapshots::{self, KeptFor, Kind},
};

/// Keeps the snapshot that was cut of a volume. The error is why it is not kept.
pub(super) async fn keep(
    saving: &Saving<'_>,
    cluster: &Cluster,
    volume: &Moving,
    class: &str,
) -> Result<KeptSnapshot, String> {
    let usable = usable(saving, cluster, volume).await?;
    let name = format!("{}-kept", volume.name());
    let kept = take_over(saving, cluster, &name, &usable).await;
    if let Err(why) = kept {
        if let Err(error) = snapshots::discard(cluster.snapshots(), &name).await {
            tracing::warn!(%error, name, "a snapshot is left to the sweep of its session");
        }
        return Err(why);
    }
    let size = match usable.restore_bytes {
        0 => volume.capacity_bytes(),
        bytes => bytes,
    };
    Ok(KeptSnapshot {
        driver: usable.stored.driver,
        handle: usable.stored.handle,
        snapshot_class: class.to_owned(),
        restore_bytes: size,
    })
}

async fn take_over(
    saving: &Saving<'_>,
    cluster: &Cluster,
    name: &str,
    usable: &Usable,
) -> Result<(), String> {
    let snapshots = cluster.snapshots();
    let words = |error: crate::Error| sentence(&error, None);
    let kept_for = KeptFor {
        session: saving.attempt.session,
        repository_id: saving.repo.id().to_string(),
        cluster_uid: saving.cluster.uid.clone(),
    };
    let movers = &saving.attempt.context.config.movers.namespace;
    let made = snapshots::keep(snapshots, name, movers, &usable.stored, &kept_for).await;
    made.map_err(words)?;
    let what = "the snapshot cannot be kept";
    wait(saving, USABLE_MAX, what, async || {
        let found = snapshots.find(Kind::Content, None, name).await?;
        Ok(look(found.as_ref(), |content| {
            let status = &content.data["status"];
            let known = status["snapshotHandle"].is_string() && status["readyToUse"] == true;
            known.then_some(())
        }))
    })
    .await?;
    let given = snapshots::give_away(snapshots, &usable.content, &saving.uid()).await;
    if given.map_err(words)? {
        Ok(())
    } else {
        Err("the snapshot was deleted meanwhile".to_owned())
    }
}
