//! What a storage system does for claims, and what the pods of movers say; played. As an
//! external provisioner does, it leaves claims alone that ask somebody else for data.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The provisioner of all classes.
pub(crate) const DRIVER: &str = "storage.example.com";

const INTERVAL: Duration = Duration::from_millis(200);

/// Storage that is at work.
pub(crate) struct Storage {
    deleted: Arc<AtomicUsize>,
    held: Arc<AtomicBool>,
    stop: CancellationToken,
    work: JoinHandle<()>,
}

impl Storage {
    pub(crate) fn start(client: Client) -> Self {
        let deleted = Arc::new(AtomicUsize::new(0));
        let held = Arc::new(AtomicBool::new(false));
        let stop = CancellationToken::new();
        let (counted, holding, stopped) = (deleted.clone(), held.clone(), stop.clone());
        let work = tokio::spawn(async move {
            while !stopped.is_cancelled() {
                // What fails is tried again; a test that waits in vain says what it saw.
                let _ = provision(&client).await;
                let _ = reclaim(&client, &counted).await;
                if !holding.load(Ordering::Relaxed) {
                    let _ = move_data(&client).await;
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self {
            deleted,
            held,
            stop,
            work,
        }
    }

    /// How many volumes were deleted with their data.
    pub(crate) fn deleted(&self) -> usize {
        self.deleted.load(Ordering::Relaxed)
    }

    /// Whether movers take their time.
    pub(crate) fn hold_movers(&self, hold: bool) {
        self.held.store(hold, Ordering::Relaxed);
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ = self.work.await;
    }
}

async fn provision(client: &Client) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    for claim in claims.list(&ListParams::default()).await? {
        // The controller that binds asks by this annotation, when it is time.
        let asked = claim
            .annotations()
            .get("volume.kubernetes.io/storage-provisioner");
        let Some(spec) = claim.spec.clone().filter(|_| asked.is_some()) else {
            continue;
        };
        if spec.volume_name.is_some() || spec.data_source_ref.is_some() {
            continue;
        }
        let uid = claim.uid().unwrap_or_default();
        let volume = json!({
            "metadata": {"name": format!("pvc-{uid}"),
                "annotations": {"pv.kubernetes.io/provisioned-by": DRIVER}},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": spec.access_modes,
                "storageClassName": spec.storage_class_name, "volumeMode": spec.volume_mode,
                "persistentVolumeReclaimPolicy": "Delete",
                "csi": {"driver": DRIVER, "volumeHandle": uid},
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": claim.namespace(), "name": claim.name_any(), "uid": uid},
            },
        });
        let _ = volumes
            .create(&PostParams::default(), &serde_json::from_value(volume)?)
            .await;
    }
    Ok(())
}

/// Deletes what was released and is to be deleted: the data of it is gone for good.
async fn reclaim(client: &Client, deleted: &AtomicUsize) -> Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    for volume in volumes.list(&ListParams::default()).await? {
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
        let spec = volume.spec.clone().unwrap_or_default();
        let goes = phase == Some("Released")
            && spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete")
            && volume.metadata.deletion_timestamp.is_none();
        if goes {
            volumes
                .delete(&volume.name_any(), &DeleteParams::default())
                .await?;
            deleted.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Lets every mover say that it is done.
async fn move_data(client: &Client) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), super::MOVERS);
    let report = json!({"done": {"entries": 3, "bytes": 2048}}).to_string();
    for pod in pods.list(&ListParams::default()).await? {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if phase != Some("Pending") {
            continue;
        }
        let status = json!({"status": {"phase": "Succeeded", "containerStatuses": [{
            "name": "mover", "ready": false, "restartCount": 0, "image": "x", "imageID": "x",
            "state": {"terminated": {"exitCode": 0, "reason": "Completed", "message": report,
                "startedAt": "2026-11-26T20:00:00Z", "finishedAt": "2026-11-26T20:00:01Z"}},
        }]}});
        pods.patch_status(
            &pod.name_any(),
            &PatchParams::default(),
            &Patch::Merge(&status),
        )
        .await?;
    }
    Ok(())
}
