//! One process of the soak: a writer or a collector, for ever, until it is
//! killed. It says on stdout what it may be held to.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::ValueEnum;
use lifebuoy_repo::{
    CollectOptions, Credentials, Error, Location, LocationOptions, ObjectStore, Passphrase,
    Purpose, Repository, SessionId, SessionRequest,
};
use lifebuoy_testkit::s3::REGION;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::payload::{Payload, compare, put};

pub(super) const PASSPHRASE: &str = "the soak of a repository";

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Saves, forgets, restores.
    Writer,
    /// Collects and repacks.
    Collector,
}

/// Internal: one process of the soak.
#[derive(Debug, clap::Args)]
pub(crate) struct Worker {
    #[arg(long)]
    role: Role,
    #[arg(long)]
    url: String,
    #[arg(long)]
    endpoint: String,
    /// Which cluster it is.
    #[arg(long)]
    name: String,
    #[arg(long)]
    seed: u64,
}

/// The store of the soak, with the credentials of the environment.
pub(super) fn store(
    url: &str,
    endpoint: &str,
    credentials: Credentials,
) -> Result<Arc<dyn ObjectStore>> {
    let options = LocationOptions {
        endpoint: Some(endpoint.to_owned()),
        region: Some(REGION.to_owned()),
        allow_http: true,
        ..LocationOptions::default()
    };
    Ok(Location::parse(url, options)?.open(&credentials)?)
}

/// A collection that honours everything at once and soon gives up on the dead.
pub(super) fn eager(stall: Duration) -> CollectOptions {
    CollectOptions {
        delete: true,
        grace: Duration::ZERO,
        keep_at_least: 1,
        delete_percent_max: 100,
        stall,
        poll: Duration::from_millis(200),
        objects_max: 8,
        bytes_min: 1,
    }
}

impl Worker {
    pub(crate) fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(self.work())
    }

    async fn work(self) -> Result<()> {
        let of = |name: &str| Ok((name.to_owned(), std::env::var(name)?));
        let credentials = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(of);
        let credentials = credentials.into_iter().collect::<Result<_>>()?;
        let store = store(&self.url, &self.endpoint, Credentials::new(credentials))?;
        let repository = Repository::open(store, &Passphrase::new(PASSPHRASE)?).await?;
        let mut rng = StdRng::seed_from_u64(self.seed);
        loop {
            let done = match self.role {
                Role::Writer => self.save(&repository, &mut rng).await,
                Role::Collector => self.collect(&repository, &mut rng).await,
            };
            if let Err(error) = done {
                // A collector that fences, a generation that passes: part of life.
                say(&format!("failed {error:#}"))?;
            }
        }
    }

    async fn save(&self, repository: &Repository, rng: &mut StdRng) -> Result<()> {
        let cluster = repository.cluster_key(&self.name);
        let id = SessionId::random(rng);
        let writer = repository
            .begin(SessionRequest {
                id,
                cluster,
                purpose: Purpose::Backup,
                label: Bytes::new(),
            })
            .await?;
        // All writers draw from one window that moves, so that they share chunks
        // and chunks fall out of use.
        let window = rng.random_range(0..8) * 40;
        let count = rng.random_range(5..60);
        let numbers: Vec<u64> = (0..count).map(|_| window + rng.next_u64() % 120).collect();
        let root = put(&writer, &numbers).await?;
        if rng.random_bool(0.05) {
            writer.abandon().await;
            return Ok(());
        }
        let snapshot = writer.commit(root, Bytes::new()).await?;
        say(&format!("committed {}", snapshot.session))?;
        self.forget_and_restore(repository, rng).await
    }

    async fn forget_and_restore(&self, repository: &Repository, rng: &mut StdRng) -> Result<()> {
        let cluster = repository.cluster_key(&self.name);
        let listed = repository.snapshots().await?.snapshots;
        let own: Vec<_> = listed
            .iter()
            .filter(|s| s.cluster == cluster && !s.forgotten)
            .collect();
        while own.len() > 6 && rng.random_bool(0.7) {
            let victim = own[rng.random_range(0..own.len() - 1)].session;
            say(&format!("forgetting {victim}"))?;
            repository.forget(victim, "the soak").await?;
            if rng.random_bool(0.5) {
                break;
            }
        }
        if let Some(any) = listed.iter().find(|s| !s.forgotten && rng.random_bool(0.2)) {
            self.restore(repository, any.session).await?;
        }
        Ok(())
    }

    /// Reads a snapshot of any cluster, which may be forgotten meanwhile.
    async fn restore(&self, repository: &Repository, session: SessionId) -> Result<()> {
        let cluster = repository.cluster_key(&self.name);
        let hold = match repository.hold(session, cluster).await {
            Ok(hold) => hold,
            Err(Error::Forgotten { .. } | Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let snapshots = repository.snapshots().await?.snapshots;
        let held = snapshots.iter().find(|s| s.session == session);
        let compared = compare(repository, held.context("a held snapshot is gone")?).await;
        hold.release().await;
        match compared {
            Ok(chunks) => say(&format!("restored {session} {chunks}")),
            Err(error) => say(&format!("DIFFERENT {session} {error:#}")),
        }
    }

    async fn collect(&self, repository: &Repository, rng: &mut StdRng) -> Result<()> {
        let cluster = repository.cluster_key(&self.name);
        if rng.random_bool(0.3) {
            let packed = repository.repack(&Payload, cluster, 60, u64::MAX).await?;
            say(&format!("repacked {}", packed.packs))?;
        }
        let options = eager(Duration::from_secs(4));
        let report = repository.collect(&Payload, &options).await?;
        say(&format!(
            "collected {:?} deleted {} fenced {}",
            report.generation, report.deleted_packs, report.fenced
        ))?;
        tokio::time::sleep(Duration::from_millis(rng.random_range(10..1500))).await;
        Ok(())
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
