//! One volume on its way into the repository.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use lifebuoy_api::{Problem, Reason};
use lifebuoy_data::What;
use lifebuoy_engine::{
    archive::ObjectKey,
    volumes::{
        Decision, MountedVolume, MoverProgress, MoverReport, MoverTask, SavedBy, SavedData,
        SavedRoot, VolumeMode, VolumeRecord, Work, subject,
    },
};
use lifebuoy_repo::SessionId;
use serde_json::{Value, json};

use super::{
    Saving,
    cluster::Cluster,
    keep::keep,
    observe::{Place, SeenPod, SeenVolume},
    snapshot::{self, copy_for_movers},
};
use crate::{
    backup::capture::Attempt,
    error::sentence,
    mover::{self, MoverJob, PlaceFor},
};

/// A volume that is to be saved, and how.
#[derive(Clone, Debug)]
pub(super) struct Moving {
    seen: SeenVolume,
    decision: Decision,
    /// Names everything that is made for it.
    name: String,
}

impl Moving {
    pub(super) fn new(attempt: &Attempt, seen: SeenVolume, decision: Decision) -> Self {
        let claim = &seen.volume.claim;
        let of = format!("{}/{}/{}", attempt.session, claim.namespace, claim.name);
        let hash = blake3::hash(of.as_bytes()).to_hex();
        Self {
            name: format!("lifebuoy-{}", &hash[..16]),
            seen,
            decision,
        }
    }

    pub(super) fn claim(&self) -> &ObjectKey {
        &self.seen.volume.claim
    }

    pub(super) fn is_mounted_by(&self, pod: &SeenPod) -> bool {
        let claim = self.claim();
        *claim.namespace == pod.namespace && pod.claims.contains(&*claim.name)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.seen.volume.capacity_bytes
    }

    pub(super) fn mode(&self) -> VolumeMode {
        self.seen.volume.mode
    }

    /// The class of the snapshot that is needed, if one is.
    pub(super) fn class(&self) -> Option<&str> {
        match &self.decision {
            Decision::Move { class, .. } | Decision::Snapshot { class, .. } => Some(class),
            _ => None,
        }
    }

    fn reason(&self) -> &str {
        match &self.decision {
            Decision::Move { reason, .. }
            | Decision::Snapshot { reason, .. }
            | Decision::FileSystem { reason }
            | Decision::Skip { reason }
            | Decision::Impossible { reason } => reason,
        }
    }

    fn what(&self) -> What {
        match self.mode() {
            VolumeMode::Filesystem => What::Files,
            VolumeMode::Block => What::Device,
        }
    }

    fn record(&self, saved: SavedBy) -> VolumeRecord {
        let volume = &self.seen.volume;
        VolumeRecord {
            claim: volume.claim.clone(),
            storage_class: volume.storage_class.clone(),
            volume_mode: volume.mode,
            access_modes: volume.access_modes.clone(),
            capacity_bytes: volume.capacity_bytes,
            saved,
            reason: self.reason().to_owned(),
        }
    }
}

/// Reads a volume into the repository, or keeps its snapshot. What was not read of it is among the problems;
/// the error is why nothing was saved.
pub(super) async fn save(
    saving: &Saving<'_>,
    cluster: &Cluster,
    volume: Moving,
    before: Option<&SavedData>,
) -> Result<(VolumeRecord, Vec<Problem>), String> {
    let saved = match &volume.decision {
        Decision::Move { .. } => from_snapshot(saving, cluster, &volume, before).await,
        Decision::Snapshot { class, .. } => {
            let kept = keep(saving, cluster, &volume, class).await;
            kept.map(|kept| (SavedBy::Snapshot(kept), Vec::new()))
        }
        _ => from_node(saving, &volume, before).await,
    };
    release(saving, cluster, &volume).await;
    let (by, problems) = saved?;
    Ok((volume.record(by), problems))
}

type Saved = Result<(SavedBy, Vec<Problem>), String>;

async fn from_snapshot(
    saving: &Saving<'_>,
    cluster: &Cluster,
    volume: &Moving,
    before: Option<&SavedData>,
) -> Saved {
    let usable = copy_for_movers(saving, cluster, volume).await?;
    make_claim(saving, cluster, volume, usable.restore_bytes).await?;
    let mounted = MountedVolume::Claim {
        name: volume.name.clone(),
        block: volume.mode() == VolumeMode::Block,
    };
    let (data, problems) = run(saving, volume, mounted, None, before).await?;
    Ok((SavedBy::Move(data), problems))
}

async fn from_node(saving: &Saving<'_>, volume: &Moving, before: Option<&SavedData>) -> Saved {
    let Some(mounted) = &volume.seen.mounted else {
        return Err("no pod has it mounted any more".to_owned());
    };
    let kubelet = &saving.attempt.context.config.movers.kubelet_directory;
    let on_node = match &mounted.place {
        Place::BelowKubelet(below) => MountedVolume::Mounted {
            path: format!("{}/{below}", kubelet.trim_end_matches('/')),
        },
        Place::OnNode(directory) => MountedVolume::HostPath(directory.clone()),
    };
    let node = Some(mounted.node.clone());
    let (data, problems) = run(saving, volume, on_node, node, before).await?;
    Ok((SavedBy::FileSystem(data), problems))
}

async fn run(
    saving: &Saving<'_>,
    volume: &Moving,
    mounted: MountedVolume,
    node: Option<String>,
    before: Option<&SavedData>,
) -> Result<(SavedData, Vec<Problem>), String> {
    let attempt = saving.attempt;
    let context = &attempt.context;
    let namespace = attempt.backup.namespace().unwrap_or_default();
    let name = &attempt.backup.spec.repository;
    let repositories = &context.repositories;
    let opened = repositories
        .by_name(&context.client, &namespace, name)
        .await;
    let (repository, _) = opened.map_err(|error| error.message())?;
    let job = MoverJob {
        base: volume.name.clone(),
        for_uid: saving.uid(),
        volume: mounted,
        place: PlaceFor::on(node, &repository),
        read_only: true,
        restores: false,
    };
    let before = before.filter(|data| data.kind == volume.what());
    let session = SessionId::random(&mut rand::rng());
    let claim = volume.claim();
    let task = async |number: u32| {
        Ok(MoverTask {
            repository: mover::access(context, &namespace, name).await?,
            work: Work::Save {
                what: volume.what(),
                session: session_of_try(session, number),
                cluster_uid: saving.cluster.uid.clone(),
                host: saving.cluster.name.clone(),
                path: claim.to_string(),
                taken_at: attempt.at,
                before: before.map(|data| SavedRoot {
                    session: data.session,
                    root: data.root,
                }),
            },
            limit_upload: context.config.movers.limit_upload,
            limit_download: context.config.movers.limit_download,
        })
    };
    let progress = |now| saving.progress.is_at(claim, now);
    let ended = mover::run(context, &job, task, &progress, saving.cancel).await;
    let report = ended.map_err(|error| sentence(&error, None))?;
    // One that is quick has told nothing before.
    progress(MoverProgress::from(&report));
    tracing::info!(
        volume = %claim,
        bytes = report.bytes,
        unchanged = report.unchanged,
        bytes_stored = report.bytes_stored,
        "a volume is saved"
    );
    let problems = problems(claim, &report);
    let root = report
        .root
        .ok_or("its mover ended without saying where the data is")?;
    let data = SavedData {
        session: report.session.unwrap_or(session),
        root,
        kind: volume.what(),
        entries: report.entries,
        bytes: report.bytes,
        bytes_stored: report.bytes_stored,
        problems: report.problems,
    };
    Ok((data, problems))
}

/// Sessions of tries differ, and are as random as the first.
fn session_of_try(first: SessionId, number: u32) -> SessionId {
    let of = format!("{first} {number}");
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(of.as_bytes()).as_bytes()[..16]);
    SessionId::from_bytes(id)
}

/// What was not saved, or not as it stood at one moment.
fn problems(claim: &ObjectKey, report: &MoverReport) -> Vec<Problem> {
    if report.problems == 0 {
        return Vec::new();
    }
    let examples = report.examples.join("; ");
    let message = format!(
        "{} of its files were not saved, or changed meanwhile: {examples}",
        report.problems
    );
    vec![Problem::error(
        Reason::VolumeFilesNotSaved,
        subject(claim),
        &message,
    )]
}

/// Makes the claim that a mover reads, of the snapshot.
async fn make_claim(
    saving: &Saving<'_>,
    cluster: &Cluster,
    volume: &Moving,
    restore_bytes: u64,
) -> Result<(), String> {
    let api = movers_claims(saving, cluster);
    let claim: PersistentVolumeClaim =
        serde_json::from_value(claim(volume, &mover::labels(&saving.uid()), restore_bytes))
            .map_err(|error| error.to_string())?;
    match api.create(&PostParams::default(), &claim).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        Err(error) => Err(format!(
            "the claim for its mover cannot be made: {}",
            sentence(&crate::Error::kube("make a claim", error), None)
        )),
    }
}

fn claim(
    volume: &Moving,
    labels: &std::collections::BTreeMap<String, String>,
    restore_bytes: u64,
) -> Value {
    let of = &volume.seen.volume;
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": volume.name, "labels": labels},
        "spec": {
            "storageClassName": of.storage_class,
            "volumeMode": of.mode.as_str(),
            // Every driver has it, and a mover is one pod.
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": of.capacity_bytes.max(restore_bytes).to_string()}},
            "dataSource": {
                "apiGroup": "snapshot.storage.k8s.io",
                "kind": "VolumeSnapshot",
                "name": volume.name,
            },
        },
    })
}

fn movers_claims(saving: &Saving<'_>, cluster: &Cluster) -> Api<PersistentVolumeClaim> {
    let namespace = &saving.attempt.context.config.movers.namespace;
    Api::namespaced(cluster.client().clone(), namespace)
}

/// Gives back what the volume needs in the storage system, as soon as it is not needed.
/// What fails is left to the clean-up of all.
async fn release(saving: &Saving<'_>, cluster: &Cluster, volume: &Moving) {
    if volume.class().is_none() {
        return;
    }
    let (name, movers) = (
        &volume.name,
        &saving.attempt.context.config.movers.namespace,
    );
    let claims = movers_claims(saving, cluster);
    if let Err(error) = claims.delete(name, &DeleteParams::default()).await {
        tracing::debug!(%error, "the claim of a mover is left to the clean-up");
    }
    snapshot::release(cluster, volume, movers).await;
}
