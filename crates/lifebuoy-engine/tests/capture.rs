//! Captures of real clusters: a real API server, a repository in memory.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chrono::DateTime;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use lifebuoy_api::{Completeness, Consistency, PointCluster, Selection, VolumePolicy};
use lifebuoy_engine::{
    archive::{Archive, Fidelity, TypeId},
    capture::{CaptureProgress, CaptureRequest, Captured, capture, cluster_uid, no_volumes},
    selection::Selector,
};
use lifebuoy_repo::{KdfCost, Passphrase, Purpose, Repository, SessionId, SessionRequest};
use lifebuoy_testkit::{
    ControlPlane, ControlPlaneOptions,
    load::{LoadSpec, create_floor},
};
use object_store::memory::InMemory;
use tokio_util::sync::CancellationToken;

async fn repository() -> Result<Repository> {
    let passphrase = Passphrase::new("correct horse")?;
    let store = Arc::new(InMemory::new());
    Ok(Repository::init(store, &passphrase, KdfCost::cheapest()).await?)
}

async fn run(client: &Client, repo: &Repository) -> Result<Captured> {
    let selection = Selection::default();
    let cluster = PointCluster {
        name: "a".to_owned(),
        uid: cluster_uid(client).await?,
    };
    let session = SessionRequest {
        id: SessionId::random(&mut rand::rng()),
        cluster: repo.cluster_key(&cluster.uid),
        purpose: Purpose::Backup,
        label: Bytes::new(),
    };
    let request = CaptureRequest {
        selector: Selector::parse(&selection, "spec.selection")?,
        selection,
        cluster,
        backup: "by-hand".to_owned(),
        backup_uid: "uid".to_owned(),
        schedule: String::new(),
        volumes: VolumePolicy::Save,
        empty_dirs: false,
        taken_at: DateTime::UNIX_EPOCH,
        own_namespace: None,
        down_groups_that_only_warn: Vec::new(),
    };
    let writer = Arc::new(repo.begin(session).await?);
    let progress = CaptureProgress::new();
    Ok(capture(
        client,
        writer,
        &request,
        &progress,
        no_volumes,
        &CancellationToken::new(),
    )
    .await?)
}

/// What became of the types that are not exact.
fn not_exact(captured: &Captured) -> BTreeMap<String, &Fidelity> {
    let others = captured
        .types
        .iter()
        .filter(|t| t.fidelity != Fidelity::Exact);
    others.map(|t| (t.id().to_string(), &t.fidelity)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_cluster_is_captured_at_one_revision_and_unchanged_it_costs_nothing() -> Result<()> {
    let cluster = ControlPlane::start(ControlPlaneOptions::bare("capture")).await?;
    let client = cluster.admin();
    let spec = LoadSpec {
        objects: 500,
        seed: 1,
    };
    create_floor(&cluster.access()?, spec).await?;
    let repo = repository().await?;

    let first = run(&client, &repo).await?;
    ensure!(not_exact(&first).is_empty(), "{:?}", not_exact(&first));
    ensure!(first.point.summary.consistency == Consistency::Exact);
    ensure!(
        first.point.summary.completeness == Completeness::Complete,
        "{:?}",
        first.problems
    );
    ensure!(
        first.point.summary.objects >= 500,
        "{:?}",
        first.point.summary
    );

    let second = run(&client, &repo).await?;
    // At most the manifest: without any write, even that is the same.
    ensure!(second.stats.chunks_new <= 1, "{:?}", second.stats);
    ensure!(second.stats.puts < 10, "{:?}", second.stats);

    // Every object is there as the API server has it.
    let archive = Archive::open(&repo, second.point.snapshot.session).await?;
    let t = archive
        .manifest
        .find(&TypeId::new("", "configmaps"))
        .context("no ConfigMaps")?;
    let archived: Vec<_> = archive.objects(t).try_collect().await?;
    let live = Api::<ConfigMap>::all(client.clone())
        .list(&Default::default())
        .await?;
    ensure!(archived.len() as u64 == t.objects && archived.len() <= live.items.len());
    for object in &archived {
        let same = live.items.iter().find(|c| {
            c.metadata.namespace.as_deref() == Some(&object.key.namespace)
                && c.metadata.name.as_deref() == Some(&object.key.name)
        });
        let mut expected = serde_json::to_value(same.context("not live")?)?;
        let metadata = expected["metadata"]
            .as_object_mut()
            .context("no metadata")?;
        let managed = metadata.remove("managedFields");
        let revision = metadata.remove("resourceVersion");
        ensure!(object.body()? == expected, "{} differs", object.key);
        let volatile = object.volatile()?;
        ensure!(volatile.get("managedFields") == managed.as_ref());
        ensure!(volatile.get("resourceVersion") == revision.as_ref());
    }
    cluster.stop().await;
    Ok(())
}

/// Writes a number to a ConfigMap, then to a Secret, as fast as it goes.
async fn write_pairs(client: Client, stop: Arc<AtomicBool>) -> Result<u64> {
    let configmaps = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let secrets = Api::<Secret>::namespaced(client, "default");
    let metadata = ObjectMeta {
        name: Some("pair".to_owned()),
        ..ObjectMeta::default()
    };
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        let data = Some(BTreeMap::from([("n".to_owned(), round.to_string())]));
        let configmap = ConfigMap {
            metadata: metadata.clone(),
            data: data.clone(),
            ..ConfigMap::default()
        };
        let secret = Secret {
            metadata: metadata.clone(),
            string_data: data,
            ..Secret::default()
        };
        if round == 0 {
            configmaps
                .create(&PostParams::default(), &configmap)
                .await?;
            secrets.create(&PostParams::default(), &secret).await?;
        } else {
            configmaps
                .replace("pair", &PostParams::default(), &configmap)
                .await?;
            secrets
                .replace("pair", &PostParams::default(), &secret)
                .await?;
        }
        round += 1;
    }
    Ok(round)
}

/// The number that a snapshot holds.
async fn number(archive: &Archive, resource: &str) -> Result<Option<u64>> {
    let t = archive
        .manifest
        .find(&TypeId::new("", resource))
        .context("no such type")?;
    let key = lifebuoy_engine::archive::ObjectKey::new("default", "pair");
    let Some(object) = archive.get(t, &key).await? else {
        return Ok(None);
    };
    let body = object.body()?;
    let text = body["data"]["n"].as_str().context("no number")?;
    Ok(Some(match resource {
        "secrets" => {
            use base64::Engine as _;
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text)?)?.parse()?
        }
        _ => text.parse()?,
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_objects_written_in_order_are_never_torn_apart() -> Result<()> {
    let cluster = ControlPlane::start(ControlPlaneOptions::bare("torn")).await?;
    let client = cluster.admin();
    let default = Namespace {
        metadata: ObjectMeta {
            name: Some("default".to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    // The API server makes it as well, sooner or later.
    let _ = Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &default)
        .await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write_pairs(client.clone(), Arc::clone(&stop)));
    let repo = repository().await?;
    let mut seen = Vec::new();
    for _ in 0..5 {
        let captured = run(&client, &repo).await?;
        ensure!(
            not_exact(&captured).is_empty(),
            "{:?}",
            not_exact(&captured)
        );
        let archive = Archive::open(&repo, captured.point.snapshot.session).await?;
        let first = number(&archive, "configmaps").await?;
        let second = number(&archive, "secrets").await?;
        // The ConfigMap is always written first.
        let possible = match (first, second) {
            (Some(first), Some(second)) => first == second || first == second + 1,
            (Some(0), None) | (None, None) => true,
            _ => false,
        };
        ensure!(
            possible,
            "{first:?} and {second:?} were never there together"
        );
        seen.push(first);
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = writer.await??;
    ensure!(
        rounds > 5 && seen.first() != seen.last(),
        "{rounds} rounds, seen {seen:?}"
    );
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_in_another_etcd_are_the_only_fuzzy_type() -> Result<()> {
    let options = ControlPlaneOptions {
        second_etcd_for: vec!["/secrets".to_owned()],
        ..ControlPlaneOptions::bare("second-etcd")
    };
    let cluster = ControlPlane::start(options).await?;
    let client = cluster.admin();
    create_floor(
        &cluster.access()?,
        LoadSpec {
            objects: 100,
            seed: 1,
        },
    )
    .await?;
    let repo = repository().await?;
    let captured = run(&client, &repo).await?;
    let others = not_exact(&captured);
    ensure!(others.keys().eq(["secrets"]), "{others:?}");
    ensure!(
        matches!(others["secrets"], Fidelity::Fuzzy { .. }),
        "{others:?}"
    );
    ensure!(captured.point.summary.consistency == Consistency::Fuzzy);
    let secrets = captured
        .types
        .iter()
        .find(|t| t.resource == "secrets")
        .context("none")?;
    ensure!(secrets.objects == 30, "{secrets:?}");
    cluster.stop().await;
    Ok(())
}
