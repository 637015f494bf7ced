//! What was made for a while for a request, and is still there when the request has
//! ended or is gone: whoever was killed before he cleaned up is helped.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::{batch::v1::Job, core::v1::PersistentVolumeClaim};
use kube::{Api, ResourceExt, api::ListParams};
use lifebuoy_api::{Backup, FOR_LABEL, VolumeRestore};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, backup,
    context::Context,
    mover,
    snapshots::{self, Snapshots},
    volume_restore,
};

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(60);

/// Looks now and then, until `stop`.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    loop {
        if let Err(error) = sweep(&context).await {
            tracing::debug!(%error, "what movers left cannot be looked for");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn sweep(context: &Context) -> Result<(), Error> {
    if context.config.mode.restores()
        && let Err(error) = volume_restore::sweep(context).await
    {
        tracing::warn!(%error, "what is held for requests that are over cannot be looked for");
    }
    let found = owners(context).await?;
    if found.is_empty() {
        return Ok(());
    }
    // Asked for after what was made: a request is there before what is made for it.
    let working = working(context).await?;
    for uid in found.difference(&working) {
        tracing::info!(uid, "cleaning up after a request that has ended");
        if let Err(error) = mover::clean_up(context, uid).await {
            tracing::warn!(uid, %error, "what movers left is still there");
            continue;
        }
        if let Err(error) = snapshots::remove(&Snapshots::new(&context.client), uid).await {
            tracing::warn!(uid, %error, "snapshots that were made for it are still there");
        }
    }
    Ok(())
}

async fn owners(context: &Context) -> Result<BTreeSet<String>, Error> {
    let (client, namespace) = (&context.client, &context.config.movers.namespace);
    let labelled = ListParams::default().labels(FOR_LABEL);
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let list = |error| Error::kube("list what movers left", error);
    let of = |labels: &std::collections::BTreeMap<String, String>| labels.get(FOR_LABEL).cloned();
    let jobs = jobs.list(&labelled).await.map_err(list)?;
    let claims = claims.list(&labelled).await.map_err(list)?;
    let mut owners: BTreeSet<String> = jobs.iter().filter_map(|job| of(job.labels())).collect();
    owners.extend(claims.iter().filter_map(|claim| of(claim.labels())));
    owners.extend(snapshots::owners(&Snapshots::new(client)).await?);
    Ok(owners)
}

/// The uids of requests that have not ended.
async fn working(context: &Context) -> Result<BTreeSet<String>, Error> {
    let namespace = &context.config.namespace;
    let backups: Api<Backup> = Api::namespaced(context.client.clone(), namespace);
    let list = |error| Error::kube("list requests", error);
    let backups = backups.list(&ListParams::default()).await.map_err(list)?;
    let restores: Api<VolumeRestore> = Api::namespaced(context.client.clone(), namespace);
    let restores = restores.list(&ListParams::default()).await.map_err(list)?;
    let backups = backups.iter().filter(|of| !backup::ended(of));
    let restores = restores.iter().filter(|of| !volume_restore::ended(of));
    let uids = backups.filter_map(ResourceExt::uid);
    Ok(uids.chain(restores.filter_map(ResourceExt::uid)).collect())
}
