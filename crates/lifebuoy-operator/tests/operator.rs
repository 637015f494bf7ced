//! The operator on a real API server, with a repository in a directory: what
//! the pure tests cannot show. The stories with S3 and the chart are scenarios.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use lifebuoy_api::{
    Backup, ConditionType, RecoveryPoint, Repository, Restore, Schedule, all_crds, find, is_true,
};
use lifebuoy_operator::{Error, OperatorConfig, run};
use lifebuoy_testkit::{ControlPlane, ControlPlaneOptions};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "lifebuoy";
const SOON: Duration = Duration::from_secs(60);

/// A cluster with our kinds, and an operator that can be stopped and started.
struct Stage {
    cluster: ControlPlane,
    client: Client,
    bucket: tempfile::TempDir,
}

struct Running {
    shutdown: CancellationToken,
    ended: JoinHandle<Result<(), Error>>,
}

impl Stage {
    async fn start() -> Result<Self> {
        let cluster = ControlPlane::start(ControlPlaneOptions::bare("operator")).await?;
        let client = cluster.admin();
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        for crd in all_crds() {
            crds.create(&PostParams::default(), &crd).await?;
        }
        let stage = Self {
            cluster,
            client,
            bucket: tempfile::tempdir()?,
        };
        for name in [NAMESPACE, "app"] {
            stage.namespace(name).await?;
        }
        stage
            .create::<Secret>(
                json!({"metadata": {"name": "passphrase"}, "stringData": {"p": "x y z"}}),
            )
            .await?;
        let configmaps: Api<ConfigMap> = Api::namespaced(stage.client.clone(), "app");
        for number in 0..20 {
            let configmap = serde_json::from_value(json!({
                "metadata": {"name": format!("c{number}")}, "data": {"n": number.to_string()},
            }))?;
            configmaps
                .create(&PostParams::default(), &configmap)
                .await?;
        }
        Ok(stage)
    }

    async fn namespace(&self, name: &str) -> Result<()> {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        Api::all(self.client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        Ok(())
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

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn create<K>(&self, object: Value) -> Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object)?;
        Ok(self.api().create(&PostParams::default(), &object).await?)
    }

    async fn repository(&self, name: &str, directory: &Path) -> Result<()> {
        self.create::<Repository>(json!({
            "metadata": {"name": name},
            "spec": {
                "url": format!("file://{}", directory.display()),
                "passphraseSecretRef": {"name": "passphrase", "key": "p"},
            },
        }))
        .await?;
        Ok(())
    }

    async fn until<K>(&self, name: &str, done: impl Fn(&K) -> bool) -> Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let start = Instant::now();
        let mut last = None;
        while start.elapsed() < SOON {
            last = self.api::<K>().get_opt(name).await?;
            if let Some(object) = last.take_if(|object| done(object)) {
                return Ok(object);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{name}: {}", serde_json::to_string_pretty(&last)?)
    }

    async fn backup(&self, name: &str, spec: Value) -> Result<Backup> {
        let created = self
            .create::<Backup>(json!({"metadata": {"name": name}, "spec": spec}))
            .await?;
        self.until(&created.name_any(), |b: &Backup| {
            b.status.as_ref().is_some_and(|s| ended(&s.conditions))
        })
        .await
    }

    async fn restore(&self, name: &str, spec: Value) -> Result<Restore> {
        let created = self
            .create::<Restore>(json!({"metadata": {"name": name}, "spec": spec}))
            .await?;
        self.until(&created.name_any(), |r: &Restore| {
            r.status.as_ref().is_some_and(|s| ended(&s.conditions))
        })
        .await
    }
}

impl Running {
    async fn stop(self) -> Result<()> {
        let start = Instant::now();
        self.shutdown.cancel();
        self.ended.await??;
        ensure!(
            start.elapsed() < Duration::from_secs(15),
            "it took {:?}",
            start.elapsed()
        );
        Ok(())
    }
}

type Conditions = [k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition];

fn ended(conditions: &Conditions) -> bool {
    [
        ConditionType::Complete,
        ConditionType::Failed,
        ConditionType::Stalled,
    ]
    .into_iter()
    .any(|kind| is_true(conditions, kind))
}

/// The reason of the condition of this type, where it is true.
fn reason(conditions: &Conditions, kind: ConditionType) -> &str {
    find(conditions, kind)
        .filter(|c| c.status == "True")
        .map_or("", |c| &c.reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_saved_is_restored_and_what_is_interrupted_is_continued() -> Result<()> {
    lifebuoy_testkit::install_tls_provider();
    let stage = Stage::start().await?;
    let operator = stage.operator("one");
    stage.repository("main", stage.bucket.path()).await?;
    let saved = saves(&stage).await?;
    restores(&stage, &saved).await?;
    refuses(&stage).await?;
    operator.stop().await?;
    continues(&stage).await?;
    schedules(&stage).await?;
    stage.cluster.stop().await;
    Ok(())
}

async fn saves(stage: &Stage) -> Result<String> {
    let done = stage
        .backup(
            "first",
            json!({"repository": "main", "selection": {"namespaces": ["app"]}}),
        )
        .await?;
    let status = done.status.context("no status")?;
    ensure!(
        reason(&status.conditions, ConditionType::Complete) == "Succeeded",
        "{status:?}"
    );
    ensure!(status.progress.objects >= 21, "{:?}", status.progress);
    ensure!(
        status.attempts == 1 && status.snapshot == status.session,
        "{status:?}"
    );
    let point = status.recovery_point.context("no recovery point")?;
    let point = stage.api::<RecoveryPoint>().get(&point).await?;
    ensure!(Some(&point.spec.snapshot) == status.snapshot.as_ref());
    let repository = stage
        .until("main", |repository: &Repository| {
            repository.status.as_ref().is_some_and(|status| {
                is_true(&status.conditions, ConditionType::Ready) && status.id.is_some()
            })
        })
        .await?;
    ensure!(
        repository
            .status
            .is_some_and(|status| status.last_probe_time.is_some())
    );
    Ok(point.name_any())
}

async fn restores(stage: &Stage, point: &str) -> Result<()> {
    let spec = |mode: &str, extra: Value| {
        let mut spec = json!({
            "from": {"recoveryPoint": point},
            "mode": mode,
            "mapping": {"namespaces": [{"from": "app", "to": "copy"}]},
        });
        if let (Some(spec), Some(extra)) = (spec.as_object_mut(), extra.as_object()) {
            spec.extend(extra.clone());
        }
        spec
    };
    let planned = stage
        .restore("planned", spec("Plan", json!({})))
        .await?
        .status
        .context("no status")?;
    ensure!(
        reason(&planned.conditions, ConditionType::Complete) == "Planned",
        "{planned:?}"
    );
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    ensure!(
        namespaces.get_opt("copy").await?.is_none(),
        "a plan changes nothing"
    );

    let other = spec("Run", json!({"planDigest": "0".repeat(64)}));
    let changed = stage
        .restore("changed", other)
        .await?
        .status
        .context("no status")?;
    ensure!(
        reason(&changed.conditions, ConditionType::Failed) == "PlanChanged",
        "{changed:?}"
    );

    let reviewed = spec("Run", json!({"planDigest": planned.plan_digest}));
    let done = stage
        .restore("copy", reviewed.clone())
        .await?
        .status
        .context("no status")?;
    ensure!(
        reason(&done.conditions, ConditionType::Complete) == "Succeeded",
        "{done:?}"
    );
    ensure!(
        done.counts.created == done.counts.planned && done.counts.created >= 21,
        "{done:?}"
    );
    for name in done.plan_secrets.iter().chain(&done.report_secrets) {
        let secret = stage.api::<Secret>().get(name).await?;
        ensure!(
            secret.owner_references().len() == 1,
            "{name} is owned by nobody"
        );
    }
    ensure!(!done.report_secrets.is_empty());
    let copies: Api<ConfigMap> = Api::namespaced(stage.client.clone(), "copy");
    let names = copies.list(&ListParams::default()).await?;
    ensure!(
        names
            .iter()
            .filter(|c| c.name_any().starts_with('c'))
            .count()
            == 20
    );

    let again = stage
        .restore("again", reviewed)
        .await?
        .status
        .context("no status")?;
    ensure!(
        reason(&again.conditions, ConditionType::Complete) == "AlreadyRestored",
        "{again:?}"
    );
    Ok(())
}

async fn refuses(stage: &Stage) -> Result<()> {
    let foreign: Api<Backup> = Api::namespaced(stage.client.clone(), "app");
    let backup = serde_json::from_value(
        json!({"metadata": {"name": "mine"}, "spec": {"repository": "main"}}),
    )?;
    foreign.create(&PostParams::default(), &backup).await?;
    let start = Instant::now();
    loop {
        let status = foreign.get("mine").await?.status.unwrap_or_default();
        if reason(&status.conditions, ConditionType::Stalled) == "NamespaceNotPermitted" {
            break;
        }
        ensure!(start.elapsed() < SOON, "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let nowhere = stage
        .backup("nowhere", json!({"repository": "none"}))
        .await?;
    let status = nowhere.status.context("no status")?;
    ensure!(
        reason(&status.conditions, ConditionType::Stalled) == "RepositoryNotFound",
        "{status:?}"
    );
    // It is not lost: the Repository appears, and the Backup runs.
    let directory = stage.bucket.path().join("later");
    std::fs::create_dir(&directory)?;
    // A directory inside another repository is a place of its own.
    stage.repository("none", &directory).await?;
    stage
        .until("nowhere", |b: &Backup| {
            b.status
                .as_ref()
                .is_some_and(|s| is_true(&s.conditions, ConditionType::Complete))
        })
        .await?;
    Ok(())
}

/// A Backup whose operator was killed after it had begun a session.
async fn continues(stage: &Stage) -> Result<()> {
    let created = stage
        .create::<Backup>(json!({
            "metadata": {"name": "interrupted"},
            "spec": {"repository": "main", "selection": {"namespaces": ["app"]}},
        }))
        .await?;
    let lost = "00112233445566778899aabbccddeeff";
    let status = json!({"status": {"session": lost, "attempts": 1, "phase": "Running"}});
    stage
        .api::<Backup>()
        .patch_status(
            &created.name_any(),
            &PatchParams::default(),
            &Patch::Merge(&status),
        )
        .await?;
    let operator = stage.operator("two");
    let done = stage
        .until("interrupted", |b: &Backup| {
            b.status.as_ref().is_some_and(|s| ended(&s.conditions))
        })
        .await?;
    let status = done.status.context("no status")?;
    ensure!(
        reason(&status.conditions, ConditionType::Complete) == "Succeeded",
        "{status:?}"
    );
    ensure!(
        status.attempts == 2 && status.session.as_deref() != Some(lost),
        "{status:?}"
    );
    operator.stop().await
}

async fn schedules(stage: &Stage) -> Result<()> {
    let operator = stage.operator("three");
    stage
        .create::<Schedule>(json!({
            "metadata": {"name": "wrong"},
            "spec": {"cron": "0 0 30 2 *", "template": {"spec": {"repository": "main"}}},
        }))
        .await?;
    let wrong = stage
        .until("wrong", |s: &Schedule| {
            s.status.as_ref().is_some_and(|s| ended(&s.conditions))
        })
        .await?;
    let status = wrong.status.context("no status")?;
    ensure!(
        reason(&status.conditions, ConditionType::Stalled) == "InvalidSpec",
        "{status:?}"
    );

    let spec = json!({
        "cron": "* * * * *",
        "template": {"spec": {"repository": "main", "selection": {"namespaces": ["app"]}}},
        "retention": {"keepLast": 1},
    });
    stage
        .create::<Schedule>(json!({"metadata": {"name": "often"}, "spec": spec}))
        .await?;
    // The last tick that it knows of was two hours ago: one Backup, not 120.
    let past = chrono::Utc::now() - chrono::TimeDelta::hours(2);
    let status = json!({"status": {"lastScheduleTime": past.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)}});
    stage
        .api::<Schedule>()
        .patch_status("often", &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    let often = stage
        .until("often", |s: &Schedule| {
            s.status
                .as_ref()
                .is_some_and(|s| s.last_successful_time.is_some())
        })
        .await?;
    let status = often.status.context("no status")?;
    ensure!(status.missed_ticks >= 118, "{status:?}");
    let label = format!("{}=often", lifebuoy_api::SCHEDULE_LABEL);
    let made = stage
        .api::<Backup>()
        .list(&ListParams::default().labels(&label))
        .await?;
    ensure!(
        (1..=2).contains(&made.items.len()),
        "{} Backups",
        made.items.len()
    );
    operator.stop().await
}
