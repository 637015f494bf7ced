//! What has to be known before deciding about a Backup.

use chrono::{DateTime, Utc};
use kube::{Api, ResourceExt, api::ListParams};
use lifebuoy_api::{self as api, Backup, ConditionType, Repository, is_true};

use super::plan::ended;
use crate::{Error, context::Context, tasks::TaskState};

/// What is known about a Backup now.
pub(crate) struct Seen {
    /// The Backup: as cached while its task runs, otherwise as the API server
    /// has it.
    pub(crate) backup: Backup,
    pub(crate) task: TaskState,
    /// Its Repository, if it exists; looked up only where it matters.
    pub(crate) repository: Option<Repository>,
    /// Whether there is room, and nobody waits longer.
    pub(crate) its_turn: bool,
    pub(crate) now: DateTime<Utc>,
}

/// `None` when the Backup is gone.
pub(crate) async fn observe(context: &Context, cached: &Backup) -> Result<Option<Seen>, Error> {
    let uid = cached.uid().unwrap_or_default();
    let task = context.backups.state(&uid);
    let now = context.now();
    let idle = matches!(task, TaskState::None | TaskState::Done);
    if !idle || ended(cached) {
        let backup = cached.clone();
        return Ok(Some(Seen {
            backup,
            task,
            repository: None,
            its_turn: false,
            now,
        }));
    }
    // A cache may lag behind our own writes: to begin a second attempt, or
    // write a second end, because of that would be wrong.
    let namespace = cached.namespace().unwrap_or_default();
    let backups: Api<Backup> = Api::namespaced(context.client.clone(), &namespace);
    let live = backups
        .get_opt(&cached.name_any())
        .await
        .map_err(|error| Error::kube("read a Backup", error))?;
    let Some(backup) = live.filter(|live| live.uid().as_deref() == Some(&uid)) else {
        return Ok(None);
    };
    let repositories: Api<Repository> = Api::namespaced(context.client.clone(), &namespace);
    let repository = repositories
        .get_opt(&backup.spec.repository)
        .await
        .map_err(|error| Error::kube("read a Repository", error))?;
    let waits = task == TaskState::None && !ended(&backup);
    let its_turn =
        waits && context.backups.places() > 0 && first(&backups, &backup, context).await?;
    Ok(Some(Seen {
        backup,
        task,
        repository,
        its_turn,
        now,
    }))
}

/// Whether no more Backups wait before this one than there is room for.
async fn first(backups: &Api<Backup>, own: &Backup, context: &Context) -> Result<bool, Error> {
    let all = backups
        .list(&ListParams::default())
        .await
        .map_err(|error| Error::kube("list Backups", error))?;
    let before = all
        .iter()
        .filter(|other| order(other) < order(own))
        .filter(|other| !ended(other) && !held_up(other))
        .filter(|other| context.backups.state(&other.uid().unwrap_or_default()) == TaskState::None)
        .count();
    Ok(before < context.backups.places())
}

fn order(backup: &Backup) -> (Option<i64>, String) {
    let created = backup.metadata.creation_timestamp.as_ref();
    (
        created.map(|at| api::time::from_kube(at).timestamp()),
        backup.name_any(),
    )
}

/// Whether it waits for something other than its turn.
fn held_up(backup: &Backup) -> bool {
    let Some(status) = &backup.status else {
        return false;
    };
    is_true(&status.conditions, ConditionType::Stalled)
        || api::find(&status.conditions, ConditionType::Reconciling)
            .is_some_and(|c| c.reason == api::Reason::RepositoryNotReady.as_str())
}
