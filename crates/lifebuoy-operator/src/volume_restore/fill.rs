//! The task of a VolumeRestore: runs the mover that fills its volume. Touches neither
//! the status nor the claims.

use std::sync::{Arc, Mutex, PoisonError};

use kube::ResourceExt;
use lifebuoy_api::{Access, Reason, VolumeRestore};
use lifebuoy_engine::{
    archive::{Archive, ObjectKey},
    point,
    volumes::{
        MountedVolume, MoverProgress, MoverReport, MoverTask, SavedData, SavedRoot, VolumeRecord,
        Work as MoverWork,
    },
};
use lifebuoy_repo::{Repository, SessionId};
use tokio_util::sync::CancellationToken;

use super::{in_place, objects::between_name};
use crate::{
    context::Context,
    error::sentence,
    mover::{self, MoverError, MoverJob, PlaceFor},
    repository::OpenError,
    tasks::Tasks,
};

/// The volumes that are filled now.
pub(crate) type VolumeTasks = Tasks<Filling, Outcome>;

/// How far a volume is.
#[derive(Debug, Default)]
pub(crate) struct Filling(Mutex<MoverProgress>);

impl Filling {
    pub(super) fn now(&self) -> MoverProgress {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, progress: MoverProgress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}

/// How the task ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// All that could be restored is in the volume.
    Filled(MoverReport),
    /// It failed.
    Failed(Failure),
    /// It was told to stop.
    Stopped,
}

/// Why a volume was not filled.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// Whether the same may succeed a little later.
    pub(crate) transient: bool,
}

/// The outcome of a task that panicked.
pub(crate) fn panicked() -> Outcome {
    Outcome::Failed(Failure {
        reason: Reason::InternalError,
        message: "it ended by an internal error; the operator's log has more".to_owned(),
        transient: false,
    })
}

/// What the task works on.
pub(crate) struct Work {
    pub(crate) context: Arc<Context>,
    pub(crate) request: VolumeRestore,
    /// The uid of the claim that is filled.
    pub(crate) claim_uid: String,
    pub(crate) block: bool,
    /// Where the volume is that of a claim which exists.
    pub(crate) overwriting: Option<Overwriting>,
}

/// What is known of a claim whose volume is overwritten.
pub(crate) struct Overwriting {
    /// How large the volume is, in bytes, if it says so.
    pub(crate) capacity: Option<u64>,
    /// Whether writing was begun before.
    pub(crate) is_marked: bool,
}

/// Fills the volume.
pub(crate) async fn fill(work: Work, filling: Arc<Filling>, cancel: CancellationToken) -> Outcome {
    let prepared = tokio::select! {
        () = cancel.cancelled() => return Outcome::Stopped,
        prepared = prepare(&work) => prepared,
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return Outcome::Failed(failure),
    };
    if let Some(overwriting) = &work.overwriting
        && let Err(failure) = in_place::ready(&work, overwriting, &prepared.record).await
    {
        return Outcome::Failed(failure);
    }
    // The point stays while it is read, where that can be.
    let hold = match hold(&work, &prepared).await {
        Ok(hold) => hold,
        Err(error) => return Outcome::Failed(engine(&error)),
    };
    filling.set(MoverProgress {
        entries_total: prepared.data.entries,
        bytes_total: prepared.data.bytes,
        ..MoverProgress::default()
    });
    let moved = match &work.overwriting {
        Some(_) => {
            in_place::guarded(&work, &cancel, async |cancel| {
                run(&work, &prepared, &filling, cancel).await
            })
            .await
        }
        None => Ok(run(&work, &prepared, &filling, &cancel).await),
    };
    if let Some(hold) = hold {
        hold.release().await;
    }
    let moved = match moved {
        Ok(moved) => moved,
        Err(failure) => return Outcome::Failed(failure),
    };
    match moved {
        Ok(report) => Outcome::Filled(report),
        Err(MoverError::Cancelled) => Outcome::Stopped,
        Err(error) => {
            if let (MoverError::Untouched(_), Some(overwriting)) = (&error, &work.overwriting) {
                in_place::take_back(&work, overwriting).await;
            }
            Outcome::Failed(Failure {
                reason: Reason::VolumeNotFilled,
                message: error.message(),
                transient: matches!(
                    error,
                    MoverError::Kube { .. }
                        | MoverError::Repository {
                            transient: true,
                            ..
                        }
                        | MoverError::StillThere { .. }
                ),
            })
        }
    }
}

/// What has to be known before a mover is started.
struct Prepared {
    repo: Repository,
    may_write: bool,
    place: PlaceFor,
    snapshot: SessionId,
    record: VolumeRecord,
    data: SavedData,
}

async fn prepare(work: &Work) -> Result<Prepared, Failure> {
    let spec = &work.request.spec;
    let client = &work.context.client;
    let namespace = work.request.namespace().unwrap_or_default();
    let opened = work
        .context
        .repositories
        .by_name(client, &namespace, &spec.repository)
        .await;
    let (object, opened) = opened.map_err(|error| open(&spec.repository, &error))?;
    let snapshot: SessionId = spec.snapshot.parse().map_err(|error| Failure {
        reason: Reason::InvalidSpec,
        message: format!("spec.snapshot: {error}"),
        transient: false,
    })?;
    let archive = Archive::open(&opened.repo, snapshot)
        .await
        .map_err(|error| engine(&error))?;
    let wanted = ObjectKey::new(&*spec.volume.namespace, &*spec.volume.name);
    let mut saved = archive.manifest.volumes_saved.into_iter();
    let record = saved.find(|record| record.claim == wanted);
    let found = record.and_then(|record| Some((record.saved.data().cloned()?, record)));
    let (data, record) = found.ok_or_else(|| Failure {
        reason: Reason::VolumeDataNotSaved,
        message: format!("the recovery point holds no data of the claim `{wanted}`"),
        transient: false,
    })?;
    Ok(Prepared {
        repo: opened.repo.clone(),
        may_write: object.spec.access == Access::ReadWrite,
        place: PlaceFor::on(None, &object),
        snapshot,
        record,
        data,
    })
}

async fn hold(
    work: &Work,
    prepared: &Prepared,
) -> Result<Option<lifebuoy_repo::Hold>, lifebuoy_engine::Error> {
    if !prepared.may_write {
        return Ok(None);
    }
    let cluster = work.context.cluster().await?;
    point::hold(&prepared.repo, prepared.snapshot, &cluster.uid).await
}

async fn run(
    work: &Work,
    prepared: &Prepared,
    filling: &Filling,
    cancel: &CancellationToken,
) -> Result<MoverReport, MoverError> {
    let data = &prepared.data;
    let movers = &work.context.config.movers;
    let job = MoverJob {
        base: format!("restore-{}", work.claim_uid),
        for_uid: work.request.uid().unwrap_or_default(),
        volume: MountedVolume::Claim {
            name: between_name(&work.claim_uid),
            block: work.block,
        },
        place: prepared.place.clone(),
        read_only: false,
        restores: true,
    };
    let (what, saved) = (
        data.kind,
        SavedRoot {
            session: data.session,
            root: data.root,
        },
    );
    let namespace = work.request.namespace().unwrap_or_default();
    let task = async |_| {
        let name = &work.request.spec.repository;
        Ok(MoverTask {
            repository: mover::access(&work.context, &namespace, name).await?,
            work: match &work.overwriting {
                Some(_) => MoverWork::Overwrite { what, saved },
                None => MoverWork::Restore { what, saved },
            },
            limit_upload: movers.limit_upload,
            limit_download: movers.limit_download,
        })
    };
    let progress = |now| filling.set(now);
    mover::run(&work.context, &job, task, &progress, cancel).await
}

fn open(repository: &str, error: &OpenError) -> Failure {
    Failure {
        reason: error.reason(),
        message: format!("repository `{repository}`: {}", error.message()),
        transient: error.is_transient() || matches!(error, OpenError::Suspended(_)),
    }
}

fn engine(error: &lifebuoy_engine::Error) -> Failure {
    let transient = match error {
        lifebuoy_engine::Error::Repo(error) => error.is_transient(),
        lifebuoy_engine::Error::Kube { .. } => true,
        _ => false,
    };
    Failure {
        reason: error.reason(),
        message: sentence(error, error.hint().as_deref()),
        transient,
    }
}
