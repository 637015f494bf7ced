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
    ids::{ClusterKey, SessionId},
    index::Index,
    names::{END, GC, INDEX, INDEX_RUNS, Name, OPEN, ObjectType, RunPartName},
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
    listed: BTreeSet<(ClusterKey, SessionId)>,
    pub(crate) ended: BTreeMap<SessionId, Ended>,
    pub(crate) unreadable: Vec<(String, Error)>,
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

    async fn look(&self) -> Result<View> {
        let ends = self.list_ends().await?;
        let deltas = self.list_deltas().await?;
        let horizon = self.read_horizon().await?;
        self.settle(&ends, &horizon)?;
        let wanted = usable_deltas(&ends.ended, &horizon);
        let incomplete = self.load(&horizon, &wanted, &deltas).await?;
        Ok(View {
            ends,
            horizon,
            incomplete,
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
        let listed = self.objects.list(END).await?;
        let listed: BTreeSet<_> = listed
            .iter()
            .filter_map(|key| match Name::parse(key) {
                Some(Name::End(cluster, session)) => Some((cluster, session)),
                _ => None,
            })
            .collect();
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
            listed,
            ended,
            unreadable,
        })
    }

    /// Ends that are known and no longer listed must be of sessions that a run has
    /// closed: a listing that shrinks otherwise is a fault, and so is a snapshot
    /// that a run lists as live and the bucket does not. The horizon is read after
    /// the ends are listed.
    pub(crate) fn settle(&self, ends: &Ends, horizon: &Horizon) -> Result<()> {
        let mut known = self.ends_mut();
        let mut vanished = Vec::new();
        known.retain(|end, body| {
            let birth = body.ended(end.0).birth;
            let there = ends.listed.contains(end);
            if !there && horizon.counts(end.1, birth) {
                vanished.push(Name::End(end.0, end.1).key());
            }
            there || horizon.counts(end.1, birth)
        });
        drop(known);
        let listed: BTreeSet<SessionId> = ends.listed.iter().map(|(_, session)| *session).collect();
        let lost = horizon.live.difference(&listed);
        vanished.extend(lost.map(|session| format!("{END}/…/{session}")));
        vanished.sort();
        vanished.dedup();
        match vanished.first() {
            None => Ok(()),
            Some(example) => Err(Error::Vanished {
                count: vanished.len(),
                example: example.clone(),
            }),
        }
    }

    pub(crate) async fn list_deltas(&self) -> Result<BTreeSet<SessionId>> {
        let listed = self.objects.list(INDEX).await?;
        let deltas = listed.iter().filter_map(|key| match Name::parse(key) {
            Some(Name::Index(session)) => Some(session),
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
        let bytes = self.objects.get_bounded(&key, RECORD_BYTES_MAX).await?;
        let body = self.records().open(&key, ObjectType::RunPart, &bytes)?;
        Ok((key, body))
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
        let fresh = if self.index().run() == horizon.run {
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
                    if !present {
                        // One that wrote no packs in format 1 has no index.
                        let lost = (packs > 0).then(|| Error::Missing { key: key.clone() });
                        return (session, key, lost.map_or(Ok(None), Err));
                    }
                    let read = self.read_delta(&key, packs).await;
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
            && index.run() < fresh.run()
        {
            *index = fresh;
        }
        for (session, delta) in deltas {
            index.add(session, &delta);
        }
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
            .map(|(kind, part)| async move { Ok::<_, Error>((kind, self.read_part(part).await?)) })
            .buffered(4);
        while let Some((kind, (key, body))) = reads.try_next().await? {
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

    async fn read_delta(&self, key: &str, packs: u32) -> Result<IndexBody> {
        let bytes = self.objects.get_bounded(key, RECORD_BYTES_MAX).await?;
        let (layout, body) = self.records().open_any(key, ObjectType::Index, &bytes)?;
        let delta = decode_at(key, &body, |body| IndexBody::decode(layout, body))?;
        if u32::try_from(delta.packs.len()) != Ok(packs) {
            return Err(Error::corrupt(key, Damage::Field("number of packs")));
        }
        Ok(delta)
    }

    fn head(&self) -> (Generation, Arc<RunBody>) {
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
