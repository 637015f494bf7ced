//! What has to be known before deciding about a Restore.

use chrono::{DateTime, Utc};
use kube::{Api, ResourceExt};
use lifebuoy_api::Restore;

use super::plan::ended;
use crate::{Error, context::Context, tasks::TaskState};

/// What is known about a Restore now.
pub(crate) struct Seen {
    /// The Restore: as cached while its task runs, otherwise as the API server
    /// has it.
    pub(crate) restore: Restore,
    pub(crate) task: TaskState,
    pub(crate) now: DateTime<Utc>,
}

/// `None` when the Restore is gone.
pub(crate) async fn observe(context: &Context, cached: &Restore) -> Result<Option<Seen>, Error> {
    let uid = cached.uid().unwrap_or_default();
    let task = context.restores.state(&uid);
    let now = context.now();
    if matches!(task, TaskState::Running { .. }) || ended(cached) {
        return Ok(Some(Seen {
            restore: cached.clone(),
            task,
            now,
        }));
    }
    // A cache may lag behind our own writes: to begin again because of that
    // would be wrong.
    let namespace = cached.namespace().unwrap_or_default();
    let restores: Api<Restore> = Api::namespaced(context.client.clone(), &namespace);
    let live = restores
        .get_opt(&cached.name_any())
        .await
        .map_err(|error| Error::kube("read a Restore", error))?;
    let live = live.filter(|live| live.uid().as_deref() == Some(&uid));
    Ok(live.map(|restore| Seen { restore, task, now }))
}
