//! One writer's session, `docs/format.md` section 9: begin, put, commit. Never
//! reuses a chunk of a session that has not committed; nothing counts before
//! the one create of `end`.

use std::{
    collections::{HashSet, VecDeque},
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rand::Rng;
use tokio_util::task::TaskTracker;

use crate::{
    error::{Error, Result},
    ids::{ChunkId, ClusterKey, SessionId},
    names::{ChunkKind, GC, INDEX_RUNS, Name, ObjectType, PackName},
    pack::{CHUNK_BYTES_MAX, PackBuilder, SealedPack},
    record::{
        EndBody, IndexBody, LABEL_BYTES_MAX, OpenBody, PackEntry, Purpose, SUMMARY_BYTES_MAX,
        Snapshot, encode_beat,
    },
    repository::{Repository, Shared, blocking},
    store::Created,
};

/// A pack is closed before it grows above this. Data packs cost one request
/// each; metadata packs are small, so that little is read to find something.
const DATA_PACK_BYTES: usize = 8 * 1024 * 1024;
const METADATA_PACK_BYTES: usize = 4 * 1024 * 1024;
/// Chunks up to this are compressed where they are put: handing them to another
/// thread costs as much.
const INLINE_BYTES_MAX: usize = 16 * 1024;
/// One heartbeat in this time; a session that is shorter writes none.
const BEAT_INTERVAL: Duration = Duration::from_secs(60);

/// What a session is begun with.
#[derive(Debug, Clone)]
pub struct SessionRequest {
    /// A new random id.
    pub id: SessionId,
    /// The cluster that writes.
    pub cluster: ClusterKey,
    /// What for.
    pub purpose: Purpose,
    /// The writer's own note, encrypted, at most [`LABEL_BYTES_MAX`].
    pub label: Bytes,
}

/// What a session did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteStats {
    /// Chunks that were stored.
    pub chunks_new: u64,
    /// Chunks that were there already.
    pub chunks_reused: u64,
    /// Bytes of plain data that were put.
    pub bytes_in: u64,
    /// Bytes of the objects that were created.
    pub bytes_stored: u64,
    /// Objects that were created.
    pub puts: u64,
}

/// A session at work. All methods take `&self`; share it in an `Arc`.
#[must_use = "a session that is dropped without commit stores nothing that counts"]
pub struct Writer {
    inner: Arc<Inner>,
    beat: tokio::task::AbortHandle,
}

struct Inner {
    shared: Arc<Shared>,
    session: SessionId,
    cluster: ClusterKey,
    generation: u64,
    sequence: u64,
    random: [u8; 32],
    state: Mutex<State>,
    uploads: TaskTracker,
    closed: AtomicBool,
    counters: Counters,
}

#[derive(Default)]
struct State {
    data: Option<PackBuilder>,
    metadata: Option<PackBuilder>,
    next_pack: u32,
    /// Chunks of this session, in open packs and finished ones.
    stored: HashSet<ChunkId>,
    /// Finished packs that wait for a place to upload.
    waiting: VecDeque<SealedPack>,
    uploaded: Vec<PackEntry>,
    failure: Option<Error>,
}

#[derive(Default)]
struct Counters {
    chunks_new: AtomicU64,
    chunks_reused: AtomicU64,
    bytes_in: AtomicU64,
    bytes_stored: AtomicU64,
    puts: AtomicU64,
}

impl Repository {
    /// Begins a session. The chunks of all committed sessions can be reused in it.
    ///
    /// # Errors
    /// [`Error::SessionExists`] for an id that was used before,
    /// [`Error::NewerProtocol`], [`Error::ReadOnly`], [`Error::TooLarge`],
    /// [`Error::Vanished`], or one of the store.
    pub async fn begin(&self, request: SessionRequest) -> Result<Writer> {
        let SessionRequest {
            id: session,
            cluster,
            purpose,
            label,
        } = request;
        let shared = &self.shared;
        shared.check_writable()?;
        check_len("the label", label.len(), LABEL_BYTES_MAX)?;
        let mut random = [0; 32];
        rand::rng().fill_bytes(&mut random);
        let generation = 0;

        shared.check_protocol(GC).await?;
        let key = Name::Open(cluster, generation, session).key();
        let body = OpenBody {
            purpose,
            generation,
            random,
            label,
        };
        let bytes = shared.seal(&key, ObjectType::Open, &body.encode())?;
        let stored = bytes.len() as u64;
        if let Created::Theirs(bytes) = shared.objects.create(&key, bytes).await? {
            // Not ours, but is it what it should be? Then the id was used before.
            shared.decode_open(&key, &bytes)?;
            return Err(Error::SessionExists { session });
        }
        shared.check_protocol(GC).await?;
        shared.refresh_ends().await?;
        let index = shared.refresh_index().await?;
        if let Some(key) = index.run {
            return Err(Error::NewerProtocol { key });
        }
        let sequence = shared.next_sequence(cluster, session)?;

        let inner = Arc::new(Inner {
            shared: Arc::clone(shared),
            session,
            cluster,
            generation,
            sequence,
            random,
            state: Mutex::default(),
            uploads: TaskTracker::new(),
            closed: AtomicBool::new(false),
            counters: Counters::default(),
        });
        inner.counters.put(stored);
        let beat = tokio::spawn(beats(Arc::clone(&inner))).abort_handle();
        Ok(Writer { inner, beat })
    }
}

impl Shared {
    /// Nothing of a later version's garbage collection may be there.
    async fn check_protocol(&self, prefix: &str) -> Result<()> {
        match self.objects.list(prefix).await?.into_iter().next() {
            Some(key) => Err(Error::NewerProtocol { key }),
            None => Ok(()),
        }
    }

    fn next_sequence(&self, cluster: ClusterKey, session: SessionId) -> Result<u64> {
        let mut highest = 0;
        for ((of, id), body) in self.ends().iter() {
            if *id == session {
                return Err(match body {
                    EndBody::Committed { .. } => Error::SessionExists { session },
                    EndBody::Fenced { .. } => Error::Fenced { session },
                });
            }
            if let EndBody::Committed { sequence, .. } = body
                && *of == cluster
            {
                highest = highest.max(*sequence);
            }
        }
        Ok(highest.saturating_add(1))
    }
}

fn check_len(what: &'static str, actual: usize, limit: usize) -> Result<()> {
    if actual > limit {
        return Err(Error::TooLarge {
            what,
            actual,
            limit,
        });
    }
    Ok(())
}

impl Writer {
    /// The session's id.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.inner.session
    }

    /// The id that these bytes have as a chunk. Stores nothing.
    #[must_use]
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        self.inner.shared.keys.chunk_id(plain)
    }

    /// True if the chunk can be referred to without storing it again.
    #[must_use]
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.inner.shared.index().contains(id) || self.inner.state().stored.contains(id)
    }

    /// Stores a chunk, unless the repository has it. Returns before it is in the
    /// store; a failed upload is reported by the next `put` or by `commit`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`CHUNK_BYTES_MAX`], or why an upload failed.
    pub async fn put(&self, kind: ChunkKind, plain: Bytes) -> Result<ChunkId> {
        check_len("a chunk", plain.len(), CHUNK_BYTES_MAX)?;
        self.inner.check_open()?;
        let id = if plain.len() <= INLINE_BYTES_MAX {
            self.inner.store(kind, &plain)?
        } else {
            // So many at one time as there are cores: each needs buffers.
            let permit = self.inner.shared.coding.acquire().await;
            let inner = Arc::clone(&self.inner);
            let id = blocking(move || inner.store(kind, &plain)).await?;
            drop(permit);
            id?
        };
        self.inner.upload_waiting().await?;
        Ok(id)
    }

    /// What the session did so far.
    #[must_use]
    pub fn stats(&self) -> WriteStats {
        let Counters {
            chunks_new,
            chunks_reused,
            bytes_in,
            bytes_stored,
            puts,
        } = &self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WriteStats {
            chunks_new: read(chunks_new),
            chunks_reused: read(chunks_reused),
            bytes_in: read(bytes_in),
            bytes_stored: read(bytes_stored),
            puts: read(puts),
        }
    }

    /// Ends the session with a snapshot. Uploads what is left first.
    ///
    /// If this fails with a transient error of the last request, the outcome is
    /// unknown: [`Repository::fence`] settles it and tells.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::ChunkMissing`] if the root was never put,
    /// [`Error::TooLarge`], why an upload failed, or one of the store.
    pub async fn commit(&self, root: ChunkId, summary: Bytes) -> Result<Snapshot> {
        check_len("the summary", summary.len(), SUMMARY_BYTES_MAX)?;
        if !self.contains(&root) {
            return Err(Error::ChunkMissing {
                chunk: root,
                incomplete: 0,
            });
        }
        self.inner.check_open()?;
        self.inner.closed.store(true, Ordering::SeqCst);
        let snapshot = self.inner.commit(root, summary).await;
        self.beat.abort();
        snapshot
    }

    /// Gives the session up, so that nobody has to wait for its heartbeat.
    /// Best effort: a session that is not ended is fenced by others.
    pub async fn abandon(&self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        self.beat.abort();
        let repository = Repository {
            shared: Arc::clone(&self.inner.shared),
        };
        if let Err(error) = repository
            .fence(self.inner.cluster, self.inner.session)
            .await
        {
            tracing::debug!(session = %self.inner.session, %error, "the session was not fenced");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.beat.abort();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("session", &self.inner.session)
            .finish_non_exhaustive()
    }
}

impl Counters {
    fn put(&self, bytes: u64) {
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.bytes_stored.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl State {
    fn builder(&mut self, kind: ChunkKind) -> &mut Option<PackBuilder> {
        match kind {
            ChunkKind::Data => &mut self.data,
            ChunkKind::Metadata => &mut self.metadata,
        }
    }

    fn close(&mut self, kind: ChunkKind) -> Result<()> {
        if let Some(builder) = self.builder(kind).take() {
            let sealed = builder.finish().map_err(|_| Error::Internal {
                what: "sealing a pack",
            })?;
            self.waiting.push_back(sealed);
        }
        Ok(())
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::Internal {
                what: "writing to a session that has ended",
            });
        }
        self.check_uploads()
    }

    fn check_uploads(&self) -> Result<()> {
        match &self.state().failure {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Hashes, and unless the chunk is known, compresses and encrypts it into the
    /// open pack.
    fn store(&self, kind: ChunkKind, plain: &[u8]) -> Result<ChunkId> {
        let id = self.shared.keys.chunk_id(plain);
        self.counters
            .bytes_in
            .fetch_add(plain.len() as u64, Ordering::Relaxed);
        let known = self.shared.index().contains(&id) || self.state().stored.contains(&id);
        if known {
            self.counters.chunks_reused.fetch_add(1, Ordering::Relaxed);
            return Ok(id);
        }
        let failed = |_| Error::Internal {
            what: "compressing a chunk",
        };
        let chunk = self.shared.coders.encode(plain).map_err(failed)?;

        let mut state = self.state();
        if !state.stored.insert(id) {
            self.counters.chunks_reused.fetch_add(1, Ordering::Relaxed);
            return Ok(id);
        }
        let target = match kind {
            ChunkKind::Data => DATA_PACK_BYTES,
            ChunkKind::Metadata => METADATA_PACK_BYTES,
        };
        let full = |pack: &PackBuilder| pack.is_full() || pack.len_with(chunk.bytes.len()) > target;
        if state.builder(kind).as_ref().is_some_and(full) {
            state.close(kind)?;
        }
        if state.builder(kind).is_none() {
            let builder = self.new_pack(&mut state, kind, target)?;
            *state.builder(kind) = Some(builder);
        }
        if let Some(pack) = state.builder(kind) {
            pack.push(id, &chunk).map_err(|_| Error::Internal {
                what: "filling a pack",
            })?;
        }
        self.counters.chunks_new.fetch_add(1, Ordering::Relaxed);
        Ok(id)
    }

    fn new_pack(&self, state: &mut State, kind: ChunkKind, capacity: usize) -> Result<PackBuilder> {
        let number = state.next_pack;
        state.next_pack = number.checked_add(1).ok_or(Error::Internal {
            what: "numbering a pack",
        })?;
        let name = PackName {
            session: self.session,
            number,
            kind,
        };
        let Shared { keys, id, .. } = self.shared.as_ref();
        Ok(PackBuilder::new(keys, *id, &self.random, name, capacity))
    }

    /// Starts the upload of finished packs. Waits while others are in upload:
    /// that bounds the memory of a writer that is faster than the store.
    async fn upload_waiting(self: &Arc<Self>) -> Result<()> {
        while !self.state().waiting.is_empty() {
            let permit = Arc::clone(&self.shared.uploading).acquire_owned().await;
            self.check_uploads()?;
            let Some(pack) = self.state().waiting.pop_front() else {
                break;
            };
            let inner = Arc::clone(self);
            self.uploads.spawn(async move {
                inner.upload(pack).await;
                drop(permit);
            });
        }
        Ok(())
    }

    async fn upload(&self, pack: SealedPack) {
        let SealedPack { name, bytes, entry } = pack;
        let len = bytes.len() as u64;
        let created = self.create(&name.key(), bytes).await;
        let mut state = self.state();
        match created {
            Ok(()) => {
                self.counters.put(len);
                state.uploaded.push(entry);
            }
            Err(error) => {
                state.failure.get_or_insert(error);
            }
        }
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<()> {
        match self.shared.objects.create(key, bytes).await? {
            Created::Ours => Ok(()),
            Created::Theirs(_) => Err(Error::Occupied {
                key: key.to_owned(),
            }),
        }
    }

    async fn commit(self: &Arc<Self>, root: ChunkId, summary: Bytes) -> Result<Snapshot> {
        let packs = self.flush().await?;
        let count = u32::try_from(packs.len()).map_err(|_| Error::Internal {
            what: "counting packs",
        })?;
        let delta = IndexBody {
            random: self.random,
            packs,
        };
        if count > 0 {
            let key = Name::Index(self.session).key();
            let bytes = self.shared.seal(&key, ObjectType::Index, &delta.encode())?;
            let len = bytes.len() as u64;
            self.create(&key, bytes).await?;
            self.counters.put(len);
        }
        self.shared.check_format().await?;

        let Self {
            generation,
            sequence,
            session,
            cluster,
            ..
        } = **self;
        let key = Name::End(cluster, session).key();
        let snapshot = Snapshot {
            session,
            cluster,
            seq: sequence,
            root,
            summary: summary.clone(),
            forgotten: false,
        };
        let body = EndBody::Committed {
            generation,
            sequence,
            root,
            packs: count,
            summary,
        };
        let bytes = self.shared.seal(&key, ObjectType::End, &body.encode())?;
        let len = bytes.len() as u64;
        if let Created::Theirs(bytes) = self.shared.objects.create(&key, bytes).await? {
            self.shared.open_end(&key, &bytes)?;
            return Err(Error::Fenced { session });
        }
        self.counters.put(len);
        self.shared.check_protocol(INDEX_RUNS).await?;
        self.shared.index_mut().add(session, &delta);
        self.shared.remember_end(cluster, session, body);
        Ok(snapshot)
    }

    /// Uploads all packs, and returns them once they are in the store.
    async fn flush(self: &Arc<Self>) -> Result<Vec<PackEntry>> {
        {
            let mut state = self.state();
            state.close(ChunkKind::Data)?;
            state.close(ChunkKind::Metadata)?;
        }
        self.upload_waiting().await?;
        self.uploads.close();
        self.uploads.wait().await;
        self.check_uploads()?;
        let mut state = self.state();
        let mut packs = mem::take(&mut state.uploaded);
        packs.sort_unstable_by_key(|pack| pack.number);
        let chunks: usize = packs.iter().map(|pack| pack.chunks.len()).sum();
        // Nothing that was put may be missing from what is committed.
        if packs.len() != state.next_pack as usize || chunks != state.stored.len() {
            return Err(Error::Internal {
                what: "uploading all packs",
            });
        }
        Ok(packs)
    }
}

/// Tells others that the session is alive. Beats are numbered, as objects are
/// never overwritten; a failed one is made up for by the next.
async fn beats(inner: Arc<Inner>) {
    for n in 1_u64.. {
        tokio::time::sleep(BEAT_INTERVAL).await;
        let key = Name::Beat(inner.session, n).key();
        let beat = async {
            let bytes = inner.shared.seal(&key, ObjectType::Beat, &encode_beat(n))?;
            let len = bytes.len() as u64;
            inner.create(&key, bytes).await.map(|()| len)
        };
        match beat.await {
            Ok(len) => inner.counters.put(len),
            Err(error) => tracing::debug!(session = %inner.session, %error, "no heartbeat"),
        }
    }
}
