//! Collector step 10: the next run of the index. Parts of the last run in which
//! nothing changed are taken over, so that it costs what changed.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;

use super::Work;
use crate::{
    error::{Error, Result},
    generation::{
        PacksPart, PartKind, RelyPart, RunBody, decode_packs_part, decode_rely_part,
        encode_packs_part, encode_rely_part,
    },
    ids::SessionId,
    names::{Name, ObjectType, PackName, RunPartName},
    pack::ChunkEntry,
    protocol::{Answer, Consolidation, Generation},
    record::{IndexBody, decode_at},
    repository::Shared,
    store::Created,
};

/// A part is written when it is longer than this.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// Parts shorter than this are written anew together, once there are too many.
const SMALL_BYTES: usize = 1024 * 1024;
const PARTS_MAX: usize = 16;

impl Work<'_> {
    pub(super) async fn create_run(
        &mut self,
        n: Generation,
        run: &Consolidation,
    ) -> Result<Answer> {
        let shared = self.shared;
        if shared.read_horizon().await?.run >= n {
            return Ok(Answer::Done);
        }
        match build(shared, n, run).await {
            Ok(body) => {
                let key = Name::Run(n).key();
                let bytes = shared.seal(&key, ObjectType::Run, &body.encode())?;
                // Somebody else's says the same: it was made of the same objects.
                match shared.objects.create(&key, bytes).await? {
                    Created::Ours | Created::Theirs(_) => Ok(Answer::Done),
                }
            }
            // Tidied up by one who is ahead, or lost.
            Err(Error::Missing { key }) => {
                if shared.read_horizon().await?.run >= n {
                    return Ok(Answer::Outdated);
                }
                Err(Error::Missing { key })
            }
            Err(error) => Err(error),
        }
    }
}

async fn build(shared: &Shared, n: Generation, run: &Consolidation) -> Result<RunBody> {
    let mut parts = Parts::new(shared, n);
    if run.base > 0 {
        let base = shared.read_run(run.base).await?;
        let crowded = base.parts.len() > PARTS_MAX;
        for (kind, name) in base.parts {
            parts.take_over(kind, name, run, crowded).await?;
        }
    }
    for (session, packs) in deltas_of(shared, &run.deltas) {
        let mut delta = match shared.read_delta(session, packs).await {
            Ok(delta) => delta,
            // In format 1 a session that stored nothing has no index.
            Err(Error::Missing { .. }) if packs == 0 => continue,
            Err(error) => return Err(error),
        };
        if run.live.contains(&session)
            && let Some(relies) = delta.relies.take()
        {
            parts.relied(session, relies).await?;
        }
        parts.packs(session, delta, &run.dead).await?;
    }
    parts.finish(run.live.clone()).await
}

fn deltas_of(shared: &Shared, sessions: &BTreeSet<SessionId>) -> BTreeMap<SessionId, u32> {
    let ends = shared.ends();
    let wanted = ends.iter().filter(|((_, id), _)| sessions.contains(id));
    wanted
        .filter_map(|((_, id), body)| Some((*id, body.packs()?)))
        .collect()
}

/// The parts of a run that is being made.
struct Parts<'a> {
    shared: &'a Shared,
    n: Generation,
    written: Vec<(PartKind, RunPartName)>,
    packs: PacksPart,
    packs_bytes: usize,
    relied: RelyPart,
    relied_bytes: usize,
}

impl<'a> Parts<'a> {
    fn new(shared: &'a Shared, n: Generation) -> Self {
        Self {
            shared,
            n,
            written: Vec::new(),
            packs: Vec::new(),
            packs_bytes: 0,
            relied: Vec::new(),
            relied_bytes: 0,
        }
    }

    /// Takes over a part of the last run, as it is if nothing in it changes.
    async fn take_over(
        &mut self,
        kind: PartKind,
        name: RunPartName,
        run: &Consolidation,
        crowded: bool,
    ) -> Result<()> {
        let (key, body) = self.shared.read_part(name).await?;
        let merged = crowded && body.len() < SMALL_BYTES;
        match kind {
            PartKind::Packs => {
                let part = decode_at(&key, &body, decode_packs_part)?;
                let is_dead = |(session, body): &(SessionId, IndexBody)| {
                    let mut names = body.packs.iter().map(|pack| pack.name(*session));
                    names.any(|name| run.dead.contains(&name))
                };
                if !merged && !part.iter().any(is_dead) {
                    self.written.push((kind, name));
                    return Ok(());
                }
                for (session, body) in part {
                    self.packs(session, body, &run.dead).await?;
                }
            }
            PartKind::Relied => {
                let part = decode_at(&key, &body, decode_rely_part)?;
                let all_live = part.iter().all(|(session, _)| run.live.contains(session));
                if !merged && all_live {
                    self.written.push((kind, name));
                    return Ok(());
                }
                for (session, packs) in part {
                    if run.live.contains(&session) {
                        self.relied(session, packs).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn packs(
        &mut self,
        session: SessionId,
        mut body: IndexBody,
        dead: &BTreeSet<PackName>,
    ) -> Result<()> {
        body.packs
            .retain(|pack| !dead.contains(&pack.name(session)));
        if body.packs.is_empty() {
            return Ok(());
        }
        let bytes = |body: &IndexBody| -> usize {
            let chunks: usize = body.packs.iter().map(|pack| pack.chunks.len()).sum();
            64 + body.packs.len() * 64 + chunks * ChunkEntry::BYTES
        };
        let more = bytes(&body);
        if self.packs_bytes + more > PART_BYTES {
            self.flush_packs().await?;
        }
        self.packs_bytes += more;
        self.packs.push((session, body));
        Ok(())
    }

    async fn relied(&mut self, session: SessionId, packs: Vec<PackName>) -> Result<()> {
        let more = 20 + packs.len() * 21;
        if self.relied_bytes + more > PART_BYTES {
            self.flush_relied().await?;
        }
        self.relied_bytes += more;
        self.relied.push((session, packs));
        Ok(())
    }

    async fn flush_packs(&mut self) -> Result<()> {
        let part = std::mem::take(&mut self.packs);
        self.packs_bytes = 0;
        if part.is_empty() {
            return Ok(());
        }
        self.write(PartKind::Packs, &encode_packs_part(&part)).await
    }

    async fn flush_relied(&mut self) -> Result<()> {
        let part = std::mem::take(&mut self.relied);
        self.relied_bytes = 0;
        if part.is_empty() {
            return Ok(());
        }
        self.write(PartKind::Relied, &encode_rely_part(&part)).await
    }

    async fn write(&mut self, kind: PartKind, body: &[u8]) -> Result<()> {
        let mut random = [0; 16];
        self.shared.randomness.rng().fill_bytes(&mut random);
        let run = self.n;
        let name = RunPartName { run, random };
        let key = Name::RunPart(name).key();
        let bytes = self.shared.seal(&key, ObjectType::RunPart, body)?;
        match self.shared.objects.create(&key, bytes).await? {
            Created::Ours => {
                self.written.push((kind, name));
                Ok(())
            }
            Created::Theirs(_) => Err(Error::Occupied { key }),
        }
    }

    async fn finish(mut self, live: BTreeSet<SessionId>) -> Result<RunBody> {
        self.flush_packs().await?;
        self.flush_relied().await?;
        Ok(RunBody {
            live,
            parts: self.written,
        })
    }
}
