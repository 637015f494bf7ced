//! Many writers and several collectors on one bucket of a real S3 server, killed
//! all the time: everything that was committed must be there in the end, and the
//! garbage must not.

mod payload;
mod worker;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lifebuoy_repo::{
    CollectOptions, CollectReport, Credentials, KdfCost, Passphrase, Repository, Snapshot,
};
use lifebuoy_testkit::process::{Process, ProcessSpec};
use lifebuoy_testkit::{S3Server, TestDirectory};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;

pub(crate) use worker::Worker;

use payload::{Payload, compare};
use worker::{PASSPHRASE, Role, eager, store};

/// Runs writers and collectors on one bucket, and kills them.
#[derive(Debug, clap::Args)]
pub(crate) struct Soak {
    /// For how long, in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// How many writers.
    #[arg(long, default_value_t = 3)]
    writers: usize,
    /// How many collectors.
    #[arg(long, default_value_t = 2)]
    collectors: usize,
    /// Somebody is killed after at most so many milliseconds.
    #[arg(long, default_value_t = 4000)]
    kill_every_ms: u64,
    /// What the run follows from, as far as processes let it.
    #[arg(long)]
    seed: Option<u64>,
    /// Writes the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Figures {
    seed: u64,
    seconds: u64,
    kills: u64,
    commits: usize,
    forgotten: usize,
    restores: usize,
    collections: usize,
    failures: usize,
    snapshots_left: usize,
    chunks_compared: usize,
    generation: Option<u64>,
    garbage_packs_left: u64,
    objects_left: usize,
}

/// What the processes said.
#[derive(Debug, Default)]
struct Said {
    committed: BTreeSet<String>,
    forgetting: BTreeSet<String>,
    different: Vec<String>,
    restores: usize,
    collections: usize,
    failures: usize,
}

impl Soak {
    pub(crate) fn run(&self) -> Result<()> {
        let runtime = tokio::runtime::Runtime::new()?;
        let figures = runtime.block_on(self.soak())?;
        let text = serde_json::to_string_pretty(&figures)?;
        println!("{text}");
        if let Some(file) = &self.json {
            fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    async fn soak(&self) -> Result<Figures> {
        let seed = self.seed.unwrap_or_else(rand::random);
        println!("seed {seed}");
        let mut folder = TestDirectory::new("soak")?;
        let s3 = S3Server::start(folder.path().join("s3")).await?;
        let place = Place::new(&s3)?;
        let repository = place.init().await?;

        let kills = self.let_them_work(&place, &folder, seed).await?;
        println!("all processes are killed; reading what they left");
        let said = listen(&folder)?;
        ensure!(
            said.different.is_empty(),
            "restores differ: {:?}",
            said.different
        );
        let before = verify(&repository, &said).await?;
        let generation = drain(&repository).await?;
        let (snapshots, chunks) = verify(&place.open().await?, &said).await?;
        ensure!(before.0 >= snapshots, "snapshots appeared");
        let left = leftovers(&place.open().await?, snapshots).await?;
        folder.passed();
        Ok(Figures {
            seed,
            seconds: self.seconds,
            kills,
            commits: said.committed.len(),
            forgotten: said.forgetting.len(),
            restores: said.restores,
            collections: said.collections,
            failures: said.failures,
            snapshots_left: snapshots,
            chunks_compared: chunks,
            generation,
            garbage_packs_left: left.garbage_packs,
            objects_left: count_files(&s3.bucket_directory())?,
        })
    }

    async fn let_them_work(&self, place: &Place, folder: &TestDirectory, seed: u64) -> Result<u64> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut crew = Vec::new();
        for i in 0..self.writers + self.collectors {
            let role = if i < self.writers {
                Role::Writer
            } else {
                Role::Collector
            };
            crew.push((role, i, place.spawn(role, i, 0, seed, folder)?));
        }
        let begun = Instant::now();
        let mut kills = 0;
        while begun.elapsed() < Duration::from_secs(self.seconds) {
            let wait = rng.random_range(self.kill_every_ms / 4..=self.kill_every_ms);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let victim = rng.random_range(0..crew.len());
            let (role, i, process) = &mut crew[victim];
            if let Some(status) = process.exited()? {
                anyhow::bail!(
                    "{} ended: {status}\n{}",
                    process.name(),
                    process.log_tail(2000)
                );
            }
            process.kill();
            kills += 1;
            *process = place.spawn(*role, *i, kills, seed, folder)?;
            if kills % 20 == 0 {
                println!("{} s, {kills} kills", begun.elapsed().as_secs());
            }
        }
        Ok(kills)
    }
}

/// Where the repository is.
struct Place {
    url: String,
    endpoint: String,
    access_key: String,
    secret_key: String,
    program: PathBuf,
}

impl Place {
    fn new(s3: &S3Server) -> Result<Self> {
        Ok(Self {
            url: format!("{}/soak", s3.url()),
            endpoint: s3.endpoint(),
            access_key: s3.access_key().to_owned(),
            secret_key: s3.secret_key().to_owned(),
            program: std::env::current_exe()?,
        })
    }

    fn store(&self) -> Result<std::sync::Arc<dyn lifebuoy_repo::ObjectStore>> {
        let pairs = [
            ("AWS_ACCESS_KEY_ID", &self.access_key),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_key),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.clone()));
        store(&self.url, &self.endpoint, Credentials::new(pairs.into()))
    }

    async fn init(&self) -> Result<Repository> {
        let passphrase = Passphrase::new(PASSPHRASE)?;
        Ok(Repository::init(self.store()?, &passphrase, KdfCost::cheapest()).await?)
    }

    async fn open(&self) -> Result<Repository> {
        Ok(Repository::open(self.store()?, &Passphrase::new(PASSPHRASE)?).await?)
    }

    fn spawn(
        &self,
        role: Role,
        i: usize,
        life: u64,
        seed: u64,
        folder: &TestDirectory,
    ) -> Result<Process> {
        let name = format!("{role:?}-{i}").to_lowercase();
        let log = folder.path().join(format!("{name}.log"));
        let seed = seed.wrapping_add(i as u64 * 1_000_003).wrapping_add(life);
        let spec = ProcessSpec::new(&name, &self.program, log)
            .arg("soak-worker")
            .args(["--role", &format!("{role:?}").to_lowercase()])
            .args(["--url", &self.url, "--endpoint", &self.endpoint])
            .args(["--name", &name, "--seed", &seed.to_string()])
            .env("AWS_ACCESS_KEY_ID", &self.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret_key);
        Process::spawn(spec)
    }
}

fn listen(folder: &TestDirectory) -> Result<Said> {
    let mut said = Said::default();
    for entry in fs::read_dir(folder.path())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        for line in fs::read_to_string(&path)?.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "committed" => drop(said.committed.insert(rest.to_owned())),
                "forgetting" => drop(said.forgetting.insert(rest.to_owned())),
                "restored" => said.restores += 1,
                "collected" => said.collections += 1,
                "failed" => said.failures += 1,
                "DIFFERENT" => said.different.push(rest.to_owned()),
                _ => {}
            }
        }
    }
    Ok(said)
}

/// Compares every snapshot that is listed, and that every commit that was
/// acknowledged and not forgotten is among them.
async fn verify(repository: &Repository, said: &Said) -> Result<(usize, usize)> {
    let listed = repository.snapshots().await?;
    ensure!(
        listed.unreadable.is_empty(),
        "unreadable: {:?}",
        listed.unreadable
    );
    let is_due = |snapshot: &&Snapshot| !snapshot.forgotten;
    let snapshots: Vec<_> = listed.snapshots.iter().filter(is_due).collect();
    let there: BTreeSet<String> = snapshots.iter().map(|s| s.session.to_string()).collect();
    let due = said.committed.difference(&said.forgetting);
    let lost: Vec<_> = due.filter(|session| !there.contains(*session)).collect();
    ensure!(lost.is_empty(), "acknowledged commits are lost: {lost:?}");
    let mut chunks = 0;
    for snapshot in &snapshots {
        chunks += compare(repository, snapshot).await?;
    }
    println!("{} snapshots, {chunks} chunks compared", snapshots.len());
    Ok((snapshots.len(), chunks))
}

/// Collects until there is nothing left to collect.
async fn drain(repository: &Repository) -> Result<Option<u64>> {
    let mut newest = None;
    let options = CollectOptions {
        objects_max: 1,
        ..eager(Duration::from_millis(500))
    };
    for _ in 0..4 {
        let report = repository.collect(&Payload, &options).await?;
        newest = report.generation.or(newest);
    }
    Ok(newest)
}

/// Nothing may be there that nobody needs.
async fn leftovers(repository: &Repository, snapshots: usize) -> Result<CollectReport> {
    let dry = CollectOptions {
        delete: false,
        ..eager(Duration::ZERO)
    };
    let report = repository.collect(&Payload, &dry).await?;
    ensure!(
        report.garbage_packs == 0,
        "garbage is left after the last collection: {report:?}"
    );
    ensure!(report.snapshots as usize == snapshots, "{report:?}");
    Ok(report)
}

fn count_files(folder: &std::path::Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() {
            count_files(&entry.path())?
        } else {
            1
        };
    }
    Ok(count)
}
