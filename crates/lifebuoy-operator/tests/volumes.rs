//! Volumes come back: the operator with the real controllers of Kubernetes, above all
//! the one that binds volumes. Played are the storage (volumes that are made and deleted
//! on request) and the movers' pods, which say at once that they are done.

#[path = "volumes/storage.rs"]
mod storage;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use k8s_openapi::{
    api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Secret, ServiceAccount},
    api::storage::v1::StorageClass,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use lifebuoy_api::{
    ConditionType, FOR_LABEL, RECLAIM_POLICY_ANNOTATION, Reason, Repository, Restore,
    VolumeRestore, all_crds, find, is_true,
};
use lifebuoy_engine::archive::{ArchiveWriter, Manifest, ObjectKey, TypeId};
use lifebuoy_operator::{Error, OperatorConfig, run};
use lifebuoy_repo::{
    ChunkKind, Credentials, KdfCost, Location, LocationOptions, Passphrase, Purpose,
    Repository as Repo, SessionId, SessionRequest,
};
use lifebuoy_testkit::{ControlPlane, ControlPlaneOptions};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use storage::{DRIVER, Storage};

const NAMESPACE: &str = "lifebuoy";
const MOVERS: &str = "lifebuoy-movers";
const SOON: Duration = Duration::from_secs(120);
const PASSPHRASE: &str = "x y z";

/// A cluster, a repository with one point in it, and the storage.
struct Stage {
    cluster: ControlPlane,
    client: Client,
    directory: tempfile::TempDir,
    storage: Storage,
}

struct Running {
    shutdown: CancellationToken,
    ended: JoinHandle<Result<(), Error>>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_bound_to_a_volume_that_was_filled_first() -> Result<()> {
    lifebuoy_testkit::install_tls_provider();
    let stage = Stage::start().await?;
    let operator = stage.operator("one");
    comes_back(&stage).await?;
    existing_data_stays(&stage).await?;
    operator.stop().await?;
    waits_for_its_pod(&stage).await?;
    stage.storage.stop().await;
    stage.cluster.stop().await;
    Ok(())
}

/// Both claims: one at once, and one that no pod mounts.
async fn comes_back(stage: &Stage) -> Result<()> {
    let restore = stage.restore("first", json!({})).await?;
    let status = restore.status.clone().context("no status")?;
    let told = serde_json::to_string_pretty(&status)?;
    ensure!(
        is_true(&status.conditions, ConditionType::Complete),
        "{told}"
    );
    let volumes = status.volumes.context("no volumes")?;
    ensure!(
        (volumes.total, volumes.done, volumes.waiting) == (2, 1, 1),
        "{told}"
    );
    ensure!(told.contains("WaitingForPod"), "{told}");

    let claim: PersistentVolumeClaim = stage.api_in("shop").get("at-once").await?;
    let volume = stage.volume_of(&claim).await?;
    is_as_it_was_made(&volume)?;
    let asked = stage.request_for("at-once").await?;
    ensure!(asked.finalizers().is_empty(), "{:?}", asked.finalizers());
    ensure!(
        asked
            .owner_references()
            .iter()
            .any(|o| o.uid == restore.uid().unwrap_or_default()),
        "it does not go with its Restore"
    );
    ensure!(stage.between().await? == 0, "something is left of the way");
    ensure!(stage.storage.deleted() == 0, "a volume was deleted");
    Ok(())
}

/// A claim that is there keeps its volume, and that is said.
async fn existing_data_stays(stage: &Stage) -> Result<()> {
    let before: PersistentVolumeClaim = stage.api_in("shop").get("at-once").await?;
    let mut selection = json!({"resources": ["persistentvolumeclaims"]});
    selection["labelSelector"] = json!({"matchLabels": {"at": "once"}});
    let spec = json!({"selection": selection, "existing": {"policy": "Merge"}});
    let restore = stage.restore("second", spec).await?;
    let told = serde_json::to_string_pretty(&restore.status)?;
    ensure!(told.contains("the saved data is not restored"), "{told}");
    let after: PersistentVolumeClaim = stage.api_in("shop").get("at-once").await?;
    ensure!(before.spec == after.spec, "{after:?}");
    ensure!(
        stage.requests_of(&restore).await? == 0,
        "nobody asks for it"
    );
    Ok(())
}

/// The Restore has ended, the operator is another one, and then the pod comes. Somebody
/// deletes the claim just before the data would be in use: nothing is left.
async fn waits_for_its_pod(stage: &Stage) -> Result<()> {
    let operator = stage.operator("two");
    let claims: Api<PersistentVolumeClaim> = stage.api_in("shop");
    let node = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n"}}});
    claims
        .patch("at-its-pod", &PatchParams::default(), &Patch::Merge(&node))
        .await?;
    let name = stage.request_for("at-its-pod").await?.name_any();
    let done = stage.until_ended(&name).await?;
    let status = done.status.context("no status")?;
    ensure!(
        is_true(&status.conditions, ConditionType::Complete),
        "{}",
        serde_json::to_string_pretty(&status)?
    );
    ensure!(status.node.as_deref() == Some("n"));
    let claim = claims.get("at-its-pod").await?;
    is_as_it_was_made(&stage.volume_of(&claim).await?)?;
    ensure!(stage.storage.deleted() == 0, "a volume was deleted");

    // From here on its volume is like any other.
    claims
        .delete("at-its-pod", &DeleteParams::default())
        .await?;
    claims.delete("at-once", &DeleteParams::default()).await?;
    stage
        .until("the volumes are deleted", async || {
            Ok(stage.storage.deleted() == 2)
        })
        .await?;

    cleans_up(stage).await?;
    operator.stop().await
}

/// A claim that is deleted while it is filled leaves nothing behind.
async fn cleans_up(stage: &Stage) -> Result<()> {
    stage.storage.hold_movers(true);
    let spec =
        json!({"rerun": "again", "selection": {"labelSelector": {"matchLabels": {"at": "once"}}}});
    stage.create::<Restore>("third", stage.from(spec)).await?;
    let name = stage
        .until_some(async || stage.filling("third").await)
        .await?;
    let claims: Api<PersistentVolumeClaim> = stage.api_in("shop");
    claims.delete("at-once", &DeleteParams::default()).await?;
    let status = stage
        .until_ended(&name)
        .await?
        .status
        .context("no status")?;
    let failed = find(&status.conditions, ConditionType::Failed).context("not failed")?;
    ensure!(
        failed.reason == Reason::ClaimNotFound.as_str(),
        "{failed:?}"
    );
    stage
        .until("nothing is left", async || Ok(stage.between().await? == 0))
        .await?;
    stage
        .until("its volume is deleted", async || {
            Ok(stage.storage.deleted() == 3)
        })
        .await?;
    let restore: Restore = stage
        .until_some(async || stage.restored("third").await)
        .await?;
    let told = serde_json::to_string_pretty(&restore.status)?;
    ensure!(told.contains("ClaimNotFound"), "{told}");
    stage.storage.hold_movers(false);
    Ok(())
}

fn is_as_it_was_made(volume: &PersistentVolume) -> Result<()> {
    let spec = volume.spec.clone().unwrap_or_default();
    let told = serde_json::to_string_pretty(volume)?;
    ensure!(
        spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete"),
        "{told}"
    );
    ensure!(
        !volume.annotations().contains_key(RECLAIM_POLICY_ANNOTATION),
        "{told}"
    );
    ensure!(!volume.labels().contains_key(FOR_LABEL), "{told}");
    Ok(())
}

impl Stage {
    async fn start() -> Result<Self> {
        let options = ControlPlaneOptions {
            scheduler: false,
            ..ControlPlaneOptions::named("volumes")
        };
        let cluster = ControlPlane::start(options).await?;
        let client = cluster.admin();
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        for crd in all_crds() {
            crds.create(&PostParams::default(), &crd).await?;
        }
        let directory = tempfile::tempdir()?;
        let stage = Self {
            storage: Storage::start(client.clone()),
            cluster,
            client,
            directory,
        };
        for name in [NAMESPACE, MOVERS] {
            let namespaces: Api<Namespace> = Api::all(stage.client.clone());
            let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
            namespaces
                .create(&PostParams::default(), &namespace)
                .await?;
        }
        for (name, mode) in [("fast", "Immediate"), ("local", "WaitForFirstConsumer")] {
            let classes: Api<StorageClass> = Api::all(stage.client.clone());
            let class = json!({"metadata": {"name": name}, "provisioner": DRIVER, "volumeBindingMode": mode});
            classes
                .create(&PostParams::default(), &serde_json::from_value(class)?)
                .await?;
        }
        let accounts: Api<ServiceAccount> = stage.api_in(MOVERS);
        let account = serde_json::from_value(json!({"metadata": {"name": "lifebuoy-mover"}}))?;
        accounts.create(&PostParams::default(), &account).await?;
        let point = stage.save().await?;
        stage.set_up(&point).await?;
        Ok(stage)
    }

    /// The Repository, and its passphrase.
    async fn set_up(&self, point: &str) -> Result<()> {
        let secret = json!({"metadata": {"name": "passphrase", "annotations": {"point": point}},
            "stringData": {"p": PASSPHRASE}});
        let secrets: Api<Secret> = self.api_in(NAMESPACE);
        secrets
            .create(&PostParams::default(), &serde_json::from_value(secret)?)
            .await?;
        let spec = json!({
            "url": self.url(),
            "passphraseSecretRef": {"name": "passphrase", "key": "p"},
        });
        // Its kind is served a moment later.
        self.until("the Repository is made", async || {
            Ok(self
                .create::<Repository>("main", spec.clone())
                .await
                .is_ok())
        })
        .await
    }

    fn url(&self) -> String {
        format!("file://{}", self.directory.path().display())
    }

    /// Writes a point with two claims, whose data is said to be saved.
    async fn save(&self) -> Result<String> {
        let store = Location::parse(&self.url(), LocationOptions::default())?
            .open(&Credentials::default())?;
        let passphrase = Passphrase::new(PASSPHRASE.to_owned())?;
        let repo = Repo::init(store, &passphrase, KdfCost::default()).await?;
        let id = SessionId::from_bytes([7; 16]);
        let request = SessionRequest {
            id,
            cluster: repo.cluster_key("there"),
            purpose: Purpose::Backup,
            label: Bytes::new(),
        };
        let writer = Arc::new(repo.begin(request).await?);
        let archive = ArchiveWriter::new(Arc::clone(&writer));
        let mut types = Vec::new();
        for (kind, resource, objects) in objects() {
            let mut of_type = archive.begin(TypeId::new("", resource));
            let count = objects.len();
            for object in objects {
                let text = |field: &str| {
                    object["metadata"][field]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned()
                };
                let key = ObjectKey::new(text("namespace"), text("name"));
                let stable = serde_json::to_vec(&object)?;
                of_type.push(key, &stable, b"{}").await?;
            }
            let totals = of_type.finish().await?;
            types.push(json!({
                "group": "", "version": "v1", "servedVersions": ["v1"], "kind": kind,
                "resource": resource, "namespaced": kind != "Namespace",
                "fidelity": {"state": "exact"}, "objects": count, "bytes": totals.bytes, "tree": totals.tree,
            }));
        }
        let root = writer
            .put(ChunkKind::Metadata, Bytes::from_static(b"data"))
            .await?;
        let manifest = manifest(&id, json!(types), &json!(root))?;
        let root = writer
            .put(ChunkKind::Metadata, manifest.to_bytes()?)
            .await?;
        writer.commit(root, manifest.summary.to_bytes()?).await?;
        Ok(id.to_string())
    }

    fn operator(&self, identity: &str) -> Running {
        let shutdown = CancellationToken::new();
        let config = OperatorConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(4),
            ..OperatorConfig::new(NAMESPACE, "here")
        };
        let ended = tokio::spawn(run(config, self.client.clone(), shutdown.clone()));
        Running { shutdown, ended }
    }

    fn api_in<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn create<K>(&self, name: &str, spec: Value) -> Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let object = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
        Ok(self
            .api_in(NAMESPACE)
            .create(&PostParams::default(), &object)
            .await?)
    }

    /// The spec of a Restore of the one point.
    fn from(&self, mut spec: Value) -> Value {
        let snapshot = SessionId::from_bytes([7; 16]).to_string();
        spec["from"] = json!({"repository": "main", "snapshot": snapshot});
        spec
    }

    async fn restore(&self, name: &str, spec: Value) -> Result<Restore> {
        self.create::<Restore>(name, self.from(spec)).await?;
        self.until_some(async || self.restored(name).await).await
    }

    /// A Restore, once it has ended.
    async fn restored(&self, name: &str) -> Result<Option<Restore>> {
        let restore: Restore = self.api_in(NAMESPACE).get(name).await?;
        let conditions = restore.status.as_ref().map(|s| s.conditions.clone());
        Ok(has_ended(&conditions.unwrap_or_default()).then_some(restore))
    }

    async fn until_ended(&self, name: &str) -> Result<VolumeRestore> {
        self.until_some(async || {
            let request: VolumeRestore = self.api_in(NAMESPACE).get(name).await?;
            let conditions = request.status.as_ref().map(|s| s.conditions.clone());
            Ok(has_ended(&conditions.unwrap_or_default()).then_some(request))
        })
        .await
        .with_context(|| name.to_owned())
    }

    /// The newest VolumeRestore for this claim.
    async fn request_for(&self, claim: &str) -> Result<VolumeRestore> {
        let requests: Api<VolumeRestore> = self.api_in(NAMESPACE);
        let listed = requests.list(&ListParams::default()).await?;
        let mut of_claim = listed
            .items
            .into_iter()
            .filter(|r| r.spec.claim.name == claim);
        of_claim.next().context("no VolumeRestore")
    }

    async fn requests_of(&self, restore: &Restore) -> Result<usize> {
        let label = format!("{FOR_LABEL}={}", restore.uid().unwrap_or_default());
        let requests: Api<VolumeRestore> = self.api_in(NAMESPACE);
        Ok(requests
            .list(&ListParams::default().labels(&label))
            .await?
            .items
            .len())
    }

    /// The VolumeRestore of this Restore whose mover runs.
    async fn filling(&self, restore: &str) -> Result<Option<String>> {
        let requests: Api<VolumeRestore> = self.api_in(NAMESPACE);
        let listed = requests.list(&ListParams::default()).await?;
        let mut of_restore = listed.items.into_iter().filter(|r| {
            r.spec.restore.name == restore
                && r.status
                    .as_ref()
                    .is_some_and(|s| s.phase == "Running" && s.attempts > 0)
        });
        Ok(of_restore.next().map(|r| r.name_any()))
    }

    /// How many claims there are in the movers' namespace.
    async fn between(&self) -> Result<usize> {
        let claims: Api<PersistentVolumeClaim> = self.api_in(MOVERS);
        Ok(claims.list(&ListParams::default()).await?.items.len())
    }

    async fn volume_of(&self, claim: &PersistentVolumeClaim) -> Result<PersistentVolume> {
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
        ensure!(phase == Some("Bound"), "{claim:?}");
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.clone());
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        Ok(volumes.get(&name.context("no volume")?).await?)
    }

    async fn until(&self, what: &str, done: impl AsyncFn() -> Result<bool>) -> Result<()> {
        self.until_some(async || Ok(done().await?.then_some(())))
            .await
            .with_context(|| what.to_owned())
    }

    async fn until_some<T>(&self, look: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            if let Some(seen) = look().await? {
                return Ok(seen);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let requests: Api<VolumeRestore> = self.api_in(NAMESPACE);
        let all = requests.list(&ListParams::default()).await?;
        bail!(
            "it takes too long: {}",
            serde_json::to_string_pretty(&all.items)?
        )
    }
}

impl Running {
    async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(self.ended.await??)
    }
}

fn has_ended(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> bool {
    [
        ConditionType::Complete,
        ConditionType::Failed,
        ConditionType::Stalled,
    ]
    .into_iter()
    .any(|kind| is_true(conditions, kind))
}

fn objects() -> Vec<(&'static str, &'static str, Vec<Value>)> {
    let claim = |name: &str, class: &str, at: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"at": at},
                "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"storageClassName": class, "volumeName": "gone", "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}})
    };
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "n"}});
    vec![
        ("Namespace", "namespaces", vec![namespace]),
        (
            "PersistentVolumeClaim",
            "persistentvolumeclaims",
            vec![
                claim("at-its-pod", "local", "pod"),
                claim("at-once", "fast", "once"),
            ],
        ),
    ]
}

fn manifest(session: &SessionId, types: Value, root: &Value) -> Result<Manifest> {
    let saved = |name: &str, class: &str| {
        json!({
            "claim": {"namespace": "shop", "name": name}, "storageClass": class,
            "volumeMode": "Filesystem", "accessModes": ["ReadWriteOnce"], "capacityBytes": 1 << 30,
            "saved": {"way": "Move", "session": session.to_string(), "root": root, "kind": "Files",
                "entries": 3, "bytes": 2048, "bytesStored": 1024, "problems": 0},
            "reason": "",
        })
    };
    Ok(serde_json::from_value(json!({
        "version": 2,
        "summary": {
            "version": 1, "cluster": {"name": "there", "uid": "there"}, "schedule": "", "backup": "b",
            "backupUid": "b", "takenAt": "2026-11-26T20:00:00Z", "completeness": "Complete",
            "consistency": "Exact", "objects": 3, "kubernetesVersion": "v1.36.3",
        },
        "selection": {}, "volumes": "Save", "types": types,
        "volumesSaved": [saved("at-its-pod", "local"), saved("at-once", "fast")],
    }))?)
}
