//! A world: a bucket, those who work on it, and what may still go wrong.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use stateright::{Model, Property};

use super::{
    actors::{Ghost, Job, Keeper, Stage, Writer, counting, garbage},
    bucket::{Bucket, Chunks},
    mutants::Mutant,
};
use crate::ids::SessionId;

/// How often each thing may go wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// Snapshots that somebody forgets.
    pub(super) forgets: u8,
    /// Writers that are killed.
    pub(super) crashes: u8,
    /// Requests that take effect and whose answer is lost.
    pub(super) lost: u8,
    /// Requests that land a second time, later.
    pub(super) ghosts: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) bucket: Bucket,
    pub(super) writers: Vec<Writer>,
    pub(super) keepers: Vec<Keeper>,
    /// Requests on their way that may land again.
    ghosts: BTreeSet<Ghost>,
    /// Snapshots that somebody asked to forget, ever.
    forgotten: BTreeSet<SessionId>,
    budget: Budget,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Event {
    Write(usize),
    /// The request has its effect, and the writer does not learn of it.
    WriteLost(usize),
    /// The request has its effect, and a copy of it is still on its way.
    WriteTwice(usize),
    Kill(usize),
    Collect(usize),
    CollectLost(usize),
    Restart(usize),
    Fence(usize, SessionId),
    Forget(SessionId),
    Land(Ghost),
}

/// What is explored.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    /// What the initial snapshot holds.
    pub(super) chunks: Chunks,
    pub(super) jobs: Vec<(Job, u8)>,
    /// How often each collector may be started.
    pub(super) starts: Vec<u8>,
    pub(super) budget: Budget,
    pub(super) mutant: Option<Mutant>,
    /// What has happened before the exploration begins.
    pub(super) before: Vec<Event>,
    /// Of so many states one is drained, to see that no garbage stays.
    pub(super) drain_every: u64,
}

impl Scene {
    pub(super) fn world(&self) -> World {
        World {
            bucket: Bucket::with_snapshot(self.chunks),
            writers: (1..)
                .zip(&self.jobs)
                .map(|(actor, (job, more))| Writer::new(actor, *job, *more))
                .collect(),
            keepers: self
                .starts
                .iter()
                .map(|starts| Keeper::new(*starts))
                .collect(),
            ghosts: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            budget: self.budget,
        }
    }
}

impl World {
    /// Every snapshot that counts and is not forgotten can be read, every commit
    /// that was acknowledged counts, and who reads can read.
    pub(super) fn is_sound(&self, mutant: Option<Mutant>) -> bool {
        let readable = self.bucket.readable();
        let counting = counting(&self.bucket, mutant);
        let whole = |chunks: &Chunks| chunks & !readable == 0;
        let unforgotten = counting
            .iter()
            .filter(|(session, _)| !self.forgotten.contains(session));
        let mut acknowledged = self.writers.iter().filter(|writer| {
            matches!(writer.stage, Stage::Over(true))
                && matches!(writer.job, Job::Backup(_) | Job::Parent(..))
        });
        self.index_is_true()
            && unforgotten.into_iter().all(|(_, chunks)| whole(chunks))
            && acknowledged.all(|writer| {
                let session = writer.session();
                self.forgotten.contains(&session) || counting.contains_key(&session)
            })
            && self
                .writers
                .iter()
                .all(|writer| self.can_read(writer, readable))
    }

    /// What the newest run lists is there, but for what a later final names.
    fn index_is_true(&self) -> bool {
        let Some((n, run)) = self.bucket.runs.last_key_value() else {
            return true;
        };
        let mut later = self.bucket.finals.range(n + 1..);
        let gone = later.next().map(|(_, last)| &last.packs);
        run.packs.keys().all(|pack| {
            self.bucket.packs.contains(pack) || gone.is_some_and(|gone| gone.contains(pack))
        })
    }

    fn can_read(&self, writer: &Writer, readable: Chunks) -> bool {
        let (Stage::Reading(birth), Job::Read(snapshot)) = (&writer.stage, writer.job) else {
            return true;
        };
        // A reader that was fenced has lost its hold, and learns of it.
        let fenced =
            self.bucket.ends.contains_key(&writer.session()) || *birth < self.bucket.horizon().run;
        let end = self.bucket.ends.get(&snapshot);
        fenced || end.is_some_and(|(_, chunks)| chunks & !readable == 0)
    }

    /// Whether a fair continuation without faults leaves no garbage: whoever is at
    /// work is stopped, and one collector runs a few times.
    pub(super) fn drains(&self) -> Result<(), Vec<String>> {
        let mut bucket = self.bucket.clone();
        for _ in 0..4 {
            let mut keeper = Keeper::new(0);
            for _ in 0..400 {
                if keeper.is_done() {
                    break;
                }
                match keeper.waits_for().first() {
                    Some(session) => keeper.fence(*session, &mut bucket, None),
                    None => keeper.step(&mut bucket, None, true),
                }
            }
        }
        let left = garbage(&bucket);
        if left.is_empty() { Ok(()) } else { Err(left) }
    }

    /// Which collector is which makes no difference: of two worlds that differ in
    /// nothing else, one is explored.
    fn sort_keepers(&mut self) {
        if self.keepers.len() > 1 {
            self.keepers.sort_by_cached_key(fingerprint);
        }
    }

    fn events(&self, events: &mut Vec<Event>) {
        let Budget {
            forgets,
            crashes,
            lost,
            ghosts,
        } = self.budget;
        for (i, writer) in self.writers.iter().enumerate() {
            if !writer.can_step(&self.writers) {
                continue;
            }
            events.push(Event::Write(i));
            let puts = writer.put(&self.bucket).is_some();
            if lost > 0 && puts {
                events.push(Event::WriteLost(i));
            }
            if ghosts > 0 && puts {
                events.push(Event::WriteTwice(i));
            }
            if crashes > 0 {
                events.push(Event::Kill(i));
            }
        }
        for (i, keeper) in self.keepers.iter().enumerate() {
            if keeper.is_done() {
                if keeper.starts > 0 {
                    events.push(Event::Restart(i));
                }
                continue;
            }
            events.push(Event::Collect(i));
            if lost > 0 {
                events.push(Event::CollectLost(i));
            }
            if keeper.starts > 0 {
                events.push(Event::Restart(i));
            }
            let waits = keeper.waits_for().into_iter();
            events.extend(waits.map(|session| Event::Fence(i, session)));
        }
        if forgets > 0 {
            let sessions = counting(&self.bucket, None).into_keys();
            let known = sessions.filter(|session| !self.forgotten.contains(session));
            events.extend(known.map(Event::Forget));
        }
        events.extend(self.ghosts.iter().cloned().map(Event::Land));
    }

    fn apply(&mut self, event: Event, mutant: Option<Mutant>) {
        let Self {
            bucket,
            writers,
            keepers,
            ghosts,
            forgotten,
            budget,
        } = self;
        match event {
            Event::Write(i) => writers[i].step(bucket, mutant),
            Event::WriteLost(i) => {
                budget.lost -= 1;
                if let Some(put) = writers[i].put(bucket) {
                    put.land(bucket);
                }
            }
            Event::WriteTwice(i) => {
                budget.ghosts -= 1;
                ghosts.extend(writers[i].put(bucket));
                writers[i].step(bucket, mutant);
            }
            Event::Kill(i) => {
                budget.crashes -= 1;
                writers[i].stage = Stage::Crashed;
            }
            Event::Collect(i) => keepers[i].step(bucket, mutant, true),
            Event::CollectLost(i) => {
                budget.lost -= 1;
                keepers[i].step(bucket, mutant, false);
            }
            Event::Restart(i) => keepers[i].restart(),
            Event::Fence(i, session) => keepers[i].fence(session, bucket, mutant),
            Event::Forget(session) => {
                budget.forgets -= 1;
                forgotten.insert(session);
                if mutant == Some(Mutant::ForgetDeletesEnd) {
                    bucket.ends.remove(&session);
                } else {
                    bucket.forgets.insert(session);
                }
            }
            Event::Land(ghost) => {
                ghosts.remove(&ghost);
                ghost.land(bucket);
            }
        }
    }
}

impl Model for Scene {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let mut world = self.world();
        for event in &self.before {
            world.apply(event.clone(), self.mutant);
        }
        vec![world]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Event>) {
        state.events(actions);
    }

    fn next_state(&self, last: &World, event: Event) -> Option<World> {
        let mut next = last.clone();
        next.apply(event, self.mutant);
        next.sort_keepers();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "every snapshot can be read",
                |scene: &Scene, world: &World| world.is_sound(scene.mutant),
            ),
            Property::always("no garbage stays", |scene: &Scene, world: &World| {
                !scene.drains_here(world) || world.drains().is_ok()
            }),
        ]
    }
}

impl Scene {
    fn drains_here(&self, world: &World) -> bool {
        if self.drain_every == 0 {
            return false;
        }
        fingerprint(world).is_multiple_of(self.drain_every)
    }
}

fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
