//! Reads a captured cluster out of a repository, a segment at a time.

use std::{sync::Arc, vec};

use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use lifebuoy_repo::{ChunkId, Reader, Repository, SessionId};

use super::{
    ArchivedObject, Manifest, ObjectHash, ObjectKey, TypeRecord,
    node::{Child, DEPTH_MAX, Node, Segment},
};
use crate::{
    Error,
    point::{self, Point},
};

/// One snapshot, opened for reading.
pub struct Archive {
    /// The snapshot and its summary.
    pub point: Point,
    /// What it holds.
    pub manifest: Manifest,
    reader: Arc<Reader>,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Archive({})", self.point.snapshot.session)
    }
}

impl Archive {
    /// Opens the snapshot of a session.
    ///
    /// # Errors
    /// [`Error::Repo`] when there is no such snapshot or it cannot be read,
    /// [`Error::TooNew`] or [`Error::Damaged`] for what it holds.
    pub async fn open(repo: &Repository, session: SessionId) -> Result<Self, Error> {
        let point = point::find(repo, session).await?;
        let reader = Arc::new(repo.reader().await?);
        let manifest = Manifest::from_bytes(&reader.get(&point.snapshot.root).await?)?;
        Ok(Self {
            point,
            manifest,
            reader,
        })
    }

    /// All objects of a type, in key order. Holds a few segments at a time.
    pub fn objects(&self, t: &TypeRecord) -> BoxStream<'_, Result<ArchivedObject, Error>> {
        self.select(t, |_| true)
    }

    /// The objects of a type whose keys are wanted, in key order. Reads only
    /// segments that hold one.
    pub fn select(
        &self,
        t: &TypeRecord,
        wanted: impl Fn(&ObjectKey) -> bool + Send + 'static,
    ) -> BoxStream<'_, Result<ArchivedObject, Error>> {
        self.leaves(t)
            .map_ok(move |segments| {
                let parts = segments.into_iter().filter_map(|segment| {
                    let mask: Vec<bool> = segment.entries.iter().map(|e| wanted(&e.key)).collect();
                    mask.contains(&true).then_some((segment, mask))
                });
                self.segment_objects(parts.collect())
            })
            .try_flatten()
            .boxed()
    }

    /// The keys of a type's objects and the hashes of their stable columns, in
    /// key order. Reads the search tree only.
    pub fn keys(&self, t: &TypeRecord) -> BoxStream<'_, Result<(ObjectKey, ObjectHash), Error>> {
        self.leaves(t)
            .map_ok(|segments| {
                let entries = segments.into_iter().flat_map(|s| s.entries);
                stream::iter(entries.map(|e| Ok((e.key, e.hash))))
            })
            .try_flatten()
            .boxed()
    }

    /// One object, by a handful of reads; none if it was not captured.
    ///
    /// # Errors
    /// [`Error::Repo`] when a chunk cannot be read, [`Error::Damaged`] when one
    /// makes no sense.
    pub async fn get(
        &self,
        t: &TypeRecord,
        key: &ObjectKey,
    ) -> Result<Option<ArchivedObject>, Error> {
        let Some(mut id) = t.tree else {
            return Ok(None);
        };
        let mut level_max = DEPTH_MAX;
        loop {
            match self.node(id, level_max).await? {
                Node::Inner(level, children) => {
                    let after = children.partition_point(|c| c.first <= *key);
                    let Some(child) = after.checked_sub(1).map(|at| &children[at]) else {
                        return Ok(None);
                    };
                    id = child.node;
                    level_max = level - 1;
                }
                Node::Leaf(segments) => {
                    let found = segments
                        .into_iter()
                        .find(|s| s.entries.iter().any(|e| e.key == *key));
                    let Some(segment) = found else {
                        return Ok(None);
                    };
                    let (stable, volatile) = futures::future::try_join(
                        self.reader.get(&segment.stable),
                        self.reader.get(&segment.volatile),
                    )
                    .await?;
                    return Ok(split(&segment, &stable, &volatile)?
                        .into_iter()
                        .find(|object| object.key == *key));
                }
            }
        }
    }

    /// Reads a node that must not be higher than `level_max`: this is what makes
    /// every walk end.
    async fn node(&self, id: ChunkId, level_max: u8) -> Result<Node, Error> {
        let bytes = self.reader.get(&id).await?;
        let node = Node::decode(&bytes).map_err(|message| damaged(id, message))?;
        match &node {
            Node::Inner(level, _) if *level > level_max => {
                Err(damaged(id, format!("level {level} stands below its place")))
            }
            _ => Ok(node),
        }
    }

    /// The leaves below a type's root, from left to right.
    fn leaves(&self, t: &TypeRecord) -> BoxStream<'_, Result<Vec<Segment>, Error>> {
        let mut walk = Walk {
            root: t.tree,
            path: Vec::new(),
        };
        walk.path.reserve(4);
        stream::try_unfold(walk, move |mut walk| async move {
            while let Some((id, level_max)) = walk.next_node() {
                match self.node(id, level_max).await? {
                    Node::Leaf(segments) => return Ok(Some((segments, walk))),
                    Node::Inner(level, children) => walk.path.push((level, children.into_iter())),
                }
            }
            Ok(None)
        })
        .boxed()
    }

    fn segment_objects(
        &self,
        parts: Vec<(Segment, Vec<bool>)>,
    ) -> BoxStream<'_, Result<ArchivedObject, Error>> {
        let ids = parts
            .iter()
            .flat_map(|(s, _)| [s.stable, s.volatile])
            .collect::<Vec<_>>();
        let chunks = self.reader.get_ordered(ids).map_err(Error::from).boxed();
        stream::try_unfold(
            (parts.into_iter(), chunks),
            |(mut parts, mut chunks)| async move {
                let Some((segment, mask)) = parts.next() else {
                    return Ok::<_, Error>(None);
                };
                let stable = expect(&mut chunks, segment.stable).await?;
                let volatile = expect(&mut chunks, segment.volatile).await?;
                let objects = split(&segment, &stable, &volatile)?;
                let objects = objects
                    .into_iter()
                    .zip(mask)
                    .filter_map(|(object, wanted)| wanted.then_some(Ok(object)));
                Ok(Some((
                    stream::iter(objects.collect::<Vec<_>>()),
                    (parts, chunks),
                )))
            },
        )
        .try_flatten()
        .boxed()
    }
}

/// The way from the root to the leaf that comes next.
struct Walk {
    root: Option<ChunkId>,
    path: Vec<(u8, vec::IntoIter<Child>)>,
}

impl Walk {
    /// The node to read next, and the highest level it may have.
    fn next_node(&mut self) -> Option<(ChunkId, u8)> {
        if let Some(root) = self.root.take() {
            return Some((root, DEPTH_MAX));
        }
        while let Some((level, children)) = self.path.last_mut() {
            if let Some(child) = children.next() {
                return Some((child.node, level.saturating_sub(1)));
            }
            self.path.pop();
        }
        None
    }
}

async fn expect(
    chunks: &mut BoxStream<'_, Result<(ChunkId, Bytes), Error>>,
    id: ChunkId,
) -> Result<Bytes, Error> {
    match chunks.try_next().await? {
        Some((found, bytes)) if found == id => Ok(bytes),
        _ => Err(Error::Internal(format!(
            "the repository did not return chunk {id} in its place"
        ))),
    }
}

/// The objects of a segment as slices of its two chunks.
fn split(
    segment: &Segment,
    stable: &Bytes,
    volatile: &Bytes,
) -> Result<Vec<ArchivedObject>, Error> {
    let (mut stable, mut volatile) = (stable.clone(), volatile.clone());
    let mut objects = Vec::with_capacity(segment.entries.len());
    for entry in &segment.entries {
        objects.push(ArchivedObject {
            key: entry.key.clone(),
            stable: cut(&mut stable, entry.stable_bytes, segment.stable)?,
            volatile: cut(&mut volatile, entry.volatile_bytes, segment.volatile)?,
        });
    }
    if stable.is_empty() && volatile.is_empty() {
        Ok(objects)
    } else {
        Err(damaged(segment.stable, "bytes follow its last object"))
    }
}

fn cut(column: &mut Bytes, bytes: u64, id: ChunkId) -> Result<Bytes, Error> {
    match usize::try_from(bytes) {
        Ok(bytes) if bytes <= column.len() => Ok(column.split_to(bytes)),
        _ => Err(damaged(id, "it is shorter than its objects")),
    }
}

fn damaged(id: ChunkId, message: impl Into<String>) -> Error {
    Error::damaged(format!("chunk {id}"), message)
}
