//! Restores: what `from` stands for is pinned first, then a plan is made and
//! stored, and only what is stored is carried out. Each of these is in the
//! status before the next begins, so that whoever continues does the same.

mod execute;
mod observe;
mod plan;
mod resolve;
mod status;
mod volumes;
mod work;

use std::sync::Arc;

use kube::{ResourceExt, core::DeserializeGuard, runtime::controller::Action};
use lifebuoy_api::{ConditionType, Reason, Restore, find};

pub(crate) use plan::ended;
pub(crate) use work::RestoreTasks;

use crate::{
    context::{Context, Reconciled},
    status::{Standing, publish},
};

/// Brings one Restore forward.
#[tracing::instrument(name = "restore", skip_all, fields(
    namespace = object.namespace().unwrap_or_default(), object = object.name_any(),
    uid = object.uid().unwrap_or_default()))]
pub(crate) async fn reconcile(
    object: Arc<DeserializeGuard<Restore>>,
    context: Arc<Context>,
) -> Reconciled {
    let Ok(cached) = &object.0 else {
        return Ok(crate::controllers::malformed(&object));
    };
    let namespace = cached.namespace().unwrap_or_default();
    if let Some((reason, message)) = context.refuses(&namespace, context.config.mode.restores()) {
        return refuse(&context, cached, reason, message).await;
    }
    let Some(seen) = observe::observe(&context, cached).await? else {
        return Ok(Action::await_change());
    };
    let step = plan::next(&seen);
    let done = execute::execute(&context, &seen, step).await?;
    execute::publish_and_announce(&context, &seen, done).await
}

/// Says no, and does nothing else.
async fn refuse(
    context: &Context,
    restore: &Restore,
    reason: Reason,
    message: String,
) -> Reconciled {
    let mut status = restore.status.clone().unwrap_or_default();
    let refused = find(&status.conditions, ConditionType::Stalled)
        .is_some_and(|c| c.status == "True" && c.reason == reason.as_str());
    if !refused {
        let standing = Standing::Stalled(reason, message);
        status::stand(
            &mut status,
            &standing,
            restore.metadata.generation,
            context.now(),
        );
        publish(
            &context.client,
            restore,
            restore.status.as_ref(),
            &status,
            None,
        )
        .await?;
    }
    Ok(Action::await_change())
}
