//! Removes the movers of a request, and their claims. Safe to repeat, and to be begun while
//! something of it is going already.

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{PersistentVolumeClaim, Pod, Secret},
};
use kube::{Api, Resource, ResourceExt, api::ListParams};
use lifebuoy_api::FOR_LABEL;
use serde::de::DeserializeOwned;

use super::{
    error::MoverError,
    objects::{remove, remove_jobs},
};
use crate::context::Context;

/// Deletes every Job, and waits until their pods are gone; then every Secret and claim
/// that was made for this request in the movers' namespace.
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
    remove_labelled(&secrets, for_uid).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    remove_labelled(&claims, for_uid).await
}

async fn remove_labelled<K>(api: &Api<K>, for_uid: &str) -> Result<(), MoverError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let params = ListParams::default().labels(&format!("{FOR_LABEL}={for_uid}"));
    let listed = api.list(&params).await;
    let listed = listed.map_err(MoverError::kube("list what was made for movers"))?;
    for object in &listed.items {
        if object.meta().deletion_timestamp.is_none() {
            remove(api, &object.name_any(), "delete what was made for a mover").await?;
        }
    }
    Ok(())
}
