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
use lifebuoy_api::Restore;

pub(crate) use plan::ended;
pub(crate) use work::RestoreTasks;

use crate::{
    context::{Context, Reconciled},
    request::refuse,
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
