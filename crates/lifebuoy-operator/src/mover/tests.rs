//! Movers on a real API server with the real Job controller; the test plays the kubelet.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Namespace, PersistentVolumeClaim, Pod, Secret},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use lifebuoy_engine::volumes::{RepositoryAccess, SavedRoot, TASK_KEY, Work};
use lifebuoy_repo::{ChunkId, SessionId};
use lifebuoy_testkit::{ControlPlane, ControlPlaneOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::{OperatorConfig, keeper::Care, metrics::Metrics, tasks::Tasks};

const UID: &str = "11111111-2222-3333-4444-555555555555";

struct Stage {
    context: Context,
    _cluster: ControlPlane,
}

impl Stage {
    async fn start(name: &str) -> Result<Self> {
        let cluster = ControlPlane::start(ControlPlaneOptions::named(name)).await?;
        let client = cluster.admin();
        let config = OperatorConfig::new("lifebuoy", "here");
        let movers = &config.movers;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = json!({"metadata": {"name": movers.namespace}});
        let namespace = serde_json::from_value(namespace)?;
        namespaces
            .create(&PostParams::default(), &namespace)
            .await?;
        let account = json!({"metadata": {"name": movers.service_account}});
        Api::namespaced(client.clone(), &movers.namespace)
            .create(
                &PostParams::default(),
                &serde_json::from_value::<k8s_openapi::api::core::v1::ServiceAccount>(account)?,
            )
            .await?;
        let stopping = CancellationToken::new();
        let (finished, _) = mpsc::unbounded_channel();
        let context = Context::new(
            client,
            config,
            std::sync::Arc::new(Metrics::new()),
            Tasks::new(1, stopping.clone(), finished.clone()),
            Tasks::new(1, stopping.clone(), finished.clone()),
            Tasks::new(1, stopping.clone(), finished.clone()),
            Care::new(finished),
            stopping,
        );
        Ok(Self {
            context,
            _cluster: cluster,
        })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(
            self.context.client.clone(),
            &self.context.config.movers.namespace,
        )
    }

    /// Waits for the pod of a Job, and says that it is like this.
    async fn play(&self, job: &str, status: Value) -> Result<()> {
        let pods: Api<Pod> = self.api();
        let params = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        for _ in 0..120 {
            if let Some(pod) = pods.list(&params).await?.items.first() {
                let status = Patch::Merge(json!({"status": status}));
                let name = pod.name_any();
                pods.patch_status(&name, &PatchParams::default(), &status)
                    .await?;
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        anyhow::bail!("there is no pod of {job}")
    }

    async fn ends(&self, job: &str, end: &MoverEnd) -> Result<()> {
        let (phase, code) = match end {
            MoverEnd::Done(_) => ("Succeeded", 0),
            MoverEnd::Failed { .. } | MoverEnd::Untouched { .. } => ("Failed", 1),
        };
        let container = json!({
            "name": "mover", "image": "x", "imageID": "x", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "message": end.to_message()}},
        });
        self.play(
            job,
            json!({"phase": phase, "containerStatuses": [container]}),
        )
        .await
    }

    async fn assert_nothing_left(&self) -> Result<()> {
        let all = ListParams::default();
        ensure!(self.api::<Job>().list(&all).await?.items.is_empty());
        ensure!(self.api::<Pod>().list(&all).await?.items.is_empty());
        // The garbage collector comes a moment later.
        for _ in 0..60 {
            if self.api::<Secret>().list(&all).await?.items.is_empty() {
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        anyhow::bail!("a Secret is left")
    }
}

fn job(base: &str, restores: bool) -> MoverJob {
    MoverJob {
        base: base.to_owned(),
        for_uid: UID.to_owned(),
        volume: MountedVolume::Claim {
            name: "data".to_owned(),
            block: false,
        },
        place: PlaceFor {
            node: None,
            repository: "main".to_owned(),
            repository_limit: None,
        },
        read_only: !restores,
        restores,
    }
}

fn task(work: Work) -> MoverTask {
    MoverTask {
        repository: RepositoryAccess {
            url: "file:///nowhere".to_owned(),
            endpoint: None,
            region: None,
            ca_pem: None,
            proxy: None,
            allow_http: false,
            credentials: BTreeMap::new(),
            passphrase: "hunter2".to_owned(),
        },
        work,
        limit_upload: None,
        limit_download: None,
    }
}

async fn restore(_: u32) -> Result<MoverTask, MoverError> {
    Ok(task(Work::Restore {
        what: serde_json::from_value(json!("Files")).unwrap(),
        saved: SavedRoot {
            session: SessionId::from_bytes([1; 16]),
            root: ChunkId::from_bytes([1; 32]),
        },
    }))
}

fn save(session: u8) -> MoverTask {
    task(Work::Save {
        what: serde_json::from_value(json!("Files")).unwrap(),
        session: SessionId::from_bytes([session; 16]),
        cluster_uid: "uid".to_owned(),
        host: "here".to_owned(),
        path: "shop/data".to_owned(),
        taken_at: chrono::DateTime::UNIX_EPOCH,
        before: None,
    })
}

fn done(entries: u64) -> MoverEnd {
    MoverEnd::Done(MoverReport {
        entries,
        ..MoverReport::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_is_run_to_its_end_whatever_becomes_of_its_pods() -> Result<()> {
    let stage = Stage::start("mover-runs").await?;
    let never = CancellationToken::new();
    let told = |_| ();

    // One that fails and may pass, and then one that is done.
    let mover = job("again", true);
    let failed = MoverEnd::Failed {
        message: "the store was away".to_owned(),
        again: true,
    };
    let plays = async {
        stage.ends("again-1", &failed).await?;
        stage.ends("again-2", &done(7)).await
    };
    let (report, played) = tokio::join!(run(&stage.context, &mover, restore, &told, &never), plays);
    played?;
    ensure!(report?.entries == 7);
    stage.assert_nothing_left().await?;

    // One that will not pass.
    let mover = job("never", true);
    let failed = MoverEnd::Failed {
        message: "wrong passphrase".to_owned(),
        again: false,
    };
    let (report, played) = tokio::join!(
        run(&stage.context, &mover, restore, &told, &never),
        stage.ends("never-1", &failed)
    );
    played?;
    let error = report.err().context("it is done")?;
    ensure!(error.message() == "wrong passphrase", "{error}");
    stage.assert_nothing_left().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mover_is_adopted_with_its_session_and_removed_when_it_is_cancelled() -> Result<()> {
    let stage = Stage::start("mover-adopted").await?;
    let told = |_| ();
    let mover = job("adopted", false);
    let never = CancellationToken::new();
    // As an operator that is killed.
    let dropped = run(&stage.context, &mover, async |_| Ok(save(1)), &told, &never);
    let begun = stage.play("adopted-1", json!({"phase": "Running"}));
    tokio::select! {
        _ = dropped => anyhow::bail!("it has ended"),
        begun = async { begun.await?; sleep(Duration::from_secs(3)).await; Ok::<_, anyhow::Error>(()) } => begun?,
    }
    // Another one draws another session.
    let end = done(3);
    let other = stage.api::<Secret>().get("adopted-1").await?;
    let (report, played) = tokio::join!(
        run(&stage.context, &mover, async |_| Ok(save(2)), &told, &never),
        stage.ends("adopted-1", &end)
    );
    played?;
    ensure!(report?.entries == 3);
    let text = &other.data.context("empty")?[TASK_KEY].0;
    let first: MoverTask = serde_json::from_slice(text)?;
    ensure!(first == save(1));
    stage.assert_nothing_left().await?;

    // Cancelled while it runs.
    let cancel = CancellationToken::new();
    let mover = job("cancelled", true);
    let cancels = async {
        let played = stage.play("cancelled-1", json!({"phase": "Running"})).await;
        cancel.cancel();
        played
    };
    let (ended, played) = tokio::join!(
        run(&stage.context, &mover, restore, &told, &cancel),
        cancels
    );
    played?;
    ensure!(matches!(ended, Err(MoverError::Cancelled)), "{ended:?}");
    stage.assert_nothing_left().await?;

    // As an operator that ends: what runs is left to the next.
    let cancel = stage.context.ending.child_token();
    let mover = job("left", true);
    let ends = async {
        let played = stage.play("left-1", json!({"phase": "Running"})).await;
        stage.context.ending.cancel();
        played
    };
    let (ended, played) = tokio::join!(run(&stage.context, &mover, restore, &told, &cancel), ends);
    played?;
    ensure!(matches!(ended, Err(MoverError::Cancelled)), "{ended:?}");
    stage.api::<Job>().get("left-1").await?;

    // All that was made for the request goes, and nothing else.
    let claim = |name: &str, uid: &str| {
        serde_json::from_value::<PersistentVolumeClaim>(json!({
            "metadata": {"name": name, "labels": {FOR_LABEL: uid}},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }))
    };
    let claims = stage.api::<PersistentVolumeClaim>();
    for (name, uid) in [("data", UID), ("theirs", "another")] {
        claims
            .create(&PostParams::default(), &claim(name, uid)?)
            .await?;
    }
    for _ in 0..2 {
        clean_up(&stage.context, UID).await?;
    }
    stage.assert_nothing_left().await?;
    let left = claims.list(&ListParams::default()).await?.items;
    let left: Vec<_> = left
        .iter()
        .filter(|claim| claim.metadata.deletion_timestamp.is_none())
        .map(ResourceExt::name_any)
        .collect();
    ensure!(left == ["theirs"], "{left:?}");
    Ok(())
}
