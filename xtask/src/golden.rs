//! `cargo xtask golden NAME`: makes a golden repository with today's program,
//! of two real clusters, and writes down what is in it.
//!
//! It never touches one that is there: what an old version wrote is the point.

mod edges;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use kube::Client;
use lifebuoy_api::{PointCluster, Selection, VolumePolicy};
use lifebuoy_engine::capture::{CaptureProgress, CaptureRequest, Captured, capture, cluster_uid};
use lifebuoy_engine::selection::Selector;
use lifebuoy_repo::{
    Credentials, Error as RepoError, KdfCost, Location, LocationOptions, Passphrase, Purpose,
    Repository, SessionId, SessionRequest, Writer,
};
use lifebuoy_testkit::python::{ensure_python, reader_folder};
use lifebuoy_testkit::tools::workspace_root;
use lifebuoy_testkit::{ControlPlane, ControlPlaneOptions, install_tls_provider, sample};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Guards nothing: it is committed with the repository.
const PASSPHRASE: &str = "golden: für die Tests, not a secret";
/// So long that a session at work has written its first heartbeat.
const UNTIL_FIRST_BEAT: Duration = Duration::from_secs(65);
/// A golden repository is in every clone.
const BYTES_MAX: u64 = 1_500_000;

/// Golden repositories.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Golden {
    /// The folder to make below tests/golden/, such as `v1`.
    name: String,
}

impl Golden {
    /// Makes the repository.
    pub(crate) fn run(&self) -> Result<()> {
        let folder = workspace_root().join("tests/golden").join(&self.name);
        if folder.exists() {
            bail!(
                "{} is there already, and a golden repository is never changed",
                folder.display()
            );
        }
        install_tls_provider();
        let bucket = folder.join("bucket");
        fs::create_dir_all(&bucket)?;
        fs::write(folder.join("passphrase"), PASSPHRASE)?;
        tokio::runtime::Runtime::new()?.block_on(fill(&bucket))?;
        fs::write(folder.join("expected.json"), describe(&folder)?)?;
        let size = size(&bucket)?;
        ensure!(size <= BYTES_MAX, "{size} bytes are too many");
        println!("made {} ({size} bytes)", folder.display());
        Ok(())
    }
}

/// A cluster that is saved.
struct Source {
    client: Client,
    cluster: PointCluster,
}

impl Source {
    async fn new(plane: &ControlPlane) -> Result<Self> {
        let client = plane.admin();
        sample::deploy(&client).await?;
        let cluster = PointCluster {
            name: plane.name().to_owned(),
            uid: cluster_uid(&client).await?,
        };
        Ok(Self { client, cluster })
    }
}

async fn fill(bucket: &Path) -> Result<()> {
    let (a, b) = tokio::try_join!(
        ControlPlane::start(ControlPlaneOptions::bare("golden-a")),
        ControlPlane::start(ControlPlaneOptions::bare("golden-b"))
    )?;
    let (a, b) = tokio::try_join!(Source::new(&a), Source::new(&b))?;
    let url = format!("file://{}", bucket.display());
    let store = Location::parse(&url, LocationOptions::default())?.open(&Credentials::default())?;
    let repo = Repository::init(store, &Passphrase::new(PASSPHRASE)?, KdfCost::default()).await?;
    repo.probe().await?;

    let first = save(&repo, &a, "first").await?;
    save(&repo, &b, "first").await?;

    // One that begins, and never ends; and one that is at work for long.
    let unended = begin(&repo, &a, "unended").await?;
    edges::create(&a.client, &unended).await?;
    let long = begin(&repo, &a, "long").await?;
    tokio::time::sleep(UNTIL_FIRST_BEAT).await;
    drop(unended);
    commit(long, &a, "long").await?;

    edges::change(&a.client).await?;
    let fenced = begin(&repo, &a, "fenced").await?;
    repo.fence(repo.cluster_key(&a.cluster.uid), fenced.session())
        .await?;
    match commit(fenced, &a, "fenced").await {
        Err(error) if is_fenced(&error) => {}
        Err(error) => return Err(error),
        Ok(_) => bail!("a fenced session has committed"),
    }
    save(&repo, &a, "changed").await?;
    // The very same again: a snapshot that needs no pack of its own.
    save(&repo, &a, "changed").await?;
    save(&repo, &b, "second").await?;
    let first = first.point.snapshot.session;
    Ok(repo.forget(first, "retention keeps the newest").await?)
}

fn is_fenced(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<lifebuoy_engine::Error>(),
        Some(lifebuoy_engine::Error::Repo(RepoError::Fenced { .. }))
    )
}

async fn save(repo: &Repository, source: &Source, backup: &str) -> Result<Captured> {
    commit(begin(repo, source, backup).await?, source, backup).await
}

async fn begin(repo: &Repository, source: &Source, backup: &str) -> Result<Arc<Writer>> {
    let request = SessionRequest {
        id: SessionId::random(&mut rand::rng()),
        cluster: repo.cluster_key(&source.cluster.uid),
        purpose: Purpose::Backup,
        label: Bytes::from(format!("golden {backup}")),
    };
    Ok(Arc::new(repo.begin(request).await?))
}

async fn commit(writer: Arc<Writer>, source: &Source, backup: &str) -> Result<Captured> {
    let selection = Selection {
        namespaces: [&sample::NAMESPACES[..], &[edges::NAMESPACE]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        ..Selection::default()
    };
    let request = CaptureRequest {
        selector: Selector::parse(&selection, "selection")?,
        selection,
        cluster: source.cluster.clone(),
        backup: backup.to_owned(),
        backup_uid: String::new(),
        schedule: String::new(),
        volumes: VolumePolicy::Save,
        taken_at: taken_at(backup)?,
        own_namespace: Some("lifebuoy".to_owned()),
        down_groups_that_only_warn: Vec::new(),
    };
    let progress = CaptureProgress::new();
    let cancel = CancellationToken::new();
    Ok(capture(&source.client, writer, &request, &progress, &cancel).await?)
}

/// A time that depends on the backup alone.
fn taken_at(backup: &str) -> Result<DateTime<Utc>> {
    let begin = DateTime::from_timestamp(1_790_000_000, 0).context("not a time")?;
    Ok(begin + TimeDelta::minutes(i64::try_from(backup.len())?))
}

/// What the independent reader finds, which the program itself is held to.
fn describe(folder: &Path) -> Result<String> {
    let output = Command::new(ensure_python(&|line| println!("{line}"))?)
        .arg(reader_folder().join("lifebuoy_reader.py"))
        .arg("--repository")
        .arg(folder.join("bucket"))
        .arg("--passphrase-file")
        .arg(folder.join("passphrase"))
        .arg("describe")
        .output()?;
    ensure!(
        output.status.success(),
        "the reader cannot read it: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let described: Value = serde_json::from_slice(&output.stdout)?;
    Ok(serde_json::to_string_pretty(&described)? + "\n")
}

fn size(folder: &Path) -> Result<u64> {
    let mut size = 0;
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                size += entry.metadata()?.len();
            }
        }
    }
    Ok(size)
}
