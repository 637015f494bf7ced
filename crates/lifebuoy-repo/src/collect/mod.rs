//! Garbage collection: runs the protocol's collector on object storage,
//! `docs/format.md` section 9. Deletes what a recorded final names and what has
//! served its time, and nothing else.

mod answers;
mod consolidate;
mod forgetting;
mod interlocks;
mod mark;
mod repack;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use repack::RepackReport;

use crate::{
    contents::Contents,
    error::{Error, Result},
    protocol::{Answer, Ask, Collector, Final, Generation, Plan, Refusal},
    refresh::Ends,
    repository::{Repository, Shared},
};
use interlocks::Stored;

/// What a collection may do, and when.
#[derive(Debug, Clone)]
pub struct CollectOptions {
    /// Whether anything is written or deleted. Otherwise it is only found out what
    /// a collection would do.
    pub delete: bool,
    /// How long after the request a snapshot is forgotten, by the store's clock.
    pub grace: Duration,
    /// So many of the newest snapshots of each lineage stay, and so many of its
    /// newest complete ones, whatever was asked for.
    pub keep_at_least: usize,
    /// Refuses to delete more than this share of the stored bytes, in percent.
    pub delete_percent_max: u8,
    /// Sessions whose heartbeat does not move for this long are fenced.
    pub stall: Duration,
    /// How often sessions that are waited for are looked at.
    pub poll: Duration,
    /// So many index deltas, or objects of sessions that are over, are a reason
    /// for a generation of their own.
    pub objects_max: usize,
    /// The smallest generation worth making, in bytes that it would free.
    pub bytes_min: u64,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self {
            delete: false,
            grace: Duration::from_secs(7 * 24 * 3600),
            keep_at_least: 3,
            delete_percent_max: 50,
            stall: Duration::from_secs(30 * 60),
            poll: Duration::from_secs(10),
            objects_max: 64,
            bytes_min: 1,
        }
    }
}

/// What a collection found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// The generation that was made; `None` if there was no reason for one, or
    /// nothing may be deleted.
    pub generation: Option<u64>,
    /// Packs in the bucket, and their bytes.
    pub packs: u64,
    /// Bytes of these packs.
    pub bytes: u64,
    /// Packs that hold nothing that a snapshot needs.
    pub garbage_packs: u64,
    /// Bytes of these packs.
    pub garbage_bytes: u64,
    /// Packs that hold nothing that the walk over the trees leads to, and that
    /// stay because a snapshot says that it relies on them.
    pub disputed_packs: u64,
    /// Chunks that snapshots need, each counted once.
    pub chunks: u64,
    /// Plain bytes of these chunks.
    pub plain_bytes: u64,
    /// Snapshots that stay.
    pub snapshots: u64,
    /// Snapshots that were, or would be, forgotten for good.
    pub forgotten: u64,
    /// Packs that were deleted.
    pub deleted_packs: u64,
    /// Bytes of these packs.
    pub deleted_bytes: u64,
    /// Records that had served their time and were deleted.
    pub deleted_records: u64,
    /// Sessions that did not move and were fenced.
    pub fenced: u64,
}

impl Repository {
    /// Collects garbage, or finds out what a collection would do.
    ///
    /// Any number of these may run at one time, in one process or in several, and
    /// be stopped anywhere. It returns when there is nothing left to do; while
    /// sessions are waited for that may take as long as `stall`.
    ///
    /// # Errors
    /// [`Error::Refused`] when something does not fit, before anything is deleted;
    /// [`Error::UpgradeNeeded`], [`Error::ReadOnly`], [`Error::Node`],
    /// [`Error::Vanished`], or one of the store.
    pub async fn collect(
        &self,
        contents: &dyn Contents,
        options: &CollectOptions,
    ) -> Result<CollectReport> {
        let shared = &self.shared;
        if options.delete {
            shared.check_writable()?;
            shared.check_format_2("collecting garbage")?;
            self.check_atomic().await?;
        }
        let mut work = Work {
            repository: self,
            shared,
            contents,
            options,
            machine: Collector::new(),
            stored: Stored::default(),
            listed_ends: None,
            beats: BTreeMap::new(),
            report: CollectReport::default(),
        };
        work.run().await?;
        Ok(work.report)
    }

    /// A store that does not create atomically cannot have a collector.
    async fn check_atomic(&self) -> Result<()> {
        let abilities = self.probe().await?;
        if abilities.atomic_create == Some(true) {
            return Ok(());
        }
        Err(Error::Refused {
            reason: "of 16 simultaneous creates of one object not exactly one succeeded".to_owned(),
        })
    }
}

/// A collection at work.
struct Work<'a> {
    repository: &'a Repository,
    shared: &'a Arc<Shared>,
    contents: &'a dyn Contents,
    options: &'a CollectOptions,
    machine: Collector,
    /// What the last listing of the packs said.
    stored: Stored,
    /// The last listing of the ends, until it is compared with a run.
    listed_ends: Option<Ends>,
    beats: answers::Beats,
    report: CollectReport,
}

impl Work<'_> {
    async fn run(&mut self) -> Result<()> {
        loop {
            let answer = match self.machine.ask() {
                Ask::Nothing => return Ok(()),
                Ask::Refused(why) => return Err(refused(why)),
                // Somebody's plan waits to be finished: not without leave.
                Ask::Plan(_) if !self.options.delete => return Ok(()),
                Ask::CreatePlan(..) if !self.options.delete => return Ok(()),
                ask => self.answer(ask).await?,
            };
            self.machine.answer(answer);
        }
    }

    async fn answer(&mut self, ask: Ask) -> Result<Answer> {
        let shared = self.shared;
        Ok(match ask {
            Ask::Collections => Answer::Collections(shared.list_collections().await?),
            Ask::Horizon => Answer::Horizon(self.horizon().await?),
            Ask::Plan(n) => Answer::Plan(shared.read_plan(n).await?),
            Ask::Final(n) => Answer::Final(shared.read_final(n).await?),
            Ask::Forgets => Answer::Forgets(self.due_forgets().await?),
            Ask::Ends => Answer::Ends(self.ends().await?),
            Ask::Packs => Answer::Packs(self.packs().await?),
            Ask::Opens => Answer::Opens(shared.list_opens().await?),
            Ask::Deltas => Answer::Deltas(shared.list_deltas().await?),
            Ask::Mark(marking) => self.mark(&marking).await?,
            Ask::CreatePlan(n, plan) => self.create_plan(n, plan).await?,
            Ask::Wait(sessions) => {
                self.wait(sessions).await?;
                Answer::Done
            }
            Ask::CreateFinal(n, last) => {
                let last = shared.create_final(n, last).await?;
                self.report.generation = Some(n);
                Answer::FinalIs(last)
            }
            Ask::Delete(last) => {
                self.delete(last).await?;
                Answer::Done
            }
            Ask::CreateRun(n, run) => self.create_run(n, &run).await?,
            Ask::Remains => Answer::Remains(self.remains().await?),
            Ask::Remove(what) => {
                self.remove(what).await?;
                Answer::Done
            }
            Ask::Nothing | Ask::Refused(_) => Answer::Done,
        })
    }

    /// Step 4, behind all interlocks.
    async fn create_plan(&mut self, n: Generation, plan: Plan) -> Result<Answer> {
        let bytes = self.stored.bytes(&plan.condemned);
        interlocks::check_share(bytes, self.stored.total(), self.options.delete_percent_max)?;
        if bytes < self.options.bytes_min && plan.forgets.is_empty() && !self.is_cluttered().await?
        {
            return Ok(Answer::NotWorthIt);
        }
        let recorded = self.shared.create_plan(n, plan).await?;
        self.report.forgotten = recorded.forgets.len() as u64;
        Ok(Answer::PlanIs(recorded))
    }

    /// Step 9.
    async fn delete(&mut self, last: Final) -> Result<()> {
        tracing::info!(
            generation = self.machine.generation(),
            packs = last.packs.len(),
            "deleting packs"
        );
        self.report.deleted_packs += last.packs.len() as u64;
        self.report.deleted_bytes += self.stored.bytes(&last.packs);
        let keys = last.packs.iter().map(|pack| pack.key()).collect();
        self.shared.objects.delete(keys).await
    }
}

fn refused(why: Refusal) -> Error {
    let Refusal::ChunksMissing(count) = why;
    Error::Refused {
        reason: format!("{count} chunks that snapshots need are in no pack of the bucket"),
    }
}
