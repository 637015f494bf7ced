//! Saving volumes on a real node and bringing them back, through the operator and its
//! movers; beside `lifebuoy repo` and `tar | zstd` on the same data and S3 server.
//!
//! Once outside, which makes the data; the rest in namespaces of its own. It
//! measures and prints, and never judges; it fails where a request is not complete.

mod direct;
mod rows;
mod sampling;
mod yardstick;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lifebuoy_api::{NameMapping, VolumeWay};
use lifebuoy_data::What;
use lifebuoy_scenarios::{
    Ended, Kind, NodeWorld, OPERATOR_NAMESPACE, PODS_LIMIT, Store, backup_of_volumes, newest_of,
    repository_ready, restore, run, start_holder_of,
};
use lifebuoy_testkit::node::images;
use lifebuoy_testkit::tools::workspace_root;
use lifebuoy_testkit::{S3Server, directory, install_tls_provider, namespace};

use super::repo::data::{self, DataSet, Scale};
use super::repo::process;
use rows::Taken;
use sampling::Sampler;

/// How long one operation, and all of them, may take.
const LIMIT: Duration = Duration::from_secs(3600);
const RUN_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// The source files of a whole data set are 1.2 GB: so much of them is 1 GB.
const FILES_SCALE: f64 = 0.83;
const RUN_BYTES: usize = 4 << 20;
/// Volumes that are saved at once.
const VOLUMES: usize = 20;
const SEED: u64 = 7;

/// What is measured.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// What is measured; without it, all.
    #[arg(long, value_enum, value_delimiter = ',')]
    case: Vec<Which>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// One volume of 1 GB in small files.
    Files,
    /// One block volume of 4 GB, of which 2 % change.
    Block,
    /// As many files in twenty volumes at once.
    Twenty,
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
        if self.measures(Which::Files) {
            taken.extend(self.files(once).await?);
        }
        if self.measures(Which::Block) {
            taken.extend(self.block(once).await?);
        }
        if self.measures(Which::Twenty) {
            taken.extend(self.many(once).await?);
        }
        Ok(())
    }

    fn measures(&self, which: Which) -> bool {
        self.case.is_empty() || self.case.contains(&which)
    }

    /// One volume of files.
    async fn files(&self, once: &Once<'_>) -> Result<Vec<Taken>> {
        let files = DataSet::Source.make(&data_folder()?, self.files_scale(), SEED)?;
        let case = once.case("files");
        let volume = &case.volumes(false, 4 << 30, 1).await?[0];
        copy(&["-a", "--reflink=never"], &files.join("."), volume)?;
        let mut taken = vec![case.save("first").await?, case.save("again").await?];
        taken.push(case.restore().await?);
        taken.extend(direct::measure(&case, What::Files, volume)?);
        taken.push(yardstick::measure(once.s3, volume, once.number)?);
        case.done().await?;
        Ok(taken)
    }

    /// One block volume, of which a third is written.
    async fn block(&self, once: &Once<'_>) -> Result<Vec<Taken>> {
        let image = DataSet::Image.make(&data_folder()?, Scale(self.scale), SEED)?;
        let bytes = fs::metadata(&image)?.len();
        let case = once.case("block");
        let volume = &case.volumes(true, bytes, 1).await?[0];
        let length = fs::metadata(volume)?.len();
        ensure!(
            length == bytes,
            "the volume has {length} bytes, not {bytes}"
        );
        // Nobody has read the device yet: what is in its file is what it has.
        copy(&["--sparse=always"], &image, volume)?;
        let mut taken = vec![case.save("first").await?];
        data::change(volume, RUN_BYTES, SEED + 1)?;
        taken.push(case.save("2 % changed").await?);
        taken.push(case.restore().await?);
        taken.extend(direct::measure(&case, What::Device, volume)?);
        case.done().await?;
        Ok(taken)
    }

    /// As many files, in many volumes at once.
    async fn many(&self, once: &Once<'_>) -> Result<Vec<Taken>> {
        let scale = Scale(self.files_scale().0 / VOLUMES as f64);
        let case = once.case("twenty");
        let volumes = case.volumes(false, 1 << 30, VOLUMES).await?;
        for (seed, volume) in (SEED..).zip(&volumes) {
            let folder = data_folder()?.join(format!("part-{seed}"));
            let files = DataSet::Source.make(&folder, scale, seed)?;
            copy(&["-a", "--reflink=never"], &files.join("."), volume)?;
        }
        let taken = vec![case.save("first").await?, case.restore().await?];
        case.done().await?;
        Ok(taken)
    }
}

/// One run.
struct Once<'a> {
    world: &'a NodeWorld,
    s3: &'a S3Server,
    number: usize,
}

impl Once<'_> {
    /// A case of this run, with a repository and namespaces of its own.
    fn case(&self, case: &'static str) -> Case<'_> {
        let name = format!("{case}-{}", self.number);
        Case {
            world: self.world,
            case,
            store: Store::at(self.s3, &name),
            direct: Store::at(self.s3, &format!("{name}-direct")),
            name,
        }
    }
}

/// One case in one run.
struct Case<'a> {
    world: &'a NodeWorld,
    case: &'static str,
    /// Of its namespace, of its repository and of that one's prefix.
    name: String,
    store: Store,
    /// Where `lifebuoy repo` saves.
    direct: Store,
}

impl Case<'_> {
    /// Makes an empty repository, and empty volumes that a pod has; gives their contents.
    async fn volumes(&self, block: bool, bytes: u64, count: usize) -> Result<Vec<PathBuf>> {
        let client = self.world.client();
        self.store
            .declare(&client, OPERATOR_NAMESPACE, &self.name)
            .await?;
        repository_ready(&client, OPERATOR_NAMESPACE, &self.name, PODS_LIMIT).await?;
        start_holder_of(self.world, &self.name, count, block, bytes).await
    }

    /// Measures one Backup, from creating it to its end.
    async fn save(&self, op: &'static str) -> Result<Taken> {
        let name = format!("{}-{}", self.name, op.replace([' ', '%'], ""));
        let request = backup_of_volumes(&name, &self.name, &self.name, VolumeWay::Move);
        let (taken, saved) = self.measure(op, request).await?;
        ensure!(saved.complete(), "{}", saved.verdict());
        let progress = saved.status.context("no status")?.progress;
        let bytes = progress.bytes_stored + progress.volume_bytes_stored;
        Ok(Taken {
            bytes_sent: u64::try_from(bytes)?,
            ..taken
        })
    }

    /// Measures the Restore of the newest recovery point into another namespace.
    async fn restore(&self) -> Result<Taken> {
        let mut request = restore(&self.name, newest_of(&self.name, "a"));
        let back = self.back();
        request.spec.mapping.namespaces = vec![NameMapping {
            from: self.name.clone(),
            to: back.clone(),
        }];
        let (taken, restored) = self.measure("restore", request).await?;
        ensure!(restored.complete(), "{}", restored.verdict());
        self.world.rolled_out(&back, "deployment/holder").await?;
        self.remove_namespace(&back).await?;
        Ok(taken)
    }

    fn back(&self) -> String {
        format!("{}-back", self.name)
    }

    async fn measure<K: Kind + Ended>(&self, op: &'static str, request: K) -> Result<(Taken, K)> {
        println!("… {}, {op}", self.case);
        // What is still on its way to the disk would cost somebody.
        nix::unistd::sync();
        let sampler = Sampler::start();
        let began = Instant::now();
        let ended = run(&self.world.client(), OPERATOR_NAMESPACE, request, LIMIT).await;
        let wall_s = began.elapsed().as_secs_f64();
        let seen = sampler.stop()?;
        let ended = ended?;
        if seen.operators_begun > 0 {
            println!("  the operator ended meanwhile and began again, which takes time:");
            self.last_words().await;
        }
        let taken = Taken {
            case: self.case,
            op,
            wall_s,
            seen,
            bytes_sent: 0,
        };
        Ok((taken, ended))
    }

    /// What an operator said before it ended.
    async fn last_words(&self) {
        for deployment in ["deployment/lifebuoy-backup", "deployment/lifebuoy-restore"] {
            let words = ["logs", "--previous", "--tail=5", "-n", OPERATOR_NAMESPACE];
            let said = self
                .world
                .kubectl(&[&words[..], &[deployment]].concat())
                .await;
            println!(
                "{deployment}: {}",
                said.unwrap_or_else(|error| error.to_string())
            );
        }
    }

    /// Frees what the case took.
    async fn done(&self) -> Result<()> {
        self.remove_namespace(&self.name).await?;
        let repository = format!("repositories.lifebuoy.dev/{}", self.name);
        self.world
            .kubectl(&["delete", "-n", OPERATOR_NAMESPACE, &repository])
            .await?;
        self.world.nothing_is_left().await
    }

    async fn remove_namespace(&self, name: &str) -> Result<()> {
        self.world
            .kubectl(&["delete", "namespace", name, "--timeout=300s"])
            .await?;
        Ok(())
    }
}

/// What a program costs, which finds nothing on its way to the disk.
fn cost(command: &Command, log: &str) -> Result<process::Cost> {
    nix::unistd::sync();
    let log = directory::root().join(log);
    tokio::task::block_in_place(|| process::measure(command, &log))
}

fn copy(options: &[&str], from: &Path, to: &Path) -> Result<()> {
    succeed(Command::new("cp").args(options).args([from, to]))
}

fn btrfs(verb: &str, places: &[&Path]) -> Result<()> {
    let mut command = Command::new("btrfs");
    succeed(command.args(["--quiet", "subvolume", verb]).args(places))
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status()?;
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
