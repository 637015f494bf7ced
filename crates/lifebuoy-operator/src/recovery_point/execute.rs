//! Creates and deletes mirrored points.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use lifebuoy_api::{
    self as api, CLUSTER_LABEL, ConditionType, FIELD_MANAGER, REPOSITORY_LABEL, Reason,
    RecoveryPoint, RecoveryPointSpec, SCHEDULE_LABEL, condition, time::to_kube,
};
use lifebuoy_engine::point::Point;
use serde_json::json;

use super::plan::{Changes, name};
use crate::{Error, context::Context};

/// Requests at a time.
const PARALLEL: usize = 8;
/// Objects in one page of a list.
const PAGE: u32 = 500;

/// The points of this repository that are mirrored now.
pub(super) async fn existing(
    context: &Context,
    repository: &api::Repository,
) -> Result<Vec<RecoveryPoint>, Error> {
    let label = format!("{REPOSITORY_LABEL}={}", repository.name_any());
    let mut params = ListParams::default().labels(&label).limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = api_of(context, repository)
            .list(&params)
            .await
            .map_err(|error| Error::kube("list RecoveryPoints", error))?;
        all.extend(page.items);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => return Ok(all),
        }
    }
}

pub(super) async fn carry_out(
    context: &Context,
    repository: &api::Repository,
    changes: Changes<'_>,
) -> Result<(), Error> {
    stream::iter(changes.create)
        .for_each_concurrent(PARALLEL, |point| async move {
            if let Err(error) = create(context, repository, point).await {
                tracing::warn!(%error, point = name(point), "cannot mirror a recovery point");
            }
        })
        .await;
    let points = api_of(context, repository);
    let points = &points;
    stream::iter(changes.mark)
        .map(Ok::<_, Error>)
        .try_for_each_concurrent(PARALLEL, |object| mark(context, points, object))
        .await?;
    stream::iter(changes.delete)
        .map(Ok::<_, Error>)
        .try_for_each_concurrent(PARALLEL, |object| delete(points, object))
        .await
}

/// Creates the object of a point, and marks it as ready. If it is there, it
/// stays as it is.
pub(super) async fn create(
    context: &Context,
    repository: &api::Repository,
    point: &Point,
) -> Result<String, Error> {
    let points = api_of(context, repository);
    let object = object(repository, point);
    let name = object.name_any();
    match points.create(&PostParams::default(), &object).await {
        Ok(created) => mark(context, &points, &created).await?,
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => {
            return Err(Error::kube(
                format!("create the RecoveryPoint {name}"),
                error,
            ));
        }
    }
    Ok(name)
}

async fn mark(
    context: &Context,
    points: &Api<RecoveryPoint>,
    object: &RecoveryPoint,
) -> Result<(), Error> {
    let ready = condition(
        ConditionType::Ready,
        true,
        Reason::Usable,
        "the snapshot is in the repository",
        object.metadata.generation,
        context.now(),
    );
    let patch = Patch::Merge(json!({"status": {"conditions": [ready]}}));
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match points
        .patch_status(&object.name_any(), &params, &patch)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::kube("write the status of a RecoveryPoint", error)),
    }
}

async fn delete(points: &Api<RecoveryPoint>, object: &RecoveryPoint) -> Result<(), Error> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match points.delete(&object.name_any(), &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(Error::kube("delete a RecoveryPoint", error)),
    }
}

fn api_of(context: &Context, repository: &api::Repository) -> Api<RecoveryPoint> {
    Api::namespaced(
        context.client.clone(),
        &repository.namespace().unwrap_or_default(),
    )
}

fn object(repository: &api::Repository, point: &Point) -> RecoveryPoint {
    let summary = &point.summary;
    let mut labels = BTreeMap::from([(REPOSITORY_LABEL.to_owned(), repository.name_any())]);
    for (label, value) in [
        (CLUSTER_LABEL, &summary.cluster.name),
        (SCHEDULE_LABEL, &summary.schedule),
    ] {
        if is_label_value(value) {
            labels.insert(label.to_owned(), value.clone());
        }
    }
    let owner = repository.controller_owner_ref(&());
    let mut object = RecoveryPoint::new(&name(point), spec(repository, point));
    object.metadata = ObjectMeta {
        labels: Some(labels),
        owner_references: owner.map(|owner| {
            vec![OwnerReference {
                block_owner_deletion: Some(false),
                ..owner
            }]
        }),
        ..object.metadata
    };
    object
}

fn spec(repository: &api::Repository, point: &Point) -> RecoveryPointSpec {
    let summary = &point.summary;
    RecoveryPointSpec {
        repository: repository.name_any(),
        snapshot: point.snapshot.session.to_string(),
        cluster: summary.cluster.clone(),
        schedule: summary.schedule.clone(),
        backup: summary.backup.clone(),
        taken_at: to_kube(summary.taken_at),
        completeness: summary.completeness,
        consistency: summary.consistency,
        objects: i64::try_from(summary.objects).unwrap_or(i64::MAX),
        kubernetes_version: summary.kubernetes_version.clone(),
    }
}

/// Whether this is a valid and not empty value of a label.
fn is_label_value(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(inner)
        && edge(text.chars().next())
        && edge(text.chars().last())
}
