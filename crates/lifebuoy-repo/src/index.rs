//! Where each chunk is: the index deltas of committed sessions in memory.
//! Never holds a chunk of a session that has not committed.

use std::collections::{HashMap, HashSet};

use crate::{
    compress::Codec,
    ids::{ChunkId, SessionId},
    names::PackName,
    pack::{CHUNKS_OFFSET, ChunkEntry},
    record::IndexBody,
};

/// Where one chunk is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) pack: u32,
    pub(crate) position: u32,
    pub(crate) offset: u32,
    stored: u32,
    raw: u32,
    codec: Codec,
}

impl Place {
    pub(crate) fn entry(&self, id: ChunkId) -> ChunkEntry {
        ChunkEntry {
            id,
            codec: self.codec,
            raw: self.raw,
            stored: self.stored,
        }
    }
}

/// A pack that holds chunks of the index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackPlace {
    pub(crate) name: PackName,
    pub(crate) random: [u8; 32],
    pub(crate) commitment: [u8; 32],
}

#[derive(Default)]
pub(crate) struct Index {
    chunks: HashMap<ChunkId, Place>,
    packs: Vec<PackPlace>,
    sessions: HashSet<SessionId>,
}

impl Index {
    pub(crate) fn holds(&self, session: SessionId) -> bool {
        self.sessions.contains(&session)
    }

    pub(crate) fn contains(&self, id: &ChunkId) -> bool {
        self.chunks.contains_key(id)
    }

    pub(crate) fn find(&self, id: &ChunkId) -> Option<(PackPlace, Place)> {
        let place = self.chunks.get(id)?;
        let pack = self.packs.get(usize::try_from(place.pack).ok()?)?;
        Some((*pack, *place))
    }

    /// Adds the delta of a committed session. A chunk that is known keeps its place.
    pub(crate) fn add(&mut self, session: SessionId, delta: &IndexBody) {
        if !self.sessions.insert(session) {
            return;
        }
        for pack in &delta.packs {
            let Ok(number) = u32::try_from(self.packs.len()) else {
                return;
            };
            self.packs.push(PackPlace {
                name: PackName {
                    session,
                    number: pack.number,
                    kind: pack.kind,
                },
                random: delta.random,
                commitment: pack.commitment,
            });
            let mut offset = CHUNKS_OFFSET as u32;
            for (position, chunk) in (0..).zip(&pack.chunks) {
                let ChunkEntry {
                    id,
                    codec,
                    raw,
                    stored,
                } = *chunk;
                let place = Place {
                    pack: number,
                    position,
                    offset,
                    stored,
                    raw,
                    codec,
                };
                self.chunks.entry(id).or_insert(place);
                offset = offset.saturating_add(stored);
            }
        }
    }
}
