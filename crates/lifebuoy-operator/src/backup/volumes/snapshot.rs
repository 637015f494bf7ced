//! Snapshots of the storage system: all of one namespace are asked for at once, while
//! its applications are held, and are copied by handle to where movers may use them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream};
use kube::{ResourceExt, api::DynamicObject};
use lifebuoy_api::{FOR_LABEL, Problem, Reason};
use lifebuoy_engine::{archive::ObjectKey, capture::VolumesSaved};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    Saving,
    cluster::{Cluster, Kind},
    hooks::{Held, Run, quiesce},
    moving::Moving,
    observe::{Seen, SeenPod},
};
use crate::{Error, error::sentence, mover::labels};

const POLL: Duration = Duration::from_millis(250);
/// How long a snapshot may take to be cut, and to be usable.
const CUT_MAX: Duration = Duration::from_secs(10 * 60);
const USABLE_MAX: Duration = Duration::from_secs(60 * 60);
/// How long its deletion is waited for.
const GONE_MAX: Duration = Duration::from_secs(120);
/// Namespaces whose snapshots are cut at a time.
const NAMESPACES_AT_A_TIME: usize = 8;

/// Cuts the snapshots of the volumes that need one, a namespace's all at once. Gives
/// the volumes that may be read now; of the others it is said why not.
pub(super) async fn cut(
    saving: &Saving<'_>,
    cluster: &Cluster,
    seen: &Seen,
    moving: Vec<Moving>,
    result: &mut VolumesSaved,
) -> Vec<Moving> {
    let mut by_namespace: BTreeMap<String, Vec<Moving>> = BTreeMap::new();
    for volume in moving {
        let namespace = volume.claim().namespace.to_string();
        by_namespace.entry(namespace).or_default().push(volume);
    }
    let cuts = by_namespace
        .into_values()
        .map(|volumes| cut_together(saving, cluster, seen, volumes));
    let mut cuts = stream::iter(cuts).buffer_unordered(NAMESPACES_AT_A_TIME);
    let mut ready = Vec::new();
    while let Some(cut) = cuts.next().await {
        ready.extend(cut.ready);
        result.failed.extend(cut.failed);
        result.problems.extend(cut.problems);
    }
    ready
}

/// What came of the snapshots of a namespace.
#[derive(Default)]
struct Cut {
    ready: Vec<Moving>,
    failed: BTreeMap<ObjectKey, String>,
    problems: Vec<Problem>,
}

/// What went wrong with hooks.
#[derive(Default)]
struct Failures<'a>(Vec<(&'a Run<'a>, String)>);

impl Failures<'_> {
    /// Why the volume is not to be saved for it, if so.
    fn concern(&self, volume: &Moving) -> Option<String> {
        let concerns = |run: &Run<'_>| run.must_work() && volume.is_mounted_by(run.pod());
        let failure = self.0.iter().find(|(run, _)| concerns(run));
        failure.map(|(_, why)| why.clone())
    }

    fn problems(&self) -> impl Iterator<Item = Problem> {
        self.0.iter().map(|(run, why)| {
            let pod = run.pod();
            let subject = format!("pods {}/{}", pod.namespace, pod.name);
            Problem::warning(Reason::HookFailed, subject, why)
        })
    }
}

/// Quiesce, cut, resume. Applications are held for no longer than it takes to cut.
async fn cut_together(
    saving: &Saving<'_>,
    cluster: &Cluster,
    seen: &Seen,
    volumes: Vec<Moving>,
) -> Cut {
    let (to_cut, others): (Vec<_>, Vec<_>) = volumes
        .into_iter()
        .partition(|volume| volume.class().is_some());
    let mut cut = Cut {
        ready: others,
        ..Cut::default()
    };
    let mounts = |pod: &&SeenPod| to_cut.iter().any(|volume| volume.is_mounted_by(pod));
    let pods: Vec<_> = seen.pods.iter().filter(mounts).collect();
    let runs = saving.hooks.runs(&pods);
    let mut failures = Failures::default();
    let mut held = Vec::new();
    for quiesced in quiesce(cluster.client(), &runs).await {
        match quiesced {
            Ok(one) => held.push(one),
            Err(failure) => failures.0.push(failure),
        }
    }
    let asked = to_cut.into_iter().map(|volume| {
        let hopeless = failures.concern(&volume);
        async move {
            let asked = match hopeless {
                Some(why) => Err(why),
                None => ask(saving, cluster, &volume).await,
            };
            (volume, asked)
        }
    });
    let asked = join_all(asked).await;
    for resumed in join_all(held.into_iter().map(Held::resume)).await {
        failures.0.extend(resumed.err());
    }
    for (volume, asked) in asked {
        match asked.err().or_else(|| failures.concern(&volume)) {
            None => cut.ready.push(volume),
            Some(why) => {
                cut.failed.insert(volume.claim().clone(), why);
            }
        }
    }
    cut.problems.extend(failures.problems());
    cut
}

/// Asks for a snapshot, and waits until it is cut: whatever is written from then on is
/// not in it.
async fn ask(saving: &Saving<'_>, cluster: &Cluster, volume: &Moving) -> Result<(), String> {
    let claim = volume.claim();
    let (name, namespace) = (volume.name(), &*claim.namespace);
    let object = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": namespace, "labels": labels(&saving.uid())},
        "spec": {
            "volumeSnapshotClassName": volume.class(),
            "source": {"persistentVolumeClaimName": &*claim.name},
        },
    });
    let words = |error: Error| sentence(&error, None);
    cluster.make(Kind::Snapshot, object).await.map_err(words)?;
    wait(saving, CUT_MAX, "the snapshot was not cut", async || {
        let found = cluster.find(Kind::Snapshot, Some(namespace), name).await?;
        Ok(look(found.as_ref(), |snapshot| {
            let status = &snapshot.data["status"];
            let is_cut = status["creationTime"].is_string()
                && status["boundVolumeSnapshotContentName"].is_string();
            is_cut.then_some(())
        }))
    })
    .await
}

/// Something that is waited for.
enum Look<T> {
    Ready(T),
    NotYet(String),
}

/// A snapshot may fail and be tried again by its controller: what it says is kept for
/// when the time is over.
fn look<T>(
    object: Option<&DynamicObject>,
    ready: impl FnOnce(&DynamicObject) -> Option<T>,
) -> Look<T> {
    let Some(object) = object else {
        return Look::NotYet("it is not there".to_owned());
    };
    match ready(object) {
        Some(value) => Look::Ready(value),
        None => Look::NotYet(
            object.data["status"]["error"]["message"]
                .as_str()
                .unwrap_or("its driver has not said that it is there")
                .to_owned(),
        ),
    }
}

async fn wait<T>(
    saving: &Saving<'_>,
    at_most: Duration,
    what: &str,
    look: impl AsyncFn() -> Result<Look<T>, Error>,
) -> Result<T, String> {
    let began = Instant::now();
    loop {
        let why = match look().await {
            Ok(Look::Ready(value)) => return Ok(value),
            Ok(Look::NotYet(why)) => why,
            Err(error) => sentence(&error, None),
        };
        if saving.cancel.is_cancelled() {
            return Err("the backup was stopped".to_owned());
        }
        if began.elapsed() > at_most {
            return Err(format!("{what} within {} s: {why}", at_most.as_secs()));
        }
        sleep(POLL).await;
    }
}

/// A snapshot that movers may use.
pub(super) struct Usable {
    /// How large a volume of it has to be, in bytes.
    pub(super) restore_bytes: u64,
}

/// Copies a snapshot by its handle to where movers may use it, as soon as that can be.
pub(super) async fn copy_for_movers(
    saving: &Saving<'_>,
    cluster: &Cluster,
    volume: &Moving,
) -> Result<Usable, String> {
    let (name, namespace) = (volume.name(), &*volume.claim().namespace);
    let found = wait(
        saving,
        USABLE_MAX,
        "the snapshot cannot be used",
        async || {
            let found = cluster.find(Kind::Snapshot, Some(namespace), name).await?;
            let bound = look(found.as_ref(), |snapshot| {
                let status = &snapshot.data["status"];
                let content = status["boundVolumeSnapshotContentName"].as_str()?;
                (status["readyToUse"] == true).then(|| content.to_owned())
            });
            let content = match bound {
                Look::Ready(content) => content,
                Look::NotYet(why) => return Ok(Look::NotYet(why)),
            };
            let content = cluster.find(Kind::Content, None, &content).await?;
            Ok(look(content.as_ref(), |content| {
                let handle = content.data["status"]["snapshotHandle"].as_str();
                handle.map(|handle| (content.clone(), handle.to_owned()))
            }))
        },
    );
    let (content, handle) = found.await?;
    let words = |error: Error| sentence(&error, None);
    let made = make_copy(saving, cluster, volume, &content, &handle).await;
    made.map_err(words)?;
    Ok(Usable {
        restore_bytes: content.data["status"]["restoreSize"].as_u64().unwrap_or(0),
    })
}

async fn make_copy(
    saving: &Saving<'_>,
    cluster: &Cluster,
    volume: &Moving,
    content: &DynamicObject,
    handle: &str,
) -> Result<(), Error> {
    let movers = &saving.attempt.context.config.movers.namespace;
    let (name, labels) = (volume.name(), labels(&saving.uid()));
    let spec = &content.data["spec"];
    // Secrets of the driver are named in annotations, and are needed to use it.
    let annotations = content.annotations();
    let copy = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "spec": {
            // The snapshot belongs to the other content: it goes with that one.
            "deletionPolicy": "Retain",
            "driver": spec["driver"],
            "source": {"snapshotHandle": handle},
            "sourceVolumeMode": volume.mode().as_str(),
            "volumeSnapshotClassName": spec["volumeSnapshotClassName"],
            "volumeSnapshotRef": {"name": name, "namespace": movers},
        },
    });
    cluster.make(Kind::Content, copy).await?;
    let snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name, "namespace": movers, "labels": labels},
        "spec": {
            "volumeSnapshotClassName": spec["volumeSnapshotClassName"],
            "source": {"volumeSnapshotContentName": name},
        },
    });
    cluster.make(Kind::Snapshot, snapshot).await
}

/// Deletes every snapshot that was made for a request, and waits until it is gone from
/// the storage system. Safe to repeat.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn clean_up(cluster: &Cluster, uid: &str) -> Result<(), Error> {
    let selector = format!("{FOR_LABEL}={uid}");
    let began = Instant::now();
    loop {
        let snapshots = cluster.list(Kind::Snapshot, &selector).await?;
        let contents = cluster.list(Kind::Content, &selector).await?;
        for snapshot in snapshots.iter().filter(|of| !is_going(of)) {
            delete(cluster, snapshot).await?;
        }
        for content in contents.iter().filter(|of| !is_going(of)) {
            let name = content.name_any();
            cluster.delete(Kind::Content, None, &name).await?;
        }
        if snapshots.is_empty() && contents.is_empty() {
            return Ok(());
        }
        if began.elapsed() > GONE_MAX {
            let left = snapshots.iter().chain(&contents).map(ResourceExt::name_any);
            return Err(Error::Internal(format!(
                "snapshots are still there after {} s: {}",
                GONE_MAX.as_secs(),
                left.collect::<Vec<_>>().join(", ")
            )));
        }
        sleep(POLL).await;
    }
}

/// Deletes the snapshot of a volume that is not needed any more, and its copy. What
/// fails is left to the clean-up of all.
pub(super) async fn release(cluster: &Cluster, volume: &Moving, movers: &str) {
    let name = volume.name();
    let given_back = async {
        let copy = cluster.delete(Kind::Snapshot, Some(movers), name).await;
        copy.and(cluster.delete(Kind::Content, None, name).await)?;
        let namespace = &volume.claim().namespace;
        match cluster.find(Kind::Snapshot, Some(namespace), name).await? {
            Some(snapshot) => delete(cluster, &snapshot).await,
            None => Ok(()),
        }
    };
    if let Err(error) = given_back.await {
        tracing::debug!(%error, "a snapshot is left to the clean-up");
    }
}

fn is_going(object: &DynamicObject) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

/// Deletes a snapshot with what is in the storage system, whatever its class says
/// about what is left behind.
async fn delete(cluster: &Cluster, snapshot: &DynamicObject) -> Result<(), Error> {
    let is_copy = snapshot.data["spec"]["source"]["volumeSnapshotContentName"].is_string();
    if !is_copy {
        let content = snapshot.data["status"]["boundVolumeSnapshotContentName"].as_str();
        if let Some(content) = content
            && let Some(found) = cluster.find(Kind::Content, None, content).await?
            && found.data["spec"]["deletionPolicy"] != "Delete"
        {
            let patch = json!({"spec": {"deletionPolicy": "Delete"}});
            cluster.patch(Kind::Content, content, &patch).await?;
        }
    }
    let namespace = snapshot.namespace();
    cluster
        .delete(Kind::Snapshot, namespace.as_deref(), &snapshot.name_any())
        .await
}

/// The requests for which there are snapshots.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn owners(cluster: &Cluster) -> Result<BTreeSet<String>, Error> {
    let mut owners = BTreeSet::new();
    for kind in [Kind::Snapshot, Kind::Content] {
        for object in cluster.list(kind, FOR_LABEL).await? {
            owners.extend(object.labels().get(FOR_LABEL).cloned());
        }
    }
    Ok(owners)
}
