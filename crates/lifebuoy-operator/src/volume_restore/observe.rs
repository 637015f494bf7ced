//! What has to be known before deciding about a VolumeRestore.

use chrono::{DateTime, Utc};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::{Api, Resource, ResourceExt, api::ListParams};
use lifebuoy_api::{ExistingVolumes, FOR_LABEL, KeptSnapshot, Restore, RestoreMode, VolumeRestore};
use lifebuoy_engine::volumes::SnapshotClass;
use serde::de::DeserializeOwned;

use super::{
    objects::{Between, Claim, Volume, between_name},
    plan::ended,
};
use crate::{
    Error,
    context::Context,
    restore,
    snapshots::{Kind, Snapshots},
    tasks::TaskState,
};

/// What is known of a VolumeRestore now.
pub(crate) struct Seen {
    /// The request, as the API server has it; as cached while its task runs.
    pub(crate) request: VolumeRestore,
    pub(crate) task: TaskState,
    pub(crate) asker: Asker,
    pub(crate) claim: Option<Claim>,
    pub(crate) class: Class,
    /// The claim in the movers' namespace through which the volume is filled.
    pub(crate) between: Option<Between>,
    /// The volume that is filled: that of the claim between, or the one that was
    /// handed over from it.
    pub(crate) volume: Option<Volume>,
    /// The snapshot in the storage system that the volume is made of, if it is of one.
    pub(crate) source: Option<Source>,
    pub(crate) now: DateTime<Utc>,
}

/// A snapshot in the storage system, and what this cluster can make of it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) kept: KeptSnapshot,
    /// The provisioner of the claim's storage class.
    pub(crate) provisioner: Option<String>,
    /// The VolumeSnapshotClass of this cluster for the driver; why there is none.
    pub(crate) class: Result<String, String>,
    /// What the driver says of the snapshot, where it does not get ready.
    pub(crate) trouble: Option<String>,
}

/// The Restore that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// It has not ended.
    Works,
    /// It has ended.
    Ended,
    /// Somebody wants that it stops.
    Cancelled,
    /// It is not there.
    Gone,
    /// It has not asked for that the volume of a claim which exists is overwritten.
    Forbids,
}

/// What the claim's storage class says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Volumes are made at once.
    Immediate,
    /// Volumes are made where the first pod is scheduled to.
    FirstPod,
    /// There is no such class.
    Missing,
    /// The claim names none.
    None,
}

/// `None` when the VolumeRestore is gone.
pub(crate) async fn observe(
    context: &Context,
    cached: &VolumeRestore,
) -> Result<Option<Seen>, Error> {
    let task = context
        .volume_restores
        .state(&cached.uid().unwrap_or_default());
    if ended(cached) && cached.finalizers().is_empty() && !cached.owner_references().is_empty() {
        return Ok(Some(nothing_more(context, cached, task)));
    }
    let Some(request) = current(context, cached, task).await? else {
        return Ok(None);
    };
    let asker = asker(context, &request).await?;
    if ended(&request) {
        return Ok(Some(Seen {
            asker,
            ..nothing_more(context, &request, task)
        }));
    }
    let claim = claim(context, &request).await?;
    let (class, provisioner) = match &claim {
        Some(claim) => class(context, claim).await?,
        None => (Class::None, None),
    };
    let between = between(context, &request, claim.as_ref()).await?;
    let source = match &request.spec.kept {
        Some(kept) => Some(source(context, kept, provisioner, claim.as_ref()).await?),
        None => None,
    };
    let volume = volume(context, &request, between.as_ref()).await?;
    Ok(Some(Seen {
        request,
        task,
        asker,
        claim,
        class,
        between,
        volume,
        source,
        now: context.now(),
    }))
}

/// What this cluster can make of a snapshot in the storage system.
async fn source(
    context: &Context,
    kept: &KeptSnapshot,
    provisioner: Option<String>,
    claim: Option<&Claim>,
) -> Result<Source, Error> {
    let snapshots = Snapshots::new(&context.client);
    let classes = snapshots.classes().await?;
    let (driver, named) = (&kept.driver, Some(&*kept.snapshot_class));
    let class = SnapshotClass::choose(driver, &classes, named)
        .or_else(|_| SnapshotClass::choose(driver, &classes, None));
    let copy = match claim {
        Some(claim) => {
            let namespace = Some(&*context.config.movers.namespace);
            let name = between_name(&claim.uid);
            snapshots.find(Kind::Snapshot, namespace, &name).await?
        }
        None => None,
    };
    let trouble = copy.and_then(|copy| {
        let said = copy.data["status"]["error"]["message"].as_str();
        said.map(str::to_owned)
    });
    Ok(Source {
        kept: kept.clone(),
        provisioner,
        class: class.map(str::to_owned),
        trouble,
    })
}

fn nothing_more(context: &Context, request: &VolumeRestore, task: TaskState) -> Seen {
    Seen {
        request: request.clone(),
        task,
        asker: Asker::Ended,
        claim: None,
        class: Class::None,
        between: None,
        volume: None,
        source: None,
        now: context.now(),
    }
}

/// The request as the API server has it, since a cache may lag behind our own writes; as
/// cached while its task runs. `None` when it is gone.
pub(super) async fn current(
    context: &Context,
    cached: &VolumeRestore,
    task: TaskState,
) -> Result<Option<VolumeRestore>, Error> {
    if matches!(task, TaskState::Running { .. }) {
        return Ok(Some(cached.clone()));
    }
    let namespace = cached.namespace().unwrap_or_default();
    let requests: Api<VolumeRestore> = Api::namespaced(context.client.clone(), &namespace);
    let live = get(&requests, &cached.name_any(), "read a VolumeRestore").await?;
    Ok(live.filter(|live| live.uid() == cached.uid()))
}

pub(super) async fn asker(context: &Context, request: &VolumeRestore) -> Result<Asker, Error> {
    let namespace = request.namespace().unwrap_or_default();
    let restores: Api<Restore> = Api::namespaced(context.client.clone(), &namespace);
    let asked = &request.spec.restore;
    let found = get(&restores, &asked.name, "read the Restore of a volume").await?;
    let found = found.filter(|restore| restore.uid().as_ref() == Some(&asked.uid));
    Ok(match found {
        None => Asker::Gone,
        Some(restore) if request.spec.in_place && !overwrites(&restore) => Asker::Forbids,
        Some(restore) if restore.spec.cancel => Asker::Cancelled,
        Some(restore) if restore::ended(&restore) => Asker::Ended,
        Some(_) => Asker::Works,
    })
}

/// Whoever can make a VolumeRestore is not yet one who may overwrite.
fn overwrites(restore: &Restore) -> bool {
    let spec = &restore.spec;
    spec.existing_volumes == ExistingVolumes::Overwrite && spec.mode == RestoreMode::Run
}

pub(super) async fn claim(
    context: &Context,
    request: &VolumeRestore,
) -> Result<Option<Claim>, Error> {
    let wanted = &request.spec.claim;
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(context.client.clone(), &wanted.namespace);
    let found = get(&claims, &wanted.name, "read the claim that is filled").await?;
    Ok(found.map(|object| Claim::read(object, &request.name_any())))
}

/// What the claim's storage class says, and its provisioner.
async fn class(context: &Context, claim: &Claim) -> Result<(Class, Option<String>), Error> {
    let Some(name) = claim.class.as_deref().filter(|name| !name.is_empty()) else {
        return Ok((Class::None, None));
    };
    let classes: Api<StorageClass> = Api::all(context.client.clone());
    let found = get(&classes, name, "read a storage class").await?;
    let Some(found) = found else {
        return Ok((Class::Missing, None));
    };
    let class = match found.volume_binding_mode.as_deref() {
        Some("WaitForFirstConsumer") => Class::FirstPod,
        _ => Class::Immediate,
    };
    Ok((class, Some(found.provisioner)))
}

pub(super) async fn between(
    context: &Context,
    request: &VolumeRestore,
    claim: Option<&Claim>,
) -> Result<Option<Between>, Error> {
    let known = request.status.as_ref().and_then(|s| s.claim_uid.as_deref());
    let Some(uid) = known.or(claim.map(|claim| claim.uid.as_str())) else {
        return Ok(None);
    };
    let namespace = &context.config.movers.namespace;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let found = get(&claims, &between_name(uid), "read the claim of a mover").await?;
    let own = request.uid().unwrap_or_default();
    Ok(found
        .filter(|object| object.labels().get(FOR_LABEL) == Some(&own))
        .map(|object| Between::read(&object)))
}

/// The volume behind the claim between; without that, the one that carries the label
/// of this request, or the one that the status names.
async fn volume(
    context: &Context,
    request: &VolumeRestore,
    between: Option<&Between>,
) -> Result<Option<Volume>, Error> {
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let status = request.status.as_ref();
    let named = between
        .and_then(|between| between.volume.as_deref())
        .or(status.and_then(|status| status.volume_name.as_deref()));
    let found = match named {
        Some(name) => get(&volumes, name, "read the volume that is filled").await?,
        None if between.is_none() => {
            let label = format!("{FOR_LABEL}={}", request.uid().unwrap_or_default());
            let params = ListParams::default().labels(&label);
            let listed = volumes
                .list(&params)
                .await
                .map_err(|error| Error::kube("look for the volume that is filled", error))?;
            listed.items.into_iter().next()
        }
        None => None,
    };
    Ok(found.map(|object| Volume::read(&object)))
}

pub(super) async fn get<K>(api: &Api<K>, name: &str, what: &str) -> Result<Option<K>, Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    api.get_opt(name)
        .await
        .map_err(|error| Error::kube(what, error))
}
