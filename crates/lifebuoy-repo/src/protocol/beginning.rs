//! How a session begins: writer steps 1 to 4 of `docs/format.md` section 9.

use std::collections::{BTreeMap, BTreeSet};

use super::{Collections, Ended, Final, Generation, Horizon, Plan, facts::usable_deltas};
use crate::{ids::SessionId, names::PackName};

/// What a beginning session asks for next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Begin {
    /// List `gc/`.
    Collections,
    /// Create the session's `open` with this birth generation.
    Open(Generation),
    /// Read a plan that has no final.
    Plan(Generation),
    /// Read a final.
    Final(Generation),
    /// List `end/`, and read what is new.
    Ends,
    /// List the deltas of `index/`. Never before the ends.
    Deltas,
    /// List `index/runs/`, and read the newest. Never before the deltas (rule F2).
    Horizon,
    /// Nothing: the session has begun.
    Nothing,
    /// A collection began in the meantime: start again, under another id (rule F4).
    Again,
}

/// The answer to [`Begin`].
#[derive(Debug, Clone)]
pub(crate) enum BeginAnswer {
    Collections(Collections),
    Opened,
    /// `None`: it is gone by now.
    Plan(Option<Plan>),
    /// `None`: it is gone by now.
    Final(Option<Final>),
    Ends(BTreeMap<SessionId, Ended>),
    Deltas(BTreeSet<SessionId>),
    Horizon(Horizon),
}

/// What a session may build on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Usable {
    pub(crate) birth: Generation,
    /// Packs that are about to go. Nothing in them is reused, neither found by
    /// looking it up nor inherited from an earlier snapshot (rule F6).
    pub(crate) avoid: BTreeSet<PackName>,
    /// Snapshots that are about to go.
    pub(crate) going: BTreeSet<SessionId>,
    pub(crate) ends: BTreeMap<SessionId, Ended>,
    /// The sessions whose deltas count besides the newest run.
    pub(crate) deltas: BTreeSet<SessionId>,
    pub(crate) horizon: Horizon,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    First,
    Open,
    Second,
    Read(Collections),
    Ends,
    Deltas,
    Horizon,
    Begun,
    Outdated,
}

/// A session that is beginning.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Beginning {
    step: Step,
    usable: Usable,
}

impl Beginning {
    pub(crate) fn new() -> Self {
        Self {
            step: Step::First,
            usable: Usable::default(),
        }
    }

    pub(crate) fn ask(&self) -> Begin {
        match &self.step {
            Step::First | Step::Second => Begin::Collections,
            Step::Open => Begin::Open(self.usable.birth),
            Step::Read(left) => match (left.plans.first(), left.finals.first()) {
                (Some(n), _) => Begin::Plan(*n),
                (None, Some(n)) => Begin::Final(*n),
                (None, None) => Begin::Ends,
            },
            Step::Ends => Begin::Ends,
            Step::Deltas => Begin::Deltas,
            Step::Horizon => Begin::Horizon,
            Step::Begun => Begin::Nothing,
            Step::Outdated => Begin::Again,
        }
    }

    /// Takes the answer to what was asked. An answer to anything else changes
    /// nothing, and the same is asked again.
    pub(crate) fn answer(&mut self, answer: BeginAnswer) {
        let step = std::mem::replace(&mut self.step, Step::Outdated);
        self.step = match (step, answer) {
            (Step::First, BeginAnswer::Collections(found)) => {
                self.usable.birth = found.newest();
                Step::Open
            }
            (Step::Open, BeginAnswer::Opened) => Step::Second,
            (Step::Second, BeginAnswer::Collections(found)) => self.look(found),
            (Step::Read(left), BeginAnswer::Plan(plan)) => self.avoid_plan(left, plan),
            (Step::Read(left), BeginAnswer::Final(last)) => self.avoid_final(left, last),
            (Step::Ends, BeginAnswer::Ends(ends)) => {
                self.usable.ends = ends;
                Step::Deltas
            }
            (Step::Deltas, BeginAnswer::Deltas(deltas)) => {
                self.usable.deltas = deltas;
                Step::Horizon
            }
            (Step::Horizon, BeginAnswer::Horizon(horizon)) => {
                let wanted = usable_deltas(&self.usable.ends, &horizon);
                self.usable.deltas = wanted.intersection(&self.usable.deltas).copied().collect();
                self.usable.horizon = horizon;
                Step::Begun
            }
            (step, _) => step,
        };
    }

    fn look(&mut self, found: Collections) -> Step {
        if found.newest() != self.usable.birth {
            return Step::Outdated;
        }
        self.usable.avoid.clear();
        self.usable.going.clear();
        // Of a collection with a final, the final says what goes; the plan of the
        // newest one says which snapshots do.
        let newest = found.newest();
        let unfinished = |n: &Generation| *n == newest || !found.finals.contains(n);
        let plans = found.plans.iter().copied().filter(unfinished).collect();
        next(Collections {
            plans,
            finals: found.finals.clone(),
        })
    }

    fn avoid_plan(&mut self, mut left: Collections, plan: Option<Plan>) -> Step {
        let Some((n, plan)) = left.plans.pop_first().zip(plan) else {
            // It was tidied up since it was listed: look again.
            return Step::Second;
        };
        self.usable.going.extend(plan.forgets);
        if !left.finals.contains(&n) {
            self.usable.avoid.extend(plan.condemned);
        }
        next(left)
    }

    fn avoid_final(&mut self, mut left: Collections, last: Option<Final>) -> Step {
        let Some((_, last)) = left.finals.pop_first().zip(last) else {
            return Step::Second;
        };
        self.usable.avoid.extend(last.packs);
        next(left)
    }

    /// What the session may build on, once there is nothing left to ask.
    pub(crate) fn begun(self) -> Option<Usable> {
        (self.step == Step::Begun).then_some(self.usable)
    }
}

fn next(left: Collections) -> Step {
    if left.plans.is_empty() && left.finals.is_empty() {
        Step::Ends
    } else {
        Step::Read(left)
    }
}
