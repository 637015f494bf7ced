//! What the soak saves: chunks whose contents follow from a number, and a root
//! that lists the numbers. So every snapshot can be compared bit for bit without
//! any memory of what was written.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::StreamExt;
use lifebuoy_repo::{ChunkId, ChunkKind, Contents, Link, Repository, Role, Snapshot, Writer};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// The longest chunk, in bytes.
const BYTES_MAX: u64 = 60_000;

/// The contents of chunk `n`: half noise, half text, so that some of it is
/// compressed.
pub(super) fn contents(n: u64) -> Bytes {
    let mut rng = StdRng::seed_from_u64(n);
    let length = 100 + rng.next_u64() % BYTES_MAX;
    let mut bytes = vec![0; length as usize];
    if n.is_multiple_of(2) {
        rng.fill_bytes(&mut bytes);
    } else {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = b'a' + ((at as u64 * (n % 7 + 1)) % 23) as u8;
        }
        bytes.extend_from_slice(&n.to_le_bytes());
    }
    bytes.into()
}

/// Puts the chunks with these numbers, and the root that lists them.
pub(super) async fn put(writer: &Writer, numbers: &[u64]) -> Result<ChunkId> {
    let mut root = String::new();
    for n in numbers {
        let id = writer.put(ChunkKind::Data, contents(*n)).await?;
        root.push_str(&format!("{n} {id}\n"));
    }
    Ok(writer.put(ChunkKind::Metadata, root.into()).await?)
}

/// Reads all of a snapshot, and compares each chunk with what it must be.
pub(super) async fn compare(repository: &Repository, snapshot: &Snapshot) -> Result<usize> {
    let reader = repository.reader().await?;
    let root = reader.get(&snapshot.root).await?;
    let listed = parse(&root).map_err(anyhow::Error::msg)?;
    let ids = listed.iter().map(|(_, id)| *id).collect();
    let mut chunks = std::pin::pin!(reader.get_ordered(ids));
    for (n, id) in &listed {
        let (read, plain) = chunks.next().await.context("a chunk is not read")??;
        ensure!(read == *id, "another chunk is read");
        if plain != contents(*n) {
            bail!("chunk {n} of snapshot {} differs", snapshot.session);
        }
    }
    Ok(listed.len())
}

fn parse(root: &[u8]) -> Result<Vec<(u64, ChunkId)>, String> {
    let text = std::str::from_utf8(root).map_err(|error| error.to_string())?;
    let line = |line: &str| {
        let (n, id) = line.split_once(' ')?;
        Some((n.parse().ok()?, id.parse().ok()?))
    };
    text.lines()
        .map(|text| line(text).ok_or_else(|| format!("a strange line: {text}")))
        .collect()
}

/// What roots lead to.
pub(super) struct Payload;

impl Contents for Payload {
    fn links(&self, _: Role, plain: &[u8]) -> Result<Vec<Link>, String> {
        let listed = parse(plain)?;
        Ok(listed
            .into_iter()
            .map(|(_, id)| Link::Contents(id))
            .collect())
    }

    fn lineage(&self, _: &[u8]) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }

    fn is_complete(&self, _: &[u8]) -> bool {
        true
    }
}
