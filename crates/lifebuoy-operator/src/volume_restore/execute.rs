//! Carries out the one step that was decided, and publishes what came of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::controller::Action,
};
use lifebuoy_api::{
    FIELD_MANAGER, FOR_LABEL, GROUP, Reason, VERSION, VolumeRestore, VolumeRestoreStatus,
    time::to_kube,
};
use lifebuoy_engine::volumes::{MoverReport, VolumeMode};
use serde_json::{Value, json};

use super::{
    fill::{self, Failure, Filling, Outcome, Work},
    hand_over,
    objects::{Claim, between, between_name},
    observe::{Seen, Source},
    plan::{Step, ended},
    status,
};
use crate::{
    Error,
    context::{Context, Reconciled},
    mover,
    request::{self, Then, Verdict, verdict},
    snapshots::{self, Snapshots, Stored},
    status::{Standing, has_ended, publish},
};

/// How often a running filling's progress is published.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// How often it is looked whether something has happened that no watch tells of.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// The same while other controllers are at work. Claims are watched.
pub(super) const BINDING_INTERVAL: Duration = Duration::from_secs(5);
/// How soon the next step is looked for.
pub(super) const STEP_INTERVAL: Duration = Duration::from_secs(1);
/// How often work is begun again that failed for a reason which may pass.
pub(super) const RETRIES_MAX: u32 = 6;
/// What keeps a VolumeRestore until what was made for it is removed.
const FINALIZER: &str = "lifebuoy.dev/volume-restore";

/// What a step led to.
pub(crate) type Done = request::Done<VolumeRestoreStatus, Box<Work>>;

pub(crate) async fn execute(
    context: &Arc<Context>,
    seen: &Seen,
    step: Step,
) -> Result<Done, Error> {
    let uid = seen.request.uid().unwrap_or_default();
    let status = seen.request.status.clone().unwrap_or_default();
    match step {
        Step::Rest => {
            context.volume_restores.remove(&uid);
            Ok(Done::unchanged(&seen.request, Action::await_change()))
        }
        Step::Release => {
            let_go(context, &seen.request, true).await?;
            Ok(Done::unchanged(&seen.request, Action::await_change()))
        }
        Step::Stand(standing) => {
            let interval = match &standing {
                Standing::Waiting(Reason::InProgress, _) => BINDING_INTERVAL,
                _ => LOOK_INTERVAL,
            };
            let action = Action::requeue(interval);
            Ok(Done::stands(
                &seen.request,
                seen.now,
                status,
                &standing,
                action,
            ))
        }
        Step::Make => make(context, seen, status).await,
        Step::MakeAnew { other_node } => make_anew(context, seen, other_node).await,
        Step::Fill => Ok(begin(context, seen, status)),
        Step::Adopt => Ok(adopt(seen, status)),
        Step::Follow => Ok(follow(context, status, &uid)),
        Step::Stop => {
            context.volume_restores.stop(&uid);
            Ok(Done::unchanged(
                &seen.request,
                Action::requeue(STEP_INTERVAL),
            ))
        }
        Step::Finish => finish(context, seen, status, &uid).await,
        Step::HandOver => {
            if let (Some(claim), Some(volume)) = (&seen.claim, &seen.volume) {
                hand_over::hand_over(&context.client, &seen.request, claim, volume).await?;
            }
            let text = "the filled volume is being bound".to_owned();
            let standing = Standing::Waiting(Reason::InProgress, text);
            let action = Action::requeue(STEP_INTERVAL);
            Ok(Done::stands(
                &seen.request,
                seen.now,
                status,
                &standing,
                action,
            ))
        }
        Step::Conclude => {
            tidy(context, seen).await?;
            let standing = status::verdict(&status);
            Ok(ends(&seen.request, seen.now, status, &standing))
        }
        Step::GiveUp(standing) => {
            tidy(context, seen).await?;
            Ok(ends(&seen.request, seen.now, status, &standing))
        }
        Step::Vanish => {
            tidy(context, seen).await?;
            let_go(context, &seen.request, false).await?;
            Ok(Done::unchanged(&seen.request, Action::await_change()))
        }
    }
}

/// It has ended. It is let go of in the next round.
pub(super) fn ends(
    request: &VolumeRestore,
    now: DateTime<Utc>,
    status: VolumeRestoreStatus,
    standing: &Standing,
) -> Done {
    Done::stands(
        request,
        now,
        status,
        standing,
        Action::requeue(Duration::ZERO),
    )
}

/// Lets the object stay until what is made for it is removed.
pub(super) async fn ensure_finalizer(
    context: &Context,
    request: &VolumeRestore,
) -> Result<(), Error> {
    let mut finalizers = request.finalizers().to_vec();
    if finalizers.iter().any(|known| known == FINALIZER) {
        return Ok(());
    }
    finalizers.push(FINALIZER.to_owned());
    let patch = json!({"metadata": {
        "resourceVersion": request.resource_version(),
        "finalizers": finalizers,
    }});
    patch_request(context, request, &patch).await
}

/// Makes the claim between. What keeps this object until that is removed comes first.
async fn make(
    context: &Context,
    seen: &Seen,
    mut status: VolumeRestoreStatus,
) -> Result<Done, Error> {
    let Some(claim) = &seen.claim else {
        return Ok(Done::unchanged(
            &seen.request,
            Action::requeue(STEP_INTERVAL),
        ));
    };
    ensure_finalizer(context, &seen.request).await?;
    if let Some(source) = &seen.source {
        copy(context, &seen.request, claim, source).await?;
    }
    let namespace = &context.config.movers.namespace;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let wanted = between(&seen.request, claim);
    match claims.create(&PostParams::default(), &wanted).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            return taken(&claims, seen, status).await;
        }
        Err(error) => return Err(Error::kube("make the claim of a mover", error)),
    }
    status.claim_uid = Some(claim.uid.clone());
    status.node.clone_from(&claim.node);
    status.start_time.get_or_insert_with(|| to_kube(seen.now));
    let standing = Standing::Waiting(Reason::InProgress, "its volume is being made".to_owned());
    let mut done = Done::stands(
        &seen.request,
        seen.now,
        status,
        &standing,
        Action::requeue(STEP_INTERVAL),
    );
    done.status.phase = "Running".to_owned();
    Ok(done)
}

/// Makes the copy of a snapshot in the storage system, for the claim between.
async fn copy(
    context: &Context,
    request: &VolumeRestore,
    claim: &Claim,
    source: &Source,
) -> Result<(), Error> {
    let stored = Stored {
        driver: source.kept.driver.clone(),
        handle: source.kept.handle.clone(),
        class: source.class.clone().ok(),
        mode: if claim.is_block() {
            VolumeMode::Block
        } else {
            VolumeMode::Filesystem
        },
        annotations: BTreeMap::new(),
    };
    snapshots::make_copy(
        &Snapshots::new(&context.client),
        &between_name(&claim.uid),
        &context.config.movers.namespace,
        &mover::labels(&request.uid().unwrap_or_default()),
        &stored,
    )
    .await
}

/// A claim between is there already: ours, which was not seen yet, or another one's.
async fn taken(
    claims: &Api<PersistentVolumeClaim>,
    seen: &Seen,
    status: VolumeRestoreStatus,
) -> Result<Done, Error> {
    let uid = seen.claim.as_ref().map(|claim| claim.uid.as_str());
    let name = between_name(uid.unwrap_or_default());
    let there = claims
        .get_opt(&name)
        .await
        .map_err(|error| Error::kube("read the claim of a mover", error))?;
    let own = seen.request.uid();
    let other = there.is_some_and(|there| there.labels().get(FOR_LABEL) != own.as_ref());
    if !other {
        return Ok(Done::unchanged(
            &seen.request,
            Action::requeue(STEP_INTERVAL),
        ));
    }
    let text =
        format!("another VolumeRestore has made the claim `{name}`: it waits until that is gone");
    let standing = Standing::Waiting(Reason::Waiting, text);
    Ok(Done::stands(
        &seen.request,
        seen.now,
        status,
        &standing,
        Action::requeue(LOOK_INTERVAL),
    ))
}

/// Removes the claim between, into which nothing was written, so that it is made anew.
async fn make_anew(context: &Context, seen: &Seen, other_node: bool) -> Result<Done, Error> {
    if let (true, Some(claim)) = (other_node, &seen.claim) {
        hand_over::choose_again(&context.client, claim).await?;
    }
    if let (Some(claim), Some(between)) = (&seen.claim, &seen.between) {
        let namespace = &context.config.movers.namespace;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(between.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match claims.delete(&between_name(&claim.uid), &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => return Err(Error::kube("remove the claim of a mover", error)),
        }
    }
    Ok(Done::unchanged(
        &seen.request,
        Action::requeue(STEP_INTERVAL),
    ))
}

/// Begins to fill, if there is room.
fn begin(context: &Arc<Context>, seen: &Seen, mut status: VolumeRestoreStatus) -> Done {
    let Some(claim) = &seen.claim else {
        return Done::unchanged(&seen.request, Action::requeue(STEP_INTERVAL));
    };
    let Some(place) = context.volume_restores.place() else {
        let text = "other volumes are being filled".to_owned();
        let standing = Standing::Waiting(Reason::Waiting, text);
        // All are woken when one has ended.
        return Done::stands(
            &seen.request,
            seen.now,
            status,
            &standing,
            Action::requeue(LOOK_INTERVAL),
        );
    };
    status.attempts += 1;
    status.claim_uid = Some(claim.uid.clone());
    status.node.clone_from(&claim.node);
    status.start_time.get_or_insert_with(|| to_kube(seen.now));
    let standing = Standing::Running("it is being filled".to_owned());
    let mut done = Done::stands(
        &seen.request,
        seen.now,
        status,
        &standing,
        Action::requeue(PROGRESS_INTERVAL),
    );
    let work = Box::new(Work {
        context: context.clone(),
        request: seen.request.clone(),
        claim_uid: claim.uid.clone(),
        block: claim.is_block(),
        overwriting: None,
    });
    done.then = Then::Start(work, place);
    done
}

/// The storage has made the volume with all of its data: no mover is needed.
fn adopt(seen: &Seen, mut status: VolumeRestoreStatus) -> Done {
    let volume = seen.between.as_ref().and_then(|b| b.volume.clone());
    let kept = seen.source.as_ref().map(|source| source.kept.restore_bytes);
    let report = MoverReport {
        bytes: kept
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or(0),
        ..MoverReport::default()
    };
    status::filled(&mut status, &report, volume, seen.now);
    let text = "the volume that was made of a snapshot is being bound".to_owned();
    let standing = Standing::Waiting(Reason::InProgress, text);
    let action = Action::requeue(Duration::ZERO);
    Done::stands(&seen.request, seen.now, status, &standing, action)
}

pub(super) fn follow(context: &Context, mut status: VolumeRestoreStatus, uid: &str) -> Done {
    if context.volume_restores.publish_due(uid, PROGRESS_INTERVAL)
        && let Some(filling) = context.volume_restores.progress(uid)
    {
        status::progress(&mut status, &filling.now());
    }
    Done {
        status,
        action: Action::requeue(PROGRESS_INTERVAL),
        then: Then::Nothing,
    }
}

async fn finish(
    context: &Context,
    seen: &Seen,
    mut status: VolumeRestoreStatus,
    uid: &str,
) -> Result<Done, Error> {
    let Some(outcome) = context.volume_restores.outcome(uid) else {
        return Ok(Done::unchanged(
            &seen.request,
            Action::requeue(STEP_INTERVAL),
        ));
    };
    match outcome {
        Outcome::Filled(report) => {
            let volume = seen.between.as_ref().and_then(|b| b.volume.clone());
            status::filled(&mut status, &report, volume, seen.now);
            let text = "the filled volume is being bound".to_owned();
            let standing = Standing::Waiting(Reason::InProgress, text);
            let action = Action::requeue(Duration::ZERO);
            Ok(Done::stands(&seen.request, seen.now, status, &standing, action).forget())
        }
        Outcome::Stopped => Ok(stopped(context, &seen.request)),
        Outcome::Failed(failure) => failed(context, seen, status, uid, failure).await,
    }
}

/// Whoever wanted that it stops decides again, or another operator goes on.
pub(super) fn stopped(context: &Context, request: &VolumeRestore) -> Done {
    let action = if context.ending.is_cancelled() {
        Action::await_change()
    } else {
        Action::requeue(Duration::ZERO)
    };
    Done::unchanged(request, action).forget()
}

async fn failed(
    context: &Context,
    seen: &Seen,
    status: VolumeRestoreStatus,
    uid: &str,
    failure: Failure,
) -> Result<Done, Error> {
    let Failure {
        reason,
        message,
        transient,
    } = failure;
    let key = format!("filling of {uid}");
    if transient {
        let (failures, wait) = context.failed(&key);
        if failures <= RETRIES_MAX {
            let standing = Standing::Waiting(reason, message);
            return Ok(Done::stands(
                &seen.request,
                seen.now,
                status,
                &standing,
                Action::requeue(wait),
            )
            .forget());
        }
    }
    context.succeeded(&key);
    tidy(context, seen).await?;
    let text = format!("{message}; the claim stays unbound: delete it, and restore it again");
    Ok(ends(
        &seen.request,
        seen.now,
        status,
        &Standing::Failed(reason, text),
    )
    .forget())
}

/// Removes what was made, and lets volumes be what they were. The volume of a claim
/// between goes with it, unless it was handed over before.
async fn tidy(context: &Context, seen: &Seen) -> Result<(), Error> {
    let uid = seen.request.uid().unwrap_or_default();
    mover::clean_up(context, &uid)
        .await
        .map_err(|error| Error::Internal(error.message()))?;
    if seen.request.spec.kept.is_some() {
        // One whose driver is not at work here stays a while: no reason not to end.
        snapshots::remove(&Snapshots::new(&context.client), &uid).await?;
    }
    hand_over::release(&context.client, &seen.request).await
}

/// Nothing keeps the object any more; one that has ended goes with its Restore.
pub(super) async fn let_go(
    context: &Context,
    request: &VolumeRestore,
    owned: bool,
) -> Result<(), Error> {
    let mut finalizers = request.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    let mut patch = json!({"metadata": {
        "resourceVersion": request.resource_version(),
        "finalizers": finalizers,
    }});
    let restore = &request.spec.restore;
    if owned && request.owner_references().is_empty() {
        patch["metadata"]["ownerReferences"] = json!([{
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "Restore",
            "name": restore.name,
            "uid": restore.uid,
        }]);
    }
    patch_request(context, request, &patch).await
}

async fn patch_request(
    context: &Context,
    request: &VolumeRestore,
    patch: &Value,
) -> Result<(), Error> {
    let namespace = request.namespace().unwrap_or_default();
    let api: Api<VolumeRestore> = Api::namespaced(context.client.clone(), &namespace);
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patched = api
        .patch(&request.name_any(), &params, &Patch::Merge(patch))
        .await;
    match patched {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::kube("change a VolumeRestore", error)),
    }
}

/// Writes the status, and only then lets begin what the status speaks of.
pub(crate) async fn publish_and_announce(
    context: &Arc<Context>,
    request: &VolumeRestore,
    done: Done,
) -> Reconciled {
    let uid = request.uid().unwrap_or_default();
    let before = request.status.as_ref();
    let over = has_ended(&done.status.conditions);
    publish(&context.client, request, before, &done.status, None).await?;
    if over && !ended(request) {
        announce(context, request, &done.status).await;
    }
    match done.then {
        Then::Nothing => {}
        Then::Forget => context.volume_restores.remove(&uid),
        Then::Start(work, place) => {
            let task = |filling, cancel| fill::fill(*work, filling, cancel);
            let filling = Arc::new(Filling::default());
            context
                .volume_restores
                .spawn(&uid, place, filling, task, fill::panicked);
        }
    }
    Ok(done.action)
}

async fn announce(context: &Context, request: &VolumeRestore, status: &VolumeRestoreStatus) {
    let Some(Verdict {
        complete,
        reason,
        message,
    }) = verdict(&status.conditions)
    else {
        return;
    };
    if complete {
        tracing::info!("{message}");
        context
            .events
            .normal(request, "Fill", reason, message)
            .await;
    } else {
        tracing::warn!(reason = %reason, "{message}");
        context
            .events
            .warning(request, "Fill", reason, message)
            .await;
    }
}
