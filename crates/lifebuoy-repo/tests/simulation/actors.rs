//! Who does what in a world: scripts drawn from the seed, and actors that play
//! them, die, and come back. To add a deed: an [`Act`], its weight in [`Act::draw`],
//! and its arm in [`Process::perform`].

use std::time::Duration;

use futures::{
    FutureExt, StreamExt,
    future::{join, select},
    stream::FuturesUnordered,
};
use rand::{RngExt, rngs::StdRng};

use crate::{
    ledger::{Entry, Forgetting, Place},
    process::{Backup, Process, Stage},
};

/// Contents that exist, so few that processes save the same ones.
const CONTENTS: u64 = 24;
const LIVES_MAX: usize = 4;

/// One thing that a process does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Backup(Backup),
    /// Two at one time on one handle, as the operator does.
    Backups(Backup, Backup),
    /// Forgets any snapshot, its own or another's.
    Forget,
    /// Ends any session, at work or ended, its own or another's.
    Fence,
    /// Reads any snapshot.
    Restore,
    /// Reads one while it saves another.
    RestoreDuring(Backup),
    List,
    /// Puts together what is left of packs.
    Repack,
    /// Collects garbage.
    Collect,
    /// Starts with nothing in memory.
    Reopen,
    /// Does nothing for so many milliseconds, with its handle kept.
    Pause(u64),
}

/// A process: its cluster, and what it does in all its lives.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) name: String,
    pub(crate) cluster: String,
    pub(crate) acts: Vec<Act>,
}

impl Backup {
    fn draw(rng: &mut StdRng) -> Self {
        let count = rng.random_range(0..8);
        Self {
            chunks: (0..count).map(|_| rng.random_range(0..CONTENTS)).collect(),
            pause_ms: [0, 0, 0, 500, 40_000][rng.random_range(0..5)],
            own_root: rng.random_bool(0.7),
            abandons: rng.random_bool(0.08),
        }
    }
}

impl Act {
    fn draw(rng: &mut StdRng) -> Self {
        match rng.random_range(0..100) {
            0..31 => Self::Backup(Backup::draw(rng)),
            31..34 => Self::Repack,
            34..40 => Self::Collect,
            40..50 => Self::Backups(Backup::draw(rng), Backup::draw(rng)),
            50..58 => Self::Forget,
            58..66 => Self::Fence,
            66..76 => Self::Restore,
            76..80 => Self::RestoreDuring(Backup::draw(rng)),
            80..86 => Self::List,
            86..91 => Self::Reopen,
            _ => Self::Pause(crate::faults::log_uniform(rng, &(1..=3_600_000))),
        }
    }
}

impl Actor {
    /// Two to four processes of one to three clusters.
    pub(crate) fn cast(rng: &mut StdRng) -> Vec<Self> {
        let clusters = rng.random_range(1..=3);
        let actor = |n: usize, rng: &mut StdRng| Self {
            name: format!("w{n}"),
            cluster: format!("cluster {}", n % clusters),
            acts: (0..rng.random_range(2..7))
                .map(|_| Act::draw(rng))
                .collect(),
        };
        (0..rng.random_range(2..=4))
            .map(|n| actor(n, rng))
            .collect()
    }

    /// Three processes of one cluster that read and save at one time.
    pub(crate) fn readers_and_writers(rng: &mut StdRng) -> Vec<Self> {
        let act = |rng: &mut StdRng| match rng.random_bool(0.7) {
            true => Act::RestoreDuring(Backup::draw(rng)),
            false => Act::Backups(Backup::draw(rng), Backup::draw(rng)),
        };
        let actor = |n: usize, rng: &mut StdRng| Self {
            name: format!("w{n}"),
            cluster: "cluster".to_owned(),
            acts: (0..6).map(|_| act(rng)).collect(),
        };
        (0..3).map(|n| actor(n, rng)).collect()
    }

    /// Plays the script. A process that dies comes back under a new name, finds
    /// out how its sessions ended, and goes on with the next act.
    async fn play(&self, stage: &Stage) {
        let mut rng = stage.world.fork_rng();
        let mut done = 0;
        for life in 0..LIVES_MAX {
            let wait = crate::faults::log_uniform(&mut rng, &(1..=20_000));
            stage.world.pause(Duration::from_millis(wait)).await;
            let name = format!("{}.{life}", self.name);
            let alive = self.live(stage, &name, &mut done);
            // The process is registered before it can die.
            drop(stage.world.process(&name));
            let death = stage.world.death(&name);
            if let futures::future::Either::Left(_) =
                select(alive.boxed_local(), death.boxed_local()).await
            {
                return;
            }
        }
    }

    async fn live(&self, stage: &Stage, name: &str, done: &mut usize) {
        let Some(mut process) = stage.enter(name, &self.cluster).await else {
            return stage.world.note(name, "cannot open the repository");
        };
        process.settle_all().await;
        while let Some(act) = self.acts.get(*done) {
            *done += 1;
            process.perform(act, &self.cluster).await;
            process.pause(2_000).await;
        }
    }
}

/// All actors at one time, until each has done its part or died too often.
pub(crate) async fn play(stage: &Stage, cast: &[Actor]) {
    let mut playing: FuturesUnordered<_> = cast.iter().map(|actor| actor.play(stage)).collect();
    while playing.next().await.is_some() {}
}

impl Process<'_> {
    pub(crate) async fn perform(&mut self, act: &Act, cluster: &str) {
        match act {
            Act::Backup(backup) => {
                let place = self.intend(backup);
                self.backup(place, backup).await;
            }
            Act::Backups(first, second) => {
                let places = (self.intend(first), self.intend(second));
                join(self.backup(places.0, first), self.backup(places.1, second)).await;
            }
            Act::Forget => {
                if let Some(place) = self.any(|entry| entry.committed().is_some()) {
                    self.forget(place).await;
                }
            }
            Act::Fence => {
                if let Some(place) = self.any(|_| true) {
                    self.settle(place).await;
                }
            }
            Act::Restore => {
                if let Some(place) = self.any(readable) {
                    self.restore(place).await;
                }
            }
            Act::RestoreDuring(backup) => {
                let restored = self.any(readable);
                let place = self.intend(backup);
                let restore = async {
                    if let Some(restored) = restored {
                        self.restore(restored).await;
                    }
                };
                join(self.backup(place, backup), restore).await;
            }
            Act::List => self.list().await,
            Act::Repack => self.repack().await,
            Act::Collect => self.collect().await,
            Act::Reopen => self.reopen(cluster).await,
            Act::Pause(ms) => self.world().pause(Duration::from_millis(*ms)).await,
        }
    }

    /// Finds out how the sessions of this cluster ended that nobody knows of, as
    /// the operator does when it starts.
    pub(crate) async fn settle_all(&mut self) {
        let cluster = self.cluster;
        let unknown = |entry: &Entry| entry.cluster == cluster && entry.end.is_none();
        for place in self.ledger().places(unknown) {
            self.settle(place).await;
        }
    }

    fn any(&mut self, which: impl Fn(&Entry) -> bool) -> Option<Place> {
        let places = self.ledger().places(which);
        let pick = self.rng.random_range(0..places.len().max(1));
        places.get(pick).copied()
    }
}

fn readable(entry: &Entry) -> bool {
    entry.committed().is_some() && entry.forgetting == Forgetting::No
}
