//! Which of the protocol's own objects have served their time. Every rule here
//! stays true once it is: a collector that acts on it late does no harm.

use std::collections::{BTreeMap, BTreeSet};

use super::{Began, Collections, Ended, Generation, Horizon};
use crate::ids::SessionId;

/// What there is, listed in the order of the fields: what hangs on a session
/// before the sessions themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Remains {
    pub(crate) deltas: BTreeSet<SessionId>,
    /// Sessions with heartbeats.
    pub(crate) beats: BTreeSet<SessionId>,
    pub(crate) forgets: BTreeSet<SessionId>,
    pub(crate) pins: BTreeSet<SessionId>,
    /// All runs but for the newest.
    pub(crate) old_runs: BTreeSet<Generation>,
    pub(crate) opens: BTreeMap<SessionId, Began>,
    pub(crate) ends: BTreeMap<SessionId, Ended>,
    pub(crate) horizon: Horizon,
    pub(crate) collections: Collections,
}

/// What can be deleted, in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Removable {
    pub(crate) deltas: BTreeSet<SessionId>,
    pub(crate) beats: BTreeSet<SessionId>,
    pub(crate) opens: BTreeMap<SessionId, Began>,
    pub(crate) ends: BTreeMap<SessionId, Ended>,
    /// After the ends: a forgotten snapshot must not come back.
    pub(crate) forgets: BTreeSet<SessionId>,
    pub(crate) pins: BTreeSet<SessionId>,
    pub(crate) plans: BTreeSet<Generation>,
    pub(crate) finals: BTreeSet<Generation>,
    pub(crate) runs: BTreeSet<Generation>,
}

/// What can be deleted of what there is.
pub(crate) fn removable(remains: Remains) -> Removable {
    let Remains {
        deltas,
        beats,
        forgets,
        pins,
        old_runs,
        opens,
        ends,
        horizon,
        collections,
    } = remains;
    let over = |session: &SessionId, birth: Generation| !horizon.counts(*session, birth);
    // A session whose `open` and `end` are gone is over: its `open` came first.
    let birth = |session: &SessionId| {
        let ended = ends.get(session).map(|end| end.birth);
        ended.or_else(|| opens.get(session).map(|open| open.birth))
    };
    // The newest run holds what these deltas say, or they say nothing that counts.
    let covered = |session: &SessionId| birth(session).is_none_or(|birth| birth < horizon.run);
    let unknown = |session: &SessionId| birth(session).is_none_or(|birth| over(session, birth));
    let done = |n: &Generation| *n < collections.newest() && *n <= horizon.run;
    Removable {
        deltas: filter(deltas, covered),
        beats: filter(beats, covered),
        forgets: filter(forgets, unknown),
        pins: filter(pins, unknown),
        plans: filter(collections.plans.clone(), done),
        finals: filter(collections.finals.clone(), done),
        runs: filter(old_runs, |n| *n < horizon.run),
        opens: opens
            .iter()
            .filter(|(session, open)| over(session, open.birth))
            .map(|(session, open)| (*session, *open))
            .collect(),
        ends: ends
            .iter()
            .filter(|(session, end)| over(session, end.birth))
            .map(|(session, end)| (*session, *end))
            .collect(),
    }
}

fn filter<T: Ord>(set: BTreeSet<T>, wanted: impl Fn(&T) -> bool) -> BTreeSet<T> {
    set.into_iter().filter(wanted).collect()
}
