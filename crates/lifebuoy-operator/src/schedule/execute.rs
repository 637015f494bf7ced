//! Reads and writes for a Schedule.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use lifebuoy_api::{
    Backup, FIELD_MANAGER, Reason, SCHEDULE_LABEL, SCHEDULED_AT_ANNOTATION, Schedule,
};
use serde_json::json;

use super::plan::Plan;
use crate::{Error, context::Context};

/// The Schedule as it is, and all Backups that belong to it; `None` when it is
/// gone. Not from a cache: a cache that lags would make a tick twice.
pub(crate) async fn observe(
    context: &Context,
    cached: &Schedule,
) -> Result<Option<(Schedule, Vec<Backup>)>, Error> {
    let namespace = cached.namespace().unwrap_or_default();
    let schedules: Api<Schedule> = Api::namespaced(context.client.clone(), &namespace);
    let live = schedules
        .get_opt(&cached.name_any())
        .await
        .map_err(|error| Error::kube("read a Schedule", error))?;
    let Some(schedule) = live.filter(|live| live.uid() == cached.uid()) else {
        return Ok(None);
    };
    if schedule.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let label = format!("{SCHEDULE_LABEL}={}", schedule.name_any());
    let backups = api_of(context, &schedule)
        .list(&ListParams::default().labels(&label))
        .await
        .map_err(|error| Error::kube("list Backups", error))?;
    Ok(Some((schedule, backups.items)))
}

fn api_of(context: &Context, schedule: &Schedule) -> Api<Backup> {
    Api::namespaced(
        context.client.clone(),
        &schedule.namespace().unwrap_or_default(),
    )
}

pub(crate) async fn execute(
    context: &Context,
    schedule: &Schedule,
    plan: &Plan<'_>,
) -> Result<(), Error> {
    let backups = api_of(context, schedule);
    for backup in &plan.cancel {
        let patch = Patch::Merge(json!({"spec": {"cancel": true}}));
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        gone_is_fine(backups.patch(&backup.name_any(), &params, &patch).await)
            .map_err(|error| Error::kube("cancel a Backup", error))?;
    }
    if let Some((name, tick)) = &plan.create {
        let backup = backup(schedule, name, *tick);
        match backups.create(&PostParams::default(), &backup).await {
            Ok(_) => tracing::info!(backup = name, "made"),
            // This very tick's Backup is there: made before the status was.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(Error::kube(format!("create the Backup {name}"), error)),
        }
    }
    for backup in &plan.delete {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: backup.uid(),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        gone_is_fine(backups.delete(&backup.name_any(), &params).await)
            .map_err(|error| Error::kube("delete a Backup beyond the history limit", error))?;
    }
    Ok(())
}

fn gone_is_fine<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}

fn backup(schedule: &Schedule, name: &str, tick: DateTime<Utc>) -> Backup {
    let template = &schedule.spec.template;
    let mut labels = template.metadata.labels.clone();
    labels.insert(SCHEDULE_LABEL.to_owned(), schedule.name_any());
    let mut annotations: BTreeMap<String, String> = template.metadata.annotations.clone();
    let at = tick.to_rfc3339_opts(SecondsFormat::Secs, true);
    annotations.insert(SCHEDULED_AT_ANNOTATION.to_owned(), at);
    let owner = schedule.controller_owner_ref(&());
    let mut backup = Backup::new(name, template.spec.clone());
    backup.metadata = ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: owner.map(|owner| {
            vec![OwnerReference {
                block_owner_deletion: Some(false),
                ..owner
            }]
        }),
        ..ObjectMeta::default()
    };
    backup
}

/// Events about what a person may wonder about.
pub(crate) async fn announce(context: &Context, schedule: &Schedule, plan: &Plan<'_>) {
    if plan.tick.is_none() {
        return;
    }
    let Some((reason, message)) = &plan.reason else {
        return;
    };
    match reason {
        Reason::Scheduling => {
            context
                .events
                .normal(schedule, "Tick", *reason, message)
                .await;
        }
        _ => {
            context
                .events
                .warning(schedule, "Tick", *reason, message)
                .await
        }
    }
}
