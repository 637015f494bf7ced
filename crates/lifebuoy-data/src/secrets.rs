//! What decides where data is cut and what is taken for unchanged: keyed, so that
//! neither the bucket nor the sizes in it tell what is stored.

use lifebuoy_repo::ChunkId;
use rustix::fs::Stat;

use crate::{
    cutter::Gear,
    entry::{ContentHash, Stamp},
    path::TreePath,
};

/// Its chunk id is the secret that all others come from.
pub(crate) const SECRET: &[u8] = b"lifebuoy data: secret of the boundaries, version 1";

/// The keys of `docs/format-data.md`, "Where things are cut".
pub(crate) struct Secrets {
    pub(crate) gear: Gear,
    content: [u8; 32],
    stamp: [u8; 32],
    path: [u8; 32],
}

impl Secrets {
    /// Those of the repository in which [`SECRET`] has this id.
    pub(crate) fn derive(secret: &ChunkId) -> Self {
        let sub = |name: &str| {
            let mut hasher = blake3::Hasher::new_keyed(secret.as_bytes());
            hasher.update(format!("lifebuoy data: {name}").as_bytes());
            hasher
        };
        let key = |name| *sub(name).finalize().as_bytes();
        let mut table = [0; Gear::BYTES];
        sub("gear").finalize_xof().fill(&mut table);
        Self {
            gear: Gear::new(&table),
            content: key("content"),
            stamp: key("stamp"),
            path: key("path"),
        }
    }

    pub(crate) fn content(&self, bytes: &[u8]) -> ContentHash {
        first(&blake3::keyed_hash(&self.content, bytes))
    }

    pub(crate) fn stamp(&self, stat: &Stat) -> Stamp {
        let mut hasher = blake3::Hasher::new_keyed(&self.stamp);
        hasher.update(&stat.st_ino.to_le_bytes());
        hasher.update(&stat.st_size.to_le_bytes());
        for (seconds, nanoseconds) in [
            (stat.st_mtime, stat.st_mtime_nsec),
            (stat.st_ctime, stat.st_ctime_nsec),
        ] {
            hasher.update(&seconds.to_le_bytes());
            hasher.update(&nanoseconds.to_le_bytes()[..4]);
        }
        first(&hasher.finalize())
    }

    /// How many zero bytes the hash of a path begins with.
    pub(crate) fn rank(&self, path: &TreePath) -> u8 {
        let hash = blake3::keyed_hash(&self.path, path.as_bytes());
        leading_zero_bytes(hash.as_bytes())
    }
}

/// Whole zero bytes at the beginning.
pub(crate) fn leading_zero_bytes(bytes: &[u8; 32]) -> u8 {
    bytes
        .iter()
        .take_while(|byte| **byte == 0)
        .fold(0, |zeros, _| zeros + 1)
}

fn first<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&hash.as_bytes()[..N]);
    out
}
