//! What saving volumes asks the API server for. Reads by `list` alone: nobody who
//! captures may `get`.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
        PostParams,
    },
};
use lifebuoy_api::FIELD_MANAGER;
use serde_json::Value;

use crate::Error;

const SNAPSHOTS: &str = "snapshot.storage.k8s.io";
/// Objects of one page of a list.
const PAGE: u32 = 500;

/// The API server, for volumes.
#[derive(Clone)]
pub(super) struct Cluster {
    client: Client,
}

/// A kind of snapshots.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Snapshot,
    Content,
    Class,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "VolumeSnapshot",
            Self::Content => "VolumeSnapshotContent",
            Self::Class => "VolumeSnapshotClass",
        }
    }
}

impl Cluster {
    pub(super) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) async fn claims(
        &self,
        namespace: &str,
    ) -> Result<Vec<PersistentVolumeClaim>, Error> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        all(&api, "list claims").await
    }

    pub(super) async fn pods(&self, namespace: &str) -> Result<Vec<Pod>, Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        all(&api, "list pods").await
    }

    /// The PersistentVolume of this name, if there is one.
    pub(super) async fn volume(&self, name: &str) -> Result<Option<PersistentVolume>, Error> {
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        one(&api, name, "read a PersistentVolume").await
    }

    /// All of a kind of snapshots; none where the kind is not served.
    pub(super) async fn list(&self, kind: Kind, labels: &str) -> Result<Vec<DynamicObject>, Error> {
        let api = self.api(kind, None);
        let params = ListParams::default().labels(labels);
        match api.list(&params).await {
            Ok(list) => Ok(list.items),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(Error::kube("list snapshots", error)),
        }
    }

    pub(super) async fn find(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<DynamicObject>, Error> {
        one(&self.api(kind, namespace), name, "read a snapshot").await
    }

    /// Makes a snapshot or a content; one that is there already stays.
    pub(super) async fn make(&self, kind: Kind, object: Value) -> Result<(), Error> {
        let what = "make a snapshot";
        let object: DynamicObject = serde_json::from_value(object)
            .map_err(|error| Error::Internal(format!("cannot {what}: {error}")))?;
        let api = self.api(kind, object.metadata.namespace.as_deref());
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            Err(error) => Err(Error::kube(what, error)),
        }
    }

    pub(super) async fn patch(&self, kind: Kind, name: &str, patch: &Value) -> Result<(), Error> {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = self.api(kind, None);
        match api.patch(name, &params, &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::kube("change a snapshot", error)),
        }
    }

    /// Deletes a snapshot or a content; it may be gone already.
    pub(super) async fn delete(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<(), Error> {
        let api = self.api(kind, namespace);
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::kube("delete a snapshot", error)),
        }
    }

    fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let of = ApiResource::from_gvk(&GroupVersionKind::gvk(SNAPSHOTS, "v1", kind.name()));
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &of),
            None => Api::all_with(self.client.clone(), &of),
        }
    }
}

async fn one<K>(api: &Api<K>, name: &str, what: &'static str) -> Result<Option<K>, Error>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    let list = api.list(&params).await;
    Ok(list.map_err(|error| Error::kube(what, error))?.items.pop())
}

async fn all<K>(api: &Api<K>, what: &'static str) -> Result<Vec<K>, Error>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = api.list(&params).await;
        let page = page.map_err(|error| Error::kube(what, error))?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}
