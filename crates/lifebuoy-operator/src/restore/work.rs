//! The two tasks of a Restore: making the plan, and carrying out the plan that
//! is stored. Neither touches the status.

use std::sync::Arc;

use kube::ResourceExt;
use lifebuoy_api::{Problem, Reason, Restore, RestoreCounts, RestoreVolumes};
use lifebuoy_engine::{
    archive::Archive,
    point,
    restore::{
        self, Plan, Rules,
        apply::{ApplyOptions, apply},
        report::{Report, VolumeEnd},
        target,
    },
    steps::{Step, reached},
};
use lifebuoy_repo::{Repository, SessionId};
use tokio_util::sync::CancellationToken;

use super::{
    status::{Noted, noted, reported},
    volumes::{Progress, Volumes},
};
use crate::{
    Error,
    context::Context,
    documents::{self, Document},
    error::sentence,
    tasks::Tasks,
};

/// The plans that are made and the restores that run.
pub(crate) type RestoreTasks = Tasks<Progress, Outcome>;

/// How a task ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// The plan is stored.
    Planned(Box<Planned>),
    /// The plan was carried out, and the report is stored.
    Applied(Box<Applied>),
    /// It failed; what was restored stays.
    Failed {
        reason: Reason,
        message: String,
        transient: bool,
    },
    /// It was told to stop before there was anything to report.
    Stopped,
}

/// A plan that is stored.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) digest: String,
    pub(crate) secrets: Vec<String>,
    /// How many objects are in it.
    pub(crate) objects: i64,
    pub(crate) noted: Noted,
    /// Why it may not be carried out, if so.
    pub(crate) refusal: Option<Problem>,
}

/// A plan that was carried out.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) secrets: Vec<String>,
    pub(crate) counts: RestoreCounts,
    pub(crate) volumes: Option<RestoreVolumes>,
    pub(crate) noted: Noted,
    /// Whether it was told to stop on the way.
    pub(crate) stopped: bool,
}

/// The outcome of a task that panicked.
pub(crate) fn panicked() -> Outcome {
    Outcome::Failed {
        reason: Reason::InternalError,
        message: "it ended by an internal error; the operator's log has more".to_owned(),
        transient: false,
    }
}

/// What both tasks work on.
pub(crate) struct Work {
    pub(crate) context: Arc<Context>,
    pub(crate) restore: Restore,
    pub(crate) rules: Box<Rules>,
    /// The name of the Repository, and the repository.
    pub(crate) repository: String,
    pub(crate) repo: Repository,
    pub(crate) snapshot: SessionId,
    /// Whether the Repository lets anything be written.
    pub(crate) may_write: bool,
    /// Whether it was begun before.
    pub(crate) again: bool,
}

impl Work {
    fn uid(&self) -> String {
        self.restore.uid().unwrap_or_default()
    }
}

fn failed(error: &Error) -> Outcome {
    let transient = match error {
        Error::Kube { source, .. } => passes(source),
        Error::Engine(lifebuoy_engine::Error::Kube { source, .. }) => passes(source),
        Error::Engine(lifebuoy_engine::Error::Repo(error)) => error.is_transient(),
        _ => false,
    };
    Outcome::Failed {
        reason: error.reason(),
        message: sentence(error, error.hint().as_deref()),
        transient,
    }
}

/// Whether a failure of the API server may pass by itself.
fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        _ => true,
    }
}

/// Makes the plan and stores it.
pub(crate) async fn plan(work: Work, cancel: CancellationToken) -> Outcome {
    let made = tokio::select! {
        () = cancel.cancelled() => return Outcome::Stopped,
        made = make_plan(&work) => made,
    };
    match made {
        Ok(planned) => Outcome::Planned(Box::new(planned)),
        Err(error) => failed(&error),
    }
}

async fn make_plan(work: &Work) -> Result<Planned, Error> {
    let client = &work.context.client;
    let archive = Archive::open(&work.repo, work.snapshot).await?;
    let uid = work.uid();
    let observe = async |wanted: &restore::Wanted| target::observe(client, wanted, &uid).await;
    let plan = restore::plan(&archive, &work.rules, observe).await?;
    reached(Step::Planned);
    let bytes = plan.to_bytes()?;
    let secrets = documents::store(client, &work.restore, Document::Plan, &bytes).await?;
    reached(Step::PlanStored);
    Ok(Planned {
        digest: plan.digest.to_string(),
        secrets,
        objects: i64::try_from(plan.entries.len()).unwrap_or(i64::MAX),
        noted: noted(&plan),
        refusal: plan.refusal(),
    })
}

/// Carries out the plan that is stored, and stores the report.
pub(crate) async fn carry_out(
    work: Work,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Outcome {
    match carry_out_held(&work, &progress, &cancel).await {
        Ok(applied) => Outcome::Applied(Box::new(applied)),
        Err(Error::Engine(lifebuoy_engine::Error::Cancelled)) => Outcome::Stopped,
        Err(error) => failed(&error),
    }
}

/// Carries out the plan while the point is held, where it can be. What a killed
/// process held is let go by the collector.
async fn carry_out_held(
    work: &Work,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Applied, Error> {
    let hold = if work.may_write {
        let cluster = work.context.cluster().await?;
        point::hold(&work.repo, work.snapshot, &cluster.uid).await?
    } else {
        None
    };
    let done = carry_out_stored(work, progress, cancel).await;
    if let Some(hold) = hold {
        hold.release().await;
    }
    done
}

async fn carry_out_stored(
    work: &Work,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Applied, Error> {
    let client = &work.context.client;
    let status = work.restore.status.clone().unwrap_or_default();
    let bytes = documents::load(client, &work.restore, &status.plan_secrets).await?;
    let plan = Plan::from_bytes(&bytes)?;
    drop(bytes);
    if Some(plan.digest.as_str()) != status.plan_digest.as_deref() {
        return Err(Error::Internal(
            "the stored plan is not the one whose digest is in the status".to_owned(),
        ));
    }
    let archive = Archive::open(&work.repo, work.snapshot).await?;
    let volumes = Volumes::request(work, &plan, &archive.manifest).await?;
    let overwritten = volumes.overwrite(progress).await?;
    let failed = overwritten
        .iter()
        .filter(|(_, end)| **end != VolumeEnd::Overwritten);
    let options = ApplyOptions {
        resuming: work.again,
        seed: rand::random(),
        not_overwritten: failed.map(|(claim, _)| claim.clone()).collect(),
        ..ApplyOptions::new(work.uid())
    };
    let written = CancellationToken::new();
    let writing = async {
        let objects = &progress.objects;
        let report = apply(
            client,
            &archive,
            &work.rules,
            &plan,
            &options,
            objects,
            cancel,
        )
        .await;
        written.cancel();
        report
    };
    let (report, ()) = tokio::join!(writing, volumes.watch(progress, &written));
    let mut report: Report = report?;
    volumes.settle(&mut report, progress, cancel).await?;
    report.add_overwritten(&overwritten);
    let bytes = report.to_bytes()?;
    let secrets = documents::store(client, &work.restore, Document::Report, &bytes).await?;
    reached(Step::ReportStored);
    Ok(Applied {
        secrets,
        counts: report.counts.clone(),
        volumes: progress.volumes(),
        noted: reported(&report),
        stopped: cancel.is_cancelled(),
    })
}
