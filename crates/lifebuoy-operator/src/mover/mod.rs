//! Movers: Jobs in a namespace of their own, each with one volume, that save it into the
//! repository or bring it back. Runs one to its end, and removes what was made for a
//! request.
//!
//! ```text
//! place → Job (adopted or made) → its Secret → look, decide, look, … → done | again | failed → removed
//! ```
//!
//! What is to be done next is decided in [`decide`] from what was seen. All that must
//! outlive this process is in the Job: whoever runs the same mover later adopts it, and
//! knows its session from its annotation.

mod clean_up;
mod decide;
mod error;
mod nodes;
mod objects;
mod observe;
mod places;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use lifebuoy_api::{EXCLUDE_LABEL, FOR_LABEL, MANAGED_BY, MANAGED_BY_LABEL, SESSION_ANNOTATION};
use lifebuoy_engine::volumes::{
    MoverEnd, MoverProgress, MoverReport, MoverTask, RepositoryAccess, job_name, settle,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub(crate) use clean_up::clean_up;
pub(crate) use error::MoverError;
pub(crate) use lifebuoy_engine::volumes::MountedVolume;
pub(crate) use places::{PlaceFor, Places};

use crate::{context::Context, error::sentence, repository};
use decide::{Next, Situation, Stage, next, next_try, stage};
use objects::Objects;

/// How often a mover is tried.
pub(crate) const MOVER_TRIES: u32 = 5;

/// How often a mover is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The API server may be away for so long.
const ABSENCE_MAX: Duration = Duration::from_secs(15 * 60);
/// How often a store is asked how a session has ended.
const ASKS_MAX: u32 = 6;
const ASK_INTERVAL: Duration = Duration::from_secs(10);

/// One mover.
#[derive(Clone, Debug)]
pub(crate) struct MoverJob {
    /// What its Jobs are named by: a DNS label of at most 50 characters, the same whoever
    /// runs it, and no other mover's.
    pub(crate) base: String,
    /// The uid of the request that it is for.
    pub(crate) for_uid: String,
    /// What it works on.
    pub(crate) volume: MountedVolume,
    /// What its place is for.
    pub(crate) place: PlaceFor,
    /// Whether the volume is mounted such that nothing can be written to it.
    pub(crate) read_only: bool,
    /// Whether it restores; otherwise it saves.
    pub(crate) restores: bool,
}

/// Labels of all that is made for a while for a request, in any namespace.
pub(crate) fn labels(for_uid: &str) -> BTreeMap<String, String> {
    [
        (MANAGED_BY_LABEL, MANAGED_BY),
        (FOR_LABEL, for_uid),
        // Of no value in another cluster, or later.
        (EXCLUDE_LABEL, "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// What a mover needs to use the Repository of this name, as it is now.
pub(crate) async fn access(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<RepositoryAccess, MoverError> {
    let asked = async {
        let repositories = &context.repositories;
        let named = repositories.by_name(&context.client, namespace, name).await;
        let (object, _) = named?;
        repository::access(&context.client, &object).await
    };
    asked
        .await
        .map_err(|error: repository::OpenError| MoverError::Repository {
            message: error.message(),
            transient: error.is_transient(),
        })
}

/// Runs one mover to its end, and removes what it made.
///
/// It adopts or makes the Job `<base>-<try>`, and then the Secret with the task, which is
/// owned by the Job; the pod waits for it. What may pass by itself is tried again, with a
/// new Job. A save's session is settled in the repository first: it may have committed
/// although nobody heard of it. The session of a Job is that of its annotation, also where
/// `task` would give another one by now. It is asked for the task of each try when that
/// begins, which may be long after this was called.
///
/// Cancelled, it deletes the Jobs and waits until their pods are gone; unless the operator
/// itself ends: then all goes on, and the next one adopts it.
///
/// # Errors
/// [`MoverError`]; of [`MoverError::StillThere`] the caller must not take the volume from
/// under the mover.
pub(crate) async fn run(
    context: &Context,
    job: &MoverJob,
    task: impl AsyncFn(u32) -> Result<MoverTask, MoverError>,
    progress: &(dyn Fn(MoverProgress) + Sync),
    cancel: &CancellationToken,
) -> Result<MoverReport, MoverError> {
    let running = Running {
        objects: Objects::new(context, job),
        job,
        task: &task,
        progress,
    };
    let moved = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(MoverError::Cancelled),
        moved = running.in_its_place(context) => moved,
    };
    if context.ending.is_cancelled() && moved.is_err() {
        return moved;
    }
    match (moved, running.objects.remove_all().await) {
        // What it made goes with all else that was made for the request.
        (Ok(report), Err(error)) => {
            tracing::warn!(%error, mover = job.base, "cannot remove a mover that is done");
            Ok(report)
        }
        (Err(MoverError::Cancelled), Err(error)) => Err(error),
        (moved, _) => moved,
    }
}

struct Running<'a, T> {
    objects: Objects<'a>,
    job: &'a MoverJob,
    task: &'a T,
    progress: &'a (dyn Fn(MoverProgress) + Sync),
}

impl<T: AsyncFn(u32) -> Result<MoverTask, MoverError>> Running<'_, T> {
    async fn in_its_place(&self, context: &Context) -> Result<MoverReport, MoverError> {
        let (places, config) = (&context.movers, &context.config.movers);
        let enough = places.nodes_enough();
        let nodes = self
            .patiently(async || nodes::count(&context.client, config, enough).await)
            .await?;
        let place = places.take(&self.job.place, nodes).await;
        let mut attempt = 1;
        let mut untouched = true;
        loop {
            let (task, end) = self.attempt(attempt, place.number()).await?;
            let (message, again) = match end {
                MoverEnd::Done(report) => return Ok(report),
                MoverEnd::Failed { message, again } => {
                    untouched = false;
                    (message, again)
                }
                MoverEnd::Untouched { message, again } => (message, again),
            };
            if let Some(report) = settled(&task).await {
                tracing::info!(mover = self.job.base, "it had committed all the same");
                return Ok(report);
            }
            let Some(wait) = next_try(attempt, again) else {
                return Err(match untouched {
                    true => MoverError::Untouched(message),
                    false => MoverError::Failed(message),
                });
            };
            tracing::warn!(
                mover = self.job.base,
                attempt,
                "{message}; it is tried again"
            );
            sleep(wait).await;
            attempt += 1;
        }
    }

    /// One try, from wherever it stands to its end. With the task that it had.
    async fn attempt(&self, attempt: u32, place: u16) -> Result<(MoverTask, MoverEnd), MoverError> {
        let name = job_name(&self.job.base, attempt);
        let task = self.patiently(async || (self.task)(attempt).await).await?;
        let made = self
            .patiently(async || self.objects.ensure_job(&name, &task, place).await)
            .await?;
        let task = self.as_begun(task, &made)?;
        self.patiently(async || self.objects.ensure_secret(&made, &task).await)
            .await?;
        let end = self.follow(&name).await?;
        Ok((task, end))
    }

    /// The task under the session with which the Job was begun.
    fn as_begun(&self, task: MoverTask, made: &Job) -> Result<MoverTask, MoverError> {
        if made.labels().get(FOR_LABEL) != Some(&self.job.for_uid) {
            return Err(MoverError::Failed(format!(
                "the Job `{}` is there already, and is another request's",
                made.name_any()
            )));
        }
        Ok(match made.annotations().get(SESSION_ANNOTATION) {
            Some(id) => match id.parse() {
                Ok(session) => task.with_session(session),
                Err(_) => task,
            },
            None => task,
        })
    }

    /// Looks at a mover until it has ended.
    async fn follow(&self, name: &str) -> Result<MoverEnd, MoverError> {
        let mut since = (Stage::NoPod, Instant::now());
        let mut warned = None;
        loop {
            let seen = self
                .patiently(async || self.objects.observe(name).await)
                .await?;
            let stage = stage(&seen);
            // Its place on a node is another's for as long as that takes.
            if stage != since.0 || seen.is_behind_others {
                since = (stage, Instant::now());
            }
            let situation = Situation {
                in_stage: since.1.elapsed(),
                restores: self.job.restores,
            };
            match next(&seen, &situation) {
                Next::End(end) => {
                    self.objects.log_end(&seen, &end).await;
                    return Ok(end);
                }
                Next::GiveUp(why) => return Err(MoverError::CannotStart(why)),
                Next::Wait(trouble) => {
                    if trouble.is_some() && trouble != warned {
                        let why = trouble.as_deref().unwrap_or_default();
                        tracing::warn!(mover = name, "a mover does not get on: {why}");
                        warned = trouble;
                    }
                }
            }
            if stage == Stage::Running
                && let Some(now) = self.objects.progress(&seen).await
            {
                (self.progress)(now);
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Asks the API server, again while it does not answer.
    async fn patiently<R>(
        &self,
        ask: impl AsyncFn() -> Result<R, MoverError>,
    ) -> Result<R, MoverError> {
        let begun = Instant::now();
        loop {
            match ask().await {
                Err(error) if error.may_pass() && begun.elapsed() < ABSENCE_MAX => {
                    tracing::warn!(%error, mover = self.job.base, "asked again");
                    sleep(LOOK_INTERVAL).await;
                }
                asked => return asked,
            }
        }
    }
}

/// What the repository says of the session of a save that did not end well: its report if
/// it has committed. If not, it never will; or nobody can say, and in the worst case a
/// snapshot is in the repository that nothing leads to.
async fn settled(task: &MoverTask) -> Option<MoverReport> {
    let mut asked = 1;
    loop {
        match settle(task).await {
            Ok(settled) => return settled,
            Err(lifebuoy_engine::Error::Repo(error))
                if error.is_transient() && asked < ASKS_MAX =>
            {
                sleep(ASK_INTERVAL).await;
                asked += 1;
            }
            Err(error) => {
                let why = sentence(&error, error.hint().as_deref());
                tracing::warn!("it is not known whether a mover has committed: {why}");
                return None;
            }
        }
    }
}
