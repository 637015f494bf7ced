//! Repair: reads from the trailers of packs what a lost or damaged index said, and
//! stores again what can still be read of damaged packs. Writes new objects only:
//! never overwrites or deletes one, however damaged it is.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, stream};

use crate::{
    check::{Check, CheckLevel, CheckOptions, CheckReport, Unsound},
    contents::Contents,
    error::{Error, Result},
    generation::{PartKind, encode_packs_part, encode_rely_part},
    header::HEADER_BYTES,
    ids::{ChunkId, ClusterKey, SessionId},
    names::{ChunkKind, Mended, Name, ObjectType, PackName, RunPartName},
    pack::{CHUNKS_OFFSET, read_tail, tail_bytes},
    protocol::How,
    reader::Reader,
    record::{IndexBody, PackEntry, Purpose, encode_forget},
    refresh::READS,
    repository::{Repository, Shared},
    writer::SessionRequest,
};

/// So much of the end of a pack is read first: most trailers fit.
const TAIL_BYTES: u64 = 64 * 1024;

/// What a repair did, and what is left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "what cannot be repaired must be shown"]
pub struct RepairReport {
    /// Indices, and parts of the index, that were read from the packs.
    pub indices: u64,
    /// Lost or damaged packs that are set aside: backups store again what was in
    /// them, as far as they still see it.
    pub packs_set_aside: u64,
    /// Chunks of damaged packs that could be read and were stored again.
    pub chunks_copied: u64,
    /// Bytes of the objects that this took.
    pub bytes_stored: u64,
    /// What is still wrong, and which snapshots that affects.
    pub left: CheckReport,
}

impl Repository {
    /// Checks the repository and repairs what can be repaired without deleting or
    /// overwriting anything. Then checks again what hangs together. `cluster` is
    /// under whose name copies are written.
    ///
    /// # Errors
    /// [`Error::UpgradeNeeded`] in format 1, [`Error::ReadOnly`], those of
    /// [`Repository::check`] and [`Repository::begin`].
    pub async fn repair(
        &self,
        contents: &dyn Contents,
        cluster: ClusterKey,
        options: &CheckOptions,
    ) -> Result<RepairReport> {
        let shared = &self.shared;
        shared.check_writable()?;
        shared.check_format_2("repairing")?;
        let mut check = Check::new(shared, contents, options);
        check.run().await?;
        let mut report = RepairReport::default();
        if !check.is_blind() {
            self.repair_indices(&check, &mut report).await?;
            self.repair_packs(&check, cluster, &mut report).await?;
        }
        let structure = CheckOptions {
            level: CheckLevel::Structure,
            again: BTreeSet::new(),
            progress: options.progress.clone(),
        };
        let mut after = Check::new(shared, contents, &structure);
        // What was found by reading packs is not read twice.
        after.unsound = check.unsound;
        after.run().await?;
        report.left = after.finish();
        Ok(report)
    }

    async fn repair_indices(&self, check: &Check<'_>, report: &mut RepairReport) -> Result<()> {
        let shared = &self.shared;
        let mut parts = Vec::new();
        for key in check.incomplete.keys() {
            match Name::parse(key) {
                Some(Name::Index(session)) => {
                    let made = shared.rebuild_delta(check, session).await?;
                    report.indices += u64::from(made.is_some());
                    report.bytes_stored += made.unwrap_or(0);
                }
                Some(Name::RunPart(part)) => parts.push(part),
                _ => {}
            }
        }
        if !parts.is_empty() {
            // Only what no other index lists can have been in them.
            let (view, _) = shared.look_around().await?;
            let run = view.horizon.run;
            let unlisted = shared.unlisted(check, &view.ends.ended).await?;
            let made = shared.rebuild_parts(run, &parts, unlisted).await?;
            report.indices += parts.len() as u64;
            report.bytes_stored += made;
        }
        shared.look_around().await.map(|_| ())
    }

    async fn repair_packs(
        &self,
        check: &Check<'_>,
        cluster: ClusterKey,
        report: &mut RepairReport,
    ) -> Result<()> {
        let shared = &self.shared;
        // First, so that no collection prefers what is damaged to its copy.
        for (pack, unsound) in &check.unsound {
            let mended = Mended::Pack(*pack);
            if !check.mends.contains(&mended) {
                report.bytes_stored += shared.mend(mended, &encode_forget(unsound.word())).await?;
                report.packs_set_aside += 1;
            }
        }
        let aside = shared.set_aside().await?;
        let wanted = chunks_only_in(shared, &aside, &check.unsound);
        if wanted.is_empty() {
            return Ok(());
        }
        let reader = Reader::over(shared);
        let mut writer = None;
        for (kind, chunks) in wanted {
            let mut read = std::pin::pin!(reader.get_ordered(chunks));
            while let Some(chunk) = read.next().await {
                let plain = match chunk {
                    Ok((_, plain)) => plain,
                    // It is lost: the check names it.
                    Err(
                        Error::Corrupt { .. } | Error::Missing { .. } | Error::ChunkMissing { .. },
                    ) => continue,
                    Err(error) => return Err(error),
                };
                let writer = match &writer {
                    Some(writer) => writer,
                    None => writer.insert(self.begin_copies(cluster).await?),
                };
                writer.put_copy(kind, plain).await?;
                report.chunks_copied += 1;
            }
        }
        if let Some(writer) = writer {
            writer.commit_copies().await?;
            report.bytes_stored += writer.stats().bytes_stored;
        }
        Ok(())
    }

    async fn begin_copies(&self, cluster: ClusterKey) -> Result<crate::writer::Writer> {
        self.begin(SessionRequest {
            id: SessionId::random(&mut self.shared.randomness.rng()),
            cluster,
            purpose: Purpose::Repack,
            label: Bytes::new(),
        })
        .await
    }
}

/// The chunks of which all copies are in packs that are set aside, in the order in
/// which they lie; without those that are nowhere at all.
fn chunks_only_in(
    shared: &Shared,
    aside: &BTreeSet<PackName>,
    unsound: &BTreeMap<PackName, Unsound>,
) -> Vec<(ChunkKind, Vec<ChunkId>)> {
    let index = shared.index();
    let is_gone = |pack: &PackName| matches!(unsound.get(pack), Some(Unsound::Missing));
    let mut found = Vec::new();
    for (id, _) in index.chunks() {
        let mut copies = index.copies(&id);
        if copies.any(|(pack, _)| !aside.contains(&pack.name)) {
            continue;
        }
        let there = index.copies(&id).find(|(pack, _)| !is_gone(&pack.name));
        found.extend(there.map(|(pack, place)| (pack.name, place.offset, id)));
    }
    found.sort_unstable();
    let of = |kind: ChunkKind| {
        let chunks = found.iter().filter(|(pack, ..)| pack.kind == kind);
        (kind, chunks.map(|(.., id)| *id).collect::<Vec<_>>())
    };
    let both = [of(ChunkKind::Data), of(ChunkKind::Metadata)].into_iter();
    both.filter(|(_, chunks)| !chunks.is_empty()).collect()
}

impl Shared {
    /// Writes what stands in for an object, and returns how many bytes that took.
    async fn mend(&self, mended: Mended, body: &[u8]) -> Result<u64> {
        let key = Name::Mend(mended).key();
        let bytes = self.seal(&key, ObjectType::Mend, body)?;
        let stored = bytes.len() as u64;
        self.objects.create(&key, bytes).await?;
        Ok(stored)
    }

    /// Reads what a session stored from the trailers of its packs. `None` if none
    /// of them can be read.
    async fn rebuild_delta(&self, check: &Check<'_>, session: SessionId) -> Result<Option<u64>> {
        let first = PackName {
            session,
            number: 0,
            kind: ChunkKind::Data,
        };
        let packs = check.packs.range(first..);
        let packs = packs.take_while(|(pack, _)| pack.session == session);
        let packs: Vec<_> = packs.map(|(pack, size)| (*pack, *size)).collect();
        let Some(body) = self.trailers(packs).await?.remove(&session) else {
            return Ok(None);
        };
        let expected = {
            let ends = self.ends();
            let mut of = ends.iter().filter(|((_, id), _)| *id == session);
            of.find_map(|(_, end)| end.packs())
        };
        let is_whole = u32::try_from(body.packs.len()).ok() == expected;
        let key = Name::Index(session).key();
        let is_missing = matches!(check.incomplete.get(&key), Some(Error::Missing { .. }));
        if is_whole && is_missing {
            let bytes = self.seal(&key, ObjectType::Index, &body.encode())?;
            let stored = bytes.len() as u64;
            self.objects.create(&key, bytes).await?;
            return Ok(Some(stored));
        }
        self.mend(Mended::Index(session), &body.encode())
            .await
            .map(Some)
    }

    /// The packs in the bucket that no index lists, without those of sessions
    /// that have not committed.
    async fn unlisted(
        &self,
        check: &Check<'_>,
        ended: &BTreeMap<SessionId, crate::protocol::Ended>,
    ) -> Result<Vec<(PackName, u64)>> {
        let opens = self.list_opens().await?;
        let counts = |session: &SessionId| match ended.get(session) {
            Some(end) => end.how != How::Fenced,
            None => !opens.contains_key(session),
        };
        let indexed = self.indexed_packs();
        let unlisted = check
            .packs
            .iter()
            .filter(|(pack, _)| !indexed.contains_key(pack) && counts(&pack.session));
        Ok(unlisted.map(|(pack, size)| (*pack, *size)).collect())
    }

    /// Writes what stands in for these parts of a run: the packs that are listed
    /// nowhere else. Which packs a snapshot relies on is not in any trailer.
    async fn rebuild_parts(
        &self,
        run: u64,
        parts: &[RunPartName],
        unlisted: Vec<(PackName, u64)>,
    ) -> Result<u64> {
        let head = self.read_run(run).await?;
        let kind = |part: &RunPartName| {
            let found = head.parts.iter().find(|(_, listed)| listed == part);
            found.map(|(kind, _)| *kind)
        };
        let of_packs: Vec<RunPartName> = parts
            .iter()
            .filter(|part| kind(part) == Some(PartKind::Packs))
            .copied()
            .collect();
        let mut bodies: Vec<Vec<(SessionId, IndexBody)>> = vec![Vec::new(); of_packs.len()];
        if !of_packs.is_empty() {
            let sessions = self.trailers(unlisted).await?.into_iter();
            for (n, session) in sessions.enumerate() {
                bodies[n % of_packs.len()].push(session);
            }
        }
        let mut stored = 0;
        for (part, body) in of_packs.into_iter().zip(bodies) {
            stored += self
                .mend(Mended::Part(part), &encode_packs_part(&body))
                .await?;
        }
        for part in parts
            .iter()
            .filter(|part| kind(part) == Some(PartKind::Relied))
        {
            stored += self
                .mend(Mended::Part(*part), &encode_rely_part(&[]))
                .await?;
        }
        Ok(stored)
    }

    /// The trailers of these packs, by session. Those that cannot be read are left
    /// out: what was in them is lost.
    async fn trailers(
        &self,
        packs: Vec<(PackName, u64)>,
    ) -> Result<BTreeMap<SessionId, IndexBody>> {
        let mut found: BTreeMap<SessionId, IndexBody> = BTreeMap::new();
        let mut reads = stream::iter(packs)
            .map(|(pack, size)| async move { (pack, self.trailer(pack, size).await) })
            .buffer_unordered(READS);
        while let Some((pack, read)) = reads.next().await {
            let (random, entry) = match read {
                Ok(read) => read,
                Err(Error::Corrupt { .. } | Error::Missing { .. }) => continue,
                Err(error) => return Err(error),
            };
            let body = found.entry(pack.session).or_insert_with(|| IndexBody {
                random,
                packs: Vec::new(),
                relies: None,
            });
            // All packs of a session say the same, or they would not open.
            if body.random == random {
                body.packs.push(entry);
            }
        }
        for body in found.values_mut() {
            body.packs.sort_unstable_by_key(|pack| pack.number);
        }
        Ok(found)
    }

    async fn trailer(&self, name: PackName, size: u64) -> Result<([u8; 32], PackEntry)> {
        let key = name.key();
        let corrupt = |damage| Error::corrupt(&key, damage);
        if size < CHUNKS_OFFSET as u64 {
            return Err(corrupt(crate::wire::Damage::Truncated));
        }
        let head = self
            .objects
            .get_range(&key, 0..CHUNKS_OFFSET as u64)
            .await?;
        let mut random = [0; 32];
        random.copy_from_slice(&head[HEADER_BYTES..CHUNKS_OFFSET]);
        let mut tail = self
            .objects
            .get_range(&key, size.saturating_sub(TAIL_BYTES)..size)
            .await?;
        let wanted = tail_bytes(&tail).map_err(corrupt)? as u64;
        if wanted > tail.len() as u64 && wanted <= size {
            tail = self.objects.get_range(&key, size - wanted..size).await?;
        }
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let read = read_tail(&self.keys, self.id, name, &random, length, &tail);
        read.map(|(_, entry)| (random, entry)).map_err(corrupt)
    }
}
