//! Repack: what lives in packs that hold little else that does is stored again, in
//! an ordinary session without a snapshot. The next collection keeps one copy of
//! each, and the old packs go.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::StreamExt;

use super::mark::refuse_unreadable;
use crate::{
    contents::{Contents, Marked},
    error::{Error, Result},
    ids::{ChunkId, ClusterKey, SessionId},
    names::{ChunkKind, PackName},
    protocol::live_roots,
    reader::Reader,
    record::Purpose,
    repository::{Repository, Shared},
    writer::SessionRequest,
};

/// What a repack did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RepackReport {
    /// Packs whose live chunks were copied.
    pub packs: u64,
    /// Chunks that were copied.
    pub chunks: u64,
    /// Bytes that the next collection can free.
    pub freed_bytes: u64,
    /// Bytes that were stored.
    pub stored_bytes: u64,
}

/// A pack of which less lives than it should.
struct Sparse {
    name: PackName,
    dead_bytes: u64,
    live_bytes: u64,
}

impl Repository {
    /// Copies what lives in packs of which less than `below_percent` lives, the
    /// emptiest first, until `bytes_max` are copied.
    ///
    /// # Errors
    /// Those of [`Repository::collect`] and [`Repository::begin`].
    pub async fn repack(
        &self,
        contents: &dyn Contents,
        cluster: ClusterKey,
        below_percent: u8,
        bytes_max: u64,
    ) -> Result<RepackReport> {
        let shared = &self.shared;
        shared.check_writable()?;
        shared.check_format_2("repacking")?;
        let before = shared.read_horizon().await?.run;
        let id = SessionId::random(&mut shared.randomness.rng());
        let done = self
            .repack_in(id, contents, cluster, below_percent, bytes_max)
            .await;
        match done {
            // A collection has deleted what was to be copied: it was copied before.
            Err(Error::Missing { .. }) if shared.has_deleted_since(before).await? => {
                Err(Error::Outdated { session: id })
            }
            done => done,
        }
    }

    async fn repack_in(
        &self,
        id: SessionId,
        contents: &dyn Contents,
        cluster: ClusterKey,
        below_percent: u8,
        bytes_max: u64,
    ) -> Result<RepackReport> {
        let shared = &self.shared;
        let view = shared.refresh().await?;
        let opens = shared.list_opens().await?;
        let sessions = live_roots(&view.ends.ended, &opens, &BTreeSet::new(), &view.horizon);
        refuse_unreadable(view.problems())?;
        let roots: Vec<ChunkId> = {
            let ends = shared.ends();
            let wanted = ends.iter().filter(|((_, id), _)| sessions.contains(id));
            wanted.filter_map(|(_, body)| body.root()).collect()
        };
        let reader = Reader::over(shared);
        let mut marked = Marked::default();
        reader.walk(contents, roots, &mut marked).await?;
        let sparse = choose(sparse(shared, &marked, below_percent), bytes_max);
        if sparse.is_empty() {
            return Ok(RepackReport::default());
        }
        let writer = self
            .begin(SessionRequest {
                id,
                cluster,
                purpose: Purpose::Repack,
                label: Bytes::new(),
            })
            .await?;
        let mut report = RepackReport {
            packs: sparse.len() as u64,
            freed_bytes: sparse.iter().map(|pack| pack.dead_bytes).sum(),
            ..RepackReport::default()
        };
        let names: BTreeSet<PackName> = sparse.iter().map(|pack| pack.name).collect();
        for (kind, chunks) in copies_needed(shared, &marked, &names) {
            let mut read = std::pin::pin!(reader.get_ordered(chunks));
            while let Some(chunk) = read.next().await {
                writer.put_copy(kind, chunk?.1).await?;
                report.chunks += 1;
            }
        }
        writer.commit_copies().await?;
        report.stored_bytes = writer.stats().bytes_stored;
        Ok(report)
    }
}

/// The packs with something that lives and much that does not.
fn sparse(shared: &Shared, marked: &Marked, below_percent: u8) -> Vec<Sparse> {
    let index = shared.index();
    let mut live: BTreeMap<PackName, u64> = BTreeMap::new();
    for (id, slot) in index.chunks() {
        // A chunk with several copies makes no pack worth keeping.
        let mut copies = index.copies(&id);
        if marked.contains(slot)
            && let (Some((pack, place)), None) = (copies.next(), copies.next())
        {
            *live.entry(pack.name).or_default() += u64::from(place.entry(id).stored);
        }
    }
    let sparse = index.packs().iter().filter_map(|pack| {
        let live_bytes = live.get(&pack.name).copied()?;
        let is_sparse = live_bytes * 100 < pack.stored * u64::from(below_percent);
        is_sparse.then_some(Sparse {
            name: pack.name,
            dead_bytes: pack.stored.saturating_sub(live_bytes),
            live_bytes,
        })
    });
    sparse.collect()
}

/// The emptiest first, as far as the bytes that are copied allow. Nothing, if less
/// would be freed than the padding of new packs may take.
fn choose(mut sparse: Vec<Sparse>, bytes_max: u64) -> Vec<Sparse> {
    sparse.sort_by_key(|pack| (pack.live_bytes, pack.name));
    let mut bytes = 0_u64;
    sparse.retain(|pack| {
        bytes = bytes.saturating_add(pack.live_bytes);
        bytes <= bytes_max
    });
    let freed: u64 = sparse.iter().map(|pack| pack.dead_bytes).sum();
    const PADDING: u64 = 3 * 4096;
    if freed <= PADDING { Vec::new() } else { sparse }
}

/// What lives in these packs and nowhere else, in the order in which it lies.
fn copies_needed(
    shared: &Shared,
    marked: &Marked,
    packs: &BTreeSet<PackName>,
) -> Vec<(ChunkKind, Vec<ChunkId>)> {
    let index = shared.index();
    let mut found = Vec::new();
    for (id, slot) in index.chunks() {
        let elsewhere = |name: &PackName| !packs.contains(name);
        if marked.contains(slot)
            && !index.copies(&id).any(|(pack, _)| elsewhere(&pack.name))
            && let Some((pack, place)) = index.copies(&id).next()
        {
            found.push((pack.name.kind, pack.name, place.offset, id));
        }
    }
    found.sort_unstable();
    let of = |kind: ChunkKind| {
        let chunks = found.iter().filter(|(of, ..)| *of == kind);
        (kind, chunks.map(|(.., id)| *id).collect())
    };
    vec![of(ChunkKind::Data), of(ChunkKind::Metadata)]
}
