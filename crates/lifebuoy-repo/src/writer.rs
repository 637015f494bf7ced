//! One writer's session, `docs/format.md` section 9: begin, put, commit. Never
//! reuses a chunk of a session that has not committed; nothing counts before
//! the one create of `end`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use rand::Rng;
use tokio::runtime::Handle;

use crate::{
    compress::Compression,
    error::{Error, Result},
    ids::{ChunkId, ClusterKey, SessionId},
    names::{ChunkKind, Name, ObjectType},
    pack::CHUNK_BYTES_MAX,
    protocol::{Begin, BeginAnswer, Beginning, Ended, Usable, usable_deltas},
    reader::Reader,
    record::{EndBody, LABEL_BYTES_MAX, OpenBody, Purpose, SUMMARY_BYTES_MAX, Snapshot},
    refresh::Listed,
    repository::{Repository, Shared, blocking},
    session::{Going, Session, WriteStats, beats, ended},
    store::Created,
};

/// Chunks up to this are compressed where they are put: handing them to another
/// thread costs as much.
const INLINE_BYTES_MAX: usize = 16 * 1024;
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

/// A chunk that was put in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutInPart {
    /// Its id.
    pub id: ChunkId,
    /// Whether the part may lead to it: it is stored in the part, or was committed
    /// before. Otherwise it is in the session that the part is one of.
    pub is_here: bool,
}

/// A session at work. All methods take `&self`; share it in an `Arc`.
#[must_use = "a session that is dropped without commit stores nothing that counts"]
pub struct Writer {
    inner: Arc<Session>,
    beat: tokio::task::AbortHandle,
}

impl Repository {
    /// Begins a session. The chunks of all committed sessions can be reused in it.
    ///
    /// # Errors
    /// [`Error::SessionExists`] for an id that was used before,
    /// [`Error::Outdated`] if a collection began at the same moment: begin again
    /// with a new id; [`Error::ReadOnly`], [`Error::TooLarge`],
    /// [`Error::UpgradeNeeded`], [`Error::Vanished`], or one of the store.
    pub async fn begin(&self, request: SessionRequest) -> Result<Writer> {
        let SessionRequest {
            id,
            cluster,
            purpose,
            label,
        } = request;
        let shared = &self.shared;
        shared.check_writable()?;
        if purpose != Purpose::Backup {
            shared.check_format_2("this kind of session")?;
        }
        check_len("the label", label.len(), LABEL_BYTES_MAX)?;
        let mut random = [0; 32];
        shared.randomness.rng().fill_bytes(&mut random);
        let mut open = OpenBody {
            purpose,
            generation: 0,
            random,
            label,
        };
        let (usable, stored) = shared.begin(cluster, id, &mut open).await?;
        let Usable {
            avoid,
            going,
            ends,
            deltas,
            horizon,
            ..
        } = usable;
        check_unused(id, &ends)?;
        let wanted = usable_deltas(&ends, &horizon);
        let incomplete = match shared.load(&horizon, &wanted, &deltas).await {
            // Tidied up in the meantime: whatever is there now will do.
            Err(Error::Missing { .. }) => shared.refresh().await?.problems(),
            loaded => loaded?,
        };
        let mut avoid = avoid;
        if purpose != Purpose::Restore {
            // Whatever is gone or damaged is stored again: nothing is built on it.
            avoid.extend(shared.not_to_build_on().await?);
        }
        let sequence = shared.next_sequence(cluster);
        let inner = Arc::new(Session::new(
            Arc::clone(shared),
            id,
            cluster,
            &open,
            sequence,
            Going { avoid, going },
            incomplete,
        ));
        inner.count_put(stored);
        let beat = tokio::spawn(beats(Arc::clone(&inner))).abort_handle();
        Ok(Writer { inner, beat })
    }
}

impl Shared {
    /// Runs the protocol's beginning. Returns what may be built on, and the bytes
    /// that were written.
    async fn begin(
        &self,
        cluster: ClusterKey,
        session: SessionId,
        open: &mut OpenBody,
    ) -> Result<(Usable, u64)> {
        let mut machine = Beginning::new();
        let mut stored = 0;
        let mut listed = Listed::default();
        loop {
            let answer = match machine.ask() {
                Begin::Collections => BeginAnswer::Collections(self.list_collections().await?),
                Begin::Open(generation) => {
                    open.generation = generation;
                    stored = self.create_open(cluster, session, open).await?;
                    BeginAnswer::Opened
                }
                Begin::Plan(n) => BeginAnswer::Plan(self.read_plan(n).await?),
                Begin::Final(n) => BeginAnswer::Final(self.read_final(n).await?),
                Begin::Ends => {
                    listed = self.list().await?;
                    BeginAnswer::Ends(listed.ends.ended.clone())
                }
                // Listed after the ends, and in this order.
                Begin::Deltas => BeginAnswer::Deltas(listed.deltas.clone()),
                Begin::Horizon => {
                    self.settle(&listed.ends, &listed.horizon).await?;
                    BeginAnswer::Horizon(listed.horizon.clone())
                }
                Begin::Nothing => break,
                // The caller knows whether it may take another id.
                Begin::Again => return Err(Error::Outdated { session }),
            };
            machine.answer(answer);
        }
        let usable = machine.begun().ok_or(Error::Internal {
            what: "beginning a session",
        })?;
        Ok((usable, stored))
    }

    async fn create_open(
        &self,
        cluster: ClusterKey,
        session: SessionId,
        open: &OpenBody,
    ) -> Result<u64> {
        let key = Name::Open(cluster, open.generation, session).key();
        let bytes = self.seal(&key, ObjectType::Open, &open.encode())?;
        let stored = bytes.len() as u64;
        if let Created::Theirs(bytes) = self.objects.create(&key, bytes).await? {
            // Not ours, but is it what it should be? Then the id was used before.
            self.decode_open(&key, &bytes)?;
            return Err(Error::SessionExists { session });
        }
        Ok(stored)
    }

    fn next_sequence(&self, cluster: ClusterKey) -> u64 {
        let mut highest = 0;
        for ((of, _), body) in self.ends().iter() {
            if let EndBody::Committed { sequence, .. } = body
                && *of == cluster
            {
                highest = highest.max(*sequence);
            }
        }
        highest.saturating_add(1)
    }
}

fn check_unused(session: SessionId, ends: &BTreeMap<SessionId, Ended>) -> Result<()> {
    match ends.get(&session) {
        None => Ok(()),
        Some(end) if end.has_committed() => Err(Error::SessionExists { session }),
        Some(_) => Err(Error::Fenced { session }),
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
        self.inner.id
    }

    /// Reads what was there when the session began. Nothing of that goes while the session
    /// is open, but for what a collection was about to take.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::lacking(&self.inner.shared, self.inner.incomplete().to_vec())
    }

    /// The id that these bytes have as a chunk. Stores nothing.
    #[must_use]
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        self.inner.shared.keys.chunk_id(plain)
    }

    /// True if the chunk can be referred to without storing it again.
    #[must_use]
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.inner.contains(id)
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
            self.inner.store(kind, Compression::Small, &plain)?
        } else {
            // So many at one time as there are cores: each needs buffers.
            let permit = self.inner.shared.coding.acquire().await;
            let inner = Arc::clone(&self.inner);
            let id = blocking(move || inner.store(kind, Compression::Small, &plain)).await?;
            drop(permit);
            id?
        };
        self.inner.upload_waiting().await?;
        Ok(id)
    }

    /// As [`Writer::put`], all on the calling thread, which must not be one of the
    /// runtime's: for those who have threads of their own for it.
    ///
    /// # Errors
    /// Those of [`Writer::put`].
    pub fn put_here(
        &self,
        runtime: &Handle,
        kind: ChunkKind,
        compression: Compression,
        plain: &[u8],
    ) -> Result<ChunkId> {
        let stored = self.store_here(None, runtime, kind, compression, plain)?;
        Ok(stored.id)
    }

    /// As [`Writer::put_here`], for a part: what `whole`, the session that it is a part
    /// of, has stored itself is not stored again.
    ///
    /// # Errors
    /// Those of [`Writer::put`].
    pub fn put_here_unless(
        &self,
        whole: &Self,
        runtime: &Handle,
        kind: ChunkKind,
        compression: Compression,
        plain: &[u8],
    ) -> Result<PutInPart> {
        self.store_here(Some(whole), runtime, kind, compression, plain)
    }

    fn store_here(
        &self,
        whole: Option<&Self>,
        runtime: &Handle,
        kind: ChunkKind,
        compression: Compression,
        plain: &[u8],
    ) -> Result<PutInPart> {
        check_len("a chunk", plain.len(), CHUNK_BYTES_MAX)?;
        self.inner.check_open()?;
        let other = whole.map(|whole| &*whole.inner);
        let (id, is_here) = self.inner.store_unless(other, kind, compression, plain)?;
        if self.inner.has_waiting() {
            runtime.block_on(self.inner.upload_waiting())?;
        }
        Ok(PutInPart { id, is_here })
    }

    /// What the session did so far.
    #[must_use]
    pub fn stats(&self) -> WriteStats {
        self.inner.stats()
    }

    /// Ends the session with a snapshot. Uploads what is left first.
    ///
    /// No `put` may be under way. If this fails with an error of the store, the
    /// outcome may be unknown: [`Repository::fence`] settles it and tells.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::ChunkMissing`] if the root was never put,
    /// [`Error::TooLarge`], why an upload failed, or one of the store.
    pub async fn commit(&self, root: ChunkId, summary: Bytes) -> Result<Snapshot> {
        check_len("the summary", summary.len(), SUMMARY_BYTES_MAX)?;
        self.check_root(root)?;
        let inner = &self.inner;
        let (generation, sequence) = (inner.generation(), inner.sequence());
        let end = |packs| EndBody::Committed {
            generation,
            sequence,
            root,
            packs,
            summary: summary.clone(),
        };
        self.end(end).await?;
        Ok(Snapshot {
            session: inner.id,
            cluster: inner.cluster,
            seq: sequence,
            root,
            summary,
            forgotten: false,
            pinned: false,
        })
    }

    /// Ends a session of [`Purpose::Part`] with what it contributes to its parent.
    /// The parent's snapshot must lead to `root`: nothing else keeps it once the
    /// parent has ended.
    ///
    /// # Errors
    /// Those of [`Writer::commit`]; [`Error::Internal`] for another purpose.
    pub async fn commit_part(&self, root: ChunkId) -> Result<()> {
        self.check_root(root)?;
        let Purpose::Part(parent) = self.inner.purpose() else {
            return Err(Error::Internal {
                what: "committing a part in a session that is none",
            });
        };
        let generation = self.inner.generation();
        self.end(|packs| EndBody::Part {
            generation,
            parent,
            root,
            packs,
        })
        .await
    }

    /// Ends a session of copies.
    pub(crate) async fn commit_copies(&self) -> Result<()> {
        let generation = self.inner.generation();
        self.end(|packs| EndBody::Copies { generation, packs })
            .await
    }

    fn check_root(&self, root: ChunkId) -> Result<()> {
        if self.contains(&root) {
            return Ok(());
        }
        Err(Error::ChunkMissing {
            chunk: root,
            incomplete: 0,
        })
    }

    async fn end(&self, end: impl Fn(u32) -> EndBody) -> Result<()> {
        self.inner.check_open()?;
        if !self.inner.close() {
            return Err(ended());
        }
        let done = self.inner.commit(end).await;
        self.beat.abort();
        done
    }

    /// Stores a chunk again that the repository has: for packs that are to be
    /// replaced.
    pub(crate) async fn put_copy(&self, kind: ChunkKind, plain: Bytes) -> Result<ChunkId> {
        self.inner.check_open()?;
        let inner = Arc::clone(&self.inner);
        let id = blocking(move || inner.store_copy(kind, &plain)).await??;
        self.inner.upload_waiting().await?;
        Ok(id)
    }

    /// The snapshots that are about to go, and must not be read in this session.
    pub(crate) fn going(&self) -> &BTreeSet<SessionId> {
        self.inner.going()
    }

    /// Gives the session up, so that nobody has to wait for its heartbeat.
    /// Best effort: a session that is not ended is fenced by others.
    pub async fn abandon(&self) {
        self.inner.close();
        self.beat.abort();
        let Session {
            shared,
            cluster,
            id,
            ..
        } = &*self.inner;
        let fenced = shared.fence(*cluster, *id, self.inner.generation()).await;
        if let Err(error) = fenced {
            tracing::debug!(session = %self.inner.id, %error, "the session was not fenced");
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
            .field("session", &self.inner.id)
            .finish_non_exhaustive()
    }
}
