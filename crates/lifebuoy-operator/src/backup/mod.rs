//! Backups: a state machine whose whole memory is the status and the
//! repository. The session's id is in the status before the session begins, so
//! that whoever continues knows which one to ask for, and to end.

mod capture;
mod execute;
mod observe;
mod plan;
mod status;
mod volumes;

use std::sync::Arc;

use kube::{ResourceExt, core::DeserializeGuard};
use lifebuoy_api as api;

pub(crate) use capture::{BackupTasks, panicked};
pub(crate) use plan::{ended, rest_of_life};

use crate::{
    context::{Context, Reconciled},
    request::refuse,
};

/// Brings one Backup forward.
#[tracing::instrument(name = "backup", skip_all, fields(
    namespace = object.namespace().unwrap_or_default(), object = object.name_any(),
    uid = object.uid().unwrap_or_default()))]
pub(crate) async fn reconcile(
    object: Arc<DeserializeGuard<api::Backup>>,
    context: Arc<Context>,
) -> Reconciled {
    let Ok(cached) = &object.0 else {
        return Ok(crate::controllers::malformed(&object));
    };
    let namespace = cached.namespace().unwrap_or_default();
    let served = context.config.mode.backs_up();
    if let Some((reason, message)) = context.refuses(&namespace, served) {
        return refuse(&context, cached, reason, message).await;
    }
    let Some(seen) = observe::observe(&context, cached).await? else {
        return Ok(kube::runtime::controller::Action::await_change());
    };
    let step = plan::next(&seen);
    let done = execute::execute(&context, &seen, step).await?;
    execute::publish_and_announce(&context, &seen, done).await
}
