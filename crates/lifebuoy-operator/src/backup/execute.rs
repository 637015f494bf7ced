//! Carries out the one step that was decided, and publishes what came of it.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::controller::Action,
};
use lifebuoy_api::{Backup, BackupStatus, Reason, time::from_kube};
use lifebuoy_engine::steps;
use lifebuoy_repo::SessionId;

use super::{
    capture::{self, Attempt, Outcome, Progress, Saved},
    observe::Seen,
    plan::{Step, ended, overdue},
    status,
};
use crate::{
    Error,
    context::{Context, Reconciled},
    recovery_point,
    request::{self, Then, Verdict, verdict},
    status::{Standing, publish},
};

/// How often a running Backup's progress is published.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether it is one's turn.
const QUEUE_INTERVAL: Duration = Duration::from_secs(2);
/// How often an interrupted session is asked for before it is given up.
const RECOVERIES_MAX: u32 = 8;

/// What a step led to.
pub(crate) type Done = request::Done<BackupStatus, Box<Attempt>>;

pub(crate) async fn execute(
    context: &Arc<Context>,
    seen: &Seen,
    step: Step,
) -> Result<Done, Error> {
    let uid = seen.backup.uid().unwrap_or_default();
    let status = seen.backup.status.clone().unwrap_or_default();
    match step {
        Step::Rest(None) => {
            context.backups.remove(&uid);
            Ok(Done::unchanged(&seen.backup, Action::await_change()))
        }
        Step::Rest(Some(wait)) => Ok(Done::unchanged(&seen.backup, Action::requeue(wait))),
        Step::Delete => {
            delete(context, &seen.backup).await?;
            Ok(Done::unchanged(&seen.backup, Action::await_change()))
        }
        Step::Stand(standing) => {
            let action = match standing {
                Standing::Waiting(..) => Action::requeue(QUEUE_INTERVAL),
                _ => Action::await_change(),
            };
            Ok(Done::stands(
                &seen.backup,
                seen.now,
                status,
                &standing,
                action,
            ))
        }
        Step::Begin(selector) => {
            let Some(place) = context.backups.place() else {
                return Ok(Done::unchanged(
                    &seen.backup,
                    Action::requeue(QUEUE_INTERVAL),
                ));
            };
            let session = SessionId::random(&mut rand::rng());
            let mut status = status;
            status::begin(
                &mut status,
                session,
                seen.backup.metadata.generation,
                seen.now,
            );
            let attempt = Attempt {
                context: context.clone(),
                backup: seen.backup.clone(),
                selector,
                session,
                at: seen.now,
            };
            let action = Action::requeue(PROGRESS_INTERVAL);
            Ok(Done {
                status,
                action,
                then: Then::Start(Box::new(attempt), place),
            })
        }
        Step::Recover(session) => recover(context, seen, session).await,
        Step::Stop => {
            context.backups.stop(&uid);
            Ok(Done::unchanged(
                &seen.backup,
                Action::requeue(PROGRESS_INTERVAL),
            ))
        }
        Step::Follow => Ok(follow(context, seen, &uid)),
        Step::Finish => finish(context, seen, &uid).await,
    }
}

fn follow(context: &Context, seen: &Seen, uid: &str) -> Done {
    let mut done = Done::unchanged(&seen.backup, Action::requeue(PROGRESS_INTERVAL));
    if context.backups.publish_due(uid, PROGRESS_INTERVAL)
        && let Some(progress) = context.backups.progress(uid)
    {
        done.status.progress = progress.snapshot();
    }
    done
}

/// Asks the repository how an interrupted session ended, and ends it if it did
/// not. If it cannot be asked, it is tried again, but not for ever.
async fn recover(context: &Context, seen: &Seen, session: SessionId) -> Result<Done, Error> {
    let backup = &seen.backup;
    let mut status = backup.status.clone().unwrap_or_default();
    match ask(context, backup, session).await {
        Ok(Some(saved)) => {
            tracing::info!(%session, "the interrupted attempt had committed");
            let point = show(context, seen, &saved).await?;
            let standing = status::saved(&mut status, &saved, point);
            Ok(Done::stands(
                &seen.backup,
                seen.now,
                status,
                &standing,
                Action::await_change(),
            ))
        }
        Ok(None) => {
            tracing::info!(%session, "the interrupted attempt had committed nothing");
            status.session = None;
            let standing = Standing::Waiting(
                Reason::Waiting,
                "the attempt before was interrupted, and its session is ended".to_owned(),
            );
            Ok(Done::stands(
                &seen.backup,
                seen.now,
                status,
                &standing,
                Action::requeue(Duration::ZERO),
            ))
        }
        Err((reason, message)) => {
            let (failures, wait) = context.failed(&format!("recovery of {session}"));
            let message = format!(
                "it is not known whether the interrupted session {session} has committed: \
                 repository `{}`: {message}",
                backup.spec.repository
            );
            let standing = if failures >= RECOVERIES_MAX {
                Standing::Failed(reason, message)
            } else {
                Standing::Waiting(reason, message)
            };
            Ok(Done::stands(
                &seen.backup,
                seen.now,
                status,
                &standing,
                Action::requeue(wait),
            ))
        }
    }
}

async fn ask(
    context: &Context,
    backup: &Backup,
    session: SessionId,
) -> Result<Option<Saved>, (Reason, String)> {
    let said = |error: lifebuoy_engine::Error| {
        (
            error.reason(),
            crate::error::sentence(&error, error.hint().as_deref()),
        )
    };
    let namespace = backup.namespace().unwrap_or_default();
    let (_, opened) = context
        .repositories
        .by_name(&context.client, &namespace, &backup.spec.repository)
        .await
        .map_err(|error| (error.reason(), error.message()))?;
    let cluster = context.cluster().await.map_err(said)?;
    let end = capture::end(&opened.repo, cluster, session).await;
    match end.map_err(|error| said(error.into()))? {
        Some(snapshot) => capture::adopt(&opened.repo, snapshot)
            .await
            .map(Some)
            .map_err(said),
        None => Ok(None),
    }
}

async fn finish(context: &Context, seen: &Seen, uid: &str) -> Result<Done, Error> {
    let mut status = seen.backup.status.clone().unwrap_or_default();
    let Some(outcome) = context.backups.outcome(uid) else {
        return Ok(Done::unchanged(
            &seen.backup,
            Action::requeue(PROGRESS_INTERVAL),
        ));
    };
    let standing = match outcome {
        Outcome::Committed(saved) => {
            let point = show(context, seen, &saved).await?;
            status::saved(&mut status, &saved, point)
        }
        Outcome::Failed(reason, message) => Standing::Failed(reason, message),
        Outcome::Stopped if seen.backup.spec.cancel => Standing::Failed(
            Reason::Cancelled,
            "it was cancelled; nothing was saved".to_owned(),
        ),
        Outcome::Stopped if overdue(&seen.backup, Duration::MAX) => Standing::Failed(
            Reason::DeadlineExceeded,
            "it took longer than `activeDeadlineSeconds`; nothing was saved".to_owned(),
        ),
        Outcome::Outdated => {
            status.session = None;
            Standing::Waiting(
                Reason::Waiting,
                "a garbage collection began at the same moment; it begins again".to_owned(),
            )
        }
        // The operator ends: whoever comes next continues from the status.
        Outcome::Stopped => return Ok(Done::unchanged(&seen.backup, Action::await_change())),
    };
    let action = match standing {
        Standing::Waiting(..) => Action::requeue(Duration::ZERO),
        _ => Action::await_change(),
    };
    let mut done = Done::stands(&seen.backup, seen.now, status, &standing, action);
    done.then = Then::Forget;
    Ok(done)
}

/// Mirrors the point at once, so that the end of the Backup can name it.
async fn show(context: &Context, seen: &Seen, saved: &Saved) -> Result<Option<String>, Error> {
    let Some(repository) = &seen.repository else {
        return Ok(None);
    };
    match recovery_point::show(context, repository, &saved.point).await {
        Ok(name) => {
            steps::reached(steps::Step::PointMirrored);
            Ok(Some(name))
        }
        Err(error @ Error::Kube { .. }) if refused(&error) => {
            tracing::warn!(%error, "the recovery point is saved, but cannot be shown");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether the API server will say no again.
fn refused(error: &Error) -> bool {
    let Error::Kube { source, .. } = error else {
        return false;
    };
    matches!(source.as_ref(), kube::Error::Api(status) if matches!(status.code, 403 | 404 | 422))
}

async fn delete(context: &Context, backup: &Backup) -> Result<(), Error> {
    let api: Api<Backup> = Api::namespaced(
        context.client.clone(),
        &backup.namespace().unwrap_or_default(),
    );
    let preconditions = Some(Preconditions {
        uid: backup.uid(),
        resource_version: None,
    });
    let params = DeleteParams {
        preconditions,
        ..DeleteParams::default()
    };
    match api.delete(&backup.name_any(), &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(Error::kube(
            "delete a Backup that has outlived its end",
            error,
        )),
    }
}

/// Writes the status, and only then lets begin what the status speaks of.
pub(crate) async fn publish_and_announce(
    context: &Arc<Context>,
    seen: &Seen,
    done: Done,
) -> Reconciled {
    let backup = &seen.backup;
    let uid = backup.uid().unwrap_or_default();
    // Progress is written over whatever is there; everything else only over
    // what was seen.
    let version = match &done.then {
        Then::Nothing if !crate::status::has_ended(&done.status.conditions) => None,
        _ => backup.metadata.resource_version.as_deref(),
    };
    publish(
        &context.client,
        backup,
        backup.status.as_ref(),
        &done.status,
        version,
    )
    .await?;
    if !ended(backup) && crate::status::has_ended(&done.status.conditions) {
        steps::reached(steps::Step::BackupReported);
        announce(context, backup, &done.status).await;
    }
    match done.then {
        Then::Nothing => {}
        Then::Forget => context.backups.remove(&uid),
        Then::Start(attempt, place) => {
            let progress = Arc::new(Progress::default());
            let work = |progress, cancel| capture::run(*attempt, progress, cancel);
            context
                .backups
                .spawn(&uid, place, progress, work, super::panicked);
        }
    }
    Ok(done.action)
}

async fn announce(context: &Context, backup: &Backup, status: &BackupStatus) {
    let Some(Verdict {
        complete,
        reason,
        message,
    }) = verdict(&status.conditions)
    else {
        return;
    };
    let now = context.now();
    let took = status
        .start_time
        .as_ref()
        .and_then(|start| (now - from_kube(start)).to_std().ok());
    let schedule = capture::schedule_of(backup);
    context
        .metrics
        .backup_ended(&schedule, reason, complete, took, &status.progress, now);
    if complete {
        tracing::info!(objects = status.progress.objects, "complete");
        context
            .events
            .normal(backup, "Capture", reason, message)
            .await;
    } else {
        tracing::warn!(reason = %reason, "{message}");
        context
            .events
            .warning(backup, "Capture", reason, message)
            .await;
    }
}
