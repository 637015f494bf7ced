//! Carries out the one step that was decided about a volume that is overwritten.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PostParams, Preconditions},
    runtime::controller::Action,
};
use lifebuoy_api::{
    FOR_LABEL, HELD_FOR_LABEL, OVERWRITING_ANNOTATION, Reason, VolumeRestore, VolumeRestoreStatus,
    time::to_kube,
};
use lifebuoy_engine::volumes::Size;
use serde_json::{Value, json};

use super::{
    super::{
        execute::{
            BINDING_INTERVAL, Done, LOOK_INTERVAL, PROGRESS_INTERVAL, RETRIES_MAX, STEP_INTERVAL,
            ends, ensure_finalizer, follow, let_go, stopped,
        },
        fill::{Failure, Outcome, Overwriting, Work},
        hand_over::params,
        objects::{Claim, between_name},
        status,
    },
    holding::Stop,
    observe::{Mark, Seen, workloads},
    plan::{Step, is_torn},
    stand_in,
    workload::Kind,
};
use crate::{Error, context::Context, mover, request::Then, status::Standing};

const RUNS_AGAIN: &str = "nothing on the volume was changed, and what mounts it runs again";
const STAYS_HELD: &str = "the volume is half written, so what mounts it stays stopped: restore it again; or, if what is on it will do, remove the annotation `lifebuoy.dev/overwriting` from the claim, and it is started";

pub(super) async fn execute(
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
        Step::LetGo => {
            let_go(context, &seen.request, true).await?;
            Ok(Done::unchanged(&seen.request, Action::await_change()))
        }
        Step::Stand(standing) => Ok(holds(seen, status, &standing, BINDING_INTERVAL)),
        Step::Hold(stops) => hold(context, seen, status, &stops).await,
        Step::Make => make(context, seen, status).await,
        Step::Fill => Ok(begin(context, seen, status)),
        Step::Follow => Ok(follow(context, status, &uid)),
        Step::Stop => {
            context.volume_restores.stop(&uid);
            Ok(soon(seen))
        }
        Step::Finish => finish(context, seen, status, &uid).await,
        Step::Conclude => conclude(context, seen, status).await,
        Step::GiveUp(standing) => give_up(context, seen, status, standing).await,
        Step::Vanish => {
            if clear(context, seen).await?.is_some() {
                return Ok(soon(seen));
            }
            let whole = status.filled_time.is_some() && status.problem_count == 0;
            settle(context, seen, whole).await?;
            let_go(context, &seen.request, false).await?;
            Ok(Done::unchanged(&seen.request, Action::await_change()))
        }
    }
}

fn soon(seen: &Seen) -> Done {
    Done::unchanged(&seen.request, Action::requeue(STEP_INTERVAL))
}

/// How it stands until the volume is written.
fn holds(
    seen: &Seen,
    mut status: VolumeRestoreStatus,
    standing: &Standing,
    interval: Duration,
) -> Done {
    status.claim_uid = status
        .claim_uid
        .or(seen.claim.as_ref().map(|claim| claim.uid.clone()));
    status.start_time.get_or_insert_with(|| to_kube(seen.now));
    let action = Action::requeue(interval);
    let mut done = Done::stands(&seen.request, seen.now, status, standing, action);
    done.status.phase = "Holding".to_owned();
    done
}

/// Stops what mounts the claim. What keeps this object until that runs again comes first.
async fn hold(
    context: &Context,
    seen: &Seen,
    status: VolumeRestoreStatus,
    stops: &[Stop],
) -> Result<Done, Error> {
    ensure_finalizer(context, &seen.request).await?;
    let namespace = &seen.request.spec.claim.namespace;
    for Stop { kind, name, patch } in stops {
        change(&context.client, *kind, namespace, name, patch).await?;
    }
    let text = "what mounts the claim is being stopped".to_owned();
    let standing = Standing::Waiting(Reason::InProgress, text);
    Ok(holds(seen, status, &standing, STEP_INTERVAL))
}

/// Changes a workload, unless it is not the one that was seen: then it is looked at again.
pub(super) async fn change(
    client: &Client,
    kind: Kind,
    namespace: &str,
    name: &str,
    patch: &Value,
) -> Result<(), Error> {
    let resource = kind.resource();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    match api.patch(name, &params(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => Ok(()),
        Err(error) => Err(Error::kube(
            format!("stop or start {namespace}/{name}, which mounts a claim"),
            error,
        )),
    }
}

/// Makes the claim in the movers' namespace, and the second volume for it.
async fn make(context: &Context, seen: &Seen, status: VolumeRestoreStatus) -> Result<Done, Error> {
    let (Some(claim), Some(volume)) = (&seen.claim, &seen.volume) else {
        return Ok(soon(seen));
    };
    ensure_finalizer(context, &seen.request).await?;
    let Some(between) = ensure_claim(context, seen, claim, volume).await? else {
        let text =
            "another VolumeRestore has made a claim for this one: it waits until that is gone";
        let standing = Standing::Waiting(Reason::Waiting, text.to_owned());
        return Ok(holds(seen, status, &standing, LOOK_INTERVAL));
    };
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let all = volumes.list(&ListParams::default()).await;
    let all = all.map_err(|error| Error::kube("list volumes", error))?;
    if let Some(other) = stand_in::another_way(&seen.request, volume, &all.items) {
        let text = format!(
            "the volume `{other}` leads to the same storage, and what mounts that is not held"
        );
        let standing = Standing::Failed(Reason::VolumeInUse, text);
        return give_up(context, seen, status, standing).await;
    }
    let wanted = stand_in::volume(&seen.request, claim, volume, &between);
    match volumes.create(&PostParams::default(), &wanted).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.code == 409 => {}
        Err(error) => return Err(Error::kube("make a second volume", error)),
    }
    let text = "a second volume for its storage is being bound".to_owned();
    let standing = Standing::Waiting(Reason::InProgress, text);
    Ok(holds(seen, status, &standing, STEP_INTERVAL))
}

/// The claim of the mover; none if another request has made it.
async fn ensure_claim(
    context: &Context,
    seen: &Seen,
    claim: &Claim,
    volume: &PersistentVolume,
) -> Result<Option<PersistentVolumeClaim>, Error> {
    let namespace = &context.config.movers.namespace;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let wanted = stand_in::claim(&seen.request, claim, volume);
    match claims.create(&PostParams::default(), &wanted).await {
        Ok(made) => return Ok(Some(made)),
        Err(kube::Error::Api(answer)) if answer.code == 409 => {}
        Err(error) => return Err(Error::kube("make the claim of a mover", error)),
    }
    let there = claims.get_opt(&between_name(&claim.uid)).await;
    let there = there.map_err(|error| Error::kube("read the claim of a mover", error))?;
    let own = seen.request.uid();
    Ok(there.filter(|there| there.labels().get(FOR_LABEL) == own.as_ref()))
}

/// Begins to overwrite, if there is room.
fn begin(context: &Arc<Context>, seen: &Seen, mut status: VolumeRestoreStatus) -> Done {
    let Some(claim) = &seen.claim else {
        return soon(seen);
    };
    let Some(place) = context.volume_restores.place() else {
        let text = "other volumes are being filled".to_owned();
        let standing = Standing::Waiting(Reason::Waiting, text);
        // All are woken when one has ended.
        return holds(seen, status, &standing, LOOK_INTERVAL);
    };
    status.attempts += 1;
    let standing = Standing::Running("it is being overwritten".to_owned());
    let mut done = holds(seen, status, &standing, PROGRESS_INTERVAL);
    done.status.phase = "Running".to_owned();
    let work = Work {
        context: context.clone(),
        request: seen.request.clone(),
        claim_uid: claim.uid.clone(),
        block: claim.is_block(),
        overwriting: Some(Overwriting {
            capacity: claim.capacity(),
            is_marked: seen.mark == Mark::Ours,
        }),
    };
    done.then = Then::Start(Box::new(work), place);
    done
}

async fn finish(
    context: &Context,
    seen: &Seen,
    mut status: VolumeRestoreStatus,
    uid: &str,
) -> Result<Done, Error> {
    let Some(outcome) = context.volume_restores.outcome(uid) else {
        return Ok(soon(seen));
    };
    match outcome {
        Outcome::Filled(report) => {
            let volume = seen.claim.as_ref().and_then(|claim| claim.volume.clone());
            status::filled(&mut status, &report, volume, seen.now);
            Ok(releases(seen, status, Duration::ZERO).forget())
        }
        Outcome::Stopped => Ok(stopped(context, &seen.request)),
        Outcome::Failed(failure) => failed(context, seen, status, uid, failure).await,
    }
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
            return Ok(holds(seen, status, &standing, wait).forget());
        }
    }
    let done = give_up(context, seen, status, Standing::Failed(reason, message)).await?;
    if crate::status::has_ended(&done.status.conditions) {
        context.succeeded(&key);
        return Ok(done.forget());
    }
    // The outcome is kept until what was made is gone.
    Ok(done)
}

/// All is written, and what was made for it goes.
fn releases(seen: &Seen, status: VolumeRestoreStatus, interval: Duration) -> Done {
    let text = "all is on the volume, and the mover lets go of it".to_owned();
    let standing = Standing::Waiting(Reason::InProgress, text);
    let action = Action::requeue(interval);
    let mut done = Done::stands(&seen.request, seen.now, status, &standing, action);
    done.status.phase = "Releasing".to_owned();
    done
}

async fn conclude(
    context: &Context,
    seen: &Seen,
    status: VolumeRestoreStatus,
) -> Result<Done, Error> {
    if clear(context, seen).await?.is_some() {
        return Ok(releases(seen, status, STEP_INTERVAL));
    }
    let bytes = Size(u64::try_from(status.progress.bytes).unwrap_or(0));
    let standing = match status.problem_count {
        0 => Standing::Complete(
            Reason::Overwritten,
            format!("the volume holds the saved data ({bytes}), and what mounts it runs again"),
        ),
        problems => Standing::Failed(
            Reason::VolumeHalfWritten,
            format!("{problems} things could not be restored; {STAYS_HELD}"),
        ),
    };
    settle(context, seen, status.problem_count == 0).await?;
    Ok(ends(&seen.request, seen.now, status, &standing))
}

async fn give_up(
    context: &Context,
    seen: &Seen,
    status: VolumeRestoreStatus,
    standing: Standing,
) -> Result<Done, Error> {
    if let Some(why) = clear(context, seen).await? {
        let standing = Standing::Waiting(Reason::Waiting, why);
        let action = Action::requeue(STEP_INTERVAL);
        return Ok(Done::stands(
            &seen.request,
            seen.now,
            status,
            &standing,
            action,
        ));
    }
    settle(context, seen, false).await?;
    Ok(ends(
        &seen.request,
        seen.now,
        status,
        &told(standing, is_torn(seen)),
    ))
}

/// A failure with what it means for who mounts the volume.
fn told(standing: Standing, torn: bool) -> Standing {
    match standing {
        Standing::Failed(_, message) if torn => Standing::Failed(
            Reason::VolumeHalfWritten,
            format!("{message}; {STAYS_HELD}"),
        ),
        Standing::Failed(reason, message) => {
            Standing::Failed(reason, format!("{message}; {RUNS_AGAIN}"))
        }
        other => other,
    }
}

/// Removes the mover, its claim and the second volume. What is still there, if something is:
/// nobody may run before the mover's node has let go.
async fn clear(context: &Context, seen: &Seen) -> Result<Option<String>, Error> {
    let uid = seen.request.uid().unwrap_or_default();
    mover::clean_up(context, &uid)
        .await
        .map_err(|error| Error::Internal(error.message()))?;
    if seen.between.is_some() {
        return Ok(Some("the claim of the mover is going".to_owned()));
    }
    if let Some(node) = seen.attached.first() {
        let text = format!("the second volume is still attached to the node `{node}`");
        return Ok(Some(text));
    }
    let Some(stand_in) = &seen.stand_in else {
        return Ok(None);
    };
    let name = stand_in::name(&seen.request);
    delete_volume(&context.client, &name, stand_in).await?;
    Ok(Some("the second volume is going".to_owned()))
}

/// Deletes a second volume, and nothing in its storage.
pub(super) async fn delete_volume(client: &Client, name: &str, uid: &str) -> Result<(), Error> {
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match volumes.delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => Ok(()),
        Err(error) => Err(Error::kube("delete a second volume", error)),
    }
}

/// Takes the mark from a volume that is whole. Unless a mark is left, what was held for the
/// claim runs again.
async fn settle(context: &Context, seen: &Seen, whole: bool) -> Result<(), Error> {
    let is_ours = seen.mark == Mark::Ours;
    if let (true, true, Some(claim)) = (whole, is_ours, &seen.claim) {
        take_mark(&context.client, &seen.request, &claim.uid).await?;
    }
    if is_torn(seen) && !(whole && is_ours) {
        return Ok(());
    }
    let spec = &seen.request.spec;
    let label = format!("{HELD_FOR_LABEL}={}", spec.restore.uid);
    let namespace = spec.claim.namespace.as_str();
    loop {
        let mut patched = false;
        for kind in Kind::ALL {
            for workload in workloads(&context.client, kind, Some(namespace), Some(&label)).await? {
                if let Some(patch) = workload.release(|claim| claim == spec.claim.name) {
                    change(&context.client, kind, namespace, workload.name(), &patch).await?;
                    patched = true;
                }
            }
        }
        // Until nothing is held for it: a write may have been refused.
        if !patched {
            return Ok(());
        }
    }
}

/// Marks the claim of a request: from now on its volume is not whole.
pub(super) async fn set_mark(
    client: &Client,
    request: &VolumeRestore,
    claim_uid: &str,
) -> Result<(), Error> {
    let own = json!(request.uid().unwrap_or_default());
    mark(client, request, claim_uid, &own)
        .await
        .map_err(|error| Error::kube("mark a claim whose volume is overwritten", error))
}

/// Takes the mark from the claim of a request.
pub(super) async fn take_mark(
    client: &Client,
    request: &VolumeRestore,
    claim_uid: &str,
) -> Result<(), Error> {
    match mark(client, request, claim_uid, &Value::Null).await {
        Ok(()) => Ok(()),
        // It is another one, or none.
        Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => Ok(()),
        Err(error) => Err(Error::kube("take the mark from a claim", error)),
    }
}

/// Marks a claim, or takes its mark away, if it is the one with this uid.
async fn mark(
    client: &Client,
    request: &VolumeRestore,
    claim_uid: &str,
    value: &Value,
) -> Result<(), kube::Error> {
    let claim = &request.spec.claim;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &claim.namespace);
    let patch = json!({"metadata": {
        "uid": claim_uid,
        "annotations": {OVERWRITING_ANNOTATION: value},
    }});
    claims
        .patch(&claim.name, &params(), &Patch::Merge(&patch))
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_whether_anything_was_written() {
        let of = |torn| told(Standing::Failed(Reason::Cancelled, "why".to_owned()), torn);
        assert!(
            matches!(of(false), Standing::Failed(Reason::Cancelled, text) if text.contains("runs again"))
        );
        assert!(
            matches!(of(true), Standing::Failed(Reason::VolumeHalfWritten, text) if text.contains("stays stopped"))
        );
    }
}
