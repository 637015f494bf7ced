//! `cargo xtask golden NAME`: makes a golden repository with today's program,
//! of two real clusters, and writes down what is in it.
//!
//! It never touches one that is there: what an old version wrote is the point.

mod edges;
mod machine;
mod story;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use kube::Client;
use lifebuoy_api::PointCluster;
use lifebuoy_engine::capture::cluster_uid;
use lifebuoy_repo::{
    Credentials, KdfCost, Location, LocationOptions, ObjectStore, Passphrase, Repository,
};
use lifebuoy_testkit::python::{ensure_python, reader_folder};
use lifebuoy_testkit::tools::workspace_root;
use lifebuoy_testkit::{ControlPlane, ControlPlaneOptions, install_tls_provider, sample};
use serde_json::Value;

use story::Story;

/// Guards nothing: it is committed with the repository.
const PASSPHRASE: &str = "golden: für die Tests, not a secret";
/// A golden repository is in every clone.
const BYTES_MAX: u64 = 1_000_000;

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
    let passphrase = Passphrase::new(PASSPHRASE)?;
    let repo = Repository::init(store(bucket)?, &passphrase, KdfCost::default()).await?;
    repo.probe().await?;
    let story = Story { repo, a, b, bucket };
    story.happen().await
}

fn store(bucket: &Path) -> Result<Arc<dyn ObjectStore>> {
    let url = format!("file://{}", bucket.display());
    Ok(Location::parse(&url, LocationOptions::default())?.open(&Credentials::default())?)
}

async fn open(bucket: &Path) -> Result<Repository> {
    Ok(Repository::open(store(bucket)?, &Passphrase::new(PASSPHRASE)?).await?)
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
