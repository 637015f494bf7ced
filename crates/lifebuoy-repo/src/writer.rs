//! One writer's session, `docs/format.md` section 9: begin, put, commit. Never
//! reuses a chunk of a session that has not committed; nothing counts before
//! the one create of `end`.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use rand::Rng;

use crate::{
    error::{Error, Result},
    ids::{ChunkId, ClusterKey, SessionId},
    names::{ChunkKind, GC, Name, ObjectType},
    pack::CHUNK_BYTES_MAX,
    record::{EndBody, LABEL_BYTES_MAX, OpenBody, Purpose, SUMMARY_BYTES_MAX, Snapshot},
    repository::{Repository, Shared, blocking},
    session::{Session, WriteStats, beats, ended},
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

        let inner = Arc::new(Session::new(
            Arc::clone(shared),
            session,
            cluster,
            &body,
            sequence,
        ));
        inner.count_put(stored);
        let beat = tokio::spawn(beats(Arc::clone(&inner))).abort_handle();
        Ok(Writer { inner, beat })
    }
}

impl Shared {
    /// Nothing of a later version's garbage collection may be there.
    pub(crate) async fn check_protocol(&self, prefix: &str) -> Result<()> {
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
        self.inner.id
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
        if !self.contains(&root) {
            return Err(Error::ChunkMissing {
                chunk: root,
                incomplete: 0,
            });
        }
        self.inner.check_open()?;
        if !self.inner.close() {
            return Err(ended());
        }
        let snapshot = self.inner.commit(root, summary).await;
        self.beat.abort();
        snapshot
    }

    /// Gives the session up, so that nobody has to wait for its heartbeat.
    /// Best effort: a session that is not ended is fenced by others.
    pub async fn abandon(&self) {
        self.inner.close();
        self.beat.abort();
        let repository = Repository {
            shared: Arc::clone(&self.inner.shared),
        };
        if let Err(error) = repository.fence(self.inner.cluster, self.inner.id).await {
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
