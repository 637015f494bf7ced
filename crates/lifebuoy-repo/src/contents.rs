//! What hangs from what: the walk over the trees of snapshots, by one who knows
//! what their chunks mean. The repository itself does not.

use std::collections::BTreeMap;

use futures::StreamExt;

use crate::{
    error::{Error, Result},
    ids::ChunkId,
    reader::Reader,
};

/// How a chunk that leads to others is read. The root of a snapshot has
/// [`Role::ROOT`]; the others are the business of [`Contents`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Role(pub u8);

impl Role {
    /// The chunk that a snapshot points to.
    pub const ROOT: Self = Self(0);
}

/// What one chunk leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// A chunk from which nothing hangs.
    Contents(ChunkId),
    /// A chunk that leads to others.
    Node(ChunkId, Role),
}

impl Link {
    pub(crate) fn chunk(&self) -> ChunkId {
        match self {
            Self::Contents(id) | Self::Node(id, _) => *id,
        }
    }
}

/// What became of a chunk, to one who names what is affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is there, and so is everything that hangs from it.
    Whole,
    /// It is there, and something that hangs from it is not.
    Torn,
    /// It cannot be read.
    Lost,
}

/// What of a chunk's contents is affected by loss.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// Names of what cannot be restored.
    pub lost: Vec<String>,
    /// Chunks to go on with, and what they are called.
    pub torn: Vec<(ChunkId, String)>,
}

impl Described {
    /// Takes in what became of a chunk below: what is lost without it, or what it is
    /// called to go on with.
    pub fn below(&mut self, id: ChunkId, fate: Fate, lost: String, torn: &str) {
        match fate {
            Fate::Whole => {}
            Fate::Torn => self.torn.push((id, torn.to_owned())),
            Fate::Lost => self.lost.push(lost),
        }
    }
}

/// Knows what the chunks of snapshots mean. Garbage collection trusts it: a link
/// that it leaves out is a chunk that may be lost.
pub trait Contents: Send + Sync {
    /// All chunks that this one leads to.
    ///
    /// # Errors
    /// What is wrong with the chunk, in words. Nothing is collected then.
    fn links(&self, role: Role, plain: &[u8]) -> Result<Vec<Link>, String>;

    /// What tells the snapshots apart that follow one another: those of one
    /// cluster with the same lineage. `summary` is that of the commit.
    ///
    /// # Errors
    /// What is wrong with the summary, in words. The snapshot is then kept.
    fn lineage(&self, summary: &[u8]) -> Result<Vec<u8>, String>;

    /// Whether a snapshot with this summary holds everything that it was to hold.
    fn is_complete(&self, summary: &[u8]) -> bool;

    /// Names what cannot be restored of the chunk that is called `name`, which is
    /// empty for a root. `fate` tells it of the chunks that this one leads to.
    fn describe(
        &self,
        role: Role,
        plain: &[u8],
        name: &str,
        fate: &dyn Fn(&ChunkId) -> Fate,
    ) -> Described {
        let _ = (role, plain, name, fate);
        Described::default()
    }
}

/// Which chunks are reached, by their numbers in the index.
#[derive(Debug, Default)]
pub(crate) struct Marked {
    bits: Vec<u64>,
    count: u64,
    /// Chunks that something leads to and that no index lists, and the chunk that
    /// leads there.
    pub(crate) missing: BTreeMap<ChunkId, ChunkId>,
}

impl Marked {
    pub(crate) fn contains(&self, slot: u32) -> bool {
        let word = self.bits.get(slot as usize / 64).copied().unwrap_or(0);
        word & (1 << (slot % 64)) != 0
    }

    /// True if it was not marked before.
    pub(crate) fn insert(&mut self, slot: u32) -> bool {
        let at = slot as usize / 64;
        if self.bits.len() <= at {
            self.bits.resize(at + 1, 0);
        }
        let bit = 1 << (slot % 64);
        let new = self.bits[at] & bit == 0;
        self.bits[at] |= bit;
        self.count += u64::from(new);
        new
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

impl Reader {
    /// Marks everything that hangs from these roots, level by level, so that what
    /// lies together is read together. Goes on over chunks that are not there.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a node that is damaged or makes no sense, or one of
    /// the store.
    pub(crate) async fn walk(
        &self,
        contents: &dyn Contents,
        roots: impl IntoIterator<Item = ChunkId>,
        marked: &mut Marked,
    ) -> Result<()> {
        let mut level: Vec<(ChunkId, Role)> = Vec::new();
        for root in roots {
            self.mark(marked, root, Link::Node(root, Role::ROOT), &mut level);
        }
        while !level.is_empty() {
            let ids = level.iter().map(|(id, _)| *id).collect();
            let mut next = Vec::new();
            let mut nodes = std::pin::pin!(self.get_ordered(ids));
            for (id, role) in level {
                let Some(read) = nodes.next().await else {
                    break;
                };
                let (_, plain) = read?;
                let links = contents
                    .links(role, &plain)
                    .map_err(|what| Error::Node { chunk: id, what })?;
                for link in links {
                    self.mark(marked, id, link, &mut next);
                }
            }
            level = next;
        }
        Ok(())
    }

    fn mark(
        &self,
        marked: &mut Marked,
        from: ChunkId,
        link: Link,
        next: &mut Vec<(ChunkId, Role)>,
    ) {
        let id = link.chunk();
        match self.slot(&id) {
            None => {
                marked.missing.entry(id).or_insert(from);
            }
            Some(slot) => {
                let new = marked.insert(slot);
                if let (Link::Node(id, role), true) = (link, new) {
                    next.push((id, role));
                }
            }
        }
    }
}
