//! VolumeRestores: a claim that names one is bound to a volume that was filled first. Those
//! for claims that exist are in [`in_place`].
//!
//! ```text
//! claim, waiting            claim between, in the movers' namespace
//!      │  (node, if its class wants one)  → made, filled by a mover
//!      └────────── the volume is handed over ←───────┘ → removed
//! ```
//!
//! All that must survive this process is in the status (whether the volume is filled)
//! and in the objects themselves (whose the volume is). While it is handed over, its
//! reclaim policy is `Retain`: no order in which controllers look at the two claims can
//! make them delete it.

mod execute;
mod fill;
mod hand_over;
mod in_place;
mod objects;
mod observe;
mod plan;
mod status;

use std::sync::Arc;

use kube::{ResourceExt, core::DeserializeGuard, runtime::controller::Action};
use lifebuoy_api::VolumeRestore;

pub(crate) use fill::VolumeTasks;
pub(crate) use in_place::sweep;
pub(crate) use objects::of_claim;
pub(crate) use plan::ended;

use crate::{
    context::{Context, Reconciled},
    request::refuse,
};

/// Brings one VolumeRestore forward.
#[tracing::instrument(name = "volume_restore", skip_all, fields(
    namespace = object.namespace().unwrap_or_default(), object = object.name_any(),
    uid = object.uid().unwrap_or_default()))]
pub(crate) async fn reconcile(
    object: Arc<DeserializeGuard<VolumeRestore>>,
    context: Arc<Context>,
) -> Reconciled {
    let Ok(cached) = &object.0 else {
        return Ok(crate::controllers::malformed(&object));
    };
    let namespace = cached.namespace().unwrap_or_default();
    if let Some((reason, message)) = context.refuses(&namespace, context.config.mode.restores()) {
        return refuse(&context, cached, reason, message).await;
    }
    if cached.spec.in_place {
        return in_place::reconcile(cached, &context).await;
    }
    let Some(seen) = observe::observe(&context, cached).await? else {
        return Ok(Action::await_change());
    };
    let step = plan::next(&seen);
    let done = execute::execute(&context, &seen, step).await?;
    execute::publish_and_announce(&context, &seen.request, done).await
}
