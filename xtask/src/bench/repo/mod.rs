//! Saving files and block devices, side by side with the programs that people use
//! for it, on the same data in one run.

pub(crate) mod data;
pub(crate) mod process;
mod table;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lifebuoy_testkit::counting_proxy::CountingProxy;
use lifebuoy_testkit::s3::{BUCKET, REGION, S3Server};
use lifebuoy_testkit::tools::workspace_root;
use serde::Serialize;

use data::{DataSet, Scale};
use process::Cost;
use tools::{Bucket, Place, Store, Tool};

/// What is measured.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Data sets; without it, all.
    #[arg(long, value_enum, value_delimiter = ',')]
    dataset: Vec<DataSet>,
    /// Programs to compare; without it, all that are installed.
    #[arg(long, value_enum, value_delimiter = ',')]
    tool: Vec<Tool>,
    /// How often everything is measured; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How large the data sets are, of the whole.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Where the repositories are.
    #[arg(long, value_enum, default_value = "directory")]
    store: Where,
    /// Latency that is added to each request to the S3 server, in milliseconds.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// Seed of the data.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Where the data, the repositories and what is restored are made. Needs about 30 GB
    /// for one run of all programs, and 32 GB for each further one of the tiny files.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Also writes the figures to this file, as JSON: a list with a row for each data
    /// set, program and operation.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Where {
    /// A local directory.
    Directory,
    /// The testkit's S3 server.
    S3,
}

/// An operation that was measured, once each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Backup,
    Again,
    Restore,
    Check,
    Collect,
}

/// The figures of one operation: medians of all runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    dataset: String,
    tool: &'static str,
    version: String,
    op: Operation,
    wall_s: f64,
    /// From the fastest to the slowest run.
    wall_spread_s: [f64; 2],
    cpu_s: f64,
    peak_mib: f64,
    /// Bytes of the repository after the operation.
    repo_mib: f64,
    /// What the operation added to it.
    added_mib: f64,
    /// Of the data that is saved.
    data_mib: f64,
    /// Requests to the S3 server, of all verbs, in the last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
}

/// One operation in one run.
struct Taken {
    dataset: String,
    op: Operation,
    cost: Cost,
    repo_mib: f64,
    added_mib: f64,
    requests: Option<u64>,
}

/// The S3 server, if that is where the repositories are.
struct Remote {
    proxy: CountingProxy,
    server: S3Server,
}

impl Options {
    /// Measures everything and prints it.
    pub(crate) async fn run(&self) -> Result<()> {
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => workspace_root().join("target/bench"),
        };
        fs::create_dir_all(&folder)?;
        let tools = self.tools()?;
        let mut rows = Vec::new();
        let sets = match self.dataset.as_slice() {
            [] => DataSet::ALL.to_vec(),
            some => some.to_vec(),
        };
        for set in sets {
            let mut taken: Vec<Vec<Taken>> = tools.iter().map(|_| Vec::new()).collect();
            let mut data_mib = 0.0;
            let restored = folder.join("restored");
            remove(&restored)?;
            for run in 0..self.runs.max(1) {
                for (tool, taken) in tools.iter().zip(&mut taken) {
                    println!("… {}, {}, run {}", set.name(), tool.0.name(), run + 1);
                    let path = set.make(&folder, Scale(self.scale), self.seed)?;
                    // All find the data in memory, and memory as full.
                    data_mib = read_all(&path)?;
                    // Not deleted before all is measured: ext4 without a journal is slow to
                    // make files for minutes after many were deleted.
                    let target = restored.join(format!("{}-{run}", tool.0.name()));
                    match self.measure(set, tool.0, &path, &folder, &target).await? {
                        Some(one) => taken.extend(one),
                        None => println!("  {} cannot store there", tool.0.name()),
                    }
                }
            }
            for (tool, taken) in tools.iter().zip(taken) {
                rows.extend(table::medians(tool, &taken, data_mib));
            }
            if let Some(file) = &self.json {
                fs::write(file, serde_json::to_string_pretty(&rows)?)?;
            }
            println!("{}", table::table(&rows, set.name()));
            remove(&restored)?;
        }
        Ok(())
    }

    /// The tools that are there, with their versions.
    fn tools(&self) -> Result<Vec<(Tool, String)>> {
        let all = [Tool::Lifebuoy, Tool::Restic, Tool::Rustic, Tool::Borg];
        let mut found = Vec::new();
        for tool in all {
            let is_wanted = self.tool.is_empty() || self.tool.contains(&tool);
            match tool.version() {
                Ok(version) if is_wanted => found.push((tool, version)),
                Err(error) if self.tool.contains(&tool) || tool == Tool::Lifebuoy => {
                    return Err(error);
                }
                Err(error) if is_wanted => println!("SKIPPED: {error:#}"),
                _ => {}
            }
        }
        if found.is_empty() {
            bail!("no program to measure");
        }
        Ok(found)
    }

    /// All operations of one tool on one data set, once. `None` if the tool cannot
    /// store at that place.
    async fn measure(
        &self,
        set: DataSet,
        tool: Tool,
        path: &Path,
        folder: &Path,
        target: &Path,
    ) -> Result<Option<Vec<Taken>>> {
        let work = folder.join("work");
        remove(&work)?;
        let (home, bucket) = (work.join("home"), work.join("repository"));
        fs::create_dir_all(&home)?;
        fs::create_dir_all(&bucket)?;
        let remote = match self.store {
            Where::Directory => None,
            Where::S3 => Some(self.remote(&bucket).await?),
        };
        let place = match &remote {
            None => Place::Directory(bucket.clone()),
            Some(remote) => remote.place(),
        };
        let store = Store {
            tool,
            place: &place,
            home: &home,
        };
        if !store.is_possible() {
            return Ok(None);
        }
        store.init()?;
        let mut run = Run {
            set,
            path,
            store,
            bucket: &bucket,
            remote: &remote,
            taken: Vec::new(),
        };
        run.all(target, self.seed)?;
        let taken = run.taken;
        fs::remove_dir_all(&work)?;
        Ok(Some(taken))
    }

    async fn remote(&self, folder: &Path) -> Result<Remote> {
        let server = S3Server::start(folder).await?;
        let proxy = CountingProxy::start(&server.endpoint()).await?;
        proxy.set_latency(Duration::from_millis(self.latency_ms));
        Ok(Remote { proxy, server })
    }
}

impl Remote {
    fn place(&self) -> Place {
        Place::S3(Bucket {
            endpoint: self.proxy.endpoint(),
            name: BUCKET.to_owned(),
            region: REGION.to_owned(),
            folder: "benchmark".to_owned(),
            access_key: self.server.access_key().to_owned(),
            secret_key: self.server.secret_key().to_owned(),
        })
    }
}

/// One tool at work on one data set.
struct Run<'a> {
    set: DataSet,
    path: &'a Path,
    store: Store<'a>,
    /// Where the objects are, whoever serves them.
    bucket: &'a Path,
    remote: &'a Option<Remote>,
    taken: Vec<Taken>,
}

impl Run<'_> {
    fn all(&mut self, target: &Path, seed: u64) -> Result<()> {
        let (set, path) = (self.set, self.path);
        let device = set.is_device();
        let name = set.name();
        self.take(name, Operation::Backup, |store| {
            store.save(path, device, "first")
        })?;
        self.take(name, Operation::Again, |store| {
            store.save(path, device, "again")
        })?;
        let mut newest = "again";
        if device {
            data::change(path, 4 << 20, seed + 1)?;
            self.take("image, 2 % in 4 MiB", Operation::Again, |store| {
                store.save(path, true, "runs")
            })?;
            data::change(path, 8 << 10, seed + 2)?;
            self.take("image, 2 % in 8 KiB", Operation::Again, |store| {
                store.save(path, true, "pages")
            })?;
            newest = "pages";
        }
        fs::create_dir_all(target)?;
        self.take(name, Operation::Restore, |store| {
            store.restore(newest, device, target)
        })?;
        compare(path, target).with_context(|| format!("{} restored", self.store.tool.name()))?;
        self.take(name, Operation::Check, |store| store.check())?;
        if !device {
            // A tenth of the data is gone, and with it what only older saves need.
            self.store.save(&path.join("kept"), false, "kept")?;
        }
        self.take(name, Operation::Collect, |store| store.collect())
    }

    fn take(
        &mut self,
        dataset: &str,
        op: Operation,
        work: impl FnOnce(&Store<'_>) -> Result<Cost>,
    ) -> Result<()> {
        if let Some(remote) = self.remote {
            remote.proxy.reset();
        }
        let before = size_mib(self.bucket)?;
        // What is still on its way to the disk would cost whoever comes next.
        nix::unistd::sync();
        // The testkit's server is served by this runtime's other threads.
        let cost = tokio::task::block_in_place(|| work(&self.store))?;
        let after = size_mib(self.bucket)?;
        self.taken.push(Taken {
            dataset: dataset.to_owned(),
            op,
            cost,
            repo_mib: after,
            added_mib: after - before,
            requests: self
                .remote
                .as_ref()
                .map(|remote| remote.proxy.traffic().total()),
        });
        Ok(())
    }
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

/// Reads everything once; returns the MiB that there are.
fn read_all(path: &Path) -> Result<f64> {
    let mut bytes = 0;
    for file in files(path)? {
        bytes += std::io::copy(&mut fs::File::open(file)?, &mut std::io::sink())?;
    }
    Ok(bytes as f64 / f64::from(1 << 20))
}

fn size_mib(path: &Path) -> Result<f64> {
    let mut bytes = 0;
    for file in files(path)? {
        bytes += file.symlink_metadata()?.len();
    }
    Ok(bytes as f64 / f64::from(1 << 20))
}

/// All files below.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// Refuses figures of a restore that did not restore: the number and the bytes of
/// the files, wherever below the target a tool puts them.
fn compare(saved: &Path, restored: &Path) -> Result<()> {
    let (saved, restored) = (files(saved)?, files(restored)?);
    let bytes = |files: &[PathBuf]| -> Result<u64> {
        files.iter().map(|file| Ok(file.metadata()?.len())).sum()
    };
    let (of_saved, of_restored) = (bytes(&saved)?, bytes(&restored)?);
    if (saved.len(), of_saved) != (restored.len(), of_restored) {
        bail!(
            "{} files of {of_restored} bytes instead of {} of {of_saved}",
            restored.len(),
            saved.len()
        );
    }
    Ok(())
}
