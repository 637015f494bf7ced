//! Where each chunk is: the newest run of the index and the deltas of sessions
//! that committed since, in memory. Never holds a chunk of a session that has not
//! committed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

use crate::{
    compress::Codec,
    error::Error,
    ids::{ChunkId, SessionId},
    names::PackName,
    pack::{CHUNKS_OFFSET, ChunkEntry},
    protocol::{Copy, Generation},
    record::IndexBody,
};

/// Where one copy of a chunk is.
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
    /// The bytes of the object.
    pub(crate) length: u32,
    /// How many chunks it holds.
    pub(crate) chunks: u32,
    /// The bytes of these chunks as they are stored.
    pub(crate) stored: u64,
}

/// Chunk ids are the output of a keyed hash already: their first bytes will do, and
/// the order of a walk over the index depends on nothing but what is in it.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Default)]
pub(crate) struct Index {
    /// The run that it begins with.
    run: Generation,
    /// A number for each chunk, in the order in which they became known.
    slots: HashMap<ChunkId, u32, BuildHasherDefault<FirstBytes>>,
    places: Vec<Place>,
    /// Further copies, of the few chunks that have any.
    more: HashMap<u32, Vec<Place>>,
    packs: Vec<PackPlace>,
    sessions: HashSet<SessionId>,
    relied: BTreeMap<SessionId, Vec<PackName>>,
    /// Parts of the run that cannot be read, and why.
    unreadable: Vec<(String, Error)>,
}

impl Index {
    pub(crate) fn of_run(run: Generation) -> Self {
        Self {
            run,
            ..Self::default()
        }
    }

    pub(crate) fn run(&self) -> Generation {
        self.run
    }

    /// Whether another one is of a newer run, or of more of the same run.
    pub(crate) fn is_behind(&self, other: &Self) -> bool {
        let more = other.unreadable.len() < self.unreadable.len();
        self.run < other.run || (self.run == other.run && more)
    }

    /// A part of the run that cannot be read: what it lists is not known.
    pub(crate) fn lack(&mut self, key: String, why: Error) {
        self.unreadable.push((key, why));
    }

    pub(crate) fn unreadable(&self) -> &[(String, Error)] {
        &self.unreadable
    }

    pub(crate) fn holds(&self, session: SessionId) -> bool {
        self.sessions.contains(&session)
    }

    pub(crate) fn contains(&self, id: &ChunkId) -> bool {
        self.slots.contains_key(id)
    }

    pub(crate) fn slot(&self, id: &ChunkId) -> Option<u32> {
        self.slots.get(id).copied()
    }

    pub(crate) fn packs(&self) -> &[PackPlace] {
        &self.packs
    }

    /// What the sessions say of the packs of others that their chunks are in.
    pub(crate) fn relied(&self) -> &BTreeMap<SessionId, Vec<PackName>> {
        &self.relied
    }

    /// All copies of a chunk, that which is read first in front.
    pub(crate) fn copies(&self, id: &ChunkId) -> impl Iterator<Item = (PackPlace, Place)> {
        let slot = self.slot(id);
        let first = slot.and_then(|slot| self.places.get(slot as usize));
        let more = slot.and_then(|slot| self.more.get(&slot));
        first
            .into_iter()
            .chain(more.into_iter().flatten())
            .filter_map(|place| Some((*self.packs.get(place.pack as usize)?, *place)))
    }

    /// Where to read a chunk, unless it is only in packs to avoid.
    pub(crate) fn find_outside(
        &self,
        id: &ChunkId,
        avoid: &BTreeSet<PackName>,
    ) -> Option<(PackPlace, Place)> {
        self.copies(id)
            .find(|(pack, _)| !avoid.contains(&pack.name))
    }

    /// Every chunk with its number and its copies.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (ChunkId, u32)> {
        self.slots.iter().map(|(id, slot)| (*id, *slot))
    }

    /// The copies of the chunk with this number, for the choice of what stays.
    pub(crate) fn copies_of(&self, slot: u32, copies: &mut Vec<Copy>) {
        copies.clear();
        let more = self.more.get(&slot).into_iter().flatten();
        let places = self.places.get(slot as usize).into_iter().chain(more);
        copies.extend(places.filter_map(|place| {
            let pack = self.packs.get(place.pack as usize)?;
            Some(Copy {
                pack: pack.name,
                chunks: pack.chunks,
            })
        }));
    }

    /// Adds what packs of a session hold, and what it says it relies on.
    pub(crate) fn add(&mut self, session: SessionId, delta: &IndexBody) {
        if !self.sessions.insert(session) {
            return;
        }
        self.add_packs(session, delta);
        if let Some(relies) = &delta.relies {
            self.rely(session, relies.clone());
        }
    }

    pub(crate) fn rely(&mut self, session: SessionId, relies: Vec<PackName>) {
        if !relies.is_empty() {
            self.relied.insert(session, relies);
        }
    }

    /// Adds packs, of which a part of a run may hold some and another the rest.
    pub(crate) fn add_packs(&mut self, session: SessionId, delta: &IndexBody) {
        for pack in &delta.packs {
            let Ok(number) = u32::try_from(self.packs.len()) else {
                return;
            };
            self.packs.push(PackPlace {
                name: pack.name(session),
                random: delta.random,
                commitment: pack.commitment,
                length: pack.length,
                chunks: pack.chunks.len() as u32,
                stored: pack.chunks.iter().map(|c| u64::from(c.stored)).sum(),
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
                self.place(id, place);
                offset = offset.saturating_add(stored);
            }
        }
    }

    fn place(&mut self, id: ChunkId, place: Place) {
        let Ok(next) = u32::try_from(self.places.len()) else {
            return;
        };
        let slot = *self.slots.entry(id).or_insert(next);
        if slot == next {
            self.places.push(place);
        } else {
            self.more.entry(slot).or_default().push(place);
        }
    }
}
