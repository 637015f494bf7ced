//! Looking into snapshots of files: what is in them, what a file holds, what differs.

use std::{cmp::Ordering, io, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use lifebuoy_repo::{ChunkId, Reader, Repository, SessionId, Snapshot};

use crate::{
    cursor::{Cursor, find},
    entry::{Content, Entry, Kind},
    error::{Error, Malformed, Result},
    manifest::{DataSummary, Manifest},
    map::{MapWalk, Placed, placed},
    path::TreePath,
    restore::some,
};

/// A snapshot of files or of a device.
#[derive(Debug, Clone)]
pub struct Listed {
    /// As the repository lists it.
    pub snapshot: Snapshot,
    /// What it says of itself.
    pub summary: DataSummary,
}

/// The snapshots of files and devices that stay, the newest last; and
/// those that cannot be read.
///
/// # Errors
/// One of the repository.
pub async fn snapshots(repository: &Repository) -> Result<(Vec<Listed>, Vec<(SessionId, Error)>)> {
    Ok(of_data(repository.snapshots().await?.snapshots))
}

/// Those of files and devices among snapshots, as [`snapshots`] has them.
#[must_use]
pub fn of_data(found: Vec<Snapshot>) -> (Vec<Listed>, Vec<(SessionId, Error)>) {
    let (mut listed, mut unreadable) = (Vec::new(), Vec::new());
    for snapshot in found {
        if snapshot.is_leaving() || !DataSummary::is_one(&snapshot.summary) {
            continue;
        }
        match DataSummary::from_bytes(&snapshot.summary) {
            Ok(summary) => listed.push(Listed { snapshot, summary }),
            Err(error) => unreadable.push((snapshot.session, error)),
        }
    }
    (in_order(listed), unreadable)
}

/// By sequence among those of one machine; clocks only order machines. One that went
/// back counts as having stood still.
fn in_order(mut listed: Vec<Listed>) -> Vec<Listed> {
    listed.sort_by_key(|one| (one.snapshot.cluster, one.snapshot.seq));
    let mut last = None;
    let times = listed.iter().map(|one| {
        let here = (one.snapshot.cluster, one.summary.taken_at);
        let at = match last {
            Some((cluster, at)) if cluster == here.0 => here.1.max(at),
            _ => here.1,
        };
        last = Some((here.0, at));
        at
    });
    let times: Vec<_> = times.collect();
    let mut dated: Vec<_> = times.into_iter().zip(listed).collect();
    dated.sort_by_key(|(at, _)| *at);
    dated.into_iter().map(|(_, one)| one).collect()
}

/// The entries of a snapshot, in order.
pub struct Listing {
    cursor: Cursor,
    leaf: std::vec::IntoIter<Entry>,
}

impl Listing {
    /// What is at this path, and everything in it.
    ///
    /// # Errors
    /// [`Error::NotOurs`] for a snapshot of a device, [`Error::NotThere`], or one of the
    /// repository.
    pub async fn of(repository: &Repository, snapshot: &Snapshot, path: TreePath) -> Result<Self> {
        let reader = Arc::new(repository.reader().await?);
        let root = tree_of(&reader, snapshot).await?;
        find(&reader, root, &path).await?;
        Ok(Self {
            cursor: Cursor::within(reader, root, path),
            leaf: Vec::new().into_iter(),
        })
    }

    /// The next entry; none at the end.
    ///
    /// # Errors
    /// [`Error::Damaged`], or one of the repository.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Ok(Some(entry));
            }
            match self.cursor.next_leaf().await? {
                Some(leaf) => self.leaf = leaf.entries.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

async fn tree_of(reader: &Reader, snapshot: &Snapshot) -> Result<ChunkId> {
    let manifest = Manifest::from_bytes(&reader.get(&snapshot.root).await?)?;
    match (manifest.tree, manifest.block_bytes) {
        (Some(tree), None) => Ok(tree),
        _ => Err(Error::NotOurs {
            what: "it is one of a device".to_owned(),
        }),
    }
}

/// Hands the bytes of a file to `write`, in order.
///
/// # Errors
/// [`Error::NotThere`] if there is no such file, [`Error::Place`] if `write` fails,
/// [`Error::Damaged`], or one of the repository.
pub async fn read_file(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &TreePath,
    write: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
) -> Result<()> {
    let reader = Arc::new(repository.reader().await?);
    let root = tree_of(&reader, snapshot).await?;
    let mut entry = find(&reader, root, path).await?;
    if let Kind::HardLink(first) = &entry.kind {
        entry = find(&reader, root, first).await?;
    }
    let Kind::File { size, content } = entry.kind else {
        return Err(Error::NotAFile { path: path.clone() });
    };
    let mut copy = Copy {
        write,
        path,
        end: 0,
    };
    match content {
        Content::Nothing => {}
        Content::Shared { chunk, offset, .. } => {
            let plain = reader.get(&chunk).await?;
            let begin = offset as usize;
            let end = usize::try_from(size)
                .ok()
                .and_then(|size| begin.checked_add(size));
            let part = end.and_then(|end| plain.get(begin..end));
            copy.write(part.ok_or(TOO_SHORT.at(chunk))?)?;
        }
        Content::Extents(extents) => {
            copy.parts(&reader, &placed(&extents).collect::<Vec<_>>())
                .await?
        }
        Content::Map(root) => {
            let mut walk = MapWalk::new(Arc::clone(&reader), root, size);
            loop {
                let parts = some(&mut walk).await?;
                if parts.is_empty() {
                    break;
                }
                copy.parts(&reader, &parts).await?;
            }
        }
    }
    copy.zeros_until(size)
}

/// A chunk that is not as long as what leads to it says.
struct TooShort(Malformed);
const TOO_SHORT: TooShort = TooShort(Malformed("it is not as long as what leads to it says"));

impl TooShort {
    fn at(self, chunk: ChunkId) -> Error {
        Error::Damaged {
            chunk,
            what: self.0,
        }
    }
}

struct Copy<'a> {
    write: &'a mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    path: &'a TreePath,
    end: u64,
}

impl Copy<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.end += bytes.len() as u64;
        (self.write)(bytes).map_err(Error::place("write", self.path.to_string()))
    }

    fn zeros_until(&mut self, end: u64) -> Result<()> {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        while self.end < end {
            let left = usize::try_from(end - self.end).unwrap_or(usize::MAX);
            self.write(&ZEROS[..left.min(ZEROS.len())])?;
        }
        Ok(())
    }

    async fn parts(&mut self, reader: &Reader, parts: &[Placed]) -> Result<()> {
        let ids = parts.iter().map(|part| part.chunk).collect();
        let mut chunks = std::pin::pin!(reader.get_ordered(ids));
        for part in parts {
            let plain: Bytes = match chunks.next().await {
                Some(read) => read?.1,
                None => return Err(Error::Internal("a chunk was not read")),
            };
            if plain.len() as u64 != part.length {
                return Err(TOO_SHORT.at(part.chunk));
            }
            self.zeros_until(part.begin)?;
            self.write(&plain)?;
        }
        Ok(())
    }
}

/// How an entry differs between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is in the second only.
    Added,
    /// It is in the first only.
    Removed,
    /// What it is, or its bytes, differ.
    Contents,
    /// Only mode, owner, time or attributes differ.
    Meta,
}

/// Two snapshots side by side.
pub struct Diff {
    before: Listing,
    after: Listing,
    old: Option<Entry>,
    new: Option<Entry>,
}

impl Diff {
    /// What differs at `path` and in it between two snapshots.
    ///
    /// # Errors
    /// Those of [`Listing::of`].
    pub async fn of(
        repository: &Repository,
        before: &Snapshot,
        after: &Snapshot,
        path: &TreePath,
    ) -> Result<Self> {
        let mut before = Listing::of(repository, before, path.clone()).await?;
        let mut after = Listing::of(repository, after, path.clone()).await?;
        Ok(Self {
            old: before.next().await?,
            new: after.next().await?,
            before,
            after,
        })
    }

    /// The next that differs; none at the end.
    ///
    /// # Errors
    /// Those of [`Listing::next`].
    pub async fn next(&mut self) -> Result<Option<(Change, Entry)>> {
        loop {
            let order = match (&self.old, &self.new) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.path.cmp(&new.path),
            };
            let old = match order {
                Ordering::Greater => None,
                _ => std::mem::replace(&mut self.old, self.before.next().await?),
            };
            let new = match order {
                Ordering::Less => None,
                _ => std::mem::replace(&mut self.new, self.after.next().await?),
            };
            let found = match (old, new) {
                (Some(old), None) => Some((Change::Removed, old)),
                (None, Some(new)) => Some((Change::Added, new)),
                (Some(old), Some(new)) => change(&old, &new).map(|change| (change, new)),
                (None, None) => None,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
    }
}

fn change(old: &Entry, new: &Entry) -> Option<Change> {
    let is_same = match (&old.kind, &new.kind) {
        (
            Kind::File {
                size: a,
                content: Content::Shared { hash: x, .. },
            },
            Kind::File {
                size: b,
                content: Content::Shared { hash: y, .. },
            },
        ) => a == b && x == y,
        (a, b) => a == b,
    };
    // The stamp is a writer's: it says where a file was, not what it is.
    let mut meta = old.meta.clone();
    meta.stamp = new.meta.stamp;
    match (is_same, meta == new.meta) {
        (true, true) => None,
        (true, false) => Some(Change::Meta),
        (false, _) => Some(Change::Contents),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use lifebuoy_repo::ClusterKey;

    use super::*;
    use crate::manifest::What;

    fn listed(cluster: u8, seq: u64, time: i64) -> Listed {
        let at = DateTime::from_timestamp(time, 0).unwrap();
        Listed {
            snapshot: Snapshot {
                session: SessionId::from_bytes([0; 16]),
                cluster: ClusterKey::from_bytes([cluster; 16]),
                seq,
                root: ChunkId::from_bytes([0; 32]),
                summary: Bytes::new(),
                forgotten: false,
                pinned: false,
            },
            summary: DataSummary::new(What::Files, "h".into(), "/".into(), at),
        }
    }

    #[test]
    fn a_clock_that_goes_back_changes_no_order_of_its_machine() {
        let found = in_order(vec![
            listed(1, 3, 10),
            listed(2, 1, 70),
            listed(1, 2, 90),
            listed(1, 1, 50),
            listed(2, 2, 100),
        ]);
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.snapshot.cluster.as_bytes()[0], one.snapshot.seq))
            .collect();
        assert_eq!(found, [(1, 1), (2, 1), (1, 2), (1, 3), (2, 2)]);
    }
}
