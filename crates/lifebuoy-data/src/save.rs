//! Saves a directory: a thread that goes through it, threads that read and store,
//! and one that puts everything in order. What is in flight is bounded.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};
use lifebuoy_repo::{ChunkId, Reader, Repository, SessionRequest, Snapshot};
use tokio::runtime::Handle;

use crate::{
    before::Before,
    builder::TreeBuilder,
    error::{Error, Result},
    excludes::Excludes,
    manifest::{DataSummary, Manifest},
    order::Order,
    parts::Parts,
    progress::Progress,
    reading::{Batch, Outcome, Reading},
    scan::Scan,
    sealing::Sealing,
    secrets::{SECRET, Secrets},
};

/// Batches that are read ahead of the one that is put in order.
const BATCHES_AHEAD: usize = 4;

/// What to save, and how.
#[derive(Debug)]
pub struct SaveRequest {
    /// The directory or file.
    pub place: PathBuf,
    /// What it is called in the snapshot; numbers in it are filled in.
    pub summary: DataSummary,
    /// What is left out.
    pub excludes: Excludes,
    /// Leave out what is mounted below.
    pub one_file_system: bool,
    /// The root of a snapshot of the same place: what did not change since is taken over.
    pub before: Option<ChunkId>,
    /// How often what was sent is committed in parts, so that a save that is cut off has
    /// not sent it in vain: [`PARTS_EVERY`](crate::PARTS_EVERY) unless there is a reason.
    /// No sooner than after 128 MiB.
    pub parts_every: Duration,
}

/// A snapshot that was made.
#[derive(Debug)]
pub struct Saved {
    /// As the repository lists it.
    pub snapshot: Snapshot,
    /// What it says of itself.
    pub summary: DataSummary,
}

type Read = Result<Outcome>;

/// Saves a directory or file as a snapshot of the session.
///
/// # Errors
/// [`Error::Place`] if the place itself cannot be read; one of the repository. What
/// cannot be read below the place is a problem of the snapshot, not an error.
pub async fn save(
    repository: &Repository,
    session: SessionRequest,
    request: SaveRequest,
    progress: Arc<Progress>,
) -> Result<Saved> {
    let SaveRequest {
        summary,
        parts_every,
        ..
    } = &request;
    let told = Arc::clone(&progress);
    let writer = Parts::begin(repository, session, summary, *parts_every, told).await?;
    let writer = Arc::new(writer);
    let reader = Arc::new(writer.reader());
    let manifest = {
        let (writer, runtime) = (Arc::clone(&writer), Handle::current());
        tokio::task::spawn_blocking(move || tree(&writer, runtime, &reader, request, &progress))
            .await
            .map_err(|_| LOST)?
    };
    commit(&writer, manifest).await
}

/// Ends a session with this manifest, or gives it up.
pub(crate) async fn commit(writer: &Parts, manifest: Result<Manifest>) -> Result<Saved> {
    let committed = async {
        let manifest = manifest?;
        let root = manifest.to_bytes()?;
        let summary = manifest.summary;
        let snapshot = writer.commit(root, summary.to_bytes()?).await?;
        Ok(Saved { snapshot, summary })
    };
    let saved = committed.await;
    if saved.is_err() {
        writer.abandon().await;
    }
    saved
}

fn tree(
    writer: &Parts,
    runtime: Handle,
    reader: &Arc<Reader>,
    request: SaveRequest,
    progress: &Progress,
) -> Result<Manifest> {
    let SaveRequest {
        place,
        mut summary,
        excludes,
        one_file_system,
        before,
        parts_every: _,
    } = request;
    let secrets = Secrets::derive(&writer.chunk_id(SECRET));
    let sealing = Sealing::new(writer, runtime);
    let before = match before {
        Some(before) => without_lasting(progress, tree_of(&sealing, reader, before))?
            .map(|root| Before::new(&sealing, Arc::clone(reader), root)),
        None => None,
    };
    let scan = Scan::new(
        &place,
        one_file_system,
        &secrets,
        progress,
        &excludes,
        before,
    )?;
    let reading = Reading {
        sealing: &sealing,
        secrets: &secrets,
        progress,
    };
    let tree = TreeBuilder::new(&sealing, &secrets);
    let ordered = run(scan, &reading, Order::new(&sealing, tree, progress))?;
    let done = progress.done();
    summary.entries = ordered.entries;
    summary.bytes = ordered.bytes;
    summary.problems = done.problems;
    Ok(Manifest {
        data: summary.data,
        summary,
        tree: ordered.root,
        block_bytes: None,
        problems: progress.problems_in_words(),
    })
}

/// The tree of a snapshot of files; none if it is one of something else.
fn tree_of(sealing: &Sealing<'_>, reader: &Reader, root: ChunkId) -> Result<Option<ChunkId>> {
    let plain = sealing.runtime().block_on(reader.get(&root))?;
    let manifest = Manifest::from_bytes(&plain)?;
    Ok(manifest.tree.filter(|_| manifest.block_bytes.is_none()))
}

/// A snapshot before that is damaged costs time, and not the save.
pub(crate) fn without_lasting<T>(
    progress: &Progress,
    before: Result<Option<T>>,
) -> Result<Option<T>> {
    match before {
        Err(error) if error.is_lasting() => {
            progress.warn(format!(
                "everything is read, as the snapshot before cannot be: {error}"
            ));
            Ok(None)
        }
        before => before,
    }
}

/// What was put in order.
pub(crate) struct Ordered {
    pub(crate) root: Option<ChunkId>,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

const LOST: Error = Error::Internal("a thread of the save ended early");

fn run(mut scan: Scan<'_>, reading: &Reading<'_>, mut order: Order<'_>) -> Result<Ordered> {
    let (to_read, batches) = bounded::<(Batch, Sender<Read>)>(BATCHES_AHEAD);
    let (in_order, outcomes) = bounded::<Receiver<Read>>(BATCHES_AHEAD);
    let (stop, stopped) = bounded::<()>(0);
    thread::scope(|scope| {
        let scanning = scope.spawn(move || -> Result<()> {
            while let Some(batch) = scan.next_batch()? {
                let (reply, outcome) = bounded(1);
                // The other end is gone only when one of them has failed.
                if in_order.send(outcome).is_err() || to_read.send((batch, reply)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        for _ in 0..threads() {
            let (batches, stopped) = (batches.clone(), stopped.clone());
            scope.spawn(move || work(reading, &batches, &stopped));
        }
        drop(batches);
        let ordered = (|| {
            for outcome in outcomes {
                order.add(outcome.recv().unwrap_or(Err(LOST))?)?;
            }
            order.finish()
        })();
        drop(stop);
        scanning.join().unwrap_or(Err(LOST))?;
        ordered
    })
}

/// Threads that read and store: as many as there are cores.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// Reads and stores until there is no more to do. Chunks go first: their memory is
/// free again once they are stored.
fn work(reading: &Reading<'_>, batches: &Receiver<(Batch, Sender<Read>)>, stopped: &Receiver<()>) {
    let sealing = reading.sealing;
    loop {
        select_biased! {
            recv(sealing.jobs) -> job => match job {
                Ok(job) => sealing.run(job),
                Err(_) => return,
            },
            recv(batches) -> batch => match batch {
                // One who gave up does not want to know.
                Ok((batch, reply)) => drop(reply.send(reading.read(batch))),
                Err(_) => return until_stopped(sealing, stopped),
            },
            recv(stopped) -> _ => return,
        }
    }
}

/// Stores what is put in order last.
pub(crate) fn until_stopped(sealing: &Sealing<'_>, stopped: &Receiver<()>) {
    loop {
        select_biased! {
            recv(sealing.jobs) -> job => match job {
                Ok(job) => sealing.run(job),
                Err(_) => return,
            },
            recv(stopped) -> _ => return,
        }
    }
}
