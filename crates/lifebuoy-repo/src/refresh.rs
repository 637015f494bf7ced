//! Learning what is in the bucket: ends, the newest run of the index, deltas. What
//! was read once is kept, as objects never change. Never takes a record that
//! cannot be read for one that is not there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    error::{Error, Result},
    generation::{PartKind, RunBody, decode_packs_part, decode_rely_part},
    header::LAYOUT,
    ids::{ClusterKey, SessionId},
    index::Index,
    names::{
        END, GC, INDEX, INDEX_RUNS, MEND, Mended, Name, OPEN, ObjectType, PackName, RunPartName,
    },
    protocol::{Began, Collections, Ended, Generation, Horizon, usable_deltas},
    record::{IndexBody, RECORD_BYTES_MAX, SUMMARY_BYTES_MAX, decode_at},
    repository::Shared,
    wire::Damage,
};

/// Records that are read at one time.
pub(crate) const READS: usize = 16;
/// Longest `end` or `open` object: a summary, and less than a kilobyte around it.
pub(crate) const SMALL_RECORD_BYTES_MAX: usize = SUMMARY_BYTES_MAX + 1024;
/// How often a look at the bucket is repeated because a collector tidied up in
/// the middle of it. Each time another generation has passed.
const LOOKS: usize = 5;

/// The ends that are listed.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    known: BTreeSet<(ClusterKey, SessionId)>,
    listed: BTreeSet<(ClusterKey, SessionId)>,
    pub(crate) ended: BTreeMap<SessionId, Ended>,
    pub(crate) unreadable: Vec<(String, Error)>,
}

/// The keys of all ends.
#[derive(Debug)]
pub(crate) struct EndKeys {
    /// Those that were known before they were listed.
    known: BTreeSet<(ClusterKey, SessionId)>,
    listed: BTreeSet<(ClusterKey, SessionId)>,
}

/// What there is, listed in this order.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub(crate) ends: Ends,
    pub(crate) deltas: BTreeSet<SessionId>,
    pub(crate) horizon: Horizon,
}

/// Everything that is committed now.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) ends: Ends,
    pub(crate) horizon: Horizon,
    /// Committed sessions whose index is missing or cannot be read.
    pub(crate) incomplete: Vec<(String, Error)>,
}

impl View {
    /// All records that cannot be read.
    pub(crate) fn problems(self) -> Vec<(String, Error)> {
        let mut problems = self.ends.unreadable;
        problems.extend(self.incomplete);
        problems
    }
}

impl Shared {
    /// Brings ends and index up to date.
    pub(crate) async fn refresh(&self) -> Result<View> {
        let mut looks = 0;
        loop {
            looks += 1;
            match self.look().await {
                // Tidied up since it was listed, if it was not lost.
                Err(Error::Missing { .. }) if looks < LOOKS => {}
                seen => return seen,
            }
        }
    }

    /// As [`Shared::refresh`], also when ends are gone that should be there: their
    /// keys are returned.
    pub(crate) async fn look_around(&self) -> Result<(View, Vec<String>)> {
        let mut looks = 0;
        loop {
            looks += 1;
            let Listed {
                ends,
                deltas,
                horizon,
            } = self.list().await?;
            let vanished = self.vanished(&ends, &horizon).await?;
            let wanted = usable_deltas(&ends.ended, &horizon);
            match self.load(&horizon, &wanted, &deltas).await {
                Err(Error::Missing { .. }) if looks < LOOKS => {}
                loaded => {
                    let incomplete = loaded?;
                    let view = View {
                        ends,
                        horizon,
                        incomplete,
                    };
                    return Ok((view, vanished));
                }
            }
        }
    }

    async fn look(&self) -> Result<View> {
        let Listed {
            ends,
            deltas,
            horizon,
        } = self.list().await?;
        self.settle(&ends, &horizon).await?;
        let wanted = usable_deltas(&ends.ended, &horizon);
        let incomplete = self.load(&horizon, &wanted, &deltas).await?;
        Ok(View {
            ends,
            horizon,
            incomplete,
        })
    }

    /// Lists ends, then deltas, then runs. What the ends say does not change: it is read
    /// meanwhile.
    pub(crate) async fn list(&self) -> Result<Listed> {
        let keys = self.list_end_keys().await?;
        let newer = async {
            let deltas = self.list_deltas().await?;
            Ok((deltas, self.read_horizon().await?))
        };
        let (ends, (deltas, horizon)) = tokio::try_join!(self.read_ends(keys), newer)?;
        Ok(Listed {
            ends,
            deltas,
            horizon,
        })
    }

    pub(crate) async fn list_collections(&self) -> Result<Collections> {
        let mut found = Collections::default();
        for key in self.objects.list(GC).await? {
            match Name::parse(&key) {
                Some(Name::Plan(n)) => found.plans.insert(n),
                Some(Name::Final(n)) => found.finals.insert(n),
                _ => continue,
            };
        }
        Ok(found)
    }

    /// Whether a generation after this one may have deleted packs: it does so as
    /// soon as its final is out, and writes its run when it has.
    pub(crate) async fn has_deleted_since(&self, n: Generation) -> Result<bool> {
        let found = self.list_collections().await?;
        let newest = found.finals.last().copied().unwrap_or(0);
        Ok(newest > n || self.read_horizon().await?.run > n)
    }

    /// Lists `open/`: what the keys say.
    pub(crate) async fn list_opens(&self) -> Result<BTreeMap<SessionId, Began>> {
        let listed = self.objects.list(OPEN).await?;
        let opens = listed.iter().filter_map(|key| match Name::parse(key) {
            Some(Name::Open(cluster, birth, session)) => Some((session, Began { cluster, birth })),
            _ => None,
        });
        Ok(opens.collect())
    }

    /// Lists `end/`, and reads those that are new.
    pub(crate) async fn list_ends(&self) -> Result<Ends> {
        let keys = self.list_end_keys().await?;
        self.read_ends(keys).await
    }

    pub(crate) async fn list_end_keys(&self) -> Result<EndKeys> {
        // Before the listing: another task may learn of a newer one meanwhile.
        let known = self.ends().keys().copied().collect();
        let listed = self.listed_ends().await?;
        Ok(EndKeys { known, listed })
    }

    /// Reads those of the listed ends that are not known yet.
    pub(crate) async fn read_ends(&self, keys: EndKeys) -> Result<Ends> {
        let EndKeys {
            known: before,
            listed,
        } = keys;
        if listed.is_empty() {
            // Empty because nothing ended yet, or because everything is gone?
            self.check_format().await?;
        }
        let new: Vec<_> = {
            let known = self.ends();
            let new = listed.iter().filter(|end| !known.contains_key(end));
            new.copied().collect()
        };
        let mut reads = stream::iter(new)
            .map(|(cluster, session)| async move {
                let key = Name::End(cluster, session).key();
                (key, self.read_end(cluster, session).await)
            })
            .buffer_unordered(READS);
        let mut unreadable = Vec::new();
        while let Some((key, read)) = reads.next().await {
            match read {
                // Deleted since it was listed, or lost: `settle` tells.
                Ok(_) | Err(Error::Missing { .. }) => {}
                Err(error @ Error::Corrupt { .. }) => unreadable.push((key, error)),
                Err(error) => return Err(error),
            }
        }
        unreadable.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut ended: BTreeMap<SessionId, Ended> = BTreeMap::new();
        {
            let known = self.ends();
            for end in &listed {
                let Some(body) = known.get(end) else { continue };
                let new = body.ended(end.0);
                // Somebody may have fenced it under a wrong cluster as well.
                let end = ended.entry(end.1).or_insert(new);
                if !end.has_committed() {
                    *end = new;
                }
            }
        }
        Ok(Ends {
            known: before,
            listed,
            ended,
            unreadable,
        })
    }

    async fn listed_ends(&self) -> Result<BTreeSet<(ClusterKey, SessionId)>> {
        let listed = self.objects.list(END).await?;
        let ends = listed.iter().filter_map(|key| match Name::parse(key) {
            Some(Name::End(cluster, session)) => Some((cluster, session)),
            _ => None,
        });
        Ok(ends.collect())
    }

    /// Ends that are known and no longer listed must be of sessions that a run has
    /// closed: a listing that shrinks otherwise is a fault, and so is a snapshot
    /// that a run lists as live and the bucket does not. The horizon is read after
    /// the ends are listed.
    pub(crate) async fn settle(&self, ends: &Ends, horizon: &Horizon) -> Result<()> {
        let vanished = self.vanished(ends, horizon).await?;
        match vanished.first() {
            None => Ok(()),
            Some(example) => Err(Error::Vanished {
                count: vanished.len(),
                example: example.clone(),
            }),
        }
    }

    /// The keys of the ends that should be there and are not. Those that are over
    /// are forgotten by this handle.
    pub(crate) async fn vanished(&self, ends: &Ends, horizon: &Horizon) -> Result<Vec<String>> {
        let mut vanished = Vec::new();
        {
            let mut known = self.ends_mut();
            for end in ends.known.difference(&ends.listed) {
                let Some(body) = known.get(end) else { continue };
                if horizon.counts(end.1, body.ended(end.0).birth) {
                    vanished.push(Name::End(end.0, end.1).key());
                } else {
                    known.remove(end);
                }
            }
        }
        let sessions = |ends: &BTreeSet<(ClusterKey, SessionId)>| -> BTreeSet<SessionId> {
            ends.iter().map(|(_, session)| *session).collect()
        };
        let mut lost = &horizon.live - &sessions(&ends.listed);
        if !lost.is_empty() {
            // They may have committed since, and since been closed over again.
            lost = &lost - &sessions(&self.listed_ends().await?);
            lost = &lost & &self.read_horizon().await?.live;
        }
        vanished.extend(lost.iter().map(|session| format!("{END}/…/{session}")));
        vanished.sort();
        vanished.dedup();
        Ok(vanished)
    }

    pub(crate) async fn list_deltas(&self) -> Result<BTreeSet<SessionId>> {
        let (own, mends) = tokio::try_join!(self.objects.list(INDEX), self.objects.list(MEND))?;
        let listed = own.iter().chain(&mends);
        let deltas = listed.filter_map(|key| match Name::parse(key) {
            Some(Name::Index(session) | Name::Mend(Mended::Index(session))) => Some(session),
            _ => None,
        });
        Ok(deltas.collect())
    }

    /// Lists the runs, and reads the head of the newest if it is new.
    pub(crate) async fn read_horizon(&self) -> Result<Horizon> {
        let (run, head) = self.newest_run().await?;
        Ok(Horizon {
            run,
            live: head.live.clone(),
        })
    }

    async fn newest_run(&self) -> Result<(Generation, Arc<RunBody>)> {
        for _ in 0..LOOKS {
            let listed = self.objects.list(INDEX_RUNS).await?;
            let runs = listed.iter().filter_map(|key| match Name::parse(key) {
                Some(Name::Run(n)) => Some(n),
                _ => None,
            });
            let newest = runs.max().unwrap_or(0);
            let (known, head) = self.head();
            if newest == known {
                return Ok((newest, head));
            }
            if newest < known {
                // The newest run is never deleted.
                return Err(Error::Vanished {
                    count: 1,
                    example: Name::Run(known).key(),
                });
            }
            match self.read_run(newest).await {
                Ok(head) => {
                    let head = Arc::new(head);
                    self.remember_head(newest, Arc::clone(&head));
                    return Ok((newest, head));
                }
                Err(Error::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Missing {
            key: INDEX_RUNS.to_owned(),
        })
    }

    pub(crate) async fn read_run(&self, n: Generation) -> Result<RunBody> {
        let key = Name::Run(n).key();
        let bytes = self.objects.get_bounded(&key, RECORD_BYTES_MAX).await?;
        let body = self.records().open(&key, ObjectType::Run, &bytes)?;
        decode_at(&key, &body, RunBody::decode)
    }

    pub(crate) async fn read_part(&self, part: RunPartName) -> Result<(String, Vec<u8>)> {
        let key = Name::RunPart(part).key();
        match self.read_record(&key, ObjectType::RunPart).await {
            Ok(body) => Ok((key, body)),
            Err(error) => self.read_mend(Mended::Part(part), error).await,
        }
    }

    pub(crate) async fn read_record(&self, key: &str, kind: ObjectType) -> Result<Vec<u8>> {
        let bytes = self.objects.get_bounded(key, RECORD_BYTES_MAX).await?;
        self.records().open(key, kind, &bytes)
    }

    /// What stands in for an object that cannot be read because of `error`, and
    /// the key of it; `error` if nothing does.
    pub(crate) async fn read_mend(
        &self,
        mended: Mended,
        error: Error,
    ) -> Result<(String, Vec<u8>)> {
        if !matches!(error, Error::Corrupt { .. } | Error::Missing { .. }) {
            return Err(error);
        }
        let key = Name::Mend(mended).key();
        match self.read_record(&key, ObjectType::Mend).await {
            Ok(body) => Ok((key, body)),
            Err(Error::Missing { .. } | Error::Corrupt { .. }) => Err(error),
            Err(other) => Err(other),
        }
    }

    /// Lists `mend/`.
    pub(crate) async fn list_mends(&self) -> Result<BTreeSet<Mended>> {
        let listed = self.objects.list(MEND).await?;
        let mends = listed.iter().filter_map(|key| match Name::parse(key) {
            Some(Name::Mend(mended)) => Some(mended),
            _ => None,
        });
        Ok(mends.collect())
    }

    /// Packs that were found lost or damaged: nothing is built on them.
    pub(crate) async fn set_aside(&self) -> Result<BTreeSet<PackName>> {
        let packs = self.list_mends().await?.into_iter();
        let packs = packs.filter_map(|mended| match mended {
            Mended::Pack(pack) => Some(pack),
            Mended::Index(_) | Mended::Part(_) => None,
        });
        Ok(packs.collect())
    }

    /// Makes the index that of this run and of the `wanted` deltas that are
    /// `listed`. Says which of them cannot be read.
    ///
    /// # Errors
    /// [`Error::Missing`] if the run was replaced by a newer one, or a delta was
    /// tidied up.
    pub(crate) async fn load(
        &self,
        horizon: &Horizon,
        wanted: &BTreeSet<SessionId>,
        listed: &BTreeSet<SessionId>,
    ) -> Result<Vec<(String, Error)>> {
        // A newer index is built aside: those who read go on with the old one.
        let is_current = {
            let index = self.index();
            index.run() == horizon.run && index.unreadable().is_empty()
        };
        let fresh = if is_current {
            None
        } else {
            Some(self.read_index_of_run(horizon.run).await?)
        };
        let missing: Vec<(SessionId, u32)> = {
            let index = self.index();
            let index = fresh.as_ref().unwrap_or(&index);
            let new = |session: &SessionId| wanted.contains(session) && !index.holds(*session);
            let ends = self.ends();
            let new = ends.iter().filter(|((_, session), _)| new(session));
            new.filter_map(|((_, session), body)| Some((*session, body.packs()?)))
                .collect()
        };
        let mut reads = stream::iter(missing)
            .map(|(session, packs)| {
                let present = listed.contains(&session);
                async move {
                    let key = Name::Index(session).key();
                    if !present && packs == 0 {
                        // One that wrote no packs in format 1 has no index.
                        return (session, key, Ok(None));
                    }
                    let read = if present {
                        self.read_delta(session, packs).await
                    } else {
                        Err(Error::Missing { key: key.clone() })
                    };
                    (session, key, read.map(Some))
                }
            })
            .buffer_unordered(READS);
        let mut deltas = Vec::new();
        let mut incomplete = Vec::new();
        while let Some((session, key, read)) = reads.next().await {
            match read {
                Ok(delta) => deltas.extend(delta.map(|delta| (session, delta))),
                Err(error @ Error::Missing { .. }) if listed.contains(&session) => {
                    return Err(error);
                }
                Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => {
                    incomplete.push((key, error));
                }
                Err(error) => return Err(error),
            }
        }
        // In one order whatever came first, so that equal chunks are found alike.
        deltas.sort_unstable_by_key(|(session, _)| *session);
        let mut index = self.index_mut();
        if let Some(fresh) = fresh
            && index.is_behind(&fresh)
        {
            *index = fresh;
        }
        for (session, delta) in deltas {
            index.add(session, &delta);
        }
        incomplete.extend_from_slice(index.unreadable());
        Ok(incomplete)
    }

    async fn read_index_of_run(&self, run: Generation) -> Result<Index> {
        let mut index = Index::of_run(run);
        if run == 0 {
            return Ok(index);
        }
        let (known, head) = self.head();
        let head = if known == run {
            head
        } else {
            Arc::new(self.read_run(run).await?)
        };
        let mut reads = stream::iter(head.parts.clone())
            .map(|(kind, part)| async move {
                match self.read_part(part).await {
                    Ok(read) => Ok((kind, Ok(read))),
                    Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => {
                        let error = self.unless_replaced(run, error).await?;
                        Ok((kind, Err((Name::RunPart(part).key(), error))))
                    }
                    Err(error) => Err(error),
                }
            })
            .buffered(4);
        while let Some((kind, read)) = reads.try_next().await? {
            let (key, body) = match read {
                Ok(read) => read,
                Err((key, error)) => {
                    index.lack(key, error);
                    continue;
                }
            };
            match kind {
                PartKind::Packs => {
                    for (session, packs) in decode_at(&key, &body, decode_packs_part)? {
                        index.add_packs(session, &packs);
                    }
                }
                PartKind::Relied => {
                    for (session, packs) in decode_at(&key, &body, decode_rely_part)? {
                        if head.live.contains(&session) {
                            index.rely(session, packs);
                        }
                    }
                }
            }
        }
        Ok(index)
    }

    /// Why a part of this run cannot be read, if it is the newest run: its parts
    /// are never deleted. One of an older run may have been.
    async fn unless_replaced(&self, run: Generation, error: Error) -> Result<Error> {
        let listed = self.objects.list(INDEX_RUNS).await?;
        let newer = |key: &String| matches!(Name::parse(key), Some(Name::Run(n)) if n > run);
        match listed.iter().any(newer) {
            true => Err(Error::Missing {
                key: Name::Run(run).key(),
            }),
            false => Ok(error),
        }
    }

    /// The index delta of a session that wrote so many packs, or what stands in
    /// for it.
    pub(crate) async fn read_delta(&self, session: SessionId, packs: u32) -> Result<IndexBody> {
        match self.read_own_delta(session, packs).await {
            Ok(delta) => Ok(delta),
            Err(error) => self.mended_delta(session, error).await,
        }
    }

    async fn read_own_delta(&self, session: SessionId, packs: u32) -> Result<IndexBody> {
        let key = &Name::Index(session).key();
        let bytes = self.objects.get_bounded(key, RECORD_BYTES_MAX).await?;
        let (layout, body) = self.records().open_any(key, ObjectType::Index, &bytes)?;
        let delta = decode_at(key, &body, |body| IndexBody::decode(layout, body))?;
        if u32::try_from(delta.packs.len()) != Ok(packs) {
            return Err(Error::corrupt(key, Damage::Field("number of packs")));
        }
        Ok(delta)
    }

    /// It may list fewer packs than the session wrote: those that were there.
    async fn mended_delta(&self, session: SessionId, error: Error) -> Result<IndexBody> {
        let (key, body) = self.read_mend(Mended::Index(session), error).await?;
        decode_at(&key, &body, |body| IndexBody::decode(LAYOUT, body))
    }

    pub(crate) fn head(&self) -> (Generation, Arc<RunBody>) {
        let head = self.head.read().unwrap_or_else(PoisonError::into_inner);
        head.clone()
    }

    fn remember_head(&self, run: Generation, body: Arc<RunBody>) {
        let mut head = self.head.write().unwrap_or_else(PoisonError::into_inner);
        if head.0 < run {
            *head = (run, body);
        }
    }
}
