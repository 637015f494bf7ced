//! What listings say, and what follows from it: which ends count, which deltas
//! may be used, what is live.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ClusterKey, SessionId};

/// Counts garbage collections: the highest n of `gc/<n>.…`, 0 if there is none.
pub(crate) type Generation = u64;

/// A session that began, as the key of its `open` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Began {
    pub(crate) cluster: ClusterKey,
    pub(crate) birth: Generation,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum How {
    /// It can never commit.
    Fenced,
    /// It committed a snapshot.
    Snapshot,
    /// It committed a part of what another session is writing.
    Part(SessionId),
    /// It committed copies of chunks and nothing of its own.
    Copies,
}

/// The end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ended {
    pub(crate) cluster: ClusterKey,
    pub(crate) birth: Generation,
    pub(crate) how: How,
}

impl Ended {
    pub(crate) fn has_committed(&self) -> bool {
        self.how != How::Fenced
    }
}

/// The names below `gc/`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Collections {
    pub(crate) plans: BTreeSet<Generation>,
    pub(crate) finals: BTreeSet<Generation>,
}

impl Collections {
    /// The current generation.
    pub(crate) fn newest(&self) -> Generation {
        let newest = |set: &BTreeSet<Generation>| set.last().copied().unwrap_or(0);
        newest(&self.plans).max(newest(&self.finals))
    }
}

/// What the newest run of the index closes: every session that was born before
/// `run` is over. Those in `live` count; all others are as if they had never been,
/// whatever late requests of theirs may still put into the bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Horizon {
    /// The number of the newest run, 0 if there is none.
    pub(crate) run: Generation,
    /// The snapshots, and parts of open sessions' snapshots, that it lists.
    pub(crate) live: BTreeSet<SessionId>,
}

impl Horizon {
    /// Whether the end of a session of this birth counts.
    pub(crate) fn counts(&self, session: SessionId, birth: Generation) -> bool {
        birth >= self.run || self.live.contains(&session)
    }
}

/// Whether a writer may take its own commit for a fact: a run that was made in
/// the meantime may have closed its generation without it (rule F4).
pub(crate) fn acknowledged(session: SessionId, birth: Generation, now: &Horizon) -> bool {
    now.counts(session, birth)
}

/// The sessions whose deltas hold what the newest run does not: only committed
/// ones (rule F1).
pub(crate) fn usable_deltas(
    ends: &BTreeMap<SessionId, Ended>,
    horizon: &Horizon,
) -> BTreeSet<SessionId> {
    let usable = ends
        .iter()
        .filter(|(_, end)| end.has_committed() && end.birth >= horizon.run);
    usable.map(|(session, _)| *session).collect()
}

/// The committed sessions whose trees must stay readable: snapshots that are not
/// forgotten, and parts of sessions that are open or live.
pub(crate) fn live_roots(
    ends: &BTreeMap<SessionId, Ended>,
    opens: &BTreeMap<SessionId, Began>,
    forgets: &BTreeSet<SessionId>,
    horizon: &Horizon,
) -> BTreeSet<SessionId> {
    let is_live = |session: &SessionId, end: &Ended| {
        end.how == How::Snapshot
            && horizon.counts(*session, end.birth)
            && !forgets.contains(session)
    };
    let parent_lives = |parent: &SessionId| match ends.get(parent) {
        Some(end) => is_live(parent, end),
        // An `open` goes only when its session is over.
        None => opens.contains_key(parent),
    };
    let live = ends.iter().filter(|(session, end)| match &end.how {
        How::Snapshot => is_live(session, end),
        How::Part(parent) => horizon.counts(**session, end.birth) && parent_lives(parent),
        How::Fenced | How::Copies => false,
    });
    live.map(|(session, _)| *session).collect()
}
