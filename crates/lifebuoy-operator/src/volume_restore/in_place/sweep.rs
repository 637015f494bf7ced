//! What is held, and second volumes, for requests that are over: whoever was killed before
//! he let go is helped, and so is a person who has removed the mark of a claim.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{Api, ResourceExt, api::ListParams};
use lifebuoy_api::{
    FOR_LABEL, HELD_FOR_LABEL, OVERWRITING_ANNOTATION, STAND_IN_LABEL, VolumeRestore,
};

use super::{
    super::plan::ended,
    execute::{change, delete_volume},
    observe::{claim_named, working, workloads},
    workload::{Kind, Workload},
};
use crate::{Error, context::Context};

/// Looks once.
pub(crate) async fn sweep(context: &Context) -> Result<(), Error> {
    let client = &context.client;
    let mut held = Vec::new();
    for kind in Kind::ALL {
        held.extend(workloads(client, kind, None, Some(HELD_FOR_LABEL)).await?);
    }
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let labelled = ListParams::default().labels(STAND_IN_LABEL);
    let listed = volumes.list(&labelled).await;
    let stand_ins = listed.map_err(|error| Error::kube("list second volumes", error))?;
    if held.is_empty() && stand_ins.items.is_empty() {
        return Ok(());
    }
    // Asked for after what was made: a request is there before what is made for it.
    let requests = requests(context).await?;
    let open = || requests.iter().filter(|request| !ended(request));
    let mut works: BTreeSet<String> = working(context).await?.into_iter().collect();
    works.extend(open().map(|request| request.spec.restore.uid.clone()));
    for workload in &held {
        if !works.contains(workload.held_for().unwrap_or_default()) {
            release(context, workload).await?;
        }
    }
    let of: BTreeSet<String> = open().filter_map(ResourceExt::uid).collect();
    for volume in &stand_ins.items {
        let request = volume.labels().get(FOR_LABEL);
        if !request.is_some_and(|uid| of.contains(uid)) && !is_claimed(context, volume).await? {
            delete_volume(
                client,
                &volume.name_any(),
                &volume.uid().unwrap_or_default(),
            )
            .await?;
        }
    }
    Ok(())
}

async fn requests(context: &Context) -> Result<Vec<VolumeRestore>, Error> {
    let namespace = &context.config.namespace;
    let requests: Api<VolumeRestore> = Api::namespaced(context.client.clone(), namespace);
    let listed = requests.list(&ListParams::default()).await;
    let listed = listed.map_err(|error| Error::kube("list VolumeRestores", error))?;
    Ok(listed.items)
}

/// Lets it go for each claim that is not half written.
async fn release(context: &Context, workload: &Workload) -> Result<(), Error> {
    let client = &context.client;
    let mut whole = BTreeSet::new();
    for name in workload.held_claims() {
        let claim = claim_named(client, workload.namespace(), &name).await?;
        // Without its claim a StatefulSet would begin with an empty one.
        if claim.is_some_and(|of| !of.annotations().contains_key(OVERWRITING_ANNOTATION)) {
            whole.insert(name);
        }
    }
    let Some(patch) = workload.release(|claim| whole.contains(claim)) else {
        return Ok(());
    };
    tracing::info!(
        namespace = workload.namespace(),
        name = workload.name(),
        "letting go of what was held for a request that is over"
    );
    change(
        client,
        workload.kind,
        workload.namespace(),
        workload.name(),
        &patch,
    )
    .await
}

/// Whether the claim of a second volume is there: a mover may have it.
async fn is_claimed(context: &Context, volume: &PersistentVolume) -> Result<bool, Error> {
    let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone());
    let name = claim.and_then(|claim| claim.name).unwrap_or_default();
    let namespace = &context.config.movers.namespace;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let found = claims.get_opt(&name).await;
    let found = found.map_err(|error| Error::kube("read the claim of a mover", error))?;
    Ok(found.is_some())
}
