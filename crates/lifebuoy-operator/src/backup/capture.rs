//! The task of a Backup: one session, from its beginning to its end. Whatever
//! goes wrong, the session is ended, and what its end says is the truth.

use std::sync::{Arc, OnceLock, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use kube::ResourceExt;
use lifebuoy_api::{Access, Backup, BackupProgress, PointCluster, Problem, Reason, SCHEDULE_LABEL};
use lifebuoy_engine::{
    archive::Archive,
    capture::{self, CaptureProgress, CaptureRequest, ONLY_WARN_GROUPS, VolumesFound},
    point::{Point, PointSummary, points},
    selection::{Glob, Selector},
    steps,
};
use lifebuoy_repo::{
    End, Error as RepoError, Operation, Purpose, Repository, SessionId, SessionRequest, Snapshot,
    WriteStats, Writer,
};
use tokio_util::sync::CancellationToken;

use super::volumes::{Known, Saving, VolumeProgress};
use crate::{
    context::Context,
    error::sentence,
    repository::{OpenError, name_conflict},
    tasks::Tasks,
};

/// The captures that run.
pub(crate) type BackupTasks = Tasks<Progress, Outcome>;

/// How far a capture is.
#[derive(Default)]
pub(crate) struct Progress {
    capture: CaptureProgress,
    writer: OnceLock<Arc<Writer>>,
    volumes: VolumeProgress,
}

impl Progress {
    pub(crate) fn snapshot(&self) -> BackupProgress {
        let mut progress = self.capture.snapshot();
        if let Some(writer) = self.writer.get() {
            add(&mut progress, writer.stats());
        }
        self.volumes.add_to(&mut progress);
        progress
    }
}

fn add(progress: &mut BackupProgress, stats: WriteStats) {
    progress.bytes_stored = i64::try_from(stats.bytes_stored).unwrap_or(i64::MAX);
    progress.puts = i64::try_from(stats.puts).unwrap_or(i64::MAX);
}

/// How a capture ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Its session is committed.
    Committed(Box<Saved>),
    /// It failed, and its session can commit nothing any more, or nobody can say.
    Failed(Reason, String),
    /// It was told to stop, and did without committing.
    Stopped,
    /// A garbage collection began at the same moment: it begins again, as another
    /// session.
    Outdated,
}

/// What a committed session holds.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    pub(crate) point: Point,
    pub(crate) problems: Vec<Problem>,
    pub(crate) progress: BackupProgress,
}

/// The outcome of a task that panicked.
pub(crate) fn panicked() -> Outcome {
    Outcome::Failed(
        Reason::InternalError,
        "the capture ended by an internal error; the operator's log has more".to_owned(),
    )
}

/// One attempt.
pub(crate) struct Attempt {
    pub(crate) context: Arc<Context>,
    pub(crate) backup: Backup,
    pub(crate) selector: Selector,
    pub(crate) session: SessionId,
    /// When it began, by the clock of this cluster.
    pub(crate) at: DateTime<Utc>,
}

/// Why an attempt ended without a commit.
struct Failure {
    reason: Reason,
    message: String,
    /// Whether the same works under another session id.
    outdated: bool,
}

impl Failure {
    fn new(reason: Reason, message: String) -> Self {
        Self {
            reason,
            message,
            outdated: false,
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::new(error.reason(), error.message())
    }
}

impl From<lifebuoy_engine::Error> for Failure {
    fn from(error: lifebuoy_engine::Error) -> Self {
        use lifebuoy_engine::Error::Repo;
        Self {
            outdated: matches!(error, Repo(RepoError::Outdated { .. })),
            ..Self::new(reason(&error), sentence(&error, error.hint().as_deref()))
        }
    }
}

/// A write that is denied means that the credentials can only read.
fn reason(error: &lifebuoy_engine::Error) -> Reason {
    match error {
        lifebuoy_engine::Error::Repo(RepoError::Denied {
            operation: Operation::Write,
            ..
        }) => Reason::ReadOnlyCredentials,
        error => error.reason(),
    }
}

/// Runs an attempt to its end.
pub(crate) async fn run(
    attempt: Attempt,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> Outcome {
    let name = attempt.backup.spec.repository.clone();
    let in_repository = |failure: Failure| {
        Outcome::Failed(
            failure.reason,
            format!("repository `{name}`: {}", failure.message),
        )
    };
    // Of two at the same time, neither knows what the other may still need.
    let alone = attempt.context.backups.is_alone();
    let (repo, cluster, known) = match prepare(&attempt).await {
        Ok(prepared) => prepared,
        Err(failure) => return in_repository(failure),
    };
    let failure = match save(&attempt, &repo, &cluster, &known, &progress, &cancel).await {
        Ok(saved) => {
            if alone {
                known.forget_movers(&repo).await;
            }
            return Outcome::Committed(Box::new(saved));
        }
        Err(failure) => failure,
    };
    // The commit may have reached the store although its answer did not reach
    // us: ending the session tells.
    match end(&repo, &cluster, attempt.session).await {
        Ok(Some(snapshot)) => match adopt(&repo, snapshot).await {
            Ok(saved) => Outcome::Committed(Box::new(saved)),
            Err(error) => in_repository(error.into()),
        },
        Ok(None) if cancel.is_cancelled() => Outcome::Stopped,
        Ok(None) if failure.outdated => Outcome::Outdated,
        Ok(None) => in_repository(failure),
        Err(error) => {
            tracing::warn!(%error, session = %attempt.session, "cannot end the session");
            if cancel.is_cancelled() {
                Outcome::Stopped
            } else {
                in_repository(failure)
            }
        }
    }
}

/// The repository, if this cluster may write to it, and what is known of it.
async fn prepare(attempt: &Attempt) -> Result<(Repository, PointCluster, Known), Failure> {
    let context = &attempt.context;
    let namespace = attempt.backup.namespace().unwrap_or_default();
    let (object, opened) = context
        .repositories
        .by_name(&context.client, &namespace, &attempt.backup.spec.repository)
        .await?;
    if object.spec.access == Access::ReadOnly {
        return Err(Failure::new(
            Reason::RepositoryNotReady,
            "its spec says `access: ReadOnly`; choose another repository".to_owned(),
        ));
    }
    let probed = *opened.probed.lock().unwrap_or_else(PoisonError::into_inner);
    if probed.is_some_and(|(_, abilities)| abilities.atomic_create == Some(false)) {
        return Err(Failure::new(
            Reason::NoAtomicCreate,
            "the store does not create atomically, so nothing is written to it; use another store"
                .to_owned(),
        ));
    }
    let cluster = context.cluster().await?.clone();
    let repo = opened.repo.clone();
    let listed = points(&repo).await?;
    if let Some(conflict) = name_conflict(&listed.points, &cluster) {
        return Err(Failure::new(Reason::ClusterNameConflict, conflict));
    }
    let known = Known::new(listed, &cluster, repo.cluster_key(&cluster.uid));
    Ok((repo, cluster, known))
}

async fn save(
    attempt: &Attempt,
    repo: &Repository,
    cluster: &PointCluster,
    known: &Known,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Saved, Failure> {
    let backup = &attempt.backup;
    let request = SessionRequest {
        id: attempt.session,
        cluster: repo.cluster_key(&cluster.uid),
        purpose: Purpose::Backup,
        label: Bytes::from(format!("Backup {}", backup.name_any())),
    };
    let writer = repo
        .begin(request)
        .await
        .map_err(lifebuoy_engine::Error::from)?;
    steps::reached(steps::Step::SessionOpened);
    let writer = Arc::new(writer);
    // Set once: an attempt has one writer.
    let _ = progress.writer.set(writer.clone());
    let volumes = Saving::new(attempt, repo, cluster, known, &progress.volumes, cancel)?;
    let request = capture_request(attempt, cluster, volumes.empty_dirs())?;
    let client = &attempt.context.client;
    let save_volumes = async |found: &VolumesFound| volumes.save(found).await;
    let progress_of = &progress.capture;
    let captured =
        capture::capture(client, writer, &request, progress_of, save_volumes, cancel).await?;
    let mut done = progress.snapshot();
    add(&mut done, captured.stats);
    Ok(Saved {
        point: captured.point,
        problems: captured.problems,
        progress: done,
    })
}

fn capture_request(
    attempt: &Attempt,
    cluster: &PointCluster,
    empty_dirs: bool,
) -> Result<CaptureRequest, Failure> {
    let backup = &attempt.backup;
    let only_warn = ONLY_WARN_GROUPS.iter().map(|glob| {
        Glob::parse(glob).map_err(|message| Failure::new(Reason::InternalError, message))
    });
    Ok(CaptureRequest {
        selector: attempt.selector.clone(),
        selection: backup.spec.selection.clone(),
        cluster: cluster.clone(),
        backup: backup.name_any(),
        backup_uid: backup.uid().unwrap_or_default(),
        schedule: schedule_of(backup),
        volumes: backup.spec.volumes,
        empty_dirs,
        taken_at: attempt.at,
        own_namespace: Some(attempt.context.config.namespace.clone()),
        down_groups_that_only_warn: only_warn.collect::<Result<_, _>>()?,
    })
}

/// The Schedule that a Backup belongs to; empty for one made by hand.
pub(crate) fn schedule_of(backup: &Backup) -> String {
    backup
        .labels()
        .get(SCHEDULE_LABEL)
        .cloned()
        .unwrap_or_default()
}

/// Ends a session that nobody works in any more; the snapshot, if it had
/// committed before.
///
/// # Errors
/// When the store does not tell.
pub(crate) async fn end(
    repo: &Repository,
    cluster: &PointCluster,
    session: SessionId,
) -> Result<Option<Snapshot>, RepoError> {
    let key = repo.cluster_key(&cluster.uid);
    let end = match repo.session_end(key, session).await? {
        Some(end) => end,
        None => repo.fence(key, session).await?,
    };
    Ok(match end {
        End::Committed(snapshot) => Some(snapshot),
        End::Fenced | End::CommittedOther => None,
    })
}

/// What a committed snapshot says of itself.
///
/// # Errors
/// When its summary or its manifest cannot be read.
pub(crate) async fn adopt(
    repo: &Repository,
    snapshot: Snapshot,
) -> Result<Saved, lifebuoy_engine::Error> {
    let summary = PointSummary::from_bytes(&snapshot.summary)?;
    let archive = Archive::open(repo, snapshot.session).await?;
    let types = &archive.manifest.types;
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    Ok(Saved {
        progress: BackupProgress {
            types: count(types.len() as u64),
            types_total: count(types.len() as u64),
            objects: count(summary.objects),
            bytes: count(types.iter().map(|record| record.bytes).sum()),
            ..BackupProgress::default()
        },
        problems: archive.manifest.problems.clone(),
        point: Point { snapshot, summary },
    })
}
