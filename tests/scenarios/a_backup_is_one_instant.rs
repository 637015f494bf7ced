//! A backup holds the cluster as it was at one moment, and says of which types
//! that cannot be said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use lifebuoy_api::Consistency;
use lifebuoy_engine::archive::{Archive, Fidelity};
use lifebuoy_scenarios::{
    Ended, Installation, InstallationOptions, OPERATOR_NAMESPACE, SOON, Store, World, backup,
    namespace, run, scenario,
};

use crate::support::{aggregated, open};

#[test]
fn two_objects_that_change_together_are_never_torn_apart() {
    scenario(async {
        let world = World::shared().await?;
        let client = world.client();
        let namespace = namespace(&client, "instant").await?;
        let writer = Writer::start(client.clone(), &namespace).await?;
        for round in 0..5 {
            let before = writer.rounds();
            let name = format!("{namespace}-{round}");
            let done = run(&client, OPERATOR_NAMESPACE, backup(&name, "main"), SOON).await?;
            ensure!(done.complete(), "{}", done.verdict());
            ensure!(
                writer.rounds() > before,
                "the writer did not write during the backup"
            );
            let status = done.status.context("no status")?;
            ensure!(
                status.consistency == Some(Consistency::Exact),
                "{:?}",
                status.problems
            );
            let archive = open(&world.store, &status.snapshot.context("no snapshot")?).await?;
            let first = counter(&archive, "configmaps", &namespace, "first").await?;
            let second = counter(&archive, "secrets", &namespace, "second").await?;
            // The ConfigMap is always written before the Secret.
            ensure!(
                first == second || first == second + 1,
                "the backup holds {first} and {second}: that was never so"
            );
        }
        writer.stop().await
    });
}

#[test]
fn types_that_cannot_be_read_at_the_same_moment_are_named_and_no_others() {
    scenario(async {
        let mut options = InstallationOptions::named("instants");
        options.cluster.second_etcd_for = vec!["/secrets".to_owned()];
        options.cluster.compaction_interval = Some(Duration::from_secs(1));
        let s3 = lifebuoy_scenarios::store("instants").await?;
        let store = Store::at(&s3, "instants");
        let installation = Installation::start(options).await?;
        let client = installation.client();
        let aggregated = aggregated::start(&client).await?;
        store.declare(&client, OPERATOR_NAMESPACE, "main").await?;
        lifebuoy_scenarios::repository_ready(&client, OPERATOR_NAMESPACE, "main", SOON).await?;

        // Something must move, or two stores could stand at one revision by chance.
        let namespace = namespace(&client, "instant").await?;
        let writer = Writer::start(client.clone(), &namespace).await?;
        let done = run(&client, OPERATOR_NAMESPACE, backup("all", "main"), SOON).await?;
        writer.stop().await?;
        drop(aggregated);

        ensure!(done.complete(), "{}: {:?}", done.verdict(), done.status);
        let status = done.status.context("no status")?;
        ensure!(status.consistency == Some(Consistency::Fuzzy));
        let archive = open(&store, &status.snapshot.context("no snapshot")?).await?;
        let fuzzy: BTreeSet<String> = archive
            .manifest
            .types
            .iter()
            .filter(|record| !matches!(record.fidelity, Fidelity::Exact))
            .map(|record| record.id().to_string())
            .collect();
        ensure!(
            fuzzy == BTreeSet::from(["secrets".to_owned(), aggregated::RESOURCE.to_owned()]),
            "not exact: {fuzzy:?}"
        );
        Ok(())
    });
}

/// The counter in the object's data, as the archive has it.
async fn counter(archive: &Archive, resource: &str, namespace: &str, name: &str) -> Result<u64> {
    let record = archive
        .manifest
        .types
        .iter()
        .find(|record| record.group.is_empty() && record.resource == resource)
        .with_context(|| format!("no {resource} in the archive"))?;
    let objects: Vec<_> = archive.objects(record).try_collect().await?;
    let object = objects
        .iter()
        .find(|object| object.key.namespace == namespace && object.key.name == name)
        .with_context(|| format!("{resource} {namespace}/{name} is not in the archive"))?;
    let body = object.body()?;
    let label = body["metadata"]["labels"]["round"]
        .as_str()
        .context("no round")?;
    Ok(label.parse()?)
}

/// Changes a ConfigMap and then a Secret, again and again.
struct Writer {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Writer {
    async fn start(client: Client, namespace: &str) -> Result<Self> {
        let configmaps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let secrets: Api<Secret> = Api::namespaced(client, namespace);
        let metadata = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([("round".to_owned(), "0".to_owned())])),
            ..ObjectMeta::default()
        };
        let first = ConfigMap {
            metadata: metadata("first"),
            ..ConfigMap::default()
        };
        let second = Secret {
            metadata: metadata("second"),
            ..Secret::default()
        };
        configmaps.create(&PostParams::default(), &first).await?;
        secrets.create(&PostParams::default(), &second).await?;

        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (stop.clone(), rounds.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let round = counted.load(Ordering::Relaxed) + 1;
                let patch =
                    serde_json::json!({"metadata": {"labels": {"round": round.to_string()}}});
                let patch = Patch::Merge(&patch);
                configmaps
                    .patch("first", &PatchParams::default(), &patch)
                    .await?;
                secrets
                    .patch("second", &PatchParams::default(), &patch)
                    .await?;
                counted.store(round, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { stop, rounds, task })
    }

    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}
