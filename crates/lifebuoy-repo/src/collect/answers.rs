//! What the collector asks for, asked of the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{Work, forgetting, forgetting::Asked, interlocks::Stored, mark::refuse_unreadable};
use crate::{
    error::{Error, Result},
    generation::{CONDEMNED_MAX, decode_final, decode_plan, encode_final, encode_plan},
    ids::SessionId,
    names::{BEAT, FORGET, INDEX_PARTS, INDEX_RUNS, MEND, Mended, Name, ObjectType, PACKS, PROBE},
    protocol::{Began, Ended, Final, Generation, Horizon, Plan, Remains, Removable},
    record::decode_at,
    repository::Shared,
    store::Created,
    wire::Damage,
};

/// How a body is read.
type Decode<T> = fn(&[u8]) -> Result<T, Damage>;

/// The last heartbeat of each session, and since when it is the last.
pub(super) type Beats = BTreeMap<SessionId, (u64, Instant)>;

impl Shared {
    /// `None` if it is not there (any more).
    pub(crate) async fn read_plan(&self, n: Generation) -> Result<Option<Plan>> {
        let key = Name::Plan(n).key();
        self.find(&key, ObjectType::Plan, decode_plan).await
    }

    /// `None` if it is not there (any more).
    pub(crate) async fn read_final(&self, n: Generation) -> Result<Option<Final>> {
        let key = Name::Final(n).key();
        self.find(&key, ObjectType::Final, decode_final).await
    }

    async fn find<T>(&self, key: &str, kind: ObjectType, decode: Decode<T>) -> Result<Option<T>> {
        match self.read_record(key, kind).await {
            Ok(body) => decode_at(key, &body, decode).map(Some),
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a plan, and returns the one that is recorded.
    pub(super) async fn create_plan(&self, n: Generation, mut plan: Plan) -> Result<Plan> {
        // What does not fit goes next time.
        while plan.condemned.len() > CONDEMNED_MAX {
            plan.condemned.pop_last();
        }
        let key = Name::Plan(n).key();
        let body = encode_plan(&plan);
        let theirs = self.create_or_adopt(&key, ObjectType::Plan, &body, decode_plan);
        Ok(theirs.await?.unwrap_or(plan))
    }

    /// Creates a final, and returns the one that is recorded.
    pub(super) async fn create_final(&self, n: Generation, last: Final) -> Result<Final> {
        let key = Name::Final(n).key();
        let body = encode_final(&last);
        let theirs = self.create_or_adopt(&key, ObjectType::Final, &body, decode_final);
        Ok(theirs.await?.unwrap_or(last))
    }

    /// Creates a record, and returns that of another one who was first.
    async fn create_or_adopt<T>(
        &self,
        key: &str,
        kind: ObjectType,
        body: &[u8],
        decode: Decode<T>,
    ) -> Result<Option<T>> {
        let bytes = self.seal(key, kind, body)?;
        match self.objects.create(key, bytes).await? {
            Created::Ours => Ok(None),
            Created::Theirs(bytes) => {
                let body = self.records().open(key, kind, &bytes)?;
                decode_at(key, &body, decode).map(Some)
            }
        }
    }
}

impl Work<'_> {
    pub(super) async fn ends(&mut self) -> Result<BTreeMap<SessionId, Ended>> {
        let ends = self.shared.list_ends().await?;
        refuse_unreadable(ends.unreadable.clone())?;
        let ended = ends.ended.clone();
        self.listed_ends = Some(ends);
        Ok(ended)
    }

    pub(super) async fn horizon(&mut self) -> Result<Horizon> {
        let horizon = self.shared.read_horizon().await?;
        // Only after a listing of the ends is there something to compare.
        if let Some(ends) = self.listed_ends.take() {
            self.shared.settle(&ends, &horizon).await?;
        }
        Ok(horizon)
    }

    pub(super) async fn packs(&mut self) -> Result<BTreeSet<crate::names::PackName>> {
        let listed = self.shared.objects.list_sized(PACKS).await?;
        let packs = listed
            .into_iter()
            .filter_map(|found| match Name::parse(&found.key) {
                Some(Name::Pack(pack)) => Some((pack, found.size)),
                _ => None,
            });
        self.stored = Stored {
            packs: packs.collect(),
        };
        Ok(self.stored.packs.keys().copied().collect())
    }

    /// The requests to forget that are to be honoured by now.
    pub(super) async fn due_forgets(&mut self) -> Result<BTreeSet<SessionId>> {
        let now = self.store_time().await?;
        let listed = self.shared.objects.list_sized(FORGET).await?;
        let asked: BTreeMap<SessionId, Duration> = listed
            .into_iter()
            .filter_map(|found| match Name::parse(&found.key) {
                Some(Name::Forget(session)) => {
                    let age = (now - found.created).to_std().unwrap_or_default();
                    Some((session, age))
                }
                _ => None,
            })
            .collect();
        let snapshots = self.repository.snapshots().await?;
        refuse_unreadable(snapshots.unreadable)?;
        let known: Vec<Asked> = snapshots
            .snapshots
            .into_iter()
            .map(|snapshot| Asked {
                lineage: self.contents.lineage(&snapshot.summary).ok(),
                complete: self.contents.is_complete(&snapshot.summary),
                age: asked.get(&snapshot.session).copied(),
                snapshot,
            })
            .collect();
        let due = forgetting::due(&known, self.options.grace, self.options.keep_at_least);
        self.report.forgotten = due.len() as u64;
        Ok(due)
    }

    /// What time it is for the store: that of the newest probe, which was made
    /// when this collection began. One that writes nothing asks its own clock.
    async fn store_time(&self) -> Result<chrono::DateTime<chrono::Utc>> {
        if !self.options.delete {
            return Ok(chrono::Utc::now());
        }
        let probes = self.shared.objects.list_sized(PROBE).await?;
        let newest = probes.into_iter().map(|probe| probe.created).max();
        Ok(newest.unwrap_or_else(chrono::Utc::now))
    }

    /// Steps 5 and 6: fences what does not move, and lets time pass.
    pub(super) async fn wait(&mut self, sessions: BTreeMap<SessionId, Began>) -> Result<()> {
        let now = Instant::now();
        let mut newest: BTreeMap<SessionId, u64> = BTreeMap::new();
        for key in self.shared.objects.list(BEAT).await? {
            if let Some(Name::Beat(session, n)) = Name::parse(&key) {
                let beat = newest.entry(session).or_insert(0);
                *beat = n.max(*beat);
            }
        }
        let mut fenced = false;
        for (session, open) in &sessions {
            let beat = newest.get(session).copied().unwrap_or(0);
            let seen = self.beats.entry(*session).or_insert((beat, now));
            if seen.0 != beat {
                *seen = (beat, now);
            }
            if now.duration_since(seen.1) >= self.options.stall {
                tracing::warn!(%session, "fencing a session that does not move");
                self.repository.fence(open.cluster, *session).await?;
                self.report.fenced += 1;
                fenced = true;
            }
        }
        if !fenced {
            tracing::debug!(sessions = sessions.len(), "waiting for sessions to end");
            tokio::time::sleep(self.options.poll).await;
        }
        Ok(())
    }

    /// Whether there is so much to tidy up that it is worth a generation.
    pub(super) async fn is_cluttered(&self) -> Result<bool> {
        let shared = self.shared;
        let limit = self.options.objects_max;
        if shared.list_deltas().await?.len() >= limit {
            return Ok(true);
        }
        let horizon = shared.read_horizon().await?;
        let opens = shared.list_opens().await?;
        let live: BTreeSet<SessionId> = {
            let ends = shared.ends();
            let counts = ends.iter().filter(|((cluster, session), body)| {
                body.root().is_some() && horizon.counts(*session, body.ended(*cluster).birth)
            });
            counts.map(|((_, session), _)| *session).collect()
        };
        let over = opens.keys().filter(|session| !live.contains(session));
        Ok(over.count() >= limit)
    }

    /// Step 11: the records that hang on sessions, before the sessions themselves.
    pub(super) async fn remains(&self) -> Result<Remains> {
        let objects = &self.shared.objects;
        let mut remains = Remains {
            deltas: self.shared.list_deltas().await?,
            forgets: self.shared.forgotten().await?,
            pins: self.shared.pins().await?.into_keys().collect(),
            ..Remains::default()
        };
        for key in objects.list(BEAT).await? {
            if let Some(Name::Beat(session, _)) = Name::parse(&key) {
                remains.beats.insert(session);
            }
        }
        for key in objects.list(INDEX_RUNS).await? {
            if let Some(Name::Run(n)) = Name::parse(&key) {
                remains.old_runs.insert(n);
            }
        }
        Ok(remains)
    }

    /// Deletes records in the order of the protocol.
    pub(super) async fn remove(&mut self, what: Removable) -> Result<()> {
        let Removable {
            deltas,
            beats,
            opens,
            ends,
            forgets,
            pins,
            plans,
            finals,
            runs,
        } = what;
        let mends = self.keys_of(MEND, |name| match name {
            Name::Mend(Mended::Index(session)) => deltas.contains(&session),
            _ => false,
        });
        let mut of_deltas = mends.await?;
        of_deltas.extend(deltas.into_iter().map(|session| Name::Index(session).key()));
        self.remove_keys(of_deltas).await?;
        let of_beats = self.keys_of(BEAT, |name| match name {
            Name::Beat(session, _) => beats.contains(&session),
            _ => false,
        });
        self.remove_keys(of_beats.await?).await?;
        // Also of what was not listed as open: no end goes before its `open`.
        let of_ends = ends.iter().map(|(id, end)| (id, end.cluster, end.birth));
        let opens = opens
            .iter()
            .map(|(id, open)| (id, open.cluster, open.birth));
        let opens: BTreeSet<String> = opens
            .chain(of_ends)
            .map(|(id, cluster, birth)| Name::Open(cluster, birth, *id).key())
            .collect();
        self.remove_keys(opens.into_iter().collect()).await?;
        let ends = ends.into_iter();
        let ends = ends.map(|(session, end)| Name::End(end.cluster, session).key());
        self.remove_keys(ends.collect()).await?;
        let forgets = forgets.into_iter().map(|id| Name::Forget(id).key());
        self.remove_keys(forgets.collect()).await?;
        let of_pins = self.keys_of(crate::names::PIN, |name| match name {
            Name::Pin(session, _) => pins.contains(&session),
            _ => false,
        });
        self.remove_keys(of_pins.await?).await?;
        let plans = plans.into_iter().map(|n| Name::Plan(n).key());
        let finals = finals.into_iter().map(|n| Name::Final(n).key());
        let runs = runs.into_iter().map(|n| Name::Run(n).key());
        self.remove_keys(plans.chain(finals).chain(runs).collect())
            .await?;
        let parts = self.unused_parts().await?;
        self.remove_keys(parts).await
    }

    /// Parts that the newest run does not list, and that no later run can: parts
    /// carry the number of the run that they were first written for.
    async fn unused_parts(&self) -> Result<Vec<String>> {
        let mut listed = self.shared.objects.list(INDEX_PARTS).await?;
        listed.append(&mut self.shared.objects.list(MEND).await?);
        let horizon = self.shared.read_horizon().await?;
        if horizon.run == 0 {
            return Ok(Vec::new());
        }
        let head = match self.shared.read_run(horizon.run).await {
            Ok(head) => head,
            Err(Error::Missing { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let used: BTreeSet<_> = head.parts.iter().map(|(_, part)| *part).collect();
        let unused = listed.into_iter().filter(|key| match Name::parse(key) {
            Some(Name::RunPart(part) | Name::Mend(Mended::Part(part))) => {
                part.run <= horizon.run && !used.contains(&part)
            }
            _ => false,
        });
        Ok(unused.collect())
    }

    async fn keys_of(&self, prefix: &str, wanted: impl Fn(Name) -> bool) -> Result<Vec<String>> {
        let listed = self.shared.objects.list(prefix).await?;
        let wanted = |key: &String| Name::parse(key).is_some_and(&wanted);
        Ok(listed.into_iter().filter(wanted).collect())
    }

    async fn remove_keys(&mut self, keys: Vec<String>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.report.deleted_records += keys.len() as u64;
        self.shared.objects.delete(keys).await
    }
}
