//! Schedules: Backups at set times, and what is kept of them. A Schedule that
//! is deleted takes its Backup objects with it; no recovery point ever goes.

mod due;
mod execute;
mod history;
mod plan;
mod retention;
mod status;
mod timetable;

use std::{sync::Arc, time::Duration};

use kube::{ResourceExt, core::DeserializeGuard, runtime::controller::Action};
use lifebuoy_api::{Reason, Schedule};

pub(crate) use retention::Retained;

use crate::{
    context::{Context, NAP_MAX, Reconciled},
    status::publish,
};

/// The shortest wait for a tick: a tick that is a moment away is not polled for.
const NAP_MIN: Duration = Duration::from_millis(100);

/// Brings one Schedule forward.
#[tracing::instrument(name = "schedule", skip_all, fields(
    namespace = object.namespace().unwrap_or_default(), object = object.name_any(),
    uid = object.uid().unwrap_or_default()))]
pub(crate) async fn reconcile(
    object: Arc<DeserializeGuard<Schedule>>,
    context: Arc<Context>,
) -> Reconciled {
    let Ok(cached) = &object.0 else {
        return Ok(crate::controllers::malformed(&object));
    };
    let namespace = cached.namespace().unwrap_or_default();
    if let Some((reason, message)) = context.refuses(&namespace, context.config.mode.backs_up()) {
        return stall(&context, cached, reason, message).await;
    }
    let Some((schedule, backups)) = execute::observe(&context, cached).await? else {
        return Ok(Action::await_change());
    };
    let now = context.now();
    let valid = match plan::validate(&schedule, now) {
        Ok(valid) => valid,
        Err(message) => return stall(&context, &schedule, Reason::InvalidSpec, message).await,
    };
    let plan = plan::plan(&schedule, &valid, &backups, now);
    execute::execute(&context, &schedule, &plan).await?;
    let status = status::status(&schedule, &plan, now);
    let version = plan.tick.and(schedule.metadata.resource_version.as_deref());
    publish(
        &context.client,
        &schedule,
        schedule.status.as_ref(),
        &status,
        version,
    )
    .await?;
    execute::announce(&context, &schedule, &plan).await;
    retention::keep(&context, &schedule, valid.rules(), &backups).await;
    Ok(match plan.next {
        Some(next) => {
            let wait = (next - now).to_std().unwrap_or_default();
            Action::requeue(wait.clamp(NAP_MIN, NAP_MAX))
        }
        None => Action::await_change(),
    })
}

async fn stall(
    context: &Context,
    schedule: &Schedule,
    reason: Reason,
    message: String,
) -> Reconciled {
    let status = status::stalled(schedule, reason, message, context.now());
    publish(
        &context.client,
        schedule,
        schedule.status.as_ref(),
        &status,
        None,
    )
    .await?;
    Ok(Action::await_change())
}
