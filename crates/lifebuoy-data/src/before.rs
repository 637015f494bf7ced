//! The snapshot before, read along with what is saved now: both come in one order.
//! What is taken over from it is in packs that may be built on (rule F6 of
//! `docs/format.md`): of each chunk the writer is asked.

use std::{collections::HashMap, sync::Arc};

use lifebuoy_repo::{ChunkId, Reader};

use crate::{
    cursor::Cursor,
    entry::{Attributes, Content, Entry, Kind},
    error::Result,
    node::MapNode,
    path::TreePath,
    sealing::Sealing,
};

/// Chunks that the writer was asked about are remembered, so many.
const KNOWN_MAX: usize = 4096;

/// The snapshot before.
pub(crate) struct Before<'a> {
    sealing: &'a Sealing<'a>,
    reader: Arc<Reader>,
    cursor: Cursor,
    leaf: std::vec::IntoIter<Entry>,
    next: Option<Entry>,
    known: HashMap<ChunkId, bool>,
}

impl<'a> Before<'a> {
    pub(crate) fn new(sealing: &'a Sealing<'a>, reader: Arc<Reader>, root: ChunkId) -> Self {
        Self {
            sealing,
            cursor: Cursor::new(Arc::clone(&reader), root),
            reader,
            leaf: Vec::new().into_iter(),
            next: None,
            known: HashMap::new(),
        }
    }

    /// The entry that was at this path, if all that it leads to may be built on. Paths are
    /// asked for in order.
    pub(crate) fn usable_at(&mut self, path: &TreePath) -> Result<Option<Entry>> {
        match self.at(path)? {
            Some(entry) if self.is_usable(&entry)? => Ok(Some(entry)),
            _ => Ok(None),
        }
    }

    fn at(&mut self, path: &TreePath) -> Result<Option<Entry>> {
        loop {
            if self.next.is_none() {
                self.next = self.read()?;
            }
            match &self.next {
                Some(entry) if entry.path < *path => self.next = None,
                Some(entry) if entry.path == *path => return Ok(self.next.take()),
                _ => return Ok(None),
            }
        }
    }

    fn read(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Ok(Some(entry));
            }
            match self.sealing.runtime().block_on(self.cursor.next_leaf())? {
                Some(leaf) => self.leaf = leaf.entries.into_iter(),
                None => return Ok(None),
            }
        }
    }

    /// Whether everything that the entry leads to may be built on.
    fn is_usable(&mut self, entry: &Entry) -> Result<bool> {
        if let Attributes::Chunk(id) = &entry.meta.attributes
            && !self.contains(*id)
        {
            return Ok(false);
        }
        match &entry.kind {
            Kind::File { content, .. } => self.is_content_usable(content),
            _ => Ok(true),
        }
    }

    fn is_content_usable(&mut self, content: &Content) -> Result<bool> {
        Ok(match content {
            Content::Nothing => true,
            Content::Shared { chunk, .. } => self.contains(*chunk),
            Content::Extents(extents) => extents.iter().all(|one| self.contains(one.chunk)),
            Content::Map(root) => return self.is_map_usable(*root),
        })
    }

    /// Whether a map and everything below it may be built on.
    pub(crate) fn is_map_usable(&mut self, root: ChunkId) -> Result<bool> {
        self.is_usable_below(root, u8::MAX)
    }

    fn is_usable_below(&mut self, root: ChunkId, below: u8) -> Result<bool> {
        if !self.contains(root) {
            return Ok(false);
        }
        let plain = self.sealing.runtime().block_on(self.reader.get(&root))?;
        let Ok(map) = MapNode::decode(&plain) else {
            return Ok(false);
        };
        if map.level >= below {
            return Ok(false);
        }
        for item in &map.items {
            let usable = match map.level {
                0 => self.contains(item.chunk),
                _ => self.is_usable_below(item.chunk, map.level)?,
            };
            if !usable {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn contains(&mut self, id: ChunkId) -> bool {
        if let Some(known) = self.known.get(&id) {
            return *known;
        }
        if self.known.len() == KNOWN_MAX {
            self.known.clear();
        }
        let contains = self.sealing.writer().contains(&id);
        self.known.insert(id, contains);
        contains
    }
}
