//! Repositories: opens them, says how they are, and mirrors what they hold.
//! Never deletes anything in a store.

mod health;
mod observe;
mod open;
mod status;

use std::{sync::Arc, time::Duration};

use kube::{ResourceExt, core::DeserializeGuard, runtime::controller::Action};
use lifebuoy_api::{self as api, ConditionType, Reason, find, is_true};

pub(crate) use observe::name_conflict;
#[allow(
    unused_imports,
    reason = "Backups and VolumeRestores are about to use it"
)]
pub(crate) use open::access;
pub(crate) use open::{OpenError, Repositories};
use status::Verdict;

use crate::{
    context::{Context, Reconciled},
    error::sentence,
    recovery_point, snapshots,
    status::publish,
};

/// How soon a repository is looked at again that cannot be used.
const RETRY_SOON: Duration = Duration::from_secs(10);
const RETRY_LATE: Duration = Duration::from_secs(60);

/// Brings the status of one Repository, and what it mirrors, up to date.
#[tracing::instrument(name = "repository", skip_all, fields(
    namespace = object.namespace().unwrap_or_default(), object = object.name_any(),
    uid = object.uid().unwrap_or_default()))]
pub(crate) async fn reconcile(
    object: Arc<DeserializeGuard<api::Repository>>,
    context: Arc<Context>,
) -> Reconciled {
    let Ok(repository) = &object.0 else {
        return Ok(crate::controllers::malformed(&object));
    };
    let mirrored = recovery_point::mirrored(&context, repository).await?;
    let kept = snapshots::before(&context).await;
    let seen = match validate(repository, &context) {
        Some(verdict) => Err(verdict),
        None => Ok(observe::observe(&context, repository).await),
    };
    let verdict = match &seen {
        Ok(seen) => status::judge(repository, seen),
        Err(verdict) => verdict.clone(),
    };
    let now = context.now();
    let mut status = status::status(repository, seen.as_ref().ok(), &verdict, now);
    context.care.tell(repository, now, &mut status);
    if let Ok(Ok(found)) = &seen {
        let healthy = status::tell_health(repository, found, now, &mut status);
        context.metrics.healthy(&repository.name_any(), healthy);
    }
    publish(
        &context.client,
        repository,
        repository.status.as_ref(),
        &status,
        None,
    )
    .await?;
    announce(&context, repository, &verdict).await;
    if let Ok(Ok(found)) = &seen {
        recovery_point::mirror(&context, repository, &found.points, &mirrored).await?;
        let retired = match &kept {
            Ok(kept) => snapshots::retire(&context, repository, &found.points, kept).await,
            Err(_) => Ok(()),
        };
        if let Err(error) = kept.map(|_| ()).and(retired) {
            let why = sentence(&error, error.hint().as_deref());
            tracing::warn!("kept snapshots are not looked after: {why}");
        }
    }
    Ok(Action::requeue(match (&seen, verdict.ready) {
        (Ok(_), true) => context.config.list_interval,
        (Ok(_), false) if verdict.transient => RETRY_SOON,
        _ => RETRY_LATE,
    }))
}

/// What the spec alone says no to.
fn validate(repository: &api::Repository, context: &Context) -> Option<Verdict> {
    let namespace = repository.namespace().unwrap_or_default();
    if let Some((reason, message)) = context.refuses(&namespace, true) {
        return Some(Verdict::stalled(reason, message));
    }
    if repository.spec.suspend {
        let message = "`spec.suspend` is set: nothing is read or written".to_owned();
        return Some(Verdict {
            ready: false,
            ..Verdict::waiting(Reason::Suspended, message)
        });
    }
    let name = repository.name_any();
    (name.len() > 63).then(|| {
        Verdict::stalled(
            Reason::InvalidSpec,
            format!("metadata.name: `{name}` is longer than the 63 characters of a label value"),
        )
    })
}

/// An Event and the metric, when the verdict changes.
async fn announce(context: &Context, repository: &api::Repository, verdict: &Verdict) {
    let name = repository.name_any();
    if repository.namespace().as_deref() != Some(&context.config.namespace) {
        return;
    }
    context.metrics.repository(&name, verdict.ready);
    let conditions = repository
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    let before = find(conditions, ConditionType::Ready);
    let same = before.is_some_and(|c| c.reason == verdict.reason.as_str())
        && is_true(conditions, ConditionType::Ready) == verdict.ready;
    if same {
        return;
    }
    if verdict.ready && verdict.reason == Reason::Usable {
        tracing::info!("usable");
        context
            .events
            .normal(repository, "Probe", verdict.reason, &verdict.message)
            .await;
    } else {
        tracing::warn!(reason = %verdict.reason, "{}", verdict.message);
        context
            .events
            .warning(repository, "Probe", verdict.reason, &verdict.message)
            .await;
    }
}
