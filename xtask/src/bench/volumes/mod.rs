//! Saving volumes on a real node, through the operator and its movers, beside
//! `tar | zstd` to the same S3 server.
//!
//! Once outside, which makes the data; the rest in namespaces of its own. It
//! measures and prints, and never judges; it fails where a backup is not complete.

mod rows;
mod sampling;
mod yardstick;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lifebuoy_api::{VolumeMatch, VolumePolicy, VolumeRule, VolumeWay};
use lifebuoy_scenarios::{
    Ended, NodeWorld, OPERATOR_NAMESPACE, PODS_LIMIT, Store, backup, repository_ready, run,
};
use lifebuoy_testkit::node::images::{self, BUSYBOX};
use lifebuoy_testkit::sample::apply_yaml;
use lifebuoy_testkit::tools::workspace_root;
use lifebuoy_testkit::{S3Server, directory, install_tls_provider, namespace};

use super::repo::data::{self, DataSet, Scale};
use rows::Taken;
use sampling::Sampler;

/// How long one operation, and all of them, may take.
const LIMIT: Duration = Duration::from_secs(3600);
const RUN_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// The source files of a whole data set are 1.2 GB: so much of them is 1 GB.
const FILES_SCALE: f64 = 0.83;
const RUN_BYTES: usize = 4 << 20;
const SEED: u64 = 7;

/// What is measured.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// How often everything is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// How large the volumes are, of the whole.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Also writes the figures to this file, as JSON: a list with a row for each case
    /// and operation.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Options {
    /// Measures everything and prints it.
    pub(crate) fn run(&self) -> Result<()> {
        if !namespace::is_inside() && namespace::missing().is_none() {
            if !release_folder().join("kubectl-lifebuoy").exists() {
                crate::build::operator()?;
            }
            DataSet::Source.make(&data_folder()?, self.files_scale(), SEED)?;
        }
        let say = |line: &str| println!("{line}");
        namespace::program(&NodeWorld::needs(&[]), RUN_LIMIT, &say, || {
            install_tls_provider();
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(self.measure())
        })
    }

    fn files_scale(&self) -> Scale {
        Scale(self.scale * FILES_SCALE)
    }

    async fn measure(&self) -> Result<()> {
        let s3 = S3Server::start(directory::root().join("s3")).await?;
        let binaries = binaries()?;
        let image = images::operator(&binaries, &directory::root())?;
        let place = Store::at(&s3, "main");
        let world = NodeWorld::start("a", "fast", &[image], &place).await?;
        let mut taken = Vec::new();
        for number in 0..self.runs.max(1) {
            println!("… run {}", number + 1);
            let once = Once {
                world: &world,
                s3: &s3,
                number,
            };
            let outcome = self.once(&once, &mut taken).await;
            world.recorded(outcome).await?;
        }
        let rows = rows::medians(&taken);
        println!("{}", rows::table(&rows));
        if let Some(file) = &self.json {
            fs::write(file, serde_json::to_string_pretty(&rows)?)?;
        }
        Ok(())
    }

    async fn once(&self, once: &Once<'_>, taken: &mut Vec<Taken>) -> Result<()> {
        let folder = data_folder()?;
        let files = DataSet::Source.make(&folder, self.files_scale(), SEED)?;
        let volume = once.volume("files", "Filesystem", 4 << 30).await?;
        copy("cp", &["-a", "--reflink=never"], &files.join("."), &volume)?;
        taken.push(once.save("files", "first").await?);
        taken.push(once.save("files", "again").await?);
        taken.push(yardstick::measure(once.s3, &volume, once.number)?);
        once.done_with("files").await?;

        let image = DataSet::Image.make(&folder, Scale(self.scale), SEED)?;
        let bytes = fs::metadata(&image)?.len();
        let volume = once.volume("block", "Block", bytes).await?;
        let length = fs::metadata(&volume)?.len();
        ensure!(
            length == bytes,
            "the volume has {length} bytes, not {bytes}"
        );
        // Nobody has read the device yet: what is in its file is what it has.
        copy("cp", &["--sparse=always"], &image, &volume)?;
        taken.push(once.save("block", "first").await?);
        data::change(&volume, RUN_BYTES, SEED + 1)?;
        taken.push(once.save("block", "2 % changed").await?);
        once.done_with("block").await
    }
}

/// One run, in repositories and namespaces of its own.
struct Once<'a> {
    world: &'a NodeWorld,
    s3: &'a S3Server,
    number: usize,
}

impl Once<'_> {
    /// Of a case in this run: its namespace, its repository and that one's prefix.
    fn name(&self, case: &str) -> String {
        format!("{case}-{}", self.number)
    }

    /// Makes an empty repository, and a volume that a pod has; gives its content.
    async fn volume(&self, case: &str, mode: &str, bytes: u64) -> Result<PathBuf> {
        let (name, client) = (self.name(case), self.world.client());
        let store = Store::at(self.s3, &name);
        store.declare(&client, OPERATOR_NAMESPACE, &name).await?;
        repository_ready(&client, OPERATOR_NAMESPACE, &name, PODS_LIMIT).await?;
        apply_yaml(&client, &holder(&name, mode, bytes)).await?;
        self.world.rolled_out(&name, "deployment/holder").await?;
        self.world.content(&name, "data").await
    }

    /// Measures one Backup, from creating it to its end.
    async fn save(&self, case: &'static str, op: &'static str) -> Result<Taken> {
        println!("… {case}, {op}");
        let name = self.name(case);
        // Also what is still on its way to the disk would cost somebody.
        copy("sync", &[], Path::new(""), Path::new(""))?;
        let mut request = backup(&format!("{name}-{}", op.replace([' ', '%'], "")), &name);
        request.spec.selection.namespaces = vec![name];
        request.spec.volumes = VolumePolicy::Save;
        request.spec.volume_policies = vec![VolumeRule {
            matching: VolumeMatch::default(),
            way: VolumeWay::Move,
            snapshot_class: None,
        }];
        let sampler = Sampler::start();
        let began = Instant::now();
        let client = self.world.client();
        let saved = run(&client, OPERATOR_NAMESPACE, request, LIMIT).await;
        let wall_s = began.elapsed().as_secs_f64();
        let seen = sampler.stop()?;
        let saved = saved?;
        ensure!(saved.complete(), "{}", saved.verdict());
        self.world.nothing_is_left().await?;
        let progress = saved.status.context("no status")?.progress;
        let bytes = progress.bytes_stored + progress.volume_bytes_stored;
        Ok(Taken {
            case,
            op,
            wall_s,
            seen,
            bytes_sent: u64::try_from(bytes)?,
        })
    }

    /// Frees what the case took.
    async fn done_with(&self, case: &str) -> Result<()> {
        let name = self.name(case);
        self.world
            .kubectl(&["delete", "namespace", &name, "--timeout=300s"])
            .await?;
        let repository = format!("repositories.lifebuoy.dev/{name}");
        self.world
            .kubectl(&["delete", "-n", OPERATOR_NAMESPACE, &repository])
            .await?;
        Ok(())
    }
}

/// A namespace with a claim, and a pod that has its volume and does nothing with it.
fn holder(namespace: &str, mode: &str, bytes: u64) -> String {
    let mount = match mode {
        "Block" => "volumeDevices: [{name: data, devicePath: /dev/data}]",
        _ => "volumeMounts: [{name: data, mountPath: /data}]",
    };
    format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{namespace: {namespace}, name: data}}
spec:
  storageClassName: fast
  volumeMode: {mode}
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: '{bytes}'}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{namespace: {namespace}, name: holder}}
spec:
  selector: {{matchLabels: {{app: holder}}}}
  template:
    metadata: {{labels: {{app: holder}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: holder
        image: {BUSYBOX}
        imagePullPolicy: Never
        command: [sleep, '86400']
        {mount}
      volumes:
      - {{name: data, persistentVolumeClaim: {{claimName: data}}}}
"
    )
}

fn copy(program: &str, options: &[&str], from: &Path, to: &Path) -> Result<()> {
    let places = [from, to].into_iter().filter(|path| *path != Path::new(""));
    let mut command = Command::new(program);
    let status = command.args(options).args(places).status()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn data_folder() -> Result<PathBuf> {
    let folder = workspace_root().join("target/bench");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace_root().join("target"), PathBuf::from)
}

fn release_folder() -> PathBuf {
    target_folder().join("release")
}

/// Where the programs of the image are: those of a release, if they were built.
fn binaries() -> Result<PathBuf> {
    let release = release_folder();
    let folder = match release.join("kubectl-lifebuoy").exists() {
        true => release,
        false => target_folder().join("debug"),
    };
    let built = fs::metadata(folder.join("lifebuoy"))
        .with_context(|| format!("no lifebuoy in {}", folder.display()))?
        .modified()?;
    let minutes = built.elapsed().unwrap_or_default().as_secs() / 60;
    println!(
        "the operator's image has the programs in {}, built {minutes} min ago",
        folder.display()
    );
    Ok(folder)
}
