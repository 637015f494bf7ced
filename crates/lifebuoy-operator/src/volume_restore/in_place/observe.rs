//! What has to be known before deciding about a volume that is overwritten.

use chrono::{DateTime, Utc};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::VolumeAttachment,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams},
};
use lifebuoy_api::{OVERWRITING_ANNOTATION, Restore, VolumeRestore};

use super::{
    super::{
        objects::{Between, Claim},
        observe::{Asker, asker, between, claim, current, get},
        plan::ended,
    },
    holding::{Holding, Scene, first_that_mounts, holding},
    stand_in,
    workload::{Kind, Workload},
};
use crate::{Error, context::Context, restore, tasks::TaskState};

/// What is known of a VolumeRestore in place now.
pub(crate) struct Seen {
    /// The request, as the API server has it; as cached while its task runs.
    pub(crate) request: VolumeRestore,
    pub(crate) task: TaskState,
    pub(crate) asker: Asker,
    pub(crate) claim: Option<Claim>,
    /// The volume of the claim.
    pub(crate) volume: Option<PersistentVolume>,
    pub(crate) mark: Mark,
    /// The claim in the movers' namespace.
    pub(crate) between: Option<Between>,
    /// The uid of the second volume.
    pub(crate) stand_in: Option<String>,
    /// The nodes to which that is attached.
    pub(crate) attached: Vec<String>,
    /// None while that does not matter.
    pub(crate) holding: Option<Holding>,
    pub(crate) now: DateTime<Utc>,
}

/// Whether writing to the volume has begun, by the annotation of the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// No, or it is whole again.
    None,
    /// By this request.
    Ours,
    /// By another one, which has left it half written.
    Others,
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
        let nothing_more = unseen(context, cached.clone(), task, Asker::Ended);
        return Ok(Some(nothing_more));
    }
    let Some(request) = current(context, cached, task).await? else {
        return Ok(None);
    };
    let asker = asker(context, &request).await?;
    let mut seen = unseen(context, request, task, asker);
    if !ended(&seen.request) {
        look(context, &mut seen).await?;
    }
    Ok(Some(seen))
}

/// Nothing is known but what was asked, and by whom.
fn unseen(context: &Context, request: VolumeRestore, task: TaskState, asker: Asker) -> Seen {
    Seen {
        request,
        task,
        asker,
        claim: None,
        volume: None,
        mark: Mark::None,
        between: None,
        stand_in: None,
        attached: Vec::new(),
        holding: None,
        now: context.now(),
    }
}

async fn look(context: &Context, seen: &mut Seen) -> Result<(), Error> {
    let client = &context.client;
    seen.claim = claim(context, &seen.request).await?;
    if let Some(claim) = &seen.claim {
        let own = seen.request.uid();
        let mark = claim.object.annotations().get(OVERWRITING_ANNOTATION);
        seen.mark = match mark {
            None => Mark::None,
            mark if mark == own.as_ref() => Mark::Ours,
            Some(_) => Mark::Others,
        };
    }
    if matches!(seen.task, TaskState::Running { .. }) {
        return Ok(());
    }
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    if let Some(name) = seen
        .claim
        .as_ref()
        .and_then(|claim| claim.volume.as_deref())
    {
        seen.volume = get(&volumes, name, "read the volume of a claim").await?;
    }
    seen.between = between(context, &seen.request, seen.claim.as_ref()).await?;
    let name = stand_in::name(&seen.request);
    let found = get(&volumes, &name, "read the second volume of a claim").await?;
    seen.stand_in = found.and_then(|found| found.uid());
    let attachments = attachments(client).await?;
    seen.attached = attached(&attachments, &name);
    let filled = seen.request.status.as_ref();
    let filled = filled.is_some_and(|status| status.filled_time.is_some());
    if seen.task == TaskState::None && !filled {
        let volume = seen.volume.as_ref().map(ResourceExt::name_any);
        let mut scene = scene(context, &seen.request).await?;
        scene.attached = attached(&attachments, volume.as_deref().unwrap_or_default());
        let spec = &seen.request.spec;
        seen.holding = Some(holding(&scene, &spec.restore.uid, &spec.claim.name));
    }
    Ok(())
}

async fn attachments(client: &Client) -> Result<Vec<VolumeAttachment>, Error> {
    let all: Api<VolumeAttachment> = Api::all(client.clone());
    let listed = all.list(&ListParams::default()).await;
    let listed = listed.map_err(|error| Error::kube("list where volumes are attached", error))?;
    Ok(listed.items)
}

fn attached(attachments: &[VolumeAttachment], volume: &str) -> Vec<String> {
    let of = |attachment: &&VolumeAttachment| {
        attachment.spec.source.persistent_volume_name.as_deref() == Some(volume)
    };
    let found = attachments.iter().filter(of);
    found.map(|found| found.spec.node_name.clone()).collect()
}

async fn scene(context: &Context, request: &VolumeRestore) -> Result<Scene, Error> {
    let namespace = &request.spec.claim.namespace;
    let mut scene = Scene {
        pods: pods(&context.client, namespace).await?,
        ..Scene::default()
    };
    for kind in Kind::ALL {
        let found = workloads(&context.client, kind, Some(namespace), None).await?;
        scene.workloads.extend(found);
    }
    let own = request.spec.restore.uid.as_str();
    let mut others = scene.workloads.iter().filter_map(Workload::held_for);
    if others.any(|uid| uid != own) {
        scene.working = working(context).await?;
    }
    Ok(scene)
}

async fn pods(client: &Client, namespace: &str) -> Result<Vec<Pod>, Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let listed = pods.list(&ListParams::default()).await;
    let listed = listed.map_err(|error| Error::kube("list the pods beside a claim", error))?;
    Ok(listed.items)
}

/// A pod that mounts the claim of a request, if there is one.
pub(crate) async fn pod_that_mounts(
    client: &Client,
    request: &VolumeRestore,
) -> Result<Option<String>, Error> {
    let claim = &request.spec.claim;
    let pods = pods(client, &claim.namespace).await?;
    Ok(first_that_mounts(&pods, &claim.name))
}

/// The workloads of a kind, of a namespace or of all, that have a label. Those of all come
/// from the server's cache: there may be many, and who changes one says which he has seen.
pub(super) async fn workloads(
    client: &Client,
    kind: Kind,
    namespace: Option<&str>,
    label: Option<&str>,
) -> Result<Vec<Workload>, Error> {
    let resource = kind.resource();
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut params = ListParams {
        label_selector: label.map(str::to_owned),
        ..ListParams::default()
    };
    if namespace.is_none() {
        params = params.match_any();
    }
    let listed = api.list(&params).await;
    let listed = listed.map_err(|error| Error::kube("list what starts pods", error))?;
    listed
        .items
        .into_iter()
        .map(|object| match serde_json::to_value(object) {
            Ok(object) => Ok(Workload::new(kind, object)),
            Err(error) => Err(Error::Internal(error.to_string())),
        })
        .collect()
}

/// The uids of the Restores that have not ended.
pub(super) async fn working(context: &Context) -> Result<Vec<String>, Error> {
    let namespace = &context.config.namespace;
    let restores: Api<Restore> = Api::namespaced(context.client.clone(), namespace);
    let listed = restores.list(&ListParams::default()).await;
    let listed = listed.map_err(|error| Error::kube("list Restores", error))?;
    let open = listed.items.iter().filter(|of| !restore::ended(of));
    Ok(open.filter_map(ResourceExt::uid).collect())
}

/// A claim by its name.
pub(super) async fn claim_named(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<PersistentVolumeClaim>, Error> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    get(&claims, name, "read a claim that something is held for").await
}
