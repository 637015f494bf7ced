//! Carries out the one step that was decided, and publishes what came of it.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::controller::Action,
};
use lifebuoy_api::{
    Reason, Restore, RestoreMode, RestoreStatus,
    time::{from_kube, to_kube},
};
use lifebuoy_engine::{restore::Rules, steps};
use lifebuoy_repo::SessionId;

use super::{
    observe::Seen,
    plan::{PLANNING, RUNNING, Step, ended, title},
    resolve::{self, Unresolved},
    status,
    volumes::Progress,
    work::{self, Applied, Outcome, Planned, Work},
};
use crate::{
    Error,
    context::{Context, Reconciled},
    request::{self, Then, Verdict, verdict},
    status::{Standing, errors, has_ended, publish},
};

/// How often a running Restore's progress is published.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether there is room.
const QUEUE_INTERVAL: Duration = Duration::from_secs(2);
/// How often work is begun again that failed for a reason which may pass.
const RETRIES_MAX: u32 = 6;

/// What a step led to.
pub(crate) type Done = request::Done<RestoreStatus, Begun>;

/// What begins.
pub(crate) enum Begun {
    Plan(Box<Work>),
    Apply(Box<Work>),
}

pub(crate) async fn execute(
    context: &Arc<Context>,
    seen: &Seen,
    step: Step,
) -> Result<Done, Error> {
    let uid = seen.restore.uid().unwrap_or_default();
    let status = seen.restore.status.clone().unwrap_or_default();
    match step {
        Step::Rest(None) => {
            context.restores.remove(&uid);
            Ok(Done::unchanged(&seen.restore, Action::await_change()))
        }
        Step::Rest(Some(wait)) => Ok(Done::unchanged(&seen.restore, Action::requeue(wait))),
        Step::Delete => {
            delete(context, &seen.restore).await?;
            Ok(Done::unchanged(&seen.restore, Action::await_change()))
        }
        Step::Stand(standing) => Ok(Done::stands(
            &seen.restore,
            seen.now,
            status,
            &standing,
            Action::await_change(),
        )),
        Step::Resolve => resolve(context, seen, &uid).await,
        Step::Plan {
            rules,
            snapshot,
            again,
        } => begin(context, seen, rules, snapshot, again, PLANNING).await,
        Step::Apply {
            rules,
            snapshot,
            again,
        } => begin(context, seen, rules, snapshot, again, RUNNING).await,
        Step::Stop => {
            context.restores.stop(&uid);
            Ok(Done::unchanged(
                &seen.restore,
                Action::requeue(PROGRESS_INTERVAL),
            ))
        }
        Step::Follow => Ok(follow(context, seen, &uid)),
        Step::Finish => Ok(finish(context, seen, &uid)),
    }
}

/// Pins the snapshot; ends the Restore if an equal one did its work before.
async fn resolve(context: &Context, seen: &Seen, uid: &str) -> Result<Done, Error> {
    let restore = &seen.restore;
    let mut status = restore.status.clone().unwrap_or_default();
    let source = match resolve::source(context, restore).await? {
        Ok(source) => source,
        Err(unresolved) => return Ok(unresolved_done(context, seen, uid, unresolved)),
    };
    let found = match resolve::open(context, restore, &source.repository).await {
        Ok((repo, _)) => resolve::point(&repo, restore, &source).await,
        Err(unresolved) => Err(unresolved),
    };
    let point = match found {
        Ok(point) => point,
        Err(unresolved) => return Ok(unresolved_done(context, seen, uid, unresolved)),
    };
    let session = point.snapshot.session;
    let fingerprint = resolve::fingerprint(restore, session, context.cluster().await?)?;
    status.snapshot = Some(session.to_string());
    status.start_time.get_or_insert_with(|| to_kube(seen.now));
    status.attempts = 1;
    if let Some(other) = resolve::done_before(context, restore, &fingerprint).await? {
        status.fingerprint = Some(fingerprint);
        let standing = Standing::Complete(
            Reason::AlreadyRestored,
            format!(
                "the Restore `{other}` did the same; nothing was done. Set `spec.rerun` to a new \
                 token to do it again"
            ),
        );
        return Ok(Done::stands(
            &seen.restore,
            seen.now,
            status,
            &standing,
            Action::await_change(),
        ));
    }
    status.fingerprint = Some(fingerprint);
    let standing = Standing::Waiting(Reason::InProgress, format!("snapshot {session} is chosen"));
    Ok(Done::stands(
        &seen.restore,
        seen.now,
        status,
        &standing,
        Action::requeue(Duration::ZERO),
    ))
}

fn unresolved_done(context: &Context, seen: &Seen, uid: &str, unresolved: Unresolved) -> Done {
    let status = seen.restore.status.clone().unwrap_or_default();
    let Unresolved {
        standing,
        transient,
    } = unresolved;
    match standing {
        Standing::Failed(reason, message) if transient => {
            let key = format!("retries of {uid}");
            let (failures, wait) = context.failed(&key);
            if failures > RETRIES_MAX {
                context.succeeded(&key);
                let standing = Standing::Failed(reason, message);
                return Done::stands(
                    &seen.restore,
                    seen.now,
                    status,
                    &standing,
                    Action::await_change(),
                );
            }
            let standing = Standing::Waiting(reason, message);
            Done::stands(
                &seen.restore,
                seen.now,
                status,
                &standing,
                Action::requeue(wait),
            )
        }
        Standing::Waiting(..) => Done::stands(
            &seen.restore,
            seen.now,
            status,
            &standing,
            Action::requeue(QUEUE_INTERVAL),
        ),
        standing => Done::stands(
            &seen.restore,
            seen.now,
            status,
            &standing,
            Action::await_change(),
        ),
    }
}

/// Begins to plan or to apply, if there is room.
async fn begin(
    context: &Arc<Context>,
    seen: &Seen,
    rules: Box<Rules>,
    snapshot: SessionId,
    again: bool,
    phase: &str,
) -> Result<Done, Error> {
    let uid = seen.restore.uid().unwrap_or_default();
    let Some(place) = context.restores.place() else {
        let standing = Standing::Waiting(Reason::Waiting, "another Restore runs".to_owned());
        let mut done = Done::unchanged(&seen.restore, Action::requeue(QUEUE_INTERVAL));
        // The phase tells where it was interrupted: it stays.
        let generation = seen.restore.metadata.generation;
        standing.apply(&mut done.status.conditions, generation, seen.now);
        return Ok(done);
    };
    let source = match resolve::source(context, &seen.restore).await? {
        Ok(source) => source,
        Err(unresolved) => return Ok(unresolved_done(context, seen, &uid, unresolved)),
    };
    let opened = resolve::open(context, &seen.restore, &source.repository).await;
    let (repo, may_write) = match opened {
        Ok(opened) => opened,
        Err(unresolved) => return Ok(unresolved_done(context, seen, &uid, unresolved)),
    };
    let mut status = seen.restore.status.clone().unwrap_or_default();
    status.attempts += i64::from(again);
    let planning = phase == PLANNING;
    let message = if planning {
        "the plan is being made"
    } else {
        "the plan is carried out"
    };
    let standing = Standing::Running(message.to_owned());
    let mut done = Done::stands(
        &seen.restore,
        seen.now,
        status,
        &standing,
        Action::requeue(PROGRESS_INTERVAL),
    );
    done.status.phase = phase.to_owned();
    let restore = seen.restore.clone();
    let context = context.clone();
    let work = Box::new(Work {
        context,
        restore,
        rules,
        repository: source.repository,
        repo,
        snapshot,
        may_write,
        again,
    });
    let begun = if planning {
        Begun::Plan(work)
    } else {
        Begun::Apply(work)
    };
    done.then = Then::Start(begun, place);
    Ok(done)
}

fn follow(context: &Context, seen: &Seen, uid: &str) -> Done {
    let mut done = Done::unchanged(&seen.restore, Action::requeue(PROGRESS_INTERVAL));
    let applies = done.status.phase == RUNNING;
    if applies
        && context.restores.publish_due(uid, PROGRESS_INTERVAL)
        && let Some(progress) = context.restores.progress(uid)
    {
        done.status.counts = progress.objects.snapshot();
        done.status.volumes = progress.volumes();
    }
    done
}

fn finish(context: &Context, seen: &Seen, uid: &str) -> Done {
    let Some(outcome) = context.restores.outcome(uid) else {
        return Done::unchanged(&seen.restore, Action::requeue(PROGRESS_INTERVAL));
    };
    match outcome {
        Outcome::Planned(planned) => finish_plan(seen, *planned).forget(),
        Outcome::Applied(applied) => match finish_apply(seen, *applied) {
            Some(done) => done.forget(),
            None => Done::unchanged(&seen.restore, Action::await_change()),
        },
        Outcome::Stopped if seen.restore.spec.cancel => {
            let status = seen.restore.status.clone().unwrap_or_default();
            let standing = Standing::Failed(Reason::Cancelled, "it was cancelled".to_owned());
            Done::stands(
                &seen.restore,
                seen.now,
                status,
                &standing,
                Action::await_change(),
            )
            .forget()
        }
        // The operator ends: whoever comes next continues from the status.
        Outcome::Stopped => Done::unchanged(&seen.restore, Action::await_change()),
        Outcome::Failed {
            reason,
            message,
            transient,
        } => {
            let standing = Standing::Failed(reason, message);
            let mut done = unresolved_done(
                context,
                seen,
                uid,
                Unresolved {
                    standing,
                    transient,
                },
            )
            .forget();
            if !has_ended(&done.status.conditions)
                && let Some(status) = &seen.restore.status
            {
                // The next try resumes, and counts as another attempt.
                done.status.phase.clone_from(&status.phase);
            }
            done
        }
    }
}

fn finish_plan(seen: &Seen, planned: Planned) -> Done {
    let mut status = seen.restore.status.clone().unwrap_or_default();
    let Planned {
        digest,
        secrets,
        objects,
        noted,
        refusal,
    } = planned;
    status.plan_digest = Some(digest);
    status.plan_secrets = secrets;
    status.counts.planned = objects;
    (status.problem_count, status.problems) = (noted.count, noted.listed);
    let runs = seen.restore.spec.mode == RestoreMode::Run;
    if let Some(problem) = refusal.filter(|_| runs) {
        let message = format!(
            "nothing was changed: {}: {}",
            problem.subject, problem.message
        );
        let standing = Standing::Failed(Reason::PlanRefused, message);
        return Done::stands(
            &seen.restore,
            seen.now,
            status,
            &standing,
            Action::await_change(),
        );
    }
    let standing = Standing::Running("the plan is stored".to_owned());
    let mut done = Done::stands(
        &seen.restore,
        seen.now,
        status,
        &standing,
        Action::requeue(Duration::ZERO),
    );
    done.status.phase = "Planned".to_owned();
    done
}

/// `None` when the operator ends: the report is of a work that goes on.
fn finish_apply(seen: &Seen, applied: Applied) -> Option<Done> {
    let mut status = seen.restore.status.clone().unwrap_or_default();
    let Applied {
        secrets,
        counts,
        volumes,
        noted,
        stopped,
    } = applied;
    let missing = errors(&noted.listed);
    status.report_secrets = secrets;
    status.counts = counts;
    status.volumes = volumes;
    (status.problem_count, status.problems) = (noted.count, noted.listed);
    let standing = if !stopped {
        status::verdict(&status.counts, status.volumes.as_ref(), missing)
    } else if seen.restore.spec.cancel {
        let done = status.counts.done;
        let message = format!("it was cancelled; what was restored stays ({done} objects)");
        Standing::Failed(Reason::Cancelled, message)
    } else {
        return None;
    };
    Some(Done::stands(
        &seen.restore,
        seen.now,
        status,
        &standing,
        Action::await_change(),
    ))
}

async fn delete(context: &Context, restore: &Restore) -> Result<(), Error> {
    let api: Api<Restore> = Api::namespaced(
        context.client.clone(),
        &restore.namespace().unwrap_or_default(),
    );
    let preconditions = Some(Preconditions {
        uid: restore.uid(),
        resource_version: None,
    });
    let params = DeleteParams {
        preconditions,
        ..DeleteParams::background()
    };
    match api.delete(&restore.name_any(), &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(Error::kube(
            "delete a Restore that has outlived its end",
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
    let restore = &seen.restore;
    let uid = restore.uid().unwrap_or_default();
    let before = restore.status.as_ref();
    let over = has_ended(&done.status.conditions);
    let progress_only = matches!(done.then, Then::Nothing) && !over;
    let version = match progress_only {
        true => None,
        false => restore.metadata.resource_version.as_deref(),
    };
    publish(&context.client, restore, before, &done.status, version).await?;
    if before.and_then(|status| status.snapshot.as_ref()) != done.status.snapshot.as_ref() {
        steps::reached(steps::Step::SnapshotChosen);
    }
    if over && !ended(restore) {
        steps::reached(steps::Step::RestoreReported);
        announce(context, restore, &done.status).await;
    }
    let progress = Arc::new(Progress::default());
    let tasks = &context.restores;
    match done.then {
        Then::Nothing => {}
        Then::Forget => tasks.remove(&uid),
        Then::Start(Begun::Plan(work), place) => {
            let task = |_, cancel| work::plan(*work, cancel);
            tasks.spawn(&uid, place, progress, task, work::panicked);
        }
        Then::Start(Begun::Apply(work), place) => {
            let task = |progress, cancel| work::carry_out(*work, progress, cancel);
            tasks.spawn(&uid, place, progress, task, work::panicked);
        }
    }
    Ok(done.action)
}

async fn announce(context: &Context, restore: &Restore, status: &RestoreStatus) {
    let Some(Verdict {
        complete,
        reason,
        message,
    }) = verdict(&status.conditions)
    else {
        return;
    };
    let start = status.start_time.as_ref().map(from_kube);
    let took = start.and_then(|start| (context.now() - start).to_std().ok());
    context.metrics.restore_ended(reason, took, &status.counts);
    if complete {
        tracing::info!(restore = title(restore), "{message}");
        context
            .events
            .normal(restore, "Restore", reason, message)
            .await;
    } else {
        tracing::warn!(restore = title(restore), reason = %reason, "{message}");
        context
            .events
            .warning(restore, "Restore", reason, message)
            .await;
    }
}
