//! Which requests to forget a collection honours. Pure, and needs no clock that is
//! right: the newest of a lineage stay whatever any clock says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    ids::{ClusterKey, SessionId},
    record::Snapshot,
};

/// A snapshot, and when somebody asked to forget it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) snapshot: Snapshot,
    /// What it follows and is followed by; `None` if that cannot be told.
    pub(crate) lineage: Option<Vec<u8>>,
    /// Whether it holds everything that it was to hold.
    pub(crate) complete: bool,
    /// How long ago the request was made, by the store's own clock; `None` if
    /// there is none.
    pub(crate) age: Option<Duration>,
}

/// The snapshots that may go now: asked for at least `grace` ago, not pinned, and
/// neither among the newest `keep_at_least` of their lineage by sequence nor among
/// the newest complete ones. So what is partial pushes out nothing complete, and
/// of a lineage that is never complete something stays as well.
pub(crate) fn due(asked: &[Asked], grace: Duration, keep_at_least: usize) -> BTreeSet<SessionId> {
    let mut lineages: BTreeMap<(ClusterKey, &[u8]), Vec<&Asked>> = BTreeMap::new();
    for one in asked {
        // One that cannot be placed protects nothing and is protected itself.
        if let Some(lineage) = &one.lineage {
            let key = (one.snapshot.cluster, lineage.as_slice());
            lineages.entry(key).or_default().push(one);
        }
    }
    let mut due = BTreeSet::new();
    for line in lineages.values_mut() {
        line.sort_by_key(|one| std::cmp::Reverse((one.snapshot.seq, one.snapshot.session)));
        let mut complete = 0;
        for (newer, one) in line.iter().enumerate() {
            let stays = newer < keep_at_least || (one.complete && complete < keep_at_least);
            complete += usize::from(one.complete);
            let goes = one.snapshot.is_leaving() && one.age.is_some_and(|age| age >= grace);
            if goes && !stays {
                due.insert(one.snapshot.session);
            }
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::ids::ChunkId;

    fn asked(seq: u64, lineage: u8, hours: Option<u64>, pinned: bool) -> Asked {
        Asked {
            snapshot: Snapshot {
                session: SessionId::from_bytes([seq as u8 + 100 * lineage; 16]),
                cluster: ClusterKey::from_bytes([0; 16]),
                seq,
                root: ChunkId::from_bytes([0; 32]),
                summary: Bytes::new(),
                forgotten: hours.is_some(),
                pinned,
            },
            lineage: Some(vec![lineage]),
            complete: true,
            age: hours.map(|hours| Duration::from_secs(3600 * hours)),
        }
    }

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn grace_pins_and_the_newest_of_each_lineage_are_respected() {
        let all = [
            asked(1, 0, Some(30), false),
            asked(2, 0, Some(23), false),
            asked(3, 0, Some(30), true),
            asked(4, 0, None, false),
            asked(5, 0, Some(30), false),
            asked(6, 0, Some(30), false),
            // The only one of its lineage.
            asked(1, 1, Some(30), false),
        ];
        let gone = due(&all, DAY, 2);
        let seqs: Vec<u64> = all
            .iter()
            .filter(|one| gone.contains(&one.snapshot.session))
            .map(|one| one.snapshot.seq)
            .collect();
        assert_eq!(seqs, [1]);
        assert_eq!(due(&all, DAY, 0).len(), 4);
    }

    #[test]
    fn a_partial_snapshot_pushes_out_no_complete_one() {
        let line = |partial: &[u64]| {
            let one = |seq| Asked {
                complete: !partial.contains(&seq),
                ..asked(seq, 0, Some(30), false)
            };
            (1..=6).map(one).collect::<Vec<_>>()
        };
        for (partial, gone) in [
            (&[][..], &[1, 2, 3, 4][..]),
            (&[5, 6], &[1, 2]),
            (&[4, 6], &[1, 2, 4]),
            (&[1, 2], &[1, 2, 3, 4]),
            (&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4]),
        ] {
            let all = line(partial);
            let due = due(&all, DAY, 2);
            let seqs = all.iter().map(|one| &one.snapshot);
            let seqs = seqs.filter(|snapshot| due.contains(&snapshot.session));
            let seqs: Vec<u64> = seqs.map(|snapshot| snapshot.seq).collect();
            assert_eq!(seqs, gone, "partial: {partial:?}");
        }
    }

    #[test]
    fn what_has_no_lineage_stays() {
        let mut one = asked(1, 0, Some(100), false);
        one.lineage = None;
        assert!(due(&[one], Duration::ZERO, 0).is_empty());
    }

    proptest! {
        #[test]
        fn the_newest_stay_whatever_the_clocks_say(
            ages in vec(proptest::option::of(0..100_000_u64), 1..30),
            keep in 1..5_usize,
        ) {
            let all: Vec<Asked> = (1..)
                .zip(&ages)
                .map(|(seq, hours)| asked(seq, 0, *hours, false))
                .collect();
            let gone = due(&all, DAY, keep);
            let newest = all.iter().rev().take(keep);
            for one in newest {
                prop_assert!(!gone.contains(&one.snapshot.session));
            }
            for one in all.iter().filter(|one| gone.contains(&one.snapshot.session)) {
                prop_assert!(one.snapshot.forgotten);
            }
        }
    }
}
