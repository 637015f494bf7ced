//! A session at work: chunks into packs, packs into the store, and the commit.
//! Never acknowledges what is not in the store.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio_util::task::TaskTracker;

use crate::{
    compress::Compression,
    error::{Error, Result},
    header::LAYOUT,
    ids::{ChunkId, ClusterKey, SessionId},
    names::{ChunkKind, Name, ObjectType, PackName},
    pack::{PackBuilder, SealedPack},
    protocol::acknowledged,
    record::{EndBody, IndexBody, OpenBody, PackEntry, Purpose, encode_beat},
    repository::Shared,
    store::Created,
};

/// A pack is closed before it grows above this. Two open and two in upload are
/// what a writer holds, so this decides its memory.
const DATA_PACK_BYTES: usize = 4 * 1024 * 1024;
const METADATA_PACK_BYTES: usize = 2 * 1024 * 1024;
/// One heartbeat in this time; a session that is shorter writes none.
const BEAT_INTERVAL: Duration = Duration::from_secs(60);

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

/// A session at work: its packs and what it did.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: SessionId,
    pub(crate) cluster: ClusterKey,
    generation: u64,
    sequence: u64,
    purpose: Purpose,
    random: [u8; 32],
    going: Going,
    /// Records that could not be read when the session began.
    incomplete: Vec<(String, Error)>,
    state: Mutex<State>,
    uploads: TaskTracker,
    closed: AtomicBool,
    counters: Counters,
}

/// What is about to go as the session begins: nothing of it is built on.
#[derive(Default)]
pub(crate) struct Going {
    pub(crate) avoid: BTreeSet<PackName>,
    pub(crate) going: BTreeSet<SessionId>,
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
    /// Packs of others that hold chunks which were put here.
    relies: BTreeSet<PackName>,
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

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: SessionId,
        cluster: ClusterKey,
        open: &OpenBody,
        sequence: u64,
        going: Going,
        incomplete: Vec<(String, Error)>,
    ) -> Self {
        Self {
            shared,
            id,
            cluster,
            generation: open.generation,
            sequence,
            purpose: open.purpose,
            random: open.random,
            going,
            incomplete,
            state: Mutex::default(),
            uploads: TaskTracker::new(),
            closed: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    pub(crate) fn count_put(&self, bytes: u64) {
        self.counters.put(bytes);
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub(crate) fn incomplete(&self) -> &[(String, Error)] {
        &self.incomplete
    }

    pub(crate) fn going(&self) -> &BTreeSet<SessionId> {
        &self.going.going
    }

    /// The pack of another session that this chunk can be reused from.
    fn reusable(&self, id: &ChunkId) -> Option<PackName> {
        let index = self.shared.index();
        let found = index.find_outside(id, &self.going.avoid);
        found.map(|(pack, _)| pack.name)
    }

    /// True if the chunk can be referred to. It is then relied on.
    pub(crate) fn contains(&self, id: &ChunkId) -> bool {
        let reused = self.reusable(id);
        let mut state = self.state();
        state.relies.extend(reused);
        reused.is_some() || state.stored.contains(id)
    }

    /// Nothing can be put or committed from now on. False if it was so before.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn stats(&self) -> WriteStats {
        let Counters {
            chunks_new,
            chunks_reused,
            bytes_in,
            bytes_stored,
            puts,
        } = &self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WriteStats {
            chunks_new: read(chunks_new),
            chunks_reused: read(chunks_reused),
            bytes_in: read(bytes_in),
            bytes_stored: read(bytes_stored),
            puts: read(puts),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(ended());
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
    pub(crate) fn store(
        &self,
        kind: ChunkKind,
        compression: Compression,
        plain: &[u8],
    ) -> Result<ChunkId> {
        let (id, _) = self.store_unless(None, kind, compression, plain)?;
        Ok(id)
    }

    /// As [`Session::store`], unless `other` has the chunk. Returns whether it is here.
    pub(crate) fn store_unless(
        &self,
        other: Option<&Self>,
        kind: ChunkKind,
        compression: Compression,
        plain: &[u8],
    ) -> Result<(ChunkId, bool)> {
        let id = self.shared.keys.chunk_id(plain);
        let len = plain.len() as u64;
        self.counters.bytes_in.fetch_add(len, Ordering::Relaxed);
        let is_here = self.contains(&id);
        if is_here || other.is_some_and(|other| other.state().stored.contains(&id)) {
            self.counters.chunks_reused.fetch_add(1, Ordering::Relaxed);
            return Ok((id, is_here));
        }
        Ok((self.store_new(kind, compression, id, plain)?, true))
    }

    /// Stores a chunk though others have it.
    pub(crate) fn store_copy(&self, kind: ChunkKind, plain: &[u8]) -> Result<ChunkId> {
        let id = self.shared.keys.chunk_id(plain);
        self.store_new(kind, Compression::Small, id, plain)
    }

    fn store_new(
        &self,
        kind: ChunkKind,
        compression: Compression,
        id: ChunkId,
        plain: &[u8],
    ) -> Result<ChunkId> {
        let failed = |_| Error::Internal {
            what: "compressing a chunk",
        };
        let mut lease = self.shared.coders.lease();
        let chunk = lease.encode(compression, plain).map_err(failed)?;

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
            session: self.id,
            number,
            kind,
        };
        let Shared {
            keys, id, buffers, ..
        } = self.shared.as_ref();
        // Reserved, not touched: a small pack costs little.
        let mut buffer = buffers.take();
        buffer.reserve(capacity);
        Ok(PackBuilder::new(keys, *id, &self.random, name, buffer))
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Starts the upload of finished packs. Waits while others are in upload:
    /// that bounds the memory of a writer that is faster than the store.
    pub(crate) async fn upload_waiting(self: &Arc<Self>) -> Result<()> {
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
        let bytes = self.shared.buffers.lend(bytes);
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

    /// Uploads what is left, then creates the end. That is the commit: whatever
    /// fails before has committed nothing.
    pub(crate) async fn commit(self: &Arc<Self>, end: impl Fn(u32) -> EndBody) -> Result<()> {
        let packs = self.flush().await?;
        let count = u32::try_from(packs.len()).map_err(|_| Error::Internal {
            what: "counting packs",
        })?;
        let (delta, ()) = tokio::try_join!(self.create_delta(packs), self.shared.check_format())?;

        let body = end(count);
        let Self {
            id: session,
            cluster,
            generation,
            ..
        } = **self;
        let key = Name::End(cluster, session).key();
        let bytes = self.shared.seal(&key, ObjectType::End, &body.encode())?;
        let len = bytes.len() as u64;
        if let Created::Theirs(bytes) = self.shared.objects.create(&key, bytes).await? {
            self.shared.open_end(&key, &bytes)?;
            return Err(Error::Fenced { session });
        }
        self.counters.put(len);
        let (horizon, is_open) = tokio::try_join!(
            self.shared.read_horizon(),
            self.shared.is_open(cluster, generation, session)
        )?;
        if !(is_open && acknowledged(session, generation, &horizon)) {
            return Err(Error::Fenced { session });
        }
        self.shared.index_mut().add(session, &delta);
        self.shared.remember_end(cluster, session, body);
        Ok(())
    }

    async fn create_delta(&self, packs: Vec<PackEntry>) -> Result<IndexBody> {
        let relies = mem::take(&mut self.state().relies);
        // Format 1 has no place for it, and no collector that would read it.
        let relies = (self.shared.format > LAYOUT).then(|| relies.into_iter().collect());
        let is_empty = packs.is_empty() && relies.as_ref().is_none_or(Vec::is_empty);
        let delta = IndexBody {
            random: self.random,
            packs,
            relies,
        };
        if !is_empty {
            let key = Name::Index(self.id).key();
            let bytes = delta.encode();
            let bytes = self
                .shared
                .seal_in(&key, ObjectType::Index, delta.layout(), &bytes)?;
            let len = bytes.len() as u64;
            self.create(&key, bytes).await?;
            self.counters.put(len);
        }
        Ok(delta)
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

pub(crate) fn ended() -> Error {
    Error::Internal {
        what: "writing to a session that has ended",
    }
}

/// Tells others that the session is alive. Beats are numbered, as objects are
/// never overwritten; a failed one is made up for by the next.
pub(crate) async fn beats(inner: Arc<Session>) {
    for n in 1_u64.. {
        tokio::time::sleep(BEAT_INTERVAL).await;
        let key = Name::Beat(inner.id, n).key();
        let beat = async {
            let bytes = inner.shared.seal(&key, ObjectType::Beat, &encode_beat(n))?;
            let len = bytes.len() as u64;
            inner.create(&key, bytes).await.map(|()| len)
        };
        match beat.await {
            Ok(len) => inner.counters.put(len),
            Err(error) => tracing::debug!(session = %inner.id, %error, "no heartbeat"),
        }
    }
}
