//! One garbage collection: collector steps 1 to 11 of `docs/format.md` section 9.
//! Any number of collectors may run at one time, be stopped anywhere, and go on
//! after any delay: they can only ever finish the same recorded plan.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Began, Collections, Ended, Generation, Horizon, Marks, Remains, Removable,
    facts::{live_roots, usable_deltas},
    removable,
};
use crate::{ids::SessionId, names::PackName};

/// A plan: what is to go, unless something needs it after all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Plan {
    pub(crate) condemned: BTreeSet<PackName>,
    /// The requests to forget that this collection honours (rule F5).
    pub(crate) forgets: BTreeSet<SessionId>,
}

/// A final: what goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Final {
    pub(crate) packs: BTreeSet<PackName>,
}

/// What is to be marked: all that hangs from `roots`, found by the newest run and
/// these deltas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Marking {
    pub(crate) roots: BTreeSet<SessionId>,
    pub(crate) run: Generation,
    pub(crate) deltas: BTreeSet<SessionId>,
    pub(crate) packs: BTreeSet<PackName>,
    pub(crate) condemned: BTreeSet<PackName>,
}

/// The next run of the index: run `base` and these deltas, without the dead packs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Consolidation {
    pub(crate) base: Generation,
    pub(crate) deltas: BTreeSet<SessionId>,
    pub(crate) dead: BTreeSet<PackName>,
    pub(crate) live: BTreeSet<SessionId>,
}

/// Why a collection stops before it deletes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// Live snapshots need chunks that no pack in the bucket holds.
    ChunksMissing(u64),
}

/// What a collector asks for next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    /// List `gc/`.
    Collections,
    /// List `index/runs/`, and read the newest.
    Horizon,
    Plan(Generation),
    Final(Generation),
    /// List `forget/`: those that are to be honoured by now.
    Forgets,
    /// List `end/`, and read what is new.
    Ends,
    Packs,
    Opens,
    Deltas,
    Mark(Marking),
    /// Create the plan, unless it exists. Nothing is decided before.
    CreatePlan(Generation, Plan),
    /// Let time pass, or fence some of these sessions.
    Wait(BTreeMap<SessionId, Began>),
    CreateFinal(Generation, Final),
    Delete(Final),
    CreateRun(Generation, Consolidation),
    /// List the deltas, beats, forgets, pins and old runs.
    Remains,
    Remove(Removable),
    Nothing,
    Refused(Refusal),
}

/// The answer to [`Ask`].
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Collections(Collections),
    Horizon(Horizon),
    /// `None`: it is gone by now.
    Plan(Option<Plan>),
    /// `None`: it is gone by now.
    Final(Option<Final>),
    Forgets(BTreeSet<SessionId>),
    Ends(BTreeMap<SessionId, Ended>),
    Packs(BTreeSet<PackName>),
    Opens(BTreeMap<SessionId, Began>),
    Deltas(BTreeSet<SessionId>),
    Marked(Marks),
    /// What is to be marked or consolidated was tidied up since it was listed:
    /// another collector is ahead.
    Outdated,
    /// The plan that is recorded, whoever created it.
    PlanIs(Plan),
    /// The plan is not worth a generation. Only in answer to `CreatePlan`.
    NotWorthIt,
    /// The final that is recorded, whoever created it (rule F8).
    FinalIs(Final),
    Remains(Remains),
    /// What was asked for is done.
    Done,
}

/// What was listed on the way to a marking, in the order of the fields. Ends
/// before packs: what a known commit needs is then among the packs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Survey {
    forgets: BTreeSet<SessionId>,
    ends: BTreeMap<SessionId, Ended>,
    packs: BTreeSet<PackName>,
    opens: BTreeMap<SessionId, Began>,
    deltas: BTreeSet<SessionId>,
    horizon: Horizon,
}

/// A marking is made before the plan and again before the final.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Round {
    First,
    Second(Plan),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Look {
    Forgets,
    Ends,
    Packs,
    Opens,
    Deltas,
    Horizon,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Start,
    Started(Collections),
    Survey(Round, Look, Survey),
    Mark(Round, Survey),
    CreatePlan(Plan),
    ReadPlan,
    ListOpens(Plan),
    ListEnds(Plan, BTreeMap<SessionId, Began>),
    Wait(Plan, BTreeMap<SessionId, Began>),
    CreateFinal(Plan, Final),
    ReadFinal(Plan),
    ReadPlanOfFinal,
    Delete(Plan, Final),
    RunEnds(Plan, Final),
    RunHorizon(Plan, Final, BTreeMap<SessionId, Ended>),
    CreateRun(Consolidation),
    Clean(Option<Look>, Remains),
    CleanCollections(Remains),
    Remove(Removable),
    Done,
    Refused(Refusal),
}

/// A collector at work.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Collector {
    /// The generation that is being made.
    n: Generation,
    step: Step,
}

impl Collector {
    pub(crate) fn new() -> Self {
        Self {
            n: 0,
            step: Step::Start,
        }
    }

    pub(crate) fn generation(&self) -> Generation {
        self.n
    }

    /// What is asked for next. The same is asked until it is answered.
    pub(crate) fn ask(&self) -> Ask {
        match &self.step {
            Step::Start => Ask::Collections,
            Step::Started(_) => Ask::Horizon,
            Step::Survey(_, look, _) => look.ask(),
            Step::Mark(round, survey) => Ask::Mark(marking(round, survey)),
            Step::CreatePlan(plan) => Ask::CreatePlan(self.n, plan.clone()),
            Step::ReadPlan | Step::ReadPlanOfFinal => Ask::Plan(self.n),
            Step::ListOpens(_) => Ask::Opens,
            Step::ListEnds(..) | Step::RunEnds(..) => Ask::Ends,
            Step::Wait(_, waiting) => Ask::Wait(waiting.clone()),
            Step::CreateFinal(_, last) => Ask::CreateFinal(self.n, last.clone()),
            Step::ReadFinal(_) => Ask::Final(self.n),
            Step::Delete(_, last) => Ask::Delete(last.clone()),
            Step::RunHorizon(..) => Ask::Horizon,
            Step::CreateRun(run) => Ask::CreateRun(self.n, run.clone()),
            Step::Clean(None, _) => Ask::Remains,
            Step::Clean(Some(look), _) => look.ask(),
            Step::CleanCollections(_) => Ask::Collections,
            Step::Remove(what) => Ask::Remove(what.clone()),
            Step::Done => Ask::Nothing,
            Step::Refused(why) => Ask::Refused(*why),
        }
    }

    /// Takes the answer to what was asked. An answer to anything else changes
    /// nothing, and the same is asked again.
    pub(crate) fn answer(&mut self, answer: Answer) {
        let step = std::mem::replace(&mut self.step, Step::Start);
        self.step = match step {
            Step::Start | Step::Started(_) | Step::ReadPlan => self.start(step, answer),
            Step::Survey(round, look, survey) => self.survey(round, look, survey, answer),
            Step::Mark(round, survey) => self.marked(round, survey, answer),
            Step::CreatePlan(_) | Step::ListOpens(_) | Step::ListEnds(..) | Step::Wait(..) => {
                self.wait(step, answer)
            }
            Step::CreateFinal(..)
            | Step::ReadFinal(_)
            | Step::ReadPlanOfFinal
            | Step::Delete(..) => delete(step, answer),
            Step::RunEnds(..) | Step::RunHorizon(..) | Step::CreateRun(_) => {
                self.consolidate(step, answer)
            }
            Step::Clean(..) | Step::CleanCollections(_) | Step::Remove(_) => clean(step, answer),
            Step::Done | Step::Refused(_) => step,
        };
    }

    /// Step 1: what there is to do.
    fn start(&mut self, step: Step, answer: Answer) -> Step {
        match (step, answer) {
            (Step::Start, Answer::Collections(found)) => Step::Started(found),
            (Step::Started(found), Answer::Horizon(horizon)) => {
                self.n = found.newest();
                let has_final = found.finals.contains(&self.n);
                if self.n > 0 && !has_final {
                    Step::ReadPlan
                } else if horizon.run < self.n {
                    Step::ReadPlanOfFinal
                } else {
                    // Only now: the last one has its final and its run (F3, F7).
                    self.n += 1;
                    Step::Survey(Round::First, Look::Forgets, Survey::default())
                }
            }
            (Step::ReadPlan, Answer::Plan(Some(plan))) => Step::ListOpens(plan),
            (Step::ReadPlan, Answer::Plan(None)) => Step::Start,
            (step, _) => step,
        }
    }

    /// Steps 2 and 7: what is there.
    fn survey(&self, round: Round, look: Look, mut survey: Survey, answer: Answer) -> Step {
        let next = match (look, answer) {
            (Look::Forgets, Answer::Forgets(forgets)) => {
                survey.forgets = forgets;
                Look::Ends
            }
            (Look::Ends, Answer::Ends(ends)) => {
                survey.ends = ends;
                Look::Packs
            }
            (Look::Packs, Answer::Packs(packs)) => {
                survey.packs = packs;
                Look::Opens
            }
            (Look::Opens, Answer::Opens(opens)) => {
                survey.opens = opens;
                Look::Deltas
            }
            (Look::Deltas, Answer::Deltas(deltas)) => {
                survey.deltas = deltas;
                Look::Horizon
            }
            (Look::Horizon, Answer::Horizon(horizon)) if horizon.run + 1 == self.n => {
                survey.horizon = horizon;
                return Step::Mark(round, survey);
            }
            // Another collector has finished this generation.
            (Look::Horizon, Answer::Horizon(_)) => return Step::Start,
            (look, _) => look,
        };
        Step::Survey(round, next, survey)
    }

    /// Steps 3 and 7: what is needed stays.
    fn marked(&self, round: Round, survey: Survey, answer: Answer) -> Step {
        let marks = match answer {
            Answer::Marked(marks) => marks,
            Answer::Outdated => return Step::Start,
            _ => return Step::Mark(round, survey),
        };
        if marks.missing > 0 {
            return Step::Refused(Refusal::ChunksMissing(marks.missing));
        }
        match round {
            Round::First => {
                let at_work = |pack: &PackName| {
                    let session = &pack.session;
                    survey.opens.contains_key(session) && !survey.ends.contains_key(session)
                };
                let goes = |pack: &&PackName| !marks.kept.contains(pack) && !at_work(pack);
                Step::CreatePlan(Plan {
                    condemned: survey.packs.iter().filter(goes).copied().collect(),
                    forgets: survey.forgets,
                })
            }
            Round::Second(plan) => {
                let packs = plan.condemned.difference(&marks.kept).copied().collect();
                Step::CreateFinal(plan, Final { packs })
            }
        }
    }

    /// Steps 4 to 6: the plan is out, and who may not have seen it has ended.
    fn wait(&self, step: Step, answer: Answer) -> Step {
        match (step, answer) {
            (Step::CreatePlan(_), Answer::PlanIs(plan)) => Step::ListOpens(plan),
            (Step::CreatePlan(_), Answer::NotWorthIt) => Step::Clean(None, Remains::default()),
            (Step::ListOpens(plan), Answer::Opens(mut opens)) => {
                // Sessions of closed generations are over, whatever is left of them.
                opens.retain(|_, open| open.birth + 1 == self.n);
                Step::ListEnds(plan, opens)
            }
            (Step::ListEnds(plan, mut waiting), Answer::Ends(ends)) => {
                waiting.retain(|session, _| !ends.contains_key(session));
                if waiting.is_empty() {
                    let survey = Survey {
                        forgets: plan.forgets.clone(),
                        ..Survey::default()
                    };
                    Step::Survey(Round::Second(plan), Look::Ends, survey)
                } else {
                    Step::Wait(plan, waiting)
                }
            }
            (Step::Wait(plan, waiting), Answer::Done) => Step::ListEnds(plan, waiting),
            (step, _) => step,
        }
    }

    /// Step 10: the next run.
    fn consolidate(&self, step: Step, answer: Answer) -> Step {
        match (step, answer) {
            (Step::RunEnds(plan, last), Answer::Ends(ends)) => Step::RunHorizon(plan, last, ends),
            (Step::RunHorizon(plan, last, mut ends), Answer::Horizon(horizon)) => {
                if horizon.run + 1 != self.n {
                    return Step::Clean(None, Remains::default());
                }
                ends.retain(|_, end| end.birth < self.n);
                // All of these sessions have ended: no parent is open any more.
                let live = live_roots(&ends, &BTreeMap::new(), &plan.forgets, &horizon);
                Step::CreateRun(Consolidation {
                    base: horizon.run,
                    deltas: usable_deltas(&ends, &horizon),
                    dead: last.packs,
                    live,
                })
            }
            (Step::CreateRun(_), Answer::Done) => Step::Clean(None, Remains::default()),
            (Step::CreateRun(_), Answer::Outdated) => Step::Start,
            (step, _) => step,
        }
    }
}

impl Look {
    fn ask(self) -> Ask {
        match self {
            Self::Forgets => Ask::Forgets,
            Self::Ends => Ask::Ends,
            Self::Packs => Ask::Packs,
            Self::Opens => Ask::Opens,
            Self::Deltas => Ask::Deltas,
            Self::Horizon => Ask::Horizon,
        }
    }
}

fn marking(round: &Round, survey: &Survey) -> Marking {
    let Survey {
        forgets,
        ends,
        packs,
        opens,
        deltas,
        horizon,
    } = survey;
    let wanted = usable_deltas(ends, horizon);
    Marking {
        roots: live_roots(ends, opens, forgets, horizon),
        run: horizon.run,
        deltas: wanted.intersection(deltas).copied().collect(),
        packs: packs.clone(),
        condemned: match round {
            Round::First => BTreeSet::new(),
            Round::Second(plan) => plan.condemned.clone(),
        },
    }
}

/// Steps 8 and 9: the final is out, and what it names goes.
fn delete(step: Step, answer: Answer) -> Step {
    match (step, answer) {
        (Step::CreateFinal(plan, _), Answer::FinalIs(last)) => Step::Delete(plan, last),
        (Step::ReadPlanOfFinal, Answer::Plan(Some(plan))) => Step::ReadFinal(plan),
        (Step::ReadFinal(plan), Answer::Final(Some(last))) => Step::Delete(plan, last),
        (Step::ReadPlanOfFinal, Answer::Plan(None)) => Step::Start,
        (Step::ReadFinal(_), Answer::Final(None)) => Step::Start,
        (Step::Delete(plan, last), Answer::Done) => Step::RunEnds(plan, last),
        (step, _) => step,
    }
}

/// Step 11: what has served its time goes.
fn clean(step: Step, answer: Answer) -> Step {
    match (step, answer) {
        (Step::Clean(None, _), Answer::Remains(remains)) => Step::Clean(Some(Look::Opens), remains),
        (Step::Clean(Some(Look::Opens), mut remains), Answer::Opens(opens)) => {
            remains.opens = opens;
            Step::Clean(Some(Look::Ends), remains)
        }
        (Step::Clean(Some(Look::Ends), mut remains), Answer::Ends(ends)) => {
            remains.ends = ends;
            Step::Clean(Some(Look::Horizon), remains)
        }
        (Step::Clean(Some(Look::Horizon), mut remains), Answer::Horizon(horizon)) => {
            remains.horizon = horizon;
            Step::CleanCollections(remains)
        }
        (Step::CleanCollections(mut remains), Answer::Collections(found)) => {
            remains.collections = found;
            Step::Remove(removable(remains))
        }
        (Step::Remove(_), Answer::Done) => Step::Done,
        (step, _) => step,
    }
}
