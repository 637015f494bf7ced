//! Sessions as others see them: how they ended, fencing, snapshots, forgetting,
//! pinning.
//! Never takes a record that cannot be read for one that is not there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    header::LAYOUT,
    ids::{ClusterKey, SessionId},
    names::{FORGET, Name, OPEN, ObjectType, PIN},
    protocol::{Generation, Horizon},
    record::{
        End, EndBody, OpenBody, REASON_BYTES_MAX, Snapshot, decode_at, encode_forget, first_layout,
    },
    refresh::SMALL_RECORD_BYTES_MAX,
    repository::{Repository, Shared},
    store::Created,
};

/// All committed snapshots, and what could not be read.
#[derive(Debug, Clone)]
#[must_use = "unreadable records must be reported, not dropped"]
pub struct Snapshots {
    /// Those that are not forgotten first, by cluster, sequence and session.
    pub snapshots: Vec<Snapshot>,
    /// The keys of records that exist and cannot be read, and why.
    pub unreadable: Vec<(String, Error)>,
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
        self.shared.fence(cluster, session, generation).await
    }

    /// All committed snapshots of all clusters.
    ///
    /// # Errors
    /// [`Error::Vanished`], or one of the store. Records that cannot be read are
    /// not an error here: they are returned.
    pub async fn snapshots(&self) -> Result<Snapshots> {
        let shared = &self.shared;
        // In this order: a forget goes after the end it is about. What the ends say does not
        // change: it is read meanwhile.
        let keys = shared.list_end_keys().await?;
        let newer = async {
            let marks = shared.marks().await?;
            Ok((marks, shared.read_horizon().await?))
        };
        let (ends, (marks, horizon)) = tokio::try_join!(shared.read_ends(keys), newer)?;
        shared.settle(&ends, &horizon).await?;
        Ok(Snapshots {
            snapshots: shared.known_snapshots(&horizon, &marks),
            unreadable: ends.unreadable,
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
            if found.is_leaving() {
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
        check_reason(reason)?;
        let key = Name::Forget(session).key();
        let bytes = self
            .shared
            .seal(&key, ObjectType::Forget, &encode_forget(reason))?;
        self.shared.objects.create(&key, bytes).await.map(|_| ())
    }

    /// Pins a snapshot: no retention forgets it, and a request to forget it is
    /// not honoured, until [`Repository::unpin`]. One that was forgotten and is
    /// still there can be restored again. Calling it again is harmless.
    ///
    /// # Errors
    /// [`Error::UpgradeNeeded`] in format 1, [`Error::Forgotten`] if a collection
    /// that honours a request to forget it has begun, those of
    /// [`Repository::forget`] and [`Repository::snapshot`].
    pub async fn pin(&self, session: SessionId, reason: &str) -> Result<()> {
        check_reason(reason)?;
        let listed = self.snapshots().await?;
        if !listed.snapshots.iter().any(|s| s.session == session) {
            // Says why it is not there.
            self.snapshot(session).await?;
        }
        self.toggle_pin(session, true, reason).await?;
        // A plan that was made before the pin does not know of it.
        let newest = self.shared.list_collections().await?.plans.pop_last();
        if let Some(n) = newest
            && let Some(plan) = self.shared.read_plan(n).await?
            && plan.forgets.contains(&session)
        {
            return Err(Error::Forgotten { session });
        }
        Ok(())
    }

    /// Takes a pin back. Calling it again is harmless.
    ///
    /// # Errors
    /// Those of [`Repository::pin`].
    pub async fn unpin(&self, session: SessionId, reason: &str) -> Result<()> {
        check_reason(reason)?;
        self.toggle_pin(session, false, reason).await
    }

    /// Pins are counted: odd numbers pin, even ones take it back. So nothing has
    /// to be deleted, and a writer's credential suffices.
    async fn toggle_pin(&self, session: SessionId, pin: bool, reason: &str) -> Result<()> {
        let shared = &self.shared;
        shared.check_writable()?;
        shared.check_format_2("pinning a snapshot")?;
        loop {
            let newest = shared.pins().await?.get(&session).copied().unwrap_or(0);
            if (newest % 2 == 1) == pin {
                return Ok(());
            }
            let key = Name::Pin(session, newest + 1).key();
            let bytes = shared.seal(&key, ObjectType::Pin, &encode_forget(reason))?;
            if let Created::Ours = shared.objects.create(&key, bytes).await? {
                return Ok(());
            }
        }
    }
}

fn check_reason(reason: &str) -> Result<()> {
    if reason.len() > REASON_BYTES_MAX {
        return Err(Error::TooLarge {
            what: "the reason",
            actual: reason.len(),
            limit: REASON_BYTES_MAX,
        });
    }
    Ok(())
}

/// What others said of snapshots.
pub(crate) struct Marks {
    pub(crate) forgotten: BTreeSet<SessionId>,
    /// With the number of the last change.
    pub(crate) pinned: BTreeMap<SessionId, u64>,
}

fn snapshot_of(
    cluster: ClusterKey,
    session: SessionId,
    body: &EndBody,
    marks: &Marks,
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
            forgotten: marks.forgotten.contains(&session),
            pinned: marks.pinned.contains_key(&session),
        }),
        EndBody::Fenced { .. } | EndBody::Part { .. } | EndBody::Copies { .. } => None,
    }
}

impl Shared {
    pub(crate) fn seal(&self, key: &str, kind: ObjectType, body: &[u8]) -> Result<Bytes> {
        self.seal_in(key, kind, first_layout(kind), body)
    }

    pub(crate) fn seal_in(
        &self,
        key: &str,
        kind: ObjectType,
        layout: u16,
        body: &[u8],
    ) -> Result<Bytes> {
        self.records()
            .seal(key, kind, layout, body, &mut self.randomness.rng())
    }

    /// What format 1 has no place for is refused in it.
    pub(crate) fn check_format_2(&self, what: &'static str) -> Result<()> {
        if self.format > LAYOUT {
            return Ok(());
        }
        Err(Error::UpgradeNeeded {
            what,
            found: self.format.into(),
            needed: 2,
        })
    }

    pub(crate) fn open_end(&self, key: &str, bytes: &[u8]) -> Result<EndBody> {
        let body = self.records().open(key, ObjectType::End, bytes)?;
        decode_at(key, &body, EndBody::decode)
    }

    async fn end_of(&self, cluster: ClusterKey, session: SessionId) -> Result<EndBody> {
        if let Some(body) = self.ends().get(&(cluster, session)) {
            return Ok(body.clone());
        }
        self.read_end(cluster, session).await
    }

    pub(crate) async fn read_end(
        &self,
        cluster: ClusterKey,
        session: SessionId,
    ) -> Result<EndBody> {
        let key = Name::End(cluster, session).key();
        let bytes = self
            .objects
            .get_bounded(&key, SMALL_RECORD_BYTES_MAX)
            .await?;
        let body = self.open_end(&key, &bytes)?;
        self.remember_end(cluster, session, body.clone());
        Ok(body)
    }

    /// How a session ended, with everything that came after.
    async fn end(&self, cluster: ClusterKey, session: SessionId, body: &EndBody) -> Result<End> {
        let ended = body.ended(cluster);
        if !ended.has_committed() {
            return Ok(End::Fenced);
        }
        let marks = self.marks().await?;
        // A late commit of a session that was over by then is none.
        if !self.read_horizon().await?.counts(session, ended.birth) {
            return Ok(End::Fenced);
        }
        let snapshot = snapshot_of(cluster, session, body, &marks);
        Ok(snapshot.map_or(End::CommittedOther, End::Committed))
    }

    /// The birth generation of a session; the current one if it never began.
    async fn birth_of(&self, cluster: ClusterKey, session: SessionId) -> Result<u64> {
        let opened = self.objects.list(&format!("{OPEN}/{cluster}")).await?;
        let found = opened.iter().find_map(|key| match Name::parse(key) {
            Some(Name::Open(_, generation, id)) if id == session => Some(generation),
            _ => None,
        });
        match found {
            Some(birth) => Ok(birth),
            None => Ok(self.list_collections().await?.newest()),
        }
    }

    /// The snapshots among the ends that are known, those that are not forgotten first.
    pub(crate) fn known_snapshots(&self, horizon: &Horizon, marks: &Marks) -> Vec<Snapshot> {
        let known = self.ends();
        let counting = known.iter().filter(|((cluster, session), body)| {
            horizon.counts(*session, body.ended(*cluster).birth)
        });
        let snapshots = counting
            .filter_map(|((cluster, session), body)| snapshot_of(*cluster, *session, body, marks));
        let mut snapshots: Vec<Snapshot> = snapshots.collect();
        snapshots.sort_by_key(|s| (s.is_leaving(), s.cluster, s.seq, s.session));
        snapshots
    }

    /// Whether a session's `open` is there. It goes before the session's fence does, so
    /// that who had one, and sees neither, is over: also where a listing of runs lies.
    pub(crate) async fn is_open(
        &self,
        cluster: ClusterKey,
        birth: Generation,
        session: SessionId,
    ) -> Result<bool> {
        let key = Name::Open(cluster, birth, session).key();
        match self.objects.get_bounded(&key, SMALL_RECORD_BYTES_MAX).await {
            Ok(_) => Ok(true),
            Err(Error::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Ends a session that was born in this generation, unless it has ended.
    pub(crate) async fn fence(
        &self,
        cluster: ClusterKey,
        session: SessionId,
        generation: Generation,
    ) -> Result<End> {
        let key = Name::End(cluster, session).key();
        let body = EndBody::Fenced { generation };
        let bytes = self.seal(&key, ObjectType::End, &body.encode())?;
        let body = match self.objects.create(&key, bytes).await? {
            Created::Ours => body,
            Created::Theirs(bytes) => self.open_end(&key, &bytes)?,
        };
        self.remember_end(cluster, session, body.clone());
        self.end(cluster, session, &body).await
    }

    pub(crate) async fn marks(&self) -> Result<Marks> {
        let (forgotten, pinned) = tokio::try_join!(self.forgotten(), self.pinned())?;
        Ok(Marks { forgotten, pinned })
    }

    /// The number of the last change of each pin.
    pub(crate) async fn pins(&self) -> Result<BTreeMap<SessionId, u64>> {
        let mut newest = BTreeMap::new();
        for key in self.objects.list(PIN).await? {
            if let Some(Name::Pin(session, n)) = Name::parse(&key) {
                let last = newest.entry(session).or_insert(0);
                *last = n.max(*last);
            }
        }
        Ok(newest)
    }

    /// The sessions whose snapshots are pinned.
    pub(crate) async fn pinned(&self) -> Result<BTreeMap<SessionId, u64>> {
        let mut pins = self.pins().await?;
        pins.retain(|_, n| *n % 2 == 1);
        Ok(pins)
    }

    pub(crate) async fn forgotten(&self) -> Result<BTreeSet<SessionId>> {
        let listed = self.objects.list(FORGET).await?;
        let sessions = listed.iter().filter_map(|key| match Name::parse(key) {
            Some(Name::Forget(session)) => Some(session),
            _ => None,
        });
        Ok(sessions.collect())
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
