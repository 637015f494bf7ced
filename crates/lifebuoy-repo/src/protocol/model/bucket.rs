//! A bucket of sets, and what a reader finds in it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    Began, Collections, Copy, Ended, Final, Generation, Horizon, How, Plan, usable_deltas,
};
use crate::{
    ids::{ClusterKey, SessionId},
    names::{ChunkKind, PackName},
};

/// Chunks as bits.
pub(super) type Chunks = u8;
/// What packs hold.
pub(super) type Packs = BTreeMap<PackName, Chunks>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub(super) live: BTreeSet<SessionId>,
    pub(super) packs: Packs,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    pub(super) opens: BTreeMap<SessionId, Began>,
    /// The end, and the chunks of its tree.
    pub(super) ends: BTreeMap<SessionId, (Ended, Chunks)>,
    pub(super) forgets: BTreeSet<SessionId>,
    pub(super) packs: BTreeSet<PackName>,
    pub(super) deltas: BTreeMap<SessionId, Packs>,
    pub(super) plans: BTreeMap<Generation, Plan>,
    pub(super) finals: BTreeMap<Generation, Final>,
    pub(super) runs: BTreeMap<Generation, Run>,
}

pub(super) fn session(actor: u8, attempt: u8) -> SessionId {
    let mut bytes = [0; 16];
    bytes[0] = actor;
    bytes[1] = attempt;
    SessionId::from_bytes(bytes)
}

pub(super) fn pack(session: SessionId, number: u32) -> PackName {
    PackName {
        session,
        number,
        kind: ChunkKind::Data,
    }
}

pub(super) fn cluster() -> ClusterKey {
    ClusterKey::from_bytes([0; 16])
}

impl Bucket {
    /// One snapshot of all chunks of `chunks`, each in a pack of its own.
    pub(super) fn with_snapshot(chunks: Chunks) -> Self {
        let mut bucket = Self::default();
        let first = session(0, 0);
        let packs: Packs = bits(chunks)
            .map(|bit| (pack(first, bit), 1 << bit))
            .collect();
        bucket.opens.insert(
            first,
            Began {
                cluster: cluster(),
                birth: 0,
            },
        );
        bucket.packs = packs.keys().copied().collect();
        bucket.deltas.insert(first, packs);
        let end = Ended {
            cluster: cluster(),
            birth: 0,
            how: How::Snapshot,
        };
        bucket.ends.insert(first, (end, chunks));
        bucket
    }

    pub(super) fn collections(&self) -> Collections {
        Collections {
            plans: self.plans.keys().copied().collect(),
            finals: self.finals.keys().copied().collect(),
        }
    }

    pub(super) fn horizon(&self) -> Horizon {
        match self.runs.last_key_value() {
            None => Horizon::default(),
            Some((n, run)) => Horizon {
                run: *n,
                live: run.live.clone(),
            },
        }
    }

    pub(super) fn ends(&self) -> BTreeMap<SessionId, Ended> {
        self.ends.iter().map(|(s, (end, _))| (*s, *end)).collect()
    }

    /// The index of one who knows run `run` and these deltas; `None` if one of
    /// them is gone.
    pub(super) fn index(&self, run: Generation, deltas: &BTreeSet<SessionId>) -> Option<Packs> {
        let mut packs = match run {
            0 => Packs::new(),
            n => self.runs.get(&n)?.packs.clone(),
        };
        for session in deltas {
            packs.extend(self.deltas.get(session)?);
        }
        Some(packs)
    }

    /// The chunks that somebody who comes now can read.
    pub(super) fn readable(&self) -> Chunks {
        let horizon = self.horizon();
        let listed: BTreeSet<SessionId> = self.deltas.keys().copied().collect();
        let wanted = usable_deltas(&self.ends(), &horizon);
        let deltas = wanted.intersection(&listed).copied().collect();
        let index = self.index(horizon.run, &deltas).unwrap_or_default();
        let there = index.iter().filter(|(pack, _)| self.packs.contains(pack));
        there.fold(0, |all, (_, chunks)| all | chunks)
    }
}

pub(super) fn bits(chunks: Chunks) -> impl Iterator<Item = u32> {
    (0..8).filter(move |bit| chunks & (1 << bit) != 0)
}

/// The copies of one chunk.
pub(super) fn copies(index: &Packs, bit: u32) -> Vec<Copy> {
    index
        .iter()
        .filter(|(_, chunks)| **chunks & (1 << bit) != 0)
        .map(|(pack, chunks)| Copy {
            pack: *pack,
            chunks: chunks.count_ones(),
        })
        .collect()
}
