//! What happens in a golden repository: everything that leaves objects of another
//! kind behind. Real backups and collections; only the damage is made by hand.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use lifebuoy_api::{Selection, VolumePolicy};
use lifebuoy_engine::AllContents;
use lifebuoy_engine::capture::{CaptureProgress, CaptureRequest, capture, no_volumes};
use lifebuoy_engine::selection::Selector;
use lifebuoy_repo::{
    CheckLevel, CheckOptions, ChunkKind, CollectOptions, Error as RepoError, Purpose, RepairReport,
    Repository, SessionId, SessionRequest, Writer,
};
use lifebuoy_testkit::sample;
use tokio_util::sync::CancellationToken;

use super::machine::Machine;
use super::{Source, edges};

/// So long that a session at work has written its first heartbeat.
const UNTIL_FIRST_BEAT: Duration = Duration::from_secs(65);
/// So long that a collection has made its plan and waits for a session.
const UNTIL_PLANNED: Duration = Duration::from_secs(5);

/// A repository, and the clusters that are saved in it.
pub(super) struct Story<'a> {
    pub(super) repo: Repository,
    pub(super) a: Source,
    pub(super) b: Source,
    /// The folder that the repository is in.
    pub(super) bucket: &'a Path,
}

impl Story<'_> {
    /// Two generations are collected, and a third is not finished.
    pub(super) async fn happen(&self) -> Result<()> {
        let kept = self.collected_generations().await?;
        self.at_work(kept).await?;
        self.cut_off_collection().await?;
        edges::change(&self.a.client, 3).await?;
        self.fenced(&self.a).await?;
        self.save(&self.b, "second").await?;
        let newest = self.save(&self.a, "newest").await?;
        self.damaged_and_mended(newest).await
    }

    /// Returns the newest snapshot of cluster a.
    async fn collected_generations(&self) -> Result<SessionId> {
        let (repo, a) = (&self.repo, &self.a);
        let first = self.begin(a, "first").await?;
        edges::create(&a.client, &first).await?;
        let mut machine = Machine::new(&first)?;
        machine.save(repo).await?;
        let first = commit(first, a, "first").await?;
        self.save(&self.b, "first").await?;
        edges::change(&a.client, 1).await?;
        self.fenced(a).await?;
        let kept = self.save(a, "changed").await?;
        repo.forget(first, "retention keeps the newest").await?;
        self.collect(1).await?;

        let cluster = repo.cluster_key(&a.cluster.uid);
        let copied = repo.repack(&AllContents, cluster, 100, u64::MAX);
        ensure!(copied.await?.packs > 0, "nothing was worth a copy");
        self.collect(2).await?;
        machine.change()?;
        machine.save(repo).await?;
        Ok(kept)
    }

    /// Sessions of every purpose, and what is asked for of snapshots.
    async fn at_work(&self, kept: SessionId) -> Result<()> {
        let (repo, a, b) = (&self.repo, &self.a, &self.b);
        edges::change(&a.client, 2).await?;
        // One that begins, commits a part, and never ends; and one that takes long.
        let unended = self.begin(a, "unended").await?;
        self.part(&unended, kept).await?;
        let long = self.begin(a, "long").await?;
        tokio::time::sleep(UNTIL_FIRST_BEAT).await;
        drop(unended);
        let long = commit(long, a, "long").await?;
        // The very same again: a snapshot that needs no pack of its own.
        let same = self.save(a, "long").await?;

        let cluster = repo.cluster_key(&a.cluster.uid);
        repo.hold(kept, cluster).await?.release().await;
        repo.forget(long, "retention keeps the newest").await?;
        repo.pin(kept, "for ever").await?;
        repo.pin(same, "for now").await?;
        repo.unpin(same, "no more").await?;
        let mut term = None;
        for source in [a, b, a] {
            let cluster = repo.cluster_key(&source.cluster.uid);
            term = Some(repo.claim(term, cluster).await?);
        }
        Ok(())
    }

    /// Contributes to the snapshot of its parent what an earlier one holds.
    async fn part(&self, parent: &Writer, earlier: SessionId) -> Result<()> {
        let root = self.repo.snapshot(earlier).await?.root;
        let root = self.repo.reader().await?.get(&root).await?;
        let purpose = Purpose::Part(parent.session());
        let part = self.session(&self.a, "part", purpose).await?;
        let root = part.put(ChunkKind::Metadata, root).await?;
        Ok(part.commit_part(root).await?)
    }

    /// A session that has stored everything when it learns that it is over.
    async fn fenced(&self, source: &Source) -> Result<()> {
        let fenced = self.begin(source, "fenced").await?;
        let cluster = self.repo.cluster_key(&source.cluster.uid);
        self.repo.fence(cluster, fenced.session()).await?;
        match commit(fenced, source, "fenced").await {
            Err(error) if is_fenced(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => bail!("a fenced session has committed"),
        }
    }

    async fn collect(&self, generation: u64) -> Result<()> {
        let options = eager(Duration::ZERO);
        let done = self.repo.collect(&AllContents, &options).await?;
        ensure!(done.generation == Some(generation), "{done:?}");
        ensure!(done.deleted_packs > 0, "there was no garbage: {done:?}");
        Ok(())
    }

    /// A collection that is stopped while it waits for a session: its plan stays.
    async fn cut_off_collection(&self) -> Result<()> {
        let patient = eager(Duration::MAX);
        let waits = self.repo.collect(&AllContents, &patient);
        if let Ok(done) = tokio::time::timeout(UNTIL_PLANNED, waits).await {
            bail!("the collection did not wait: {done:?}");
        }
        let there = |name: &str| self.bucket.join("gc").join(name).exists();
        ensure!(
            there("3.plan") && !there("3.final"),
            "it is not at its wait"
        );
        Ok(())
    }

    /// An index that cannot be read, and a pack with a changed hash.
    async fn damaged_and_mended(&self, victim: SessionId) -> Result<()> {
        spoil(&self.bucket.join(format!("index/{victim}")))?;
        let done = self.repair().await?;
        ensure!(done.indices == 1, "{done:?}");
        spoil(&self.bucket.join(data_pack(self.bucket, victim)?))?;
        let done = self.repair().await?;
        ensure!(done.packs_set_aside == 1, "{done:?}");
        ensure!(done.chunks_copied > 0, "{done:?}");
        Ok(())
    }

    async fn repair(&self) -> Result<RepairReport> {
        let options = CheckOptions::new(CheckLevel::All);
        let cluster = self.repo.cluster_key(&self.a.cluster.uid);
        // One that remembers nothing from before the damage.
        let repo = super::open(self.bucket).await?;
        let done = repo.repair(&AllContents, cluster, &options).await?;
        ensure!(done.left.is_clean(), "{done:?}");
        Ok(done)
    }

    async fn save(&self, source: &Source, backup: &str) -> Result<SessionId> {
        commit(self.begin(source, backup).await?, source, backup).await
    }

    async fn begin(&self, source: &Source, backup: &str) -> Result<Arc<Writer>> {
        self.session(source, backup, Purpose::Backup).await
    }

    async fn session(&self, source: &Source, what: &str, purpose: Purpose) -> Result<Arc<Writer>> {
        let request = SessionRequest {
            id: SessionId::random(&mut rand::rng()),
            cluster: self.repo.cluster_key(&source.cluster.uid),
            purpose,
            label: Bytes::from(format!("golden {what}")),
        };
        Ok(Arc::new(self.repo.begin(request).await?))
    }
}

/// A collection that honours everything at once.
fn eager(stall: Duration) -> CollectOptions {
    CollectOptions {
        delete: true,
        grace: Duration::ZERO,
        keep_at_least: 1,
        delete_percent_max: 100,
        stall,
        poll: Duration::from_millis(100),
        objects_max: 1,
        bytes_min: 1,
    }
}

fn is_fenced(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<lifebuoy_engine::Error>(),
        Some(lifebuoy_engine::Error::Repo(RepoError::Fenced { .. }))
    )
}

/// Changes the last byte of a file.
fn spoil(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path).with_context(|| format!("{}", path.display()))?;
    *bytes.last_mut().context("it is empty")? ^= 1;
    Ok(fs::write(path, bytes)?)
}

/// The key of a data pack of this session.
fn data_pack(bucket: &Path, session: SessionId) -> Result<String> {
    let packs = bucket.join("packs");
    for folder in fs::read_dir(packs)? {
        let folder = folder?;
        for pack in fs::read_dir(folder.path())? {
            let name = pack?.file_name().into_string().unwrap_or_default();
            if name.starts_with(&session.to_string()) && name.ends_with(".data") {
                let folder = folder.file_name().into_string().unwrap_or_default();
                return Ok(format!("packs/{folder}/{name}"));
            }
        }
    }
    bail!("session {session} has no data pack")
}

async fn commit(writer: Arc<Writer>, source: &Source, backup: &str) -> Result<SessionId> {
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
        empty_dirs: false,
        taken_at: taken_at(backup)?,
        own_namespace: Some("lifebuoy".to_owned()),
        down_groups_that_only_warn: Vec::new(),
    };
    let progress = CaptureProgress::new();
    let cancel = CancellationToken::new();
    let captured = capture(
        &source.client,
        writer,
        &request,
        &progress,
        no_volumes,
        &cancel,
    )
    .await?;
    Ok(captured.point.snapshot.session)
}

/// A time that depends on the backup alone.
fn taken_at(backup: &str) -> Result<DateTime<Utc>> {
    let begin = DateTime::from_timestamp(1_790_000_000, 0).context("not a time")?;
    Ok(begin + TimeDelta::minutes(i64::try_from(backup.len())?))
}
