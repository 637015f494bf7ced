//! Sessions as others see them: how they ended, fencing, snapshots, forgetting.
//! Never takes a record that cannot be read for one that is not there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, stream};

use crate::{
    error::{Error, Result},
    ids::{ClusterKey, SessionId},
    names::{END, FORGET, INDEX, INDEX_RUNS, Name, OPEN, ObjectType},
    record::{
        End, EndBody, IndexBody, OpenBody, REASON_BYTES_MAX, RECORD_BYTES_MAX, Snapshot, decode_at,
        encode_forget,
    },
    repository::{Repository, Shared},
    store::Created,
};

/// Records that are read at one time.
const READS: usize = 16;
/// Longest `end` or `open` object: a summary, and less than a kilobyte around it.
const SMALL_RECORD_BYTES_MAX: usize = crate::record::SUMMARY_BYTES_MAX + 1024;

/// All committed snapshots, and what could not be read.
#[derive(Debug, Clone)]
#[must_use = "unreadable records must be reported, not dropped"]
pub struct Snapshots {
    /// Those that are not forgotten first, by cluster, sequence and session.
    pub snapshots: Vec<Snapshot>,
    /// The keys of records that exist and cannot be read, and why.
    pub unreadable: Vec<(String, Error)>,
}

/// What one refresh of the ends found.
pub(crate) struct Ends {
    pub(crate) unreadable: Vec<(String, Error)>,
}

/// What one refresh of the index found.
pub(crate) struct IndexState {
    /// Committed sessions whose index is missing or cannot be read.
    pub(crate) incomplete: Vec<(String, Error)>,
    /// An object of a later version that consolidates indices.
    pub(crate) run: Option<String>,
}

impl Repository {
    /// How a session ended; `None` if it has not.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or one of the store.
    pub async fn session_end(
        &self,
        cluster: ClusterKey,
        session: SessionId,
    ) -> Result<Option<End>> {
        match self.shared.end_of(cluster, session).await {
            Ok(body) => Ok(Some(self.shared.end(cluster, session, &body).await?)),
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends a session, unless it has committed: afterwards it can never commit.
    /// Works whether the session has begun, is at work, or never wrote anything.
    /// Calling it again is harmless.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Corrupt`] or one of the store.
    pub async fn fence(&self, cluster: ClusterKey, session: SessionId) -> Result<End> {
        self.shared.check_writable()?;
        let generation = self.shared.birth_of(cluster, session).await?;
        let key = Name::End(cluster, session).key();
        let body = EndBody::Fenced { generation };
        let bytes = self.shared.seal(&key, ObjectType::End, &body.encode())?;
        let body = match self.shared.objects.create(&key, bytes).await? {
            Created::Ours => body,
            Created::Theirs(bytes) => self.shared.open_end(&key, &bytes)?,
        };
        self.shared.remember_end(cluster, session, body.clone());
        self.shared.end(cluster, session, &body).await
    }

    /// All committed snapshots of all clusters.
    ///
    /// # Errors
    /// [`Error::Vanished`], or one of the store. Records that cannot be read are
    /// not an error here: they are returned.
    pub async fn snapshots(&self) -> Result<Snapshots> {
        let shared = &self.shared;
        let Ends { unreadable } = shared.refresh_ends().await?;
        let forgotten = shared.forgotten().await?;
        let mut snapshots: Vec<Snapshot> = shared
            .ends()
            .iter()
            .filter_map(|((cluster, session), body)| {
                snapshot_of(*cluster, *session, body, forgotten.contains(session))
            })
            .collect();
        snapshots.sort_by_key(|s| (s.forgotten, s.cluster, s.seq, s.session));
        Ok(Snapshots {
            snapshots,
            unreadable,
        })
    }

    /// One snapshot that can be restored.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forgotten`], [`Error::NeverEnded`],
    /// [`Error::Corrupt`] if its record cannot be read, or one of the store.
    pub async fn snapshot(&self, session: SessionId) -> Result<Snapshot> {
        let Snapshots {
            snapshots,
            unreadable,
        } = self.snapshots().await?;
        if let Some(found) = snapshots.into_iter().find(|s| s.session == session) {
            if found.forgotten {
                return Err(Error::Forgotten { session });
            }
            return Ok(found);
        }
        for (key, error) in unreadable {
            if matches!(Name::parse(&key), Some(Name::End(_, id)) if id == session) {
                return Err(error);
            }
        }
        if self.shared.ends().keys().any(|(_, id)| *id == session) {
            return Err(Error::NeverEnded {
                session,
                fenced: true,
            });
        }
        let opened = self.shared.objects.list(OPEN).await?;
        let began =
            |key: &String| matches!(Name::parse(key), Some(Name::Open(_, _, id)) if id == session);
        if opened.iter().any(began) {
            return Err(Error::NeverEnded {
                session,
                fenced: false,
            });
        }
        Err(Error::NotFound { session })
    }

    /// Asks to forget a snapshot. Its data stays until garbage is collected,
    /// which is not before the grace of forgetting has passed. Calling it again
    /// is harmless; the first reason stays.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::TooLarge`] for a reason above 1 KiB, or one
    /// of the store.
    pub async fn forget(&self, session: SessionId, reason: &str) -> Result<()> {
        self.shared.check_writable()?;
        if reason.len() > REASON_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "the reason",
                actual: reason.len(),
                limit: REASON_BYTES_MAX,
            });
        }
        let key = Name::Forget(session).key();
        let bytes = self
            .shared
            .seal(&key, ObjectType::Forget, &encode_forget(reason))?;
        self.shared.objects.create(&key, bytes).await.map(|_| ())
    }
}

fn snapshot_of(
    cluster: ClusterKey,
    session: SessionId,
    body: &EndBody,
    forgotten: bool,
) -> Option<Snapshot> {
    match body {
        EndBody::Committed {
            generation: _,
            sequence,
            root,
            packs: _,
            summary,
        } => Some(Snapshot {
            session,
            cluster,
            seq: *sequence,
            root: *root,
            summary: summary.clone(),
            forgotten,
        }),
        EndBody::Fenced { .. } => None,
    }
}

impl Shared {
    pub(crate) fn seal(&self, key: &str, kind: ObjectType, body: &[u8]) -> Result<Bytes> {
        self.records().seal(key, kind, body, &mut rand::rng())
    }

    pub(crate) fn open_end(&self, key: &str, bytes: &[u8]) -> Result<EndBody> {
        let body = self.records().open(key, ObjectType::End, bytes)?;
        decode_at(key, &body, EndBody::decode)
    }

    async fn end_of(&self, cluster: ClusterKey, session: SessionId) -> Result<EndBody> {
        if let Some(body) = self.ends().get(&(cluster, session)) {
            return Ok(body.clone());
        }
        let key = Name::End(cluster, session).key();
        let bytes = self
            .objects
            .get_bounded(&key, SMALL_RECORD_BYTES_MAX)
            .await?;
        let body = self.open_end(&key, &bytes)?;
        self.remember_end(cluster, session, body.clone());
        Ok(body)
    }

    async fn end(&self, cluster: ClusterKey, session: SessionId, body: &EndBody) -> Result<End> {
        if matches!(body, EndBody::Fenced { .. }) {
            return Ok(End::Fenced);
        }
        let forgotten = self.forgotten().await?.contains(&session);
        Ok(snapshot_of(cluster, session, body, forgotten).map_or(End::Fenced, End::Committed))
    }

    /// The birth generation of a session; the current one if it never began.
    async fn birth_of(&self, cluster: ClusterKey, session: SessionId) -> Result<u64> {
        let opened = self.objects.list(&format!("{OPEN}/{cluster}")).await?;
        let found = opened.iter().find_map(|key| match Name::parse(key) {
            Some(Name::Open(_, generation, id)) if id == session => Some(generation),
            _ => None,
        });
        Ok(found.unwrap_or(0))
    }

    async fn forgotten(&self) -> Result<BTreeSet<SessionId>> {
        let listed = self.objects.list(FORGET).await?;
        let sessions = listed.iter().filter_map(|key| match Name::parse(key) {
            Some(Name::Forget(session)) => Some(session),
            _ => None,
        });
        Ok(sessions.collect())
    }

    /// Reads the ends that are new. Those that were known must still be listed:
    /// nothing deletes them, and a listing that shrinks is a fault.
    pub(crate) async fn refresh_ends(&self) -> Result<Ends> {
        let known: BTreeSet<_> = self.ends().keys().copied().collect();
        let listed = self.objects.list(END).await?;
        let listed: BTreeSet<_> = listed
            .iter()
            .filter_map(|key| match Name::parse(key) {
                Some(Name::End(cluster, session)) => Some((cluster, session)),
                _ => None,
            })
            .collect();
        let mut gone = known.difference(&listed);
        if let Some((cluster, session)) = gone.next() {
            return Err(Error::Vanished {
                count: 1 + gone.count(),
                example: Name::End(*cluster, *session).key(),
            });
        }
        if listed.is_empty() {
            // Empty because nothing ended yet, or because everything is gone?
            self.check_format().await?;
        }
        let new: Vec<_> = listed.difference(&known).copied().collect();
        let mut reads = stream::iter(new)
            .map(|(cluster, session)| async move {
                let key = Name::End(cluster, session).key();
                (key, self.end_of(cluster, session).await)
            })
            .buffer_unordered(READS);
        let mut unreadable = Vec::new();
        while let Some((key, read)) = reads.next().await {
            match read {
                Ok(_) => {}
                Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => {
                    unreadable.push((key, error));
                }
                Err(error) => return Err(error),
            }
        }
        unreadable.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Ends { unreadable })
    }

    /// Reads the index deltas of committed sessions that are new.
    pub(crate) async fn refresh_index(&self) -> Result<IndexState> {
        let listed = self.objects.list(INDEX).await?;
        let runs = format!("{INDEX_RUNS}/");
        let run = listed.iter().find(|key| key.starts_with(&runs)).cloned();
        let listed: BTreeSet<SessionId> = listed
            .iter()
            .filter_map(|key| match Name::parse(key) {
                Some(Name::Index(session)) => Some(session),
                _ => None,
            })
            .collect();
        let wanted: BTreeMap<SessionId, u32> = {
            let index = self.index();
            let ends = self.ends();
            let committed = ends.iter().filter_map(|((_, session), body)| match body {
                EndBody::Committed { packs, .. } if *packs > 0 => Some((*session, *packs)),
                _ => None,
            });
            committed
                .filter(|(session, _)| !index.holds(*session))
                .collect()
        };
        let mut reads = stream::iter(wanted)
            .map(|(session, packs)| {
                let present = listed.contains(&session);
                async move {
                    let key = Name::Index(session).key();
                    if !present {
                        return (key.clone(), Err(Error::Missing { key }));
                    }
                    let read = self.read_index(&key, session, packs).await;
                    (key, read)
                }
            })
            .buffer_unordered(READS);
        let mut incomplete = Vec::new();
        while let Some((key, read)) = reads.next().await {
            match read {
                Ok(()) => {}
                Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => {
                    incomplete.push((key, error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(IndexState { incomplete, run })
    }

    async fn read_index(&self, key: &str, session: SessionId, packs: u32) -> Result<()> {
        let bytes = self.objects.get_bounded(key, RECORD_BYTES_MAX).await?;
        let body = self.records().open(key, ObjectType::Index, &bytes)?;
        let delta = decode_at(key, &body, IndexBody::decode)?;
        if u32::try_from(delta.packs.len()) != Ok(packs) {
            return Err(Error::corrupt(
                key,
                crate::wire::Damage::Field("number of packs"),
            ));
        }
        self.index_mut().add(session, &delta);
        Ok(())
    }

    /// The repository is still there: a bucket or directory that was swapped or
    /// unmounted must not be written to as if it were empty.
    pub(crate) async fn check_format(&self) -> Result<()> {
        let key = self.format_key();
        let found = self
            .objects
            .get_bounded(&key, crate::format::FORMAT_BYTES)
            .await;
        let found = crate::format::Format::parse(&key, &found?)?;
        if found.repository == self.id {
            Ok(())
        } else {
            Err(Error::Occupied { key })
        }
    }

    pub(crate) fn decode_open(&self, key: &str, bytes: &[u8]) -> Result<OpenBody> {
        let body = self.records().open(key, ObjectType::Open, bytes)?;
        decode_at(key, &body, OpenBody::decode)
    }
}
