//! Builds trees and maps from what comes in order, and stores each node as soon as
//! it is whole. Holds one open node a level, whatever the size of the tree.

use lifebuoy_repo::ChunkId;

use crate::{
    entry::{Content, Entry, Extent},
    error::{Error, Malformed, Result},
    node::{Child, LEVEL_MAX, MapNode, PATH_BYTES_TOTAL, encode_inner, encode_leaf, span},
    secrets::{Secrets, leading_zero_bytes},
};

/// Where nodes go.
pub(crate) trait Nodes {
    /// Stores a node.
    fn store(&self, plain: &[u8]) -> Result<ChunkId>;
}

const LEAF_ENTRIES_MAX: usize = 1024;
/// Bytes of what varies in length in the entries of a leaf.
const LEAF_BYTES_MAX: usize = 256 * 1024;
const CHILDREN_MAX: usize = 256;
const MAP_ITEMS_MAX: usize = 1024;
/// A file with no more extents has them in its entry.
const INLINE_EXTENTS_MAX: usize = 32;

// What is written can be read.
const _: () = assert!(LEAF_BYTES_MAX < PATH_BYTES_TOTAL);

/// A tree that grows.
pub(crate) struct TreeBuilder<'a, N> {
    nodes: N,
    secrets: &'a Secrets,
    leaf: Vec<Entry>,
    leaf_bytes: usize,
    /// The open node of level 1, 2, …
    levels: Vec<Vec<Child>>,
}

impl<'a, N: Nodes> TreeBuilder<'a, N> {
    pub(crate) fn new(nodes: N, secrets: &'a Secrets) -> Self {
        Self {
            nodes,
            secrets,
            leaf: Vec::new(),
            leaf_bytes: 0,
            levels: Vec::new(),
        }
    }

    /// Adds the next entry.
    pub(crate) fn push(&mut self, entry: Entry) -> Result<()> {
        let bytes = entry.bytes();
        let is_full =
            self.leaf.len() == LEAF_ENTRIES_MAX || self.leaf_bytes + bytes > LEAF_BYTES_MAX;
        if is_full || self.secrets.rank(&entry.path) > 0 {
            self.end_leaf()?;
        }
        self.leaf_bytes += bytes;
        self.leaf.push(entry);
        Ok(())
    }

    fn end_leaf(&mut self) -> Result<()> {
        let entries = std::mem::take(&mut self.leaf);
        self.leaf_bytes = 0;
        let Some(first) = entries.first() else {
            return Ok(());
        };
        let child = Child {
            first: first.path.clone(),
            entries: entries.len() as u64,
            node: self.nodes.store(&encode_leaf(&entries))?,
        };
        self.push_child(0, child)
    }

    fn push_child(&mut self, below: usize, child: Child) -> Result<()> {
        let rank = usize::from(self.secrets.rank(&child.first));
        if self.levels.len() == below {
            self.levels.push(Vec::new());
        }
        let open = self.levels[below].len();
        // One child alone would add a level and nothing else.
        if open > 1 && (rank > below + 1 || open == CHILDREN_MAX) {
            let children = std::mem::take(&mut self.levels[below]);
            self.end_inner(below + 1, &children)?;
        }
        self.levels[below].push(child);
        Ok(())
    }

    fn end_inner(&mut self, level: usize, children: &[Child]) -> Result<()> {
        let Some(first) = children.first() else {
            return Ok(());
        };
        let number = u8::try_from(level)
            .ok()
            .filter(|level| *level <= LEVEL_MAX)
            .ok_or(Error::Internal("a tree has too many levels"))?;
        let child = Child {
            first: first.first.clone(),
            entries: children.iter().map(|child| child.entries).sum(),
            node: self.nodes.store(&encode_inner(number, children))?,
        };
        self.push_child(level, child)
    }

    /// The root; none if nothing was added.
    pub(crate) fn finish(mut self) -> Result<Option<ChunkId>> {
        self.end_leaf()?;
        let mut level = 0;
        while level < self.levels.len() {
            let children = std::mem::take(&mut self.levels[level]);
            match &*children {
                [only] if level + 1 == self.levels.len() => return Ok(Some(only.node)),
                _ => self.end_inner(level + 1, &children)?,
            }
            level += 1;
        }
        Ok(None)
    }
}

impl Entry {
    /// About what it takes in a leaf.
    fn bytes(&self) -> usize {
        use crate::entry::{Attributes, Kind};
        let attributes = match &self.meta.attributes {
            Attributes::Inline(pairs) => pairs
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum(),
            Attributes::None | Attributes::Chunk(_) => 0,
        };
        let kind = match &self.kind {
            Kind::File {
                content: Content::Extents(extents),
                ..
            } => extents.len() * 48,
            Kind::Symlink(target) => target.len(),
            Kind::HardLink(target) => target.as_bytes().len(),
            _ => 32,
        };
        self.path.as_bytes().len() + 64 + attributes + kind
    }
}

/// The map of a file, cut where its contents decide.
pub(crate) struct FileMap<N> {
    nodes: N,
    /// The open map of level 0, 1, …, with the gap before it.
    levels: Vec<Vec<Extent>>,
}

impl<N: Nodes> FileMap<N> {
    pub(crate) fn new(nodes: N) -> Self {
        Self {
            nodes,
            levels: vec![Vec::new()],
        }
    }

    /// Adds the next chunk.
    pub(crate) fn push(&mut self, extent: Extent) -> Result<()> {
        self.push_at(0, extent)
    }

    fn push_at(&mut self, level: usize, item: Extent) -> Result<()> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let open = &mut self.levels[level];
        open.push(item);
        let rank = usize::from(leading_zero_bytes(item.chunk.as_bytes()));
        // Short ones stay in the entry, or in what is above.
        let is_boundary = open.len() > INLINE_EXTENTS_MAX && rank > level;
        if is_boundary || open.len() == MAP_ITEMS_MAX {
            let items = std::mem::take(open);
            self.end(level, items)?;
        }
        Ok(())
    }

    fn end(&mut self, level: usize, mut items: Vec<Extent>) -> Result<()> {
        // The gap before a map is not in it: a map that moves stays the same.
        let Some(first) = items.first_mut() else {
            return Ok(());
        };
        let gap = std::mem::take(&mut first.gap);
        let node = MapNode {
            level: u8::try_from(level).map_err(|_| Error::Internal("a map has too many levels"))?,
            items,
        };
        let item = Extent {
            gap,
            length: node.span(),
            chunk: self.nodes.store(&node.encode())?,
        };
        self.push_at(level + 1, item)
    }

    /// What the file's entry says.
    pub(crate) fn finish(mut self) -> Result<Content> {
        if let [extents] = &mut *self.levels
            && extents.len() <= INLINE_EXTENTS_MAX
        {
            return Ok(match std::mem::take(extents) {
                extents if extents.is_empty() => Content::Nothing,
                extents => Content::Extents(extents),
            });
        }
        let mut level = 0;
        loop {
            let items = std::mem::take(&mut self.levels[level]);
            match &*items {
                [only] if level + 1 == self.levels.len() && level > 0 && only.gap == 0 => {
                    return Ok(Content::Map(only.chunk));
                }
                _ => self.end_keeping_gap(level, items)?,
            }
            level += 1;
        }
    }

    /// As [`FileMap::end`]; the topmost map has no one above it to know the gap.
    fn end_keeping_gap(&mut self, level: usize, items: Vec<Extent>) -> Result<()> {
        let is_top = level + 1 == self.levels.len();
        if !is_top || items.first().is_none_or(|first| first.gap == 0) {
            return self.end(level, items);
        }
        let node = MapNode {
            level: u8::try_from(level).map_err(|_| Error::Internal("a map has too many levels"))?,
            items,
        };
        let item = Extent {
            gap: 0,
            length: node.span(),
            chunk: self.nodes.store(&node.encode())?,
        };
        self.push_at(level + 1, item)
    }
}

/// Maps of a device have this many places each.
pub(crate) const PLACES: u64 = 256;

/// The map of a device: each place has its map whatever is in the others, so a
/// change costs one map a level.
pub(crate) struct DeviceMap<N> {
    nodes: N,
    block_bytes: u64,
    /// The open map of each level: its number on that level, and its items with
    /// the places that they begin at.
    levels: Vec<OpenMap>,
}

#[derive(Default)]
struct OpenMap {
    number: u64,
    /// Begin, length and id, from the beginning of the map.
    items: Vec<(u64, u64, ChunkId)>,
}

impl<N: Nodes> DeviceMap<N> {
    pub(crate) fn new(nodes: N, block_bytes: u64, size: u64) -> Self {
        let mut levels = vec![OpenMap::default()];
        let mut spans = block_bytes.saturating_mul(PLACES);
        while spans < size {
            spans = spans.saturating_mul(PLACES);
            levels.push(OpenMap::default());
        }
        Self {
            nodes,
            block_bytes,
            levels,
        }
    }

    /// Adds block `number`, which comes after those before, of so many bytes.
    pub(crate) fn push(&mut self, number: u64, length: u64, chunk: ChunkId) -> Result<()> {
        self.push_at(0, number, length, chunk)
    }

    fn push_at(&mut self, level: usize, number: u64, length: u64, chunk: ChunkId) -> Result<()> {
        let place_bytes = self.place_bytes(level);
        let Some(open) = self.levels.get_mut(level) else {
            return Err(Error::Internal("a block is beyond the end of its device"));
        };
        if open.number != number / PLACES {
            let done = std::mem::take(open);
            open.number = number / PLACES;
            self.end(level, &done)?;
        }
        let begin = (number % PLACES) * place_bytes;
        self.levels[level].items.push((begin, length, chunk));
        Ok(())
    }

    fn place_bytes(&self, level: usize) -> u64 {
        (0..level).fold(self.block_bytes, |bytes, _| bytes.saturating_mul(PLACES))
    }

    fn end(&mut self, level: usize, done: &OpenMap) -> Result<()> {
        if let Some((length, chunk)) = self.store(level, done)? {
            self.push_at(level + 1, done.number, length, chunk)?;
        }
        Ok(())
    }

    fn store(&self, level: usize, map: &OpenMap) -> Result<Option<(u64, ChunkId)>> {
        if map.items.is_empty() {
            return Ok(None);
        }
        let mut end = 0;
        let items = map.items.iter().map(|(begin, length, chunk)| {
            let gap = begin - end;
            end = begin + length;
            Extent {
                gap,
                length: *length,
                chunk: *chunk,
            }
        });
        let node = MapNode {
            level: u8::try_from(level).map_err(|_| Error::Internal("a map has too many levels"))?,
            items: items.collect(),
        };
        Ok(Some((span(&node.items), self.nodes.store(&node.encode())?)))
    }

    /// The root; none if the device holds nothing but zeros.
    pub(crate) fn finish(mut self) -> Result<Option<ChunkId>> {
        for level in 0..self.levels.len() {
            let done = std::mem::take(&mut self.levels[level]);
            if level + 1 == self.levels.len() {
                return Ok(self.store(level, &done)?.map(|(_, chunk)| chunk));
            }
            self.end(level, &done)?;
        }
        Ok(None)
    }
}

/// A map is of the level and the bytes that what is above says.
pub(crate) fn check_map(node: &MapNode, below: Option<u8>, length: u64) -> Result<(), Malformed> {
    if below.is_some_and(|level| node.level >= level) {
        return Err(Malformed("a map is not below the one that leads to it"));
    }
    if node.span() > length {
        return Err(Malformed("a map is longer than what leads to it says"));
    }
    Ok(())
}
