//! Reads a tree in order, a leaf at a time and ahead of its reader. Holds one open
//! node a level; checks that the whole is one tree, so that no node can appear in
//! it twice.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use lifebuoy_repo::{ChunkId, Reader};

use crate::{
    entry::{Attributes, Entry, Meta, Pairs},
    error::{Error, Malformed, Result},
    node::{Child, Leaf, Node, check_order, decode_attributes},
    path::TreePath,
};

type Chunks = Pin<Box<dyn Stream<Item = lifebuoy_repo::Result<(ChunkId, Bytes)>> + Send>>;

/// A place in a tree.
pub(crate) struct Cursor {
    reader: Arc<Reader>,
    /// What is left of the open inner nodes, the root's in front.
    open: Vec<Open>,
    last: Option<TreePath>,
    /// What is looked for: this, and everything in it.
    path: TreePath,
}

/// What is left of an inner node.
struct Open {
    level: u8,
    children: VecDeque<Child>,
    chunks: Chunks,
}

impl Cursor {
    /// At the beginning of the tree with this root.
    pub(crate) fn new(reader: Arc<Reader>, root: ChunkId) -> Self {
        Self::within(reader, root, TreePath::default())
    }

    /// For what is at a path and everything in it: leaves that hold nothing of it are not
    /// read, but for the one that it would be in.
    pub(crate) fn within(reader: Arc<Reader>, root: ChunkId, path: TreePath) -> Self {
        let open = Open {
            level: u8::MAX,
            children: VecDeque::new(),
            chunks: Box::pin(reader.get_ordered(vec![root])),
        };
        Self {
            reader,
            open: vec![open],
            last: None,
            path,
        }
    }

    /// The next leaf, with what of it is looked for; none at the end.
    pub(crate) async fn next_leaf(&mut self) -> Result<Option<Leaf>> {
        while let Some(open) = self.open.last_mut() {
            let Some(read) = open.chunks.next().await else {
                self.open.pop();
                continue;
            };
            let (id, plain) = read?;
            let (above, child) = (open.level, open.children.pop_front());
            let damaged = |what| Error::Damaged { chunk: id, what };
            let node = Node::decode(&plain).map_err(damaged)?;
            check_child(above, child.as_ref(), &node).map_err(damaged)?;
            match node {
                Node::Leaf(mut leaf) => {
                    self.check_leaf(&leaf.entries).map_err(damaged)?;
                    let is_within = |entry: &Entry| entry.path.is_within(&self.path);
                    let last = leaf.entries.last();
                    if last.is_some_and(|last| last.path > self.path && !is_within(last)) {
                        self.open.clear();
                    }
                    leaf.entries.retain(is_within);
                    return Ok(Some(leaf));
                }
                Node::Inner(level, mut children) => {
                    children.drain(..place_of(&self.path, &children).unwrap_or(0));
                    let ids = children.iter().map(|child| child.node).collect();
                    self.open.push(Open {
                        level,
                        children: children.into(),
                        chunks: Box::pin(self.reader.get_ordered(ids)),
                    });
                }
            }
        }
        Ok(None)
    }

    fn check_leaf(&mut self, entries: &[Entry]) -> Result<(), Malformed> {
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            check_order(self.last.as_ref(), &first.path)?;
            self.last = Some(last.path.clone());
        }
        Ok(())
    }
}

fn check_child(above: u8, child: Option<&Child>, node: &Node) -> Result<(), Malformed> {
    if node.level() >= above {
        return Err(Malformed("a node is not below the one that leads to it"));
    }
    match child {
        None => Ok(()),
        Some(child) if node.first() == Some(&child.first) && node.entries() == child.entries => {
            Ok(())
        }
        Some(_) => Err(Malformed("a node is not what the one above it says")),
    }
}

/// The number of the child that a path is in, or would be in; none if that is before all.
fn place_of(path: &TreePath, children: &[Child]) -> Option<usize> {
    children
        .partition_point(|child| child.first <= *path)
        .checked_sub(1)
}

/// The attributes of an entry, wherever they are.
pub(crate) async fn attributes(reader: &Reader, meta: &Meta) -> Result<Pairs> {
    match &meta.attributes {
        Attributes::None => Ok(Pairs::new()),
        Attributes::Inline(pairs) => Ok(pairs.clone()),
        Attributes::Chunk(chunk) => {
            let damaged = |what| Error::Damaged {
                chunk: *chunk,
                what,
            };
            decode_attributes(&reader.get(chunk).await?).map_err(damaged)
        }
    }
}

/// One entry of a tree, by as many reads as it has levels.
pub(crate) async fn find(reader: &Reader, root: ChunkId, path: &TreePath) -> Result<Entry> {
    let not_there = || Error::NotThere { path: path.clone() };
    let mut id = root;
    let mut above = u8::MAX;
    loop {
        let plain = reader.get(&id).await?;
        let damaged = |what| Error::Damaged { chunk: id, what };
        let node = Node::decode(&plain).map_err(damaged)?;
        check_child(above, None, &node).map_err(damaged)?;
        above = node.level();
        match node {
            Node::Leaf(leaf) => {
                let mut entries = leaf.entries.into_iter();
                return entries
                    .find(|entry| entry.path == *path)
                    .ok_or_else(not_there);
            }
            Node::Inner(_, children) => {
                let at = place_of(path, &children);
                let child = at.and_then(|at| children.get(at));
                id = child.ok_or_else(not_there)?.node;
            }
        }
    }
}
