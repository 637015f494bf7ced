//! Packs: whether those that the index lists are there, and whether every byte of
//! those that are read is right.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream};

use super::Check;
use crate::{
    error::{Error, Result},
    ids::ChunkId,
    index::Place,
    names::PackName,
    pack::{PACK_BYTES_MAX, open_chunk, read_pack},
    refresh::READS,
    repository::{Shared, blocking},
    wire::Damage,
};

/// Packs that are read at one time: of 4 MiB most, and at most 64 MiB.
const READS_OF_PACKS: usize = 4;

/// What cannot be read of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unsound {
    /// It is not there.
    Missing,
    /// It is not as long as the index says.
    Length(u64),
    /// It is damaged: the chunks at these positions cannot be read.
    Damaged(Damage, BTreeSet<u32>),
}

impl Unsound {
    pub(super) fn lacks(&self, position: u32) -> bool {
        match self {
            Self::Missing | Self::Length(_) => true,
            Self::Damaged(_, positions) => positions.contains(&position),
        }
    }

    /// What is wrong, for a record.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Length(_) => "of another length",
            Self::Damaged(..) => "damaged",
        }
    }

    pub(super) fn words(&self) -> String {
        match self {
            Self::Missing => "it is missing".to_owned(),
            Self::Length(length) => {
                format!("it is {length} bytes long, which is not what the index says")
            }
            Self::Damaged(damage, positions) => {
                format!(
                    "it is damaged: {damage}; {} of its chunks cannot be read",
                    positions.len()
                )
            }
        }
    }
}

/// A pack as the index lists it.
struct Indexed {
    random: [u8; 32],
    chunks: Vec<(ChunkId, Place)>,
}

impl Check<'_> {
    /// Reads the packs of the share in full, and those that are read again.
    pub(super) async fn read_packs(&mut self) -> Result<()> {
        let options = self.options;
        let wanted: Vec<(PackName, u64)> = self
            .packs
            .iter()
            .filter(|(pack, _)| options.reads(**pack))
            .map(|(pack, size)| (*pack, *size))
            .collect();
        let total = wanted.len() as u64;
        let shared = self.shared;
        let mut reads = stream::iter(wanted)
            .map(|(pack, size)| async move { (pack, size, read_twice(shared, pack).await) })
            .buffer_unordered(READS_OF_PACKS);
        while let Some((pack, size, read)) = reads.next().await {
            match read? {
                // Deleted since it was listed, or missed below.
                None => continue,
                Some(None) => {}
                Some(Some(bytes)) => {
                    let found = self.compare(pack, bytes).await?;
                    self.unsound.extend(found.map(|unsound| (pack, unsound)));
                }
            }
            self.report.packs_read += 1;
            self.report.bytes_read += size;
            self.options
                .tell("reading packs", self.report.packs_read, total);
        }
        Ok(())
    }

    /// Which chunks of a damaged pack cannot be read; `None` if no index lists the
    /// pack, so that nothing committed is in it.
    async fn compare(&self, name: PackName, bytes: Bytes) -> Result<Option<Unsound>> {
        let Some(indexed) = self.indexed(name) else {
            return Ok(None);
        };
        let shared = Arc::clone(self.shared);
        let found = move || {
            let kind = name.kind.object_type();
            let triple = shared.keys.pack(&indexed.random, name.number, kind);
            let opens = |id: &ChunkId, place: &Place| -> Result<(), Damage> {
                let entry = place.entry(*id);
                let from = place.offset as usize;
                let sealed = bytes
                    .get(from..from + entry.stored as usize)
                    .ok_or(Damage::Truncated)?;
                let plain = open_chunk(&triple, shared.id, name, place.position, &entry, sealed)?;
                let plain = shared
                    .coders
                    .decode(entry.codec, entry.raw as usize, plain)?;
                if shared.keys.chunk_id(&plain) == *id {
                    Ok(())
                } else {
                    Err(Damage::ChunkId)
                }
            };
            let damage = match read_pack(&shared.keys, shared.id, name, &bytes) {
                Ok(_) => Damage::ChunkId,
                Err(damage) => damage,
            };
            let bad = indexed
                .chunks
                .iter()
                .filter(|(id, at)| opens(id, at).is_err());
            Unsound::Damaged(damage, bad.map(|(_, at)| at.position).collect())
        };
        Ok(Some(blocking(found).await?))
    }

    fn indexed(&self, name: PackName) -> Option<Indexed> {
        let index = self.shared.index();
        let random = index.packs().iter().find(|pack| pack.name == name)?.random;
        let mut chunks = Vec::new();
        for (id, _) in index.chunks() {
            let here = index.copies(&id).filter(|(pack, _)| pack.name == name);
            chunks.extend(here.map(|(_, place)| (id, place)));
        }
        Some(Indexed { random, chunks })
    }

    /// Finds the packs of the index that are not there, or not as long as it says.
    pub(super) async fn missing_packs(&mut self) -> Result<()> {
        let expected = self.shared.indexed_packs();
        let orphaned = self
            .packs
            .keys()
            .filter(|pack| !expected.contains_key(pack));
        self.report.orphaned_packs = orphaned.count() as u64;
        self.unsound.retain(|pack, unsound| {
            expected.contains_key(pack) && matches!(unsound, Unsound::Damaged(..))
        });
        let suspects: Vec<(PackName, u32)> = expected
            .into_iter()
            .filter(|(pack, length)| self.packs.get(pack) != Some(&u64::from(*length)))
            .collect();
        if suspects.is_empty() {
            return Ok(());
        }
        let going = self.going().await?;
        let shared = self.shared;
        let mut looks =
            stream::iter(suspects)
                .map(|(pack, length)| async move {
                    (pack, length, shared.objects.size(&pack.key()).await)
                })
                .buffer_unordered(READS);
        while let Some((pack, length, size)) = looks.next().await {
            let unsound = match size? {
                Some(size) if size == u64::from(length) => continue,
                Some(size) => Unsound::Length(size),
                // What a collection deletes, nothing needs.
                None if going.contains(&pack) => continue,
                None => Unsound::Missing,
            };
            self.unsound.insert(pack, unsound);
        }
        Ok(())
    }

    /// Packs that a collection has decided to delete.
    async fn going(&self) -> Result<BTreeSet<PackName>> {
        let mut going = BTreeSet::new();
        for n in self.shared.list_collections().await?.finals {
            match self.shared.read_final(n).await {
                Ok(last) => going.extend(last.into_iter().flat_map(|last| last.packs)),
                // The record itself is named among the damaged ones.
                Err(Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(going)
    }
}

/// Reads a pack and checks every byte: `None` if it is gone, `Some(None)` if it is
/// sound, and otherwise its bytes. Twice, if it seems damaged: what was wrong may
/// have been the way.
async fn read_twice(shared: &Arc<Shared>, name: PackName) -> Result<Option<Option<Bytes>>> {
    let key = name.key();
    let mut last = Bytes::new();
    for _ in 0..2 {
        last = match shared.objects.get_bounded(&key, PACK_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(Error::Missing { .. }) => return Ok(None),
            // It is longer than any pack: its length does not fit the index.
            Err(Error::Corrupt { .. }) => return Ok(Some(None)),
            Err(error) => return Err(error),
        };
        // So many at one time as there are cores: each needs buffers.
        let permit = shared.coding.acquire().await;
        let (of, key, bytes) = (Arc::clone(shared), key.clone(), last.clone());
        let found = blocking(move || fits(&of, name, &key, &bytes)).await;
        drop(permit);
        if found? {
            return Ok(Some(None));
        }
    }
    Ok(Some(Some(last)))
}

/// Whether every byte is right, and the index says the same of each chunk.
fn fits(shared: &Shared, name: PackName, key: &str, bytes: &[u8]) -> bool {
    if shared.check_bytes(key, bytes).is_err() {
        return false;
    }
    let Ok((_, pack)) = read_pack(&shared.keys, shared.id, name, bytes) else {
        return false;
    };
    let index = shared.index();
    if !index.packs().iter().any(|listed| listed.name == name) {
        return true;
    }
    (0_u32..).zip(&pack.chunks).all(|(position, entry)| {
        index.copies(&entry.id).any(|(listed, place)| {
            listed.name == name && place.position == position && place.entry(entry.id) == *entry
        })
    })
}
