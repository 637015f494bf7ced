//! The course of one run: which entry is written when, what waits, and what is
//! tried again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use lifebuoy_api::{Problem, Reason};
use tokio::time::Instant;

use super::ApplyOptions;
use super::ahead::Ahead;
use super::answer::Refusal;
use super::http::Place;
use super::progress::RestoreProgress;
use super::source::{Content, Item, Sources};
use super::stage::stage;
use super::wait::{self, Gate};
use super::write::{Ended, Hands, How, Owner, Work};
use crate::Error;
use crate::restore::report::{self, Report, Timing};
use crate::restore::{Action, Entry, Plan};
use crate::steps::{self, Step};

/// The first pause between two rounds without progress.
const ROUND_PAUSE: Duration = Duration::from_millis(250);
/// The longest one.
const ROUND_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Where an entry is.
#[derive(Debug)]
enum State {
    Open,
    InFlight,
    Deferred(Refusal),
    Ended(Reason, Box<str>),
}

type Flights<'a> = FuturesUnordered<BoxFuture<'a, (u32, usize, Ended)>>;

/// One run over a plan.
pub(crate) struct Run<'a> {
    plan: &'a Plan,
    places: &'a [Place],
    hands: &'a Hands,
    options: &'a ApplyOptions,
    progress: &'a RestoreProgress,
    states: Vec<State>,
    /// Entries that others have as their owners.
    owners: HashSet<u32>,
    uids: HashMap<u32, String>,
    problems: Vec<Problem>,
    timings: Vec<(Timing, Instant)>,
    stage: usize,
}

/// What can be done with the entry that is next.
enum Next {
    Start,
    /// Something in flight has to end before.
    Hold,
    /// A barrier is reached, and nothing is in flight any more.
    Barrier,
    /// An owner is not there yet.
    Defer,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        places: &'a [Place],
        hands: &'a Hands,
        options: &'a ApplyOptions,
        progress: &'a RestoreProgress,
    ) -> Self {
        progress.expect(plan.entries.len());
        let mut run = Self {
            plan,
            places,
            hands,
            options,
            progress,
            states: plan.entries.iter().map(|_| State::Open).collect(),
            owners: plan
                .entries
                .iter()
                .flat_map(|entry| entry.needs.iter().copied())
                .collect(),
            uids: HashMap::new(),
            problems: Vec::new(),
            timings: Vec::new(),
            stage: 0,
        };
        for (at, entry) in (0u32..).zip(&plan.entries) {
            match &entry.action {
                Action::Create | Action::Merge | Action::Replace => {}
                Action::Resume => run.settle(at, Reason::Created, ""),
                Action::SkipExisting | Action::Overwrite => {
                    run.settle(at, Reason::SkippedExisting, "")
                }
                Action::Withhold { reason, message } | Action::Refuse { reason, message } => {
                    run.settle(at, *reason, message);
                }
            }
        }
        run
    }

    /// Notes how an entry ended. The first word counts.
    pub(crate) fn settle(&mut self, at: u32, reason: Reason, words: &str) {
        let state = &mut self.states[at as usize];
        if matches!(state, State::Ended(..)) {
            return;
        }
        let mut text = words.to_owned();
        if report::is_there(reason) {
            for note in &self.plan.entries[at as usize].notes {
                if !text.is_empty() {
                    text.push_str("; ");
                }
                text.push_str(note);
            }
        }
        *state = State::Ended(reason, report::message(&text));
        self.progress.count(reason);
    }

    /// Writes everything that is open, then tries again what was refused, until
    /// a round makes no progress.
    pub(crate) async fn carry_out(&mut self, sources: Sources<'a>) -> Result<(), Error> {
        let serving = self
            .plan
            .entries
            .iter()
            .rposition(|entry| entry.serves && entry.action.writes());
        if let Some(last) = serving {
            let wave = self.plan.entries[last].wave;
            let until_served = self.open(|entry| entry.wave <= wave);
            self.pass(sources, until_served).await?;
            self.await_serving().await;
            let deferred = self.deferred();
            self.pass(sources, deferred).await?;
        }
        let rest = self.open(|_| true);
        self.pass(sources, rest).await?;
        self.retry(sources).await?;
        self.close();
        steps::reached(Step::Applied);
        Ok(())
    }

    fn open(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<u32> {
        (0u32..)
            .zip(&self.plan.entries)
            .filter(|(at, entry)| matches!(self.states[*at as usize], State::Open) && wanted(entry))
            .map(|(at, _)| at)
            .collect()
    }

    fn deferred(&self) -> Vec<u32> {
        (0u32..)
            .zip(&self.states)
            .filter(|(_, state)| matches!(state, State::Deferred(_)))
            .map(|(at, _)| at)
            .collect()
    }

    async fn await_serving(&mut self) {
        let plan = self.plan;
        let gates = plan
            .entries
            .iter()
            .filter(|entry| entry.serves && entry.action.writes())
            .map(|entry| Gate::Available {
                place: &self.places[entry.kind as usize],
                key: &entry.target,
                kind: &plan.type_of(entry).kind,
                subject: format!("{} {}", plan.type_of(entry).id, entry.target),
            })
            .collect();
        let problems = wait::wait_for(&self.hands.sender, gates, self.options.wait).await;
        self.problems.extend(problems);
    }

    /// Rounds over what was deferred, until one makes no progress. What may pass
    /// by itself gets some time.
    async fn retry(&mut self, sources: Sources<'a>) -> Result<(), Error> {
        let mut idle_since = Instant::now();
        let mut pause = ROUND_PAUSE;
        loop {
            let round = self.deferred();
            if round.is_empty() || self.hands.sender.cancel.is_cancelled() {
                return Ok(());
            }
            let before = round.len();
            self.pass(sources, round).await?;
            if self.deferred().len() < before {
                idle_since = Instant::now();
                pause = ROUND_PAUSE;
                continue;
            }
            let passing = self
                .states
                .iter()
                .any(|state| matches!(state, State::Deferred(refusal) if refusal.passing));
            if !passing
                || idle_since.elapsed() > self.options.settle
                || !self.hands.sender.wait(pause).await
            {
                return Ok(());
            }
            pause = (pause * 2).min(ROUND_PAUSE_MAX);
        }
    }

    /// What is left has ended now, one way or the other.
    fn close(&mut self) {
        for at in 0u32.. {
            let Some(state) = self.states.get(at as usize) else {
                return;
            };
            match state {
                State::Ended(..) => {}
                State::Deferred(refusal) => {
                    let Refusal { reason, words, .. } = refusal.clone();
                    self.settle(at, reason, &words);
                }
                State::Open | State::InFlight => {
                    self.settle(at, Reason::Cancelled, "the restore was cancelled before");
                }
            }
        }
    }

    /// One pass over entries, given in ascending order.
    async fn pass(&mut self, sources: Sources<'a>, entries: Vec<u32>) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        self.stage = 0;
        let mut ahead = Ahead::new(sources.items(entries));
        let mut flights = Flights::new();
        let mut flying_bytes = 0;
        loop {
            let cancelled = self.hands.sender.cancel.is_cancelled();
            if cancelled {
                ahead.drop_all();
            }
            while let Some(item) = ahead.front() {
                if !self.has_room(&flights) {
                    break;
                }
                match self.next(item, flights.is_empty()) {
                    Next::Hold => break,
                    Next::Barrier => self.pass_barrier(item.entry).await,
                    Next::Defer => {
                        if let Some(item) = ahead.pop() {
                            self.defer_for_owner(item.entry);
                        }
                    }
                    Next::Start => {
                        if let Some(item) = ahead.pop() {
                            flying_bytes += item.bytes;
                            flights.extend(self.start(item));
                        }
                    }
                }
            }
            if flights.is_empty() && ahead.is_over() {
                return Ok(());
            }
            let pause = self.hands.sender.pace().paused_until(Instant::now());
            tokio::select! {
                biased;
                Some((at, bytes, ended)) = flights.next(), if !flights.is_empty() => {
                    flying_bytes = flying_bytes.saturating_sub(bytes);
                    self.landed(at, ended);
                }
                () = self.hands.sender.cancel.cancelled(), if !cancelled => {}
                read = ahead.read(), if ahead.has_room(flying_bytes) => read?,
                () = tokio::time::sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => {}
            }
        }
    }

    fn has_room(&self, flights: &Flights<'a>) -> bool {
        let pace = self.hands.sender.pace();
        flights.len() < pace.limit() && pace.paused_until(Instant::now()).is_none()
    }

    fn next(&self, item: &Item, nothing_flies: bool) -> Next {
        let entry = &self.plan.entries[item.entry as usize];
        if stage(entry.wave) > self.stage {
            return if nothing_flies {
                Next::Barrier
            } else {
                Next::Hold
            };
        }
        let state = |at: &u32| &self.states[*at as usize];
        if entry
            .needs
            .iter()
            .any(|at| matches!(state(at), State::InFlight))
        {
            return Next::Hold;
        }
        if entry
            .needs
            .iter()
            .any(|at| matches!(state(at), State::Open | State::Deferred(_)))
        {
            return Next::Defer;
        }
        Next::Start
    }

    /// Waits for what the next stage needs.
    async fn pass_barrier(&mut self, next: u32) {
        let plan = self.plan;
        let wave = plan.entries[next as usize].wave;
        let first_time = self
            .timings
            .iter()
            .all(|(timing, _)| stage(timing.wave) < stage(wave));
        let before = self.stage;
        self.stage = stage(wave);
        if !first_time {
            return;
        }
        // A type's definition has until its first object to be established.
        let due = |wave: u8| stage(wave) > before && stage(wave) <= self.stage;
        let mut gates = wait::types_to_be_served(plan, self.places, due);
        if before < stage(6) && self.stage >= stage(6) {
            gates.extend(wait::accounts_of_pods(plan));
        }
        let problems = wait::wait_for(&self.hands.sender, gates, self.options.wait).await;
        self.problems.extend(problems);
    }

    fn defer_for_owner(&mut self, at: u32) {
        self.states[at as usize] = State::Deferred(Refusal {
            reason: Reason::DependencyNotReady,
            words: "its owner could not be created".to_owned(),
            passing: false,
        });
    }

    /// Sends an item on its way; none when it ended at once.
    fn start(&mut self, item: Item) -> Option<BoxFuture<'a, (u32, usize, Ended)>> {
        let Item {
            entry: at,
            bytes,
            content,
        } = item;
        self.begin_wave(self.plan.entries[at as usize].wave);
        let content = match content {
            Ok(content) => content,
            Err((reason, words)) => {
                self.settle(at, reason, &words);
                return None;
            }
        };
        let work = self.work(at, content);
        self.states[at as usize] = State::InFlight;
        let hands = self.hands;
        Some(async move { (at, bytes, hands.write(work).await) }.boxed())
    }

    fn begin_wave(&mut self, wave: u8) {
        let now = Instant::now();
        if let Some((timing, _)) = self.timings.last_mut()
            && stage(timing.wave) >= stage(wave)
        {
            timing.objects += 1;
            return;
        }
        steps::reached(Step::WaveStarted);
        self.timings.push((
            Timing {
                wave,
                objects: 1,
                millis: 0,
            },
            now,
        ));
    }

    fn work(&self, at: u32, content: Content) -> Work<'a> {
        let plan = self.plan;
        let entry = &plan.entries[at as usize];
        let of = plan.type_of(entry);
        let core = of.id.group.is_empty();
        let owners = content
            .owners
            .into_iter()
            .filter_map(|reference| {
                let owner_at = plan.owner_entry(entry, &reference)?;
                let owner = &plan.entries[owner_at as usize];
                Some(Owner {
                    reference,
                    api_version: plan.type_of(owner).api_version(),
                    place: &self.places[owner.kind as usize],
                    key: &owner.target,
                    uid: self.uids.get(&owner_at).cloned(),
                })
            })
            .collect();
        Work {
            place: &self.places[entry.kind as usize],
            key: &entry.target,
            how: match entry.action {
                Action::Merge => How::Merge,
                Action::Replace => How::Replace,
                _ => How::Create,
            },
            policy: entry.policy,
            body: content.body,
            owners,
            managers: content.managers,
            secret: core && of.kind == "Secret",
            owns: self.owners.contains(&at),
            is_workload: matches!(of.id.group.as_str(), "apps" | "batch")
                || (core && of.kind == "ReplicationController"),
        }
    }

    fn landed(&mut self, at: u32, ended: Ended) {
        match ended {
            Ended::Done { reason, uid, notes } => {
                if let Some(uid) = uid.filter(|_| self.owners.contains(&at)) {
                    self.uids.insert(at, uid);
                }
                self.settle(at, reason, &notes.join("; "));
                steps::reached(Step::EntryApplied);
            }
            Ended::NotYet(refusal) => self.states[at as usize] = State::Deferred(refusal),
            Ended::Refused(refusal) => self.settle(at, refusal.reason, &refusal.words),
        }
    }

    /// What became of everything.
    pub(crate) fn report(self) -> Report {
        let end = Instant::now();
        let mut timings: Vec<Timing> = Vec::with_capacity(self.timings.len());
        let ends = self
            .timings
            .iter()
            .skip(1)
            .map(|(_, begun)| *begun)
            .chain([end]);
        for ((timing, begun), ended) in self.timings.iter().zip(ends) {
            let millis = ended.saturating_duration_since(*begun).as_millis();
            timings.push(Timing {
                millis: u64::try_from(millis).unwrap_or(u64::MAX),
                ..timing.clone()
            });
        }
        let outcomes = self
            .states
            .into_iter()
            .map(|state| match state {
                State::Ended(reason, words) => (reason, words),
                _ => (Reason::Cancelled, Box::default()),
            })
            .collect();
        Report::new(
            self.plan,
            outcomes,
            self.progress.snapshot(),
            self.problems,
            timings,
        )
    }
}
