//! The last release writes while this one upgrades the repository, writes, forgets
//! and collects: no backup that either of them acknowledged is lost.

mod last_release;
mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifebuoy_engine::archive::ArchiveContents;
use lifebuoy_repo::{
    CheckLevel, CheckOptions, CollectOptions, Credentials, Location, LocationOptions, Passphrase,
    Repository, SessionId,
};
use lifebuoy_testkit::TestDirectory;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use last_release::{
    ACKNOWLEDGED, CANNOT_OPEN, FENCED, NOT_ACKNOWLEDGED, PASSPHRASE, Programs, REFUSED, Served,
};

const OLD: &str = "old";
const NEW: &str = "new";
const GENERATIONS: u64 = 4;
/// Nothing that is waited for takes longer, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);
/// A session that does not move for this long is fenced.
const STALL: Duration = Duration::from_secs(2);

/// The snapshots that were acknowledged, and which version each holds.
#[derive(Clone, Default)]
struct Acknowledged(Arc<Mutex<BTreeMap<SessionId, usize>>>);

impl Acknowledged {
    fn add(&self, session: SessionId, version: usize) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(session, version);
    }

    fn all(&self) -> BTreeMap<SessionId, usize> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }

    async fn reach(&self, count: usize) -> Result<()> {
        until("acknowledged backups", || self.all().len() >= count).await
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = timeout(PATIENCE, wait).await;
    waited.with_context(|| format!("waited in vain for {what}"))
}

async fn open(bucket: &Path) -> Result<Repository> {
    let url = format!("file://{}", bucket.display());
    let store = Location::parse(&url, LocationOptions::default())?.open(&Credentials::default())?;
    Ok(Repository::open(store, &Passphrase::new(PASSPHRASE)?).await?)
}

/// Saves one version after another with the last release, until it refuses: that
/// is when the first collection has begun.
fn save_until_refused(mut old: Served, acknowledged: Acknowledged) -> JoinHandle<Result<()>> {
    spawn_blocking(move || {
        for version in 10.. {
            let session = random();
            match old.save(OLD, session, version)? {
                ACKNOWLEDGED => acknowledged.add(session, version),
                // Committed after the collection waited for it, as far as it knows.
                NOT_ACKNOWLEDGED | FENCED => {}
                REFUSED => break,
                code => anyhow::bail!("exit code {code}"),
            }
        }
        Ok(())
    })
}

/// Saves one version after another with this release, for ever.
fn save_for_ever(repo: Repository, acknowledged: Acknowledged) -> JoinHandle<()> {
    tokio::spawn(async move {
        for version in 1000.. {
            // One that a collector fences is not acknowledged.
            if let Ok((session, _)) = objects::save(&repo, NEW, version).await {
                acknowledged.add(session, version);
            }
            sleep(Duration::from_millis(200)).await;
        }
    })
}

fn random() -> SessionId {
    SessionId::random(&mut rand::rng())
}

fn eager() -> CollectOptions {
    CollectOptions {
        delete: true,
        grace: Duration::ZERO,
        keep_at_least: 0,
        delete_percent_max: 100,
        stall: STALL,
        poll: Duration::from_millis(50),
        objects_max: 1,
        bytes_min: 1,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_release_and_this_one_lose_nothing_in_one_repository() -> Result<()> {
    let mut folder = TestDirectory::new("two-releases")?;
    let programs = Programs::new(folder.path())?;
    let made = programs.run("golden_writer.py", &["init"])?;
    ensure!(made.0 == 0, "{made:?}");
    let (mut free, mut held, mut lost) = (programs.serve()?, programs.serve()?, programs.serve()?);
    let (old, new) = (Acknowledged::default(), Acknowledged::default());

    // Both in format 1.
    for version in 0..3 {
        let session = random();
        ensure!(free.save(OLD, session, version)? == ACKNOWLEDGED);
        old.add(session, version);
    }
    let repo = open(&programs.bucket()).await?;
    ensure!(repo.format_version() == 1);
    let (session, stats) = objects::save(&repo, NEW, 2).await?;
    ensure!(stats.chunks_reused > 0, "it shares nothing: {stats:?}");
    new.add(session, 2);
    // Two that are at work when the rest happens.
    let (held_session, lost_session) = (random(), random());
    held.save_until("commit", OLD, held_session, 3)?;
    lost.save_until("packs", OLD, lost_session, 4)?;

    // What is open goes on; what is not cannot be opened.
    let upgraded = repo.upgrade().await?;
    let late = programs.run(
        "golden_writer.py",
        &["forget", "--session", &"0".repeat(32)],
    )?;
    ensure!(late.0 == CANNOT_OPEN, "{late:?}");
    let refused = save_until_refused(free, old.clone());
    let saving = [repo, upgraded.clone()].map(|repo| save_for_ever(repo, new.clone()));
    old.reach(12).await?;
    new.reach(6).await?;

    let mut forgotten = BTreeSet::new();
    forget(&upgraded, [&old, &new], &mut forgotten).await?;
    let first = old.all().into_keys().find(|id| !forgotten.contains(id));
    let first = first.context("nothing is left to forget")?;
    let collecting = collect(upgraded.clone());
    // This collection waits for both of them.
    until("a plan", || programs.bucket().join("gc/1.plan").exists()).await?;
    match held.go_on()? {
        ACKNOWLEDGED => old.add(held_session, 3),
        NOT_ACKNOWLEDGED | FENCED => {}
        code => anyhow::bail!("exit code {code}"),
    }
    held.forget(first)?;
    forgotten.insert(first);
    let done = timeout(PATIENCE, collecting).await???;
    ensure!(done.generation == Some(1), "{done:?}");
    // By now its fence may be tidied up, and its commit count for nothing.
    let code = lost.go_on()?;
    ensure!([FENCED, NOT_ACKNOWLEDGED].contains(&code), "{code}");
    let listed = upgraded.snapshots().await?.snapshots;
    ensure!(
        listed
            .iter()
            .all(|snapshot| snapshot.session != lost_session)
    );
    timeout(PATIENCE, refused).await???;

    let mut deleted = done.deleted_packs;
    for generation in 2..=GENERATIONS {
        forget(&upgraded, [&old, &new], &mut forgotten).await?;
        let done = timeout(PATIENCE, collect(upgraded.clone())).await???;
        ensure!(done.generation == Some(generation), "{done:?}");
        deleted += done.deleted_packs;
    }
    ensure!(deleted > 0, "nothing was collected");
    for saving in saving {
        saving.abort();
        // It ends by being aborted.
        let _ = saving.await;
    }
    verify(&programs, &forgotten, [&old, &new]).await?;
    folder.passed();
    Ok(())
}

fn collect(repo: Repository) -> JoinHandle<Result<lifebuoy_repo::CollectReport>> {
    tokio::spawn(async move { Ok(repo.collect(&ArchiveContents, &eager()).await?) })
}

/// Asks to forget every fourth snapshot of each that is left.
async fn forget(
    repo: &Repository,
    of_both: [&Acknowledged; 2],
    forgotten: &mut BTreeSet<SessionId>,
) -> Result<()> {
    for acknowledged in of_both {
        let mut left = acknowledged.all();
        left.retain(|session, _| !forgotten.contains(session));
        for session in left.into_keys().step_by(4) {
            repo.forget(session, "too old").await?;
            forgotten.insert(session);
        }
    }
    Ok(())
}

/// Reads everything that may not be lost, and lets the independent reader do so.
async fn verify(
    programs: &Programs,
    forgotten: &BTreeSet<SessionId>,
    of_both: [&Acknowledged; 2],
) -> Result<()> {
    let repo = open(&programs.bucket()).await?;
    for acknowledged in of_both {
        let mut compared = 0;
        for (session, version) in acknowledged.all() {
            if forgotten.contains(&session) {
                continue;
            }
            let compare = objects::compare(&repo, session, version).await;
            compare.with_context(|| format!("snapshot {session}"))?;
            compared += 1;
        }
        ensure!(compared > 1, "too little is left to compare");
    }
    let options = CheckOptions::new(CheckLevel::All);
    let report = repo.check(&ArchiveContents, &options).await?;
    ensure!(report.is_clean(), "{report:?}");
    let (code, said) = programs.run("lifebuoy_reader.py", &["verify"])?;
    ensure!(code == 0, "{said}");
    Ok(())
}
