//! Asks the repository to forget what a Schedule does not keep. Deletes
//! nothing, and stands in nobody's way: what fails is tried again with the next
//! Backup.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use kube::ResourceExt;
use lifebuoy_api::{Access, Backup, Schedule};
use lifebuoy_engine::{
    point::points,
    retention::{Lineage, Rules},
};

use crate::{context::Context, error::sentence, recovery_point};

/// Of each Schedule, what was considered last: nothing is listed again unless
/// there is a new snapshot, or the spec has changed.
#[derive(Default)]
pub(crate) struct Retained {
    considered: Mutex<HashMap<String, Considered>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Considered {
    generation: Option<i64>,
    snapshots: BTreeSet<String>,
}

impl Retained {
    fn is_new(&self, uid: &str, now: &Considered) -> bool {
        let considered = self
            .considered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(before) = considered.get(uid) else {
            return true;
        };
        before.generation != now.generation || !now.snapshots.is_subset(&before.snapshots)
    }

    fn remember(&self, uid: String, now: Considered) {
        self.considered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid, now);
    }
}

pub(crate) async fn keep(
    context: &Context,
    schedule: &Schedule,
    rules: &Rules,
    backups: &[Backup],
) {
    if rules.is_empty() {
        return;
    }
    let now = Considered {
        generation: schedule.metadata.generation,
        snapshots: backups
            .iter()
            .filter_map(|backup| backup.status.as_ref()?.snapshot.clone())
            .collect(),
    };
    let uid = schedule.uid().unwrap_or_default();
    if now.snapshots.is_empty() || !context.retained.is_new(&uid, &now) {
        return;
    }
    match forget(context, schedule, rules).await {
        Ok(()) => context.retained.remember(uid, now),
        Err(message) => tracing::warn!("cannot forget what is not kept: {message}"),
    }
}

async fn forget(context: &Context, schedule: &Schedule, rules: &Rules) -> Result<(), String> {
    let said = |error: lifebuoy_engine::Error| sentence(&error, error.hint().as_deref());
    let namespace = schedule.namespace().unwrap_or_default();
    let name = &schedule.spec.template.spec.repository;
    let (repository, opened) = context
        .repositories
        .by_name(&context.client, &namespace, name)
        .await
        .map_err(|error| error.message())?;
    if repository.spec.access == Access::ReadOnly {
        return Ok(());
    }
    let cluster = context.cluster().await.map_err(said)?;
    let listed = points(&opened.repo).await.map_err(said)?;
    let gone = rules.forgettable(&Lineage::of(&listed, cluster, &schedule.name_any()));
    let reason = format!("the retention of Schedule {}: {rules}", schedule.name_any());
    for session in &gone {
        opened
            .repo
            .forget(*session, &reason)
            .await
            .map_err(|error| said(error.into()))?;
        tracing::info!(snapshot = %session, "forgotten");
    }
    if !gone.is_empty() {
        let before = recovery_point::mirrored(context, &repository)
            .await
            .map_err(|error| error.to_string())?;
        let listed = points(&opened.repo).await.map_err(said)?;
        let mirrored = recovery_point::mirror(context, &repository, &listed, &before).await;
        mirrored.map_err(|error| sentence(&error, None))?;
    }
    Ok(())
}
