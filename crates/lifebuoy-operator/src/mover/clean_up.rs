//! Removes all that was made for a request in the movers' namespace. Safe to repeat, and
//! to be begun while something of it is going already.

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{PersistentVolumeClaim, Pod, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use lifebuoy_api::FOR_LABEL;
use serde::de::DeserializeOwned;

use super::{
    error::MoverError,
    objects::{remove, remove_jobs},
};
use crate::context::Context;

/// Deletes every Job, and waits until their pods are gone; then every Secret, claim,
/// VolumeSnapshot and VolumeSnapshotContent that was made for this request.
///
/// What these stand for in the storage system goes or stays as they say themselves: a
/// content is made with `Retain`, since the snapshot is another object's.
///
/// # Errors
/// [`MoverError::StillThere`] if a pod does not go: nothing else is deleted then.
pub(crate) async fn clean_up(context: &Context, for_uid: &str) -> Result<(), MoverError> {
    let namespace = &context.config.movers.namespace;
    let client = &context.client;
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    remove_jobs(&jobs, &pods, for_uid, |_| true).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    remove_labelled(&secrets, for_uid, |_| true).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    remove_labelled(&claims, for_uid, |_| true).await?;
    let snapshots = dynamic(client, "VolumeSnapshot", Some(namespace));
    remove_labelled(&snapshots, for_uid, |_| true).await?;
    let contents = dynamic(client, "VolumeSnapshotContent", None);
    // Those of the snapshots that the application's own namespace has are not ours to
    // remove: they go with these.
    let is_of_movers = |content: &DynamicObject| {
        content.data["spec"]["volumeSnapshotRef"]["namespace"] == namespace.as_str()
    };
    remove_labelled(&contents, for_uid, is_of_movers).await
}

fn dynamic(client: &Client, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", kind);
    let resource = ApiResource::from_gvk(&kind);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

async fn remove_labelled<K>(
    api: &Api<K>,
    for_uid: &str,
    which: impl Fn(&K) -> bool,
) -> Result<(), MoverError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let params = ListParams::default().labels(&format!("{FOR_LABEL}={for_uid}"));
    let listed = match api.list(&params).await {
        Ok(listed) => listed,
        // A cluster without snapshots.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(MoverError::kube("list what was made for movers")(error)),
    };
    for object in listed.items.iter().filter(|object| which(object)) {
        if object.meta().deletion_timestamp.is_none() {
            remove(api, &object.name_any(), "delete what was made for a mover").await?;
        }
    }
    Ok(())
}
