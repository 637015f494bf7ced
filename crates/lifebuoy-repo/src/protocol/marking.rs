//! Which packs must stay, given where each live chunk has its copies.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::PackName;

/// A copy of a chunk: the pack that holds it, and how many chunks that pack has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) pack: PackName,
    pub(crate) chunks: u32,
}

/// What a marking found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Marks {
    /// The packs that must stay.
    pub(crate) kept: BTreeSet<PackName>,
    /// How many live chunks have no copy in any pack that is there.
    pub(crate) missing: u64,
    /// The packs of `kept` that hold nothing live, but which a live snapshot says
    /// it relies on: the walk of the trees and the snapshots disagree, or a
    /// session stored what it then did not use. Either way they stay.
    pub(crate) disputed: BTreeSet<PackName>,
}

/// Chooses one copy of each live chunk. Of several, the one in the pack that
/// wastes least, so that the copies of a repack win over what they replace.
pub(crate) struct Choice<'a> {
    /// The packs that are in the bucket.
    listed: &'a BTreeSet<PackName>,
    /// Packs that are to go, if the first marking is done: only what nothing
    /// else holds keeps one of them.
    condemned: &'a BTreeSet<PackName>,
    kept: BTreeSet<PackName>,
    /// How many live chunks each pack holds, and how many in all.
    touched: BTreeMap<PackName, (u32, u32)>,
    /// The candidates for chunks that have more than one.
    open: Vec<Vec<PackName>>,
    missing: u64,
}

impl<'a> Choice<'a> {
    pub(crate) fn new(listed: &'a BTreeSet<PackName>, condemned: &'a BTreeSet<PackName>) -> Self {
        Self {
            listed,
            condemned,
            kept: BTreeSet::new(),
            touched: BTreeMap::new(),
            open: Vec::new(),
            missing: 0,
        }
    }

    /// Adds a live chunk with all its copies.
    pub(crate) fn chunk(&mut self, copies: &[Copy]) {
        let mut candidates: Vec<PackName> = Vec::with_capacity(copies.len());
        for copy in copies {
            if self.listed.contains(&copy.pack) {
                candidates.push(copy.pack);
                let live = &mut self.touched.entry(copy.pack).or_insert((0, copy.chunks)).0;
                *live = live.saturating_add(1);
            }
        }
        let stays = |pack: &PackName| !self.condemned.contains(pack);
        match candidates.as_slice() {
            [] => self.missing += 1,
            [only] => {
                self.kept.insert(*only);
            }
            // What stays anyway is copy enough.
            _ if !self.condemned.is_empty() && candidates.iter().any(stays) => {}
            _ => self.open.push(candidates),
        }
    }

    /// The marks, with `relied` on packs by live snapshots.
    pub(crate) fn finish(mut self, relied: &BTreeSet<PackName>) -> Marks {
        for candidates in std::mem::take(&mut self.open) {
            if candidates.iter().any(|pack| self.kept.contains(pack)) {
                continue;
            }
            let waste = |pack: &PackName| {
                let (live, all) = self.touched.get(pack).copied().unwrap_or_default();
                (all.saturating_sub(live), *pack)
            };
            if let Some(best) = candidates.iter().copied().min_by_key(waste) {
                self.kept.insert(best);
            }
        }
        let disputed: BTreeSet<PackName> = relied
            .iter()
            .filter(|pack| self.listed.contains(pack) && !self.touched.contains_key(pack))
            .copied()
            .collect();
        self.kept.extend(&disputed);
        Marks {
            kept: self.kept,
            missing: self.missing,
            disputed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::SessionId, names::ChunkKind};

    fn pack(n: u32) -> PackName {
        PackName {
            session: SessionId::from_bytes([0; 16]),
            number: n,
            kind: ChunkKind::Data,
        }
    }

    fn copy(n: u32, chunks: u32) -> Copy {
        Copy {
            pack: pack(n),
            chunks,
        }
    }

    fn packs(numbers: &[u32]) -> BTreeSet<PackName> {
        numbers.iter().copied().map(pack).collect()
    }

    #[test]
    fn the_copies_of_a_repack_win_over_what_they_replace() {
        let (listed, none) = (packs(&[1, 2, 3]), packs(&[]));
        let mut choice = Choice::new(&listed, &none);
        // Packs 1 and 2 are half dead; 3 holds what is live of both.
        choice.chunk(&[copy(1, 4), copy(3, 3)]);
        choice.chunk(&[copy(1, 4), copy(3, 3)]);
        choice.chunk(&[copy(2, 2), copy(3, 3)]);
        let marks = choice.finish(&none);
        assert_eq!(marks.kept, packs(&[3]));
        assert_eq!(marks.missing, 0);
    }

    #[test]
    fn a_copy_that_is_not_in_the_bucket_is_none() {
        let (listed, none) = (packs(&[1]), packs(&[]));
        let mut choice = Choice::new(&listed, &none);
        choice.chunk(&[copy(1, 1), copy(2, 1)]);
        choice.chunk(&[copy(2, 1)]);
        let marks = choice.finish(&none);
        assert_eq!(marks.kept, packs(&[1]));
        assert_eq!(marks.missing, 1);
    }

    #[test]
    fn a_condemned_pack_stays_if_nothing_else_holds_what_is_live() {
        let (listed, condemned) = (packs(&[1, 2, 3]), packs(&[1, 2]));
        let mut choice = Choice::new(&listed, &condemned);
        choice.chunk(&[copy(1, 1), copy(3, 1)]);
        choice.chunk(&[copy(2, 1)]);
        let marks = choice.finish(&packs(&[]));
        assert!(!marks.kept.contains(&pack(1)));
        assert!(marks.kept.contains(&pack(2)));
    }

    #[test]
    fn what_a_snapshot_relies_on_stays_though_no_walk_leads_there() {
        let (listed, none) = (packs(&[1, 2]), packs(&[]));
        let mut choice = Choice::new(&listed, &none);
        choice.chunk(&[copy(1, 1)]);
        let marks = choice.finish(&packs(&[1, 2, 9]));
        assert_eq!(marks.kept, packs(&[1, 2]));
        assert_eq!(marks.disputed, packs(&[2]));
    }
}
