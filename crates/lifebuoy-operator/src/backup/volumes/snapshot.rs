//! Snapshots of the storage system: all of one namespace are asked for at once, while
//! its applications are held, and are copied by handle to where movers may use them.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, future::join_all, stream};
use kube::{ResourceExt, api::DynamicObject};
use lifebuoy_api::{Problem, Reason};
use lifebuoy_engine::{archive::ObjectKey, capture::VolumesSaved};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    Saving,
    cluster::Cluster,
    hooks::{Held, Run, quiesce},
    moving::Moving,
    observe::{Seen, SeenPod},
};
use crate::{
    Error,
    error::sentence,
    mover::labels,
    snapshots::{Kind, Stored, delete, make_copy},
};

const POLL: Duration = Duration::from_millis(250);
/// How long a snapshot may take to be cut, and to be usable.
const CUT_MAX: Duration = Duration::from_secs(10 * 60);
pub(super) const USABLE_MAX: Duration = Duration::from_secs(60 * 60);
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
    let snapshots = cluster.snapshots();
    let asked = snapshots.make(Kind::Snapshot, object).await;
    asked.map_err(words)?;
    wait(saving, CUT_MAX, "the snapshot was not cut", async || {
        let namespace = Some(namespace);
        let found = snapshots.find(Kind::Snapshot, namespace, name).await?;
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
pub(super) enum Look<T> {
    Ready(T),
    NotYet(String),
}

/// A snapshot may fail and be tried again by its controller: what it says is kept for
/// when the time is over.
pub(super) fn look<T>(
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

pub(super) async fn wait<T>(
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

/// A snapshot that is ready, as its content says.
pub(super) struct Usable {
    /// The name of the content.
    pub(super) content: String,
    pub(super) stored: Stored,
    /// How large a volume of it has to be, in bytes; 0 where the driver does not say.
    pub(super) restore_bytes: u64,
}

/// Waits until a snapshot can be used.
pub(super) async fn usable(
    saving: &Saving<'_>,
    cluster: &Cluster,
    volume: &Moving,
) -> Result<Usable, String> {
    let (name, namespace) = (volume.name(), &*volume.claim().namespace);
    let snapshots = cluster.snapshots();
    let what = "the snapshot cannot be used";
    wait(saving, USABLE_MAX, what, async || {
        let namespace = Some(namespace);
        let found = snapshots.find(Kind::Snapshot, namespace, name).await?;
        let bound = look(found.as_ref(), |snapshot| {
            let status = &snapshot.data["status"];
            let content = status["boundVolumeSnapshotContentName"].as_str()?;
            (status["readyToUse"] == true).then(|| content.to_owned())
        });
        let content = match bound {
            Look::Ready(content) => content,
            Look::NotYet(why) => return Ok(Look::NotYet(why)),
        };
        let content = snapshots.find(Kind::Content, None, &content).await?;
        Ok(look(content.as_ref(), |content| read(content, volume)))
    })
    .await
}

fn read(content: &DynamicObject, volume: &Moving) -> Option<Usable> {
    let (spec, status) = (&content.data["spec"], &content.data["status"]);
    Some(Usable {
        content: content.name_any(),
        stored: Stored {
            driver: spec["driver"].as_str()?.to_owned(),
            handle: status["snapshotHandle"].as_str()?.to_owned(),
            class: spec["volumeSnapshotClassName"].as_str().map(str::to_owned),
            mode: volume.mode(),
            annotations: content.annotations().clone(),
        },
        restore_bytes: status["restoreSize"].as_u64().unwrap_or(0),
    })
}

/// Copies a snapshot by its handle to where movers may use it, as soon as that can be.
pub(super) async fn copy_for_movers(
    saving: &Saving<'_>,
    cluster: &Cluster,
    volume: &Moving,
) -> Result<Usable, String> {
    let usable = usable(saving, cluster, volume).await?;
    let movers = &saving.attempt.context.config.movers.namespace;
    let labels = labels(&saving.uid());
    let snapshots = cluster.snapshots();
    make_copy(snapshots, volume.name(), movers, &labels, &usable.stored)
        .await
        .map_err(|error| sentence(&error, None))?;
    Ok(usable)
}

/// Deletes the snapshot of a volume that is not needed any more, and its copy. What
/// fails is left to the clean-up of all.
pub(super) async fn release(cluster: &Cluster, volume: &Moving, movers: &str) {
    let name = volume.name();
    let snapshots = cluster.snapshots();
    let given_back = async {
        let copy = snapshots.delete(Kind::Snapshot, Some(movers), name).await;
        copy.and(snapshots.delete(Kind::Content, None, name).await)?;
        let namespace = Some(&*volume.claim().namespace);
        match snapshots.find(Kind::Snapshot, namespace, name).await? {
            Some(snapshot) => delete(snapshots, &snapshot).await,
            None => Ok(()),
        }
    };
    if let Err(error) = given_back.await {
        tracing::debug!(%error, "a snapshot is left to the clean-up");
    }
}
