//! Writes the objects of one type at a time, in key order, into segments and
//! the search tree over them. Holds one segment and one unfinished node a level.

use std::sync::Arc;

use bytes::Bytes;
use lifebuoy_repo::{ChunkId, ChunkKind, Writer};

use super::{
    Boundary, ObjectKey, TypeId,
    boundary::Rank,
    node::{Child, DEPTH_MAX, Entry, Node, Segment},
};
use crate::Error;

/// A segment is cut before it would grow beyond this, both columns together;
/// only a single larger object makes a larger segment.
const SEGMENT_BYTES_MAX: usize = 1 << 20;
/// A segment is cut at this many objects.
const SEGMENT_OBJECTS_MAX: usize = 1024;
/// A node is cut at this many segments or children.
const NODE_ITEMS_MAX: usize = 128;
/// A leaf is cut once it lists this many objects.
const LEAF_OBJECTS_MAX: u64 = 4096;

/// Makes type writers over one session of a repository.
#[derive(Clone)]
pub struct ArchiveWriter {
    writer: Arc<Writer>,
    boundary: Boundary,
}

impl ArchiveWriter {
    /// Writes into the session of `writer`. The keys of the boundaries come from
    /// the repository, so equal objects are cut equally in every cluster.
    #[must_use]
    pub fn new(writer: Arc<Writer>) -> Self {
        let secret = writer.chunk_id(b"lifebuoy archive: secret of the boundaries, version 1");
        Self {
            boundary: Boundary::new(secret.as_bytes()),
            writer,
        }
    }

    /// Begins a type.
    #[must_use]
    pub fn begin(&self, id: TypeId) -> TypeWriter {
        TypeWriter {
            writer: Arc::clone(&self.writer),
            boundary: self.boundary.clone(),
            id,
            segment: OpenSegment::default(),
            segments: Vec::new(),
            segment_objects: 0,
            levels: Vec::new(),
            last: None,
            totals: TypeTotals::default(),
        }
    }
}

/// What a finished type amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeTotals {
    /// Objects.
    pub objects: u64,
    /// Bytes of both columns.
    pub bytes: u64,
    /// The root of the search tree; none without objects.
    pub tree: Option<ChunkId>,
}

/// Takes the objects of one type in key order.
pub struct TypeWriter {
    writer: Arc<Writer>,
    boundary: Boundary,
    id: TypeId,
    segment: OpenSegment,
    segments: Vec<Segment>,
    segment_objects: u64,
    levels: Vec<Vec<Child>>,
    last: Option<ObjectKey>,
    totals: TypeTotals,
}

#[derive(Default)]
struct OpenSegment {
    stable: Vec<u8>,
    volatile: Vec<u8>,
    entries: Vec<Entry>,
}

impl TypeWriter {
    /// Adds an object. Waits while the repository has more to write than it may
    /// hold.
    ///
    /// # Errors
    /// [`Error::Internal`] when `key` is not after the previous one;
    /// [`Error::Repo`] when a chunk cannot be stored, then or since the last call.
    pub async fn push(
        &mut self,
        key: ObjectKey,
        stable: &[u8],
        volatile: &[u8],
    ) -> Result<(), Error> {
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(Error::Internal(format!(
                "{} {key} was pushed out of order",
                self.id
            )));
        }
        let rank = self.boundary.rank(&self.id, &key);
        let bytes = stable.len() + volatile.len();
        if self.segment.must_end_before(rank, bytes) {
            self.close_segment().await?;
        }
        if self.segment.entries.is_empty() {
            self.close_nodes_before(rank).await?;
        }
        self.segment.stable.extend_from_slice(stable);
        self.segment.volatile.extend_from_slice(volatile);
        self.segment.entries.push(Entry {
            key: key.clone(),
            stable_bytes: stable.len() as u64,
            volatile_bytes: volatile.len() as u64,
            hash: self.boundary.hash(stable),
        });
        self.totals.objects += 1;
        self.totals.bytes += bytes as u64;
        self.last = Some(key);
        Ok(())
    }

    /// The key of the object that was added last.
    #[must_use]
    pub fn last(&self) -> Option<&ObjectKey> {
        self.last.as_ref()
    }

    /// Writes what is still open.
    ///
    /// # Errors
    /// [`Error::Repo`] when a chunk cannot be stored.
    pub async fn finish(mut self) -> Result<TypeTotals, Error> {
        if !self.segment.entries.is_empty() {
            self.close_segment().await?;
        }
        if !self.segments.is_empty() {
            self.close_leaf().await?;
        }
        let mut level = 0;
        // Close upwards until one node remains at the top.
        while let Some(children) = self.levels.get(level) {
            let top = level + 1 == self.levels.len();
            if top && children.len() == 1 {
                self.totals.tree = Some(children[0].node);
                break;
            }
            if !children.is_empty() {
                self.close_inner(level).await?;
            }
            level += 1;
        }
        Ok(self.totals)
    }

    async fn close_segment(&mut self) -> Result<(), Error> {
        let OpenSegment {
            stable,
            volatile,
            entries,
        } = std::mem::take(&mut self.segment);
        let (stable, volatile) = futures::future::try_join(
            self.writer.put(ChunkKind::Data, Bytes::from(stable)),
            self.writer.put(ChunkKind::Data, Bytes::from(volatile)),
        )
        .await?;
        self.segment_objects += entries.len() as u64;
        self.segments.push(Segment {
            stable,
            volatile,
            entries,
        });
        Ok(())
    }

    /// Ends every unfinished node that must not hold the segment that begins now.
    async fn close_nodes_before(&mut self, rank: Rank) -> Result<(), Error> {
        let full =
            self.segments.len() >= NODE_ITEMS_MAX || self.segment_objects >= LEAF_OBJECTS_MAX;
        if !self.segments.is_empty() && (full || rank.cuts_node(0)) {
            self.close_leaf().await?;
        }
        let mut level = 0;
        while let Some(children) = self.levels.get(level) {
            let full = children.len() >= NODE_ITEMS_MAX;
            if !children.is_empty() && (full || rank.cuts_node(level as u32 + 1)) {
                self.close_inner(level).await?;
            }
            level += 1;
        }
        Ok(())
    }

    async fn close_leaf(&mut self) -> Result<(), Error> {
        let segments = std::mem::take(&mut self.segments);
        let objects = std::mem::take(&mut self.segment_objects);
        let first = segments[0].entries[0].key.clone();
        self.put_node(0, first, objects, &Node::Leaf(segments))
            .await
    }

    async fn close_inner(&mut self, level: usize) -> Result<(), Error> {
        let children = std::mem::take(&mut self.levels[level]);
        let first = children[0].first.clone();
        let objects = children.iter().map(|c| c.objects).sum();
        let height = u8::try_from(level + 1)
            .ok()
            .filter(|height| *height <= DEPTH_MAX)
            .ok_or_else(|| Error::Internal(format!("the tree of {} is too deep", self.id)))?;
        self.put_node(level + 1, first, objects, &Node::Inner(height, children))
            .await
    }

    async fn put_node(
        &mut self,
        level: usize,
        first: ObjectKey,
        objects: u64,
        node: &Node,
    ) -> Result<(), Error> {
        let node = self.writer.put(ChunkKind::Metadata, node.encode()).await?;
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(Child {
            first,
            objects,
            node,
        });
        Ok(())
    }
}

impl OpenSegment {
    fn must_end_before(&self, rank: Rank, more: usize) -> bool {
        !self.entries.is_empty()
            && (rank.cuts_segment()
                || self.entries.len() >= SEGMENT_OBJECTS_MAX
                || self.stable.len() + self.volatile.len() + more > SEGMENT_BYTES_MAX)
    }
}
