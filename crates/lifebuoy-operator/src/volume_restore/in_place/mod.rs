//! VolumeRestores in place: everything on the volume of a claim that exists is replaced.
//!
//! ```text
//! held: what mounts the claim → nobody has it → second volume and claim, in the movers' namespace
//!   → the claim is marked → a mover overwrites → second volume and claim removed
//!   → the mark goes → what was held runs again
//! ```
//!
//! What must survive this process is on the objects that it is about: on the claim, whether
//! writing has begun and not ended; on each workload, for which claims it is held and what it
//! was. So whoever comes later, the sweep among them, decides the same without us.

mod execute;
mod guard;
mod holding;
mod observe;
mod plan;
mod stand_in;
mod sweep;
mod workload;

use std::sync::Arc;

use kube::runtime::controller::Action;
use lifebuoy_api::VolumeRestore;

pub(super) use guard::{guarded, ready, take_back};
pub(crate) use sweep::sweep;

use super::execute::publish_and_announce;
use crate::context::{Context, Reconciled};

/// Brings one VolumeRestore in place forward.
pub(super) async fn reconcile(cached: &VolumeRestore, context: &Arc<Context>) -> Reconciled {
    let Some(seen) = observe::observe(context, cached).await? else {
        return Ok(Action::await_change());
    };
    let step = plan::next(&seen);
    let done = execute::execute(context, &seen, step).await?;
    publish_and_announce(context, &seen.request, done).await
}
