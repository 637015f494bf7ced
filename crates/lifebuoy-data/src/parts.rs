//! A session that takes long commits on its way what it has stored, in parts: sessions
//! of their own, which live while it goes on. What one that is killed has sent is then
//! not lost: the next save finds it in the repository.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use lifebuoy_repo::{
    CHUNK_BYTES_MAX, ChunkId, ChunkKind, Compression, Purpose, Reader, Repository, SessionId,
    SessionRequest, Snapshot, Writer,
};
use tokio::runtime::Handle;

use crate::{
    entry::Extent,
    error::Result,
    manifest::{DataSummary, Manifest, What},
    node::MapNode,
    progress::Progress,
};

/// So much is sent before the first part begins, and in each: bytes in the store. Less
/// would be more requests, more would be more to send again.
const PART_BYTES: u64 = 128 * 1024 * 1024;
/// How long the first part is waited for, and each lasts, unless there is a reason for
/// another time: beginning one takes some requests, and what is sent fast is fast sent again.
pub const PARTS_EVERY: Duration = Duration::from_secs(60);
/// Chunks of a part: its root names each of them.
const PART_CHUNKS_MAX: usize = 32 * 1024;
/// The first format of a repository that knows parts.
const FORMAT_WITH_PARTS: u32 = 2;

/// A session and its parts. Contents go to the part that is open, if there is one, and
/// everything else to the session itself.
pub(crate) struct Parts {
    repository: Repository,
    whole: Writer,
    request: SessionRequest,
    summary: DataSummary,
    bytes_max: u64,
    time_min: Duration,
    open: RwLock<Open>,
    /// Bytes that parts have stored which have ended.
    stored_before: AtomicU64,
    progress: Arc<Progress>,
}

struct Open {
    part: Option<Part>,
    /// When the part began, or the session if there is none.
    since: Instant,
    /// Parts that were begun.
    begun: u64,
}

struct Part {
    writer: Writer,
    chunks: Mutex<Vec<Extent>>,
}

impl Parts {
    /// Begins the session.
    pub(crate) async fn begin(
        repository: &Repository,
        request: SessionRequest,
        summary: &DataSummary,
        every: Duration,
        progress: Arc<Progress>,
    ) -> Result<Self> {
        let bytes_max = match repository.format_version() {
            0..FORMAT_WITH_PARTS => u64::MAX,
            _ => PART_BYTES,
        };
        Ok(Self {
            repository: repository.clone(),
            whole: repository.begin(request.clone()).await?,
            request,
            summary: summary.clone(),
            bytes_max,
            time_min: every,
            open: RwLock::new(Open {
                part: None,
                since: Instant::now(),
                begun: 0,
            }),
            stored_before: AtomicU64::new(0),
            progress,
        })
    }

    /// Reads what was there when the session began.
    pub(crate) fn reader(&self) -> Reader {
        self.whole.reader()
    }

    pub(crate) fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        self.whole.chunk_id(plain)
    }

    /// Whether a chunk can be referred to without storing it again.
    pub(crate) fn contains(&self, id: &ChunkId) -> bool {
        self.whole.contains(id)
    }

    /// Stores a chunk, on the calling thread, which must not be one of the runtime's.
    pub(crate) fn put(&self, runtime: &Handle, kind: ChunkKind, plain: &[u8]) -> Result<ChunkId> {
        let put = self.put_somewhere(runtime, kind, plain);
        self.tell();
        put
    }

    /// Tells what was stored so far.
    fn tell(&self) {
        let in_part = {
            let open = self.read();
            let part = open.part.as_ref();
            part.map_or(0, |part| part.writer.stats().bytes_stored)
        };
        let before = self.stored_before.load(Ordering::Relaxed);
        let whole = self.whole.stats().bytes_stored;
        self.progress.stored(whole + before + in_part);
    }

    fn put_somewhere(&self, runtime: &Handle, kind: ChunkKind, plain: &[u8]) -> Result<ChunkId> {
        let compression = match kind {
            ChunkKind::Data => Compression::Quick,
            ChunkKind::Metadata => Compression::Small,
        };
        let put_in_whole = || self.whole.put_here(runtime, kind, compression, plain);
        if kind == ChunkKind::Metadata {
            return Ok(put_in_whole()?);
        }
        if self.is_due(&self.read()) {
            self.turn(runtime)?;
        }
        let open = self.read();
        let Some(part) = &open.part else {
            return Ok(put_in_whole()?);
        };
        let put = part
            .writer
            .put_here_unless(&self.whole, runtime, kind, compression, plain)?;
        if put.is_here {
            part.add(put.id, plain.len());
        }
        Ok(put.id)
    }

    /// Whether enough was sent for the next part to begin.
    fn is_due(&self, open: &Open) -> bool {
        let (writer, chunks) = match &open.part {
            None => (&self.whole, 0),
            Some(part) => (&part.writer, part.chunks().len()),
        };
        let is_much = writer.stats().bytes_stored >= self.bytes_max;
        chunks >= PART_CHUNKS_MAX || (is_much && open.since.elapsed() >= self.time_min)
    }

    /// Commits the open part and begins the next, unless another thread has. Nothing is
    /// put meanwhile.
    fn turn(&self, runtime: &Handle) -> Result<()> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if !self.is_due(&open) {
            return Ok(());
        }
        if let Some(part) = open.part.take() {
            runtime.block_on(self.end(part))?;
        }
        loop {
            open.begun += 1;
            let request = self.part_request(open.begun);
            match runtime.block_on(self.repository.begin(request)) {
                // A collection began at the same moment.
                Err(lifebuoy_repo::Error::Outdated { .. }) => {}
                begun => {
                    open.part = Some(Part {
                        writer: begun?,
                        chunks: Mutex::default(),
                    });
                    open.since = Instant::now();
                    return Ok(());
                }
            }
        }
    }

    /// The id of a part is as random as that of its session, and tells nobody which.
    fn part_request(&self, number: u64) -> SessionRequest {
        let parent = self.whole.session();
        let drawn = self
            .whole
            .chunk_id(format!("lifebuoy data: part {number} of {parent}").as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&drawn.as_bytes()[..16]);
        SessionRequest {
            id: SessionId::from_bytes(id),
            purpose: Purpose::Part(parent),
            ..self.request.clone()
        }
    }

    /// Commits a part, with a root that leads to all that was put in it: the manifest of
    /// a device that has these chunks one after another.
    async fn end(&self, part: Part) -> Result<()> {
        let Part { writer, chunks } = part;
        let items = chunks.into_inner().unwrap_or_else(PoisonError::into_inner);
        if items.is_empty() {
            writer.abandon().await;
            return Ok(());
        }
        let bytes = items.iter().map(|item| item.length).sum();
        let map = MapNode { level: 0, items }.encode();
        let map = writer.put(ChunkKind::Metadata, map.into()).await?;
        let summary = DataSummary {
            kind: What::Device,
            entries: 1,
            bytes,
            ..self.summary.clone()
        };
        let manifest = Manifest {
            data: summary.data,
            summary,
            tree: Some(map),
            block_bytes: Some(CHUNK_BYTES_MAX as u64),
            problems: Vec::new(),
        };
        let root = writer
            .put(ChunkKind::Metadata, manifest.to_bytes()?)
            .await?;
        writer.commit_part(root).await?;
        let stored = writer.stats().bytes_stored;
        self.stored_before.fetch_add(stored, Ordering::Relaxed);
        Ok(())
    }

    fn take(&self) -> Option<Part> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.part.take()
    }

    fn read(&self) -> RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session with a snapshot. Nothing may be put any more.
    pub(crate) async fn commit(&self, root: Bytes, summary: Bytes) -> Result<Snapshot> {
        // The snapshot leads to what is in its parts.
        if let Some(part) = self.take() {
            self.end(part).await?;
        }
        let root = self.whole.put(ChunkKind::Metadata, root).await?;
        let snapshot = self.whole.commit(root, summary).await?;
        self.tell();
        Ok(snapshot)
    }

    /// Gives the session up. What was committed of it can still be found by the next,
    /// until it is collected.
    pub(crate) async fn abandon(&self) {
        if let Some(part) = self.take() {
            part.writer.abandon().await;
        }
        self.whole.abandon().await;
    }
}

impl Part {
    fn chunks(&self) -> std::sync::MutexGuard<'_, Vec<Extent>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, chunk: ChunkId, length: usize) {
        let length = length as u64;
        // An empty chunk cannot be named in a map, and is no loss.
        if length > 0 {
            self.chunks().push(Extent {
                gap: 0,
                length,
                chunk,
            });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use lifebuoy_repo::{CollectOptions, KdfCost, Passphrase};
    use object_store::memory::InMemory;

    use super::*;
    use crate::DataContents;

    pub(crate) async fn repository(store: Arc<InMemory>) -> Repository {
        Repository::init(store, &passphrase(), KdfCost::cheapest())
            .await
            .unwrap()
    }

    fn passphrase() -> Passphrase {
        Passphrase::new("correct horse".to_owned()).unwrap()
    }

    pub(crate) async fn begin(repository: &Repository) -> Parts {
        let session = SessionRequest {
            id: SessionId::random(&mut rand::rng()),
            cluster: repository.cluster_key("test"),
            purpose: Purpose::Backup,
            label: Bytes::new(),
        };
        let at = chrono::DateTime::from_timestamp(0, 0).unwrap();
        let summary = DataSummary::new(What::Files, "host".into(), "/".into(), at);
        let every = Duration::ZERO;
        Parts::begin(repository, session, &summary, every, Arc::default())
            .await
            .unwrap()
    }

    /// Puts a chunk of contents as a thread of a save does.
    async fn put(parts: &Arc<Parts>, plain: &'static [u8]) -> ChunkId {
        let (parts, runtime) = (Arc::clone(parts), Handle::current());
        let put = move || parts.put(&runtime, ChunkKind::Data, plain).unwrap();
        tokio::task::spawn_blocking(put).await.unwrap()
    }

    fn in_part(parts: &Parts) -> Vec<ChunkId> {
        let open = parts.read();
        let part = open.part.as_ref().unwrap();
        part.chunks().iter().map(|item| item.chunk).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_part_leads_to_nothing_that_the_session_has_itself() {
        let store = Arc::new(InMemory::new());
        let repository = repository(Arc::clone(&store)).await;
        let mut parts = begin(&repository).await;
        let own = parts
            .whole
            .put(ChunkKind::Data, "own".into())
            .await
            .unwrap();
        // The session's beginning alone is more: each chunk has a part.
        parts.bytes_max = 1;
        let parts = Arc::new(parts);
        assert_eq!(put(&parts, b"own").await, own);
        assert_eq!(in_part(&parts), []);
        let first = put(&parts, b"first").await;
        assert_eq!(in_part(&parts), [first]);
        put(&parts, b"second").await;
        assert_eq!(parts.read().begun, 3);
        // What a part has committed is not stored again.
        assert!(parts.contains(&first));

        // One who collects meanwhile finds all that the parts lead to.
        let options = CollectOptions::default();
        let other = Repository::open(store, &passphrase()).await.unwrap();
        let report = other.collect(&DataContents, &options).await.unwrap();
        assert_eq!(report.garbage_packs, 0, "{report:?}");
        parts.abandon().await;
        let report = other.collect(&DataContents, &options).await.unwrap();
        assert_eq!(report.garbage_packs, 2, "{report:?}");
    }
}
