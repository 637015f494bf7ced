//! Who works on the bucket: writers, readers and collectors, one request a step.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        Answer, Ask, Began, Begin, BeginAnswer, Beginning, Choice, Collector, Consolidation, Ended,
        Final, Generation, Horizon, How, Marking, Remains, Usable, acknowledged, live_roots,
        usable_deltas,
    },
    bucket::{Bucket, Chunks, Packs, Run, bits, cluster, copies, pack, session},
    mutants::Mutant,
};
use crate::ids::SessionId;

/// What a writer is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Job {
    /// Commit a snapshot of these chunks.
    Backup(Chunks),
    /// Commit a snapshot of these chunks, and of the part's if there is one.
    Parent(Chunks, SessionId),
    /// Commit these chunks as a part of that session.
    Part(Chunks, SessionId),
    /// Commit second copies of these chunks, as far as they are there.
    Repack(Chunks),
    /// Hold this snapshot and read it.
    Read(SessionId),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Begin(Box<Beginning>),
    Upload(Generation, Packs, usize),
    Delta(Generation, Packs),
    Commit(Generation),
    Check(Generation),
    Reading(Generation),
    /// Whether the commit is taken for a fact.
    Over(bool),
    Crashed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Writer {
    pub(super) actor: u8,
    pub(super) attempt: u8,
    pub(super) job: Job,
    /// Jobs of the same kind that follow.
    pub(super) more: u8,
    pub(super) stage: Stage,
    /// For mutants that look too early.
    early: Option<Box<Bucket>>,
}

/// A request that can land again, any time after it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Ghost {
    Open(SessionId, Generation),
    Pack(SessionId, u32),
    Delta(SessionId, Vec<(u32, Chunks)>),
    Commit(SessionId, Ended, Chunks),
}

impl Ghost {
    pub(super) fn land(self, bucket: &mut Bucket) {
        match self {
            Self::Open(session, birth) => {
                let cluster = cluster();
                let open = Began { cluster, birth };
                bucket.opens.entry(session).or_insert(open);
            }
            Self::Pack(session, n) => {
                bucket.packs.insert(pack(session, n));
            }
            Self::Delta(session, packs) => {
                let packs = packs.into_iter().map(|(n, c)| (pack(session, n), c));
                bucket.deltas.entry(session).or_insert(packs.collect());
            }
            Self::Commit(session, end, chunks) => {
                bucket.ends.entry(session).or_insert((end, chunks));
            }
        }
    }
}

impl Writer {
    pub(super) fn new(actor: u8, job: Job, more: u8) -> Self {
        Self {
            actor,
            attempt: 0,
            job,
            more,
            stage: Stage::Begin(Box::new(Beginning::new())),
            early: None,
        }
    }

    pub(super) fn session(&self) -> SessionId {
        session(self.actor, self.attempt)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over(_) | Stage::Crashed)
    }

    /// Whether there is something to do now. A part begins when its parent, one of
    /// `others`, has begun.
    pub(super) fn can_step(&self, others: &[Self]) -> bool {
        match (&self.stage, self.job) {
            (Stage::Over(_) | Stage::Crashed, _) => false,
            (Stage::Begin(begin), Job::Part(_, parent)) if begin.ask() == Begin::Collections => {
                let has_begun = |other: &Self| !matches!(other.stage, Stage::Begin(_));
                let mut others = others.iter();
                others.any(|other| other.session() == parent && has_begun(other))
            }
            _ => true,
        }
    }

    /// The request of the next step, if it creates something.
    pub(super) fn put(&self, bucket: &Bucket) -> Option<Ghost> {
        let session = self.session();
        Some(match &self.stage {
            Stage::Begin(begin) => match begin.ask() {
                Begin::Open(birth) => Ghost::Open(session, birth),
                _ => return None,
            },
            Stage::Upload(_, packs, n) => Ghost::Pack(session, packs.keys().nth(*n)?.number),
            Stage::Delta(_, packs) => {
                Ghost::Delta(session, packs.iter().map(|(p, c)| (p.number, *c)).collect())
            }
            Stage::Commit(birth) => {
                let (end, chunks) = self.end(*birth, bucket);
                Ghost::Commit(session, end, chunks)
            }
            _ => return None,
        })
    }

    fn end(&self, birth: Generation, bucket: &Bucket) -> (Ended, Chunks) {
        let (how, chunks) = match self.job {
            Job::Backup(chunks) => (How::Snapshot, chunks),
            Job::Parent(chunks, part) => {
                // Only what its own parts committed: those of an id that was given
                // up go with it.
                let own = |(end, _): &&(Ended, Chunks)| end.how == How::Part(self.session());
                let part = bucket.ends.get(&part).filter(own);
                (
                    How::Snapshot,
                    chunks | part.map_or(0, |(_, chunks)| *chunks),
                )
            }
            Job::Part(chunks, parent) => (How::Part(parent), chunks),
            Job::Repack(_) => (How::Copies, 0),
            Job::Read(_) => (How::Fenced, 0),
        };
        let cluster = cluster();
        (
            Ended {
                cluster,
                birth,
                how,
            },
            chunks,
        )
    }

    /// One request and its answer.
    pub(super) fn step(&mut self, bucket: &mut Bucket, mutant: Option<Mutant>) {
        let session = self.session();
        let put = self.put(bucket);
        self.stage = match std::mem::replace(&mut self.stage, Stage::Crashed) {
            Stage::Begin(begin) => self.begin(begin, bucket, mutant),
            Stage::Upload(birth, packs, n) => {
                put.into_iter().for_each(|put| put.land(bucket));
                match n + 1 {
                    n if n < packs.len() => Stage::Upload(birth, packs, n),
                    _ => Stage::Delta(birth, packs),
                }
            }
            Stage::Delta(birth, _) => {
                put.into_iter().for_each(|put| put.land(bucket));
                Stage::Commit(birth)
            }
            Stage::Commit(birth) => {
                let (ours, chunks) = self.end(birth, bucket);
                if mutant == Some(Mutant::CommitOverwrites) {
                    bucket.ends.insert(session, (ours, chunks));
                }
                let (found, _) = bucket.ends.entry(session).or_insert((ours, chunks));
                match found.how {
                    How::Fenced => Stage::Over(false),
                    _ => Stage::Check(birth),
                }
            }
            Stage::Check(birth) => {
                let fact = acknowledged(session, birth, &bucket.horizon())
                    || mutant == Some(Mutant::NoPostCheck);
                Stage::Over(fact)
            }
            Stage::Reading(birth) => {
                let (end, chunks) = self.end(birth, bucket);
                bucket.ends.entry(session).or_insert((end, chunks));
                Stage::Over(false)
            }
            over => over,
        };
        if self.is_over() && self.more > 0 {
            self.more -= 1;
            self.again();
        }
    }

    fn again(&mut self) {
        self.attempt += 1;
        self.early = None;
        self.stage = Stage::Begin(Box::new(Beginning::new()));
    }

    fn begin(
        &mut self,
        mut begin: Box<Beginning>,
        bucket: &mut Bucket,
        mutant: Option<Mutant>,
    ) -> Stage {
        let ask = begin.ask();
        if ask == Begin::Again {
            self.again();
            return std::mem::replace(&mut self.stage, Stage::Crashed);
        }
        if let Begin::Open(birth) = ask {
            Ghost::Open(self.session(), birth).land(bucket);
            begin.answer(BeginAnswer::Opened);
            return Stage::Begin(begin);
        }
        let looks_early = matches!(
            mutant,
            Some(Mutant::IndexBeforeCollections | Mutant::NoRecheck)
        );
        if looks_early && self.early.is_none() {
            self.early = Some(Box::new(bucket.clone()));
            return Stage::Begin(begin);
        }
        let early = self.early.as_deref().unwrap_or(bucket);
        let (gc, index) = match mutant {
            Some(Mutant::NoRecheck) => (early, &*bucket),
            _ => (&*bucket, early),
        };
        let last = ask == Begin::Horizon;
        if let Some(answer) = begin_answer(ask, gc, index, mutant) {
            begin.answer(answer);
        }
        if !last {
            return Stage::Begin(begin);
        }
        match begin.begun() {
            Some(usable) => self.work(usable, index),
            None => Stage::Crashed,
        }
    }

    /// What is to be uploaded: what is wanted and cannot be reused.
    fn work(&self, usable: Usable, bucket: &Bucket) -> Stage {
        let birth = usable.birth;
        let there = |session: &SessionId| bucket.deltas.contains_key(session);
        let deltas = usable.deltas.iter().copied().filter(there).collect();
        let index = bucket
            .index(usable.horizon.run, &deltas)
            .unwrap_or_default();
        let known = index
            .iter()
            .filter(|(pack, _)| !usable.avoid.contains(pack))
            .fold(0, |all, (_, chunks)| all | chunks);
        let wanted = match self.job {
            Job::Backup(chunks) | Job::Parent(chunks, _) | Job::Part(chunks, _) => chunks & !known,
            Job::Repack(chunks) => chunks & known,
            Job::Read(snapshot) => return reading(usable, snapshot),
        };
        // A repack puts together what was apart.
        let packs: Packs = match self.job {
            Job::Repack(_) if wanted != 0 => [(pack(self.session(), 0), wanted)].into(),
            _ => bits(wanted)
                .map(|bit| (pack(self.session(), bit), 1 << bit))
                .collect(),
        };
        if packs.is_empty() {
            Stage::Delta(birth, packs)
        } else {
            Stage::Upload(birth, packs, 0)
        }
    }
}

fn begin_answer(
    ask: Begin,
    gc: &Bucket,
    index: &Bucket,
    mutant: Option<Mutant>,
) -> Option<BeginAnswer> {
    Some(match ask {
        Begin::Collections => BeginAnswer::Collections(gc.collections()),
        Begin::Plan(n) => BeginAnswer::Plan(gc.plans.get(&n).cloned().map(|mut plan| {
            if matches!(
                mutant,
                Some(Mutant::ReusesCondemned | Mutant::InheritsUnchecked)
            ) {
                plan.condemned.clear();
            }
            plan
        })),
        Begin::Final(n) => BeginAnswer::Final(match mutant {
            Some(Mutant::IgnoresFinals | Mutant::InheritsUnchecked) => Some(Final::default()),
            _ => gc.finals.get(&n).cloned(),
        }),
        Begin::Ends => BeginAnswer::Ends(ends_for_writers(index, mutant)),
        Begin::Deltas => BeginAnswer::Deltas(index.deltas.keys().copied().collect()),
        Begin::Horizon => BeginAnswer::Horizon(index.horizon()),
        Begin::Open(_) | Begin::Nothing | Begin::Again => return None,
    })
}

fn reading(usable: Usable, snapshot: SessionId) -> Stage {
    let end = usable.ends.get(&snapshot);
    let counts = end.is_some_and(|end| usable.horizon.counts(snapshot, end.birth));
    if counts && !usable.going.contains(&snapshot) {
        Stage::Reading(usable.birth)
    } else {
        Stage::Over(false)
    }
}

fn ends_for_writers(bucket: &Bucket, mutant: Option<Mutant>) -> BTreeMap<SessionId, Ended> {
    let mut ends = bucket.ends();
    if mutant == Some(Mutant::UncommittedDeltas) {
        for session in bucket.deltas.keys() {
            let birth = bucket.opens.get(session).map_or(0, |open| open.birth);
            let (cluster, how) = (cluster(), How::Copies);
            let made_up = Ended {
                cluster,
                birth,
                how,
            };
            let end = ends.entry(*session).or_insert(made_up);
            if end.how == How::Fenced {
                end.how = How::Copies;
            }
        }
    }
    ends
}

/// A collector process, which starts again when it was killed or is done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Keeper {
    pub(super) machine: Collector,
    /// Starts that are left.
    pub(super) starts: u8,
    /// For mutants.
    opens: Option<BTreeMap<SessionId, Began>>,
    pretended: BTreeSet<SessionId>,
}

impl Keeper {
    pub(super) fn new(starts: u8) -> Self {
        Self {
            machine: Collector::new(),
            starts,
            opens: None,
            pretended: BTreeSet::new(),
        }
    }

    pub(super) fn restart(&mut self) {
        *self = Self::new(self.starts.saturating_sub(1));
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.machine.ask(), Ask::Nothing | Ask::Refused(_))
    }

    /// The sessions that are waited for, if it waits.
    pub(super) fn waits_for(&self) -> Vec<SessionId> {
        match self.machine.ask() {
            Ask::Wait(sessions) => sessions.into_keys().collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn fence(
        &mut self,
        session: SessionId,
        bucket: &mut Bucket,
        mutant: Option<Mutant>,
    ) {
        let Ask::Wait(sessions) = self.machine.ask() else {
            return;
        };
        let Some(open) = sessions.get(&session) else {
            return;
        };
        if mutant == Some(Mutant::FenceDeletes) {
            bucket.opens.remove(&session);
            self.pretended.insert(session);
        } else {
            let end = Ended {
                cluster: open.cluster,
                birth: open.birth,
                how: How::Fenced,
            };
            bucket.ends.entry(session).or_insert((end, 0));
        }
        self.machine.answer(Answer::Done);
    }

    /// One request and its answer. With `acknowledge` false the answer is lost.
    pub(super) fn step(&mut self, bucket: &mut Bucket, mutant: Option<Mutant>, acknowledge: bool) {
        if let Some(answer) = self.answer(bucket, mutant)
            && acknowledge
        {
            self.machine.answer(answer);
        }
    }

    fn answer(&mut self, bucket: &mut Bucket, mutant: Option<Mutant>) -> Option<Answer> {
        Some(match self.machine.ask() {
            Ask::Collections => Answer::Collections(self.collections(bucket, mutant)),
            Ask::Horizon => Answer::Horizon(self.horizon(bucket, mutant)),
            Ask::Plan(n) => Answer::Plan(bucket.plans.get(&n).cloned()),
            Ask::Final(n) => Answer::Final(bucket.finals.get(&n).cloned()),
            Ask::Forgets => {
                if mutant == Some(Mutant::OpensBeforePlan) {
                    self.opens = Some(bucket.opens.clone());
                }
                Answer::Forgets(bucket.forgets.clone())
            }
            Ask::Ends => {
                let mut ends = bucket.ends();
                for session in &self.pretended {
                    let (cluster, birth, how) = (cluster(), 0, How::Fenced);
                    let end = Ended {
                        cluster,
                        birth,
                        how,
                    };
                    ends.entry(*session).or_insert(end);
                }
                Answer::Ends(ends)
            }
            Ask::Packs => Answer::Packs(bucket.packs.clone()),
            Ask::Opens => Answer::Opens(self.opens(bucket, mutant)),
            Ask::Deltas => Answer::Deltas(bucket.deltas.keys().copied().collect()),
            Ask::Mark(marking) => mark(&marking, bucket, mutant),
            Ask::CreatePlan(n, plan) => {
                let live = counting(bucket, None);
                let useful = !plan.condemned.is_empty()
                    || !plan.forgets.is_empty()
                    || !bucket.deltas.is_empty()
                    || bucket
                        .opens
                        .keys()
                        .any(|session| !live.contains_key(session));
                if useful || bucket.plans.contains_key(&n) {
                    Answer::PlanIs(bucket.plans.entry(n).or_insert(plan).clone())
                } else {
                    Answer::NotWorthIt
                }
            }
            Ask::Wait(_) => Answer::Done,
            Ask::CreateFinal(n, own) => {
                let recorded = bucket.finals.entry(n).or_insert_with(|| own.clone());
                Answer::FinalIs(match mutant {
                    Some(Mutant::OwnSet) => own,
                    _ => recorded.clone(),
                })
            }
            Ask::Delete(last) => {
                match last.packs.iter().find(|pack| bucket.packs.contains(pack)) {
                    Some(pack) => bucket.packs.remove(pack),
                    None => return Some(Answer::Done),
                };
                return None;
            }
            Ask::CreateRun(n, run) => create_run(n, run, bucket),
            Ask::Remains => Answer::Remains(remains(bucket)),
            Ask::Remove(what) => {
                return remove(&what, bucket).then_some(Answer::Done);
            }
            Ask::Nothing | Ask::Refused(_) => return None,
        })
    }

    fn collections(&self, bucket: &Bucket, mutant: Option<Mutant>) -> super::super::Collections {
        let mut found = bucket.collections();
        if mutant == Some(Mutant::NextBeforeFinal) {
            found.finals.extend(found.plans.clone());
        }
        found
    }

    fn horizon(&self, bucket: &Bucket, mutant: Option<Mutant>) -> Horizon {
        let mut horizon = bucket.horizon();
        let newest = bucket.collections().newest();
        let pretend = match mutant {
            Some(Mutant::NextBeforeFinal) => true,
            Some(Mutant::NextBeforeRun) => bucket.finals.contains_key(&newest),
            _ => false,
        };
        if pretend && horizon.run < newest && self.machine.generation() != newest {
            horizon.run = newest;
            horizon.live = bucket.ends.keys().copied().collect();
        }
        horizon
    }

    fn opens(&self, bucket: &Bucket, mutant: Option<Mutant>) -> BTreeMap<SessionId, Began> {
        let waiting = mutant == Some(Mutant::NoWait)
            && bucket.plans.contains_key(&self.machine.generation())
            && !bucket.finals.contains_key(&self.machine.generation());
        match &self.opens {
            _ if waiting => BTreeMap::new(),
            Some(early) => early.clone(),
            None => bucket.opens.clone(),
        }
    }
}

fn mark(marking: &Marking, bucket: &Bucket, mutant: Option<Mutant>) -> Answer {
    let Marking {
        roots,
        run,
        deltas,
        packs,
        condemned,
    } = marking;
    let second = bucket.plans.keys().any(|n| *n > *run);
    if second && mutant == Some(Mutant::NoSecondMark) {
        return Answer::Marked(Default::default());
    }
    let known = if bucket.runs.contains_key(run) || *run == 0 {
        *run
    } else if matches!(
        mutant,
        Some(Mutant::NextBeforeRun | Mutant::NextBeforeFinal)
    ) {
        bucket.horizon().run
    } else {
        return Answer::Outdated;
    };
    let Some(index) = bucket.index(known, deltas) else {
        return Answer::Outdated;
    };
    let ignored = |root: &&SessionId| {
        second && mutant == Some(Mutant::HonoursLateForgets) && bucket.forgets.contains(root)
    };
    let needed = roots
        .iter()
        .filter(|root| !ignored(root))
        .filter_map(|root| bucket.ends.get(root))
        .fold(0, |all, (_, chunks)| all | chunks);
    let mut choice = Choice::new(packs, condemned);
    for bit in bits(needed) {
        choice.chunk(&copies(&index, bit));
    }
    Answer::Marked(choice.finish(&BTreeSet::new()))
}

fn create_run(n: Generation, run: Consolidation, bucket: &mut Bucket) -> Answer {
    if bucket.runs.contains_key(&n) {
        return Answer::Done;
    }
    let base = if bucket.runs.contains_key(&run.base) || run.base == 0 {
        run.base
    } else {
        bucket.horizon().run
    };
    let Some(mut packs) = bucket.index(base, &run.deltas) else {
        return Answer::Outdated;
    };
    packs.retain(|pack, _| !run.dead.contains(pack));
    let live = run.live;
    bucket.runs.insert(n, Run { live, packs });
    Answer::Done
}

fn remains(bucket: &Bucket) -> Remains {
    let newest = bucket.horizon().run;
    Remains {
        deltas: bucket.deltas.keys().copied().collect(),
        forgets: bucket.forgets.clone(),
        old_runs: bucket
            .runs
            .keys()
            .copied()
            .filter(|n| *n < newest)
            .collect(),
        ..Remains::default()
    }
}

/// Removes what comes first of what is left; true if nothing was left.
fn remove(what: &super::super::Removable, bucket: &mut Bucket) -> bool {
    fn some<K: Ord + Copy, V>(map: &mut BTreeMap<K, V>, gone: impl IntoIterator<Item = K>) -> bool {
        let before = map.len();
        for key in gone {
            map.remove(&key);
        }
        map.len() < before
    }
    if some(&mut bucket.deltas, what.deltas.clone())
        || some(&mut bucket.opens, what.opens.keys().copied())
        || some(&mut bucket.ends, what.ends.keys().copied())
    {
        return false;
    }
    let forgets = bucket.forgets.len();
    bucket
        .forgets
        .retain(|session| !what.forgets.contains(session));
    if bucket.forgets.len() < forgets {
        return false;
    }
    !(some(&mut bucket.plans, what.plans.clone())
        || some(&mut bucket.finals, what.finals.clone())
        || some(&mut bucket.runs, what.runs.clone()))
}

/// The sessions that count, of those that ended with a snapshot.
pub(super) fn counting(bucket: &Bucket, mutant: Option<Mutant>) -> BTreeMap<SessionId, Chunks> {
    let horizon = bucket.horizon();
    let counts = |session: &SessionId, end: &Ended| {
        horizon.counts(*session, end.birth) || mutant == Some(Mutant::BirthIgnored)
    };
    bucket
        .ends
        .iter()
        .filter(|(session, (end, _))| end.how == How::Snapshot && counts(session, end))
        .map(|(session, (_, chunks))| (*session, *chunks))
        .collect()
}

/// The packs that nobody needs any more once all sessions are over.
pub(super) fn garbage(bucket: &Bucket) -> Vec<String> {
    let roots = live_roots(
        &bucket.ends(),
        &bucket.opens,
        &bucket.forgets,
        &bucket.horizon(),
    );
    let chunks = |session| bucket.ends.get(&session).map_or(0, |(_, chunks)| *chunks);
    let live: BTreeMap<_, _> = roots.into_iter().map(|s| (s, chunks(s))).collect();
    let needed = live.values().fold(0, |all, chunks| all | chunks);
    let listed = bucket.deltas.keys().copied().collect();
    let wanted = usable_deltas(&bucket.ends(), &bucket.horizon());
    let deltas: BTreeSet<_> = wanted.intersection(&listed).copied().collect();
    let index = bucket
        .index(bucket.horizon().run, &deltas)
        .unwrap_or_default();
    let mut found = Vec::new();
    for name in &bucket.packs {
        let holds = index.get(name).copied().unwrap_or(0);
        let others = index
            .iter()
            .filter(|(other, _)| *other != name && bucket.packs.contains(other))
            .fold(0, |all, (_, chunks)| all | chunks);
        if holds & needed == 0 || holds & needed & !others == 0 {
            found.push(format!("pack {name:?}"));
        }
    }
    let newest = bucket.collections().newest();
    found.extend(bucket.deltas.keys().map(|s| format!("delta {s:?}")));
    found.extend(bucket.forgets.iter().map(|s| format!("forget {s:?}")));
    let dead = |session: &&SessionId| !live.contains_key(session);
    found.extend(
        bucket
            .opens
            .keys()
            .filter(dead)
            .map(|s| format!("open {s:?}")),
    );
    found.extend(
        bucket
            .ends
            .keys()
            .filter(dead)
            .map(|s| format!("end {s:?}")),
    );
    let old = |n: &&Generation| **n < newest;
    found.extend(bucket.plans.keys().filter(old).map(|n| format!("plan {n}")));
    found.extend(bucket.runs.keys().filter(old).map(|n| format!("run {n}")));
    found
}
