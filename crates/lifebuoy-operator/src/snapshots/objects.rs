//! Reads by `list` alone: nobody who captures may `get`.

use std::fmt::Debug;

use kube::{
    Api, Client, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
        PostParams,
    },
};
use lifebuoy_api::FIELD_MANAGER;
use lifebuoy_engine::volumes::SnapshotClass;
use serde_json::Value;

use crate::Error;

const GROUP: &str = "snapshot.storage.k8s.io";
const DEFAULT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";

/// The API server, for snapshots.
#[derive(Clone)]
pub(crate) struct Snapshots {
    client: Client,
}

/// A kind of snapshots.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
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

impl Snapshots {
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
        }
    }

    /// All of a kind; none where the kind is not served.
    pub(crate) async fn list(&self, kind: Kind, labels: &str) -> Result<Vec<DynamicObject>, Error> {
        let api = self.api(kind, None);
        let params = ListParams::default().labels(labels);
        match api.list(&params).await {
            Ok(list) => Ok(list.items),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(Error::kube("list snapshots", error)),
        }
    }

    /// The classes of all drivers.
    pub(crate) async fn classes(&self) -> Result<Vec<SnapshotClass>, Error> {
        let classes = self.list(Kind::Class, "").await?;
        Ok(classes.iter().filter_map(class).collect())
    }

    pub(crate) async fn find(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<DynamicObject>, Error> {
        one(&self.api(kind, namespace), name, "read a snapshot").await
    }

    /// Makes a snapshot or a content; one that is there already stays.
    pub(crate) async fn make(&self, kind: Kind, object: Value) -> Result<(), Error> {
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

    /// Changes a content; gives what it is then, and nothing if it is gone.
    pub(crate) async fn patch_content(
        &self,
        name: &str,
        patch: &Value,
    ) -> Result<Option<DynamicObject>, Error> {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = self.api(Kind::Content, None);
        match api.patch(name, &params, &Patch::Merge(patch)).await {
            Ok(patched) => Ok(Some(patched)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(Error::kube("change a snapshot", error)),
        }
    }

    /// Deletes a snapshot or a content; it may be gone already.
    pub(crate) async fn delete(
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
        let of = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", kind.name()));
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &of),
            None => Api::all_with(self.client.clone(), &of),
        }
    }
}

/// The object of this name, if there is one.
pub(crate) async fn one<K>(api: &Api<K>, name: &str, what: &'static str) -> Result<Option<K>, Error>
where
    K: Clone + serde::de::DeserializeOwned + Debug,
{
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    let list = api.list(&params).await;
    Ok(list.map_err(|error| Error::kube(what, error))?.items.pop())
}

fn class(object: &DynamicObject) -> Option<SnapshotClass> {
    Some(SnapshotClass {
        name: object.name_any(),
        driver: object.data["driver"].as_str()?.to_owned(),
        is_default: object
            .annotations()
            .get(DEFAULT_CLASS)
            .is_some_and(|value| value == "true"),
    })
}

/// Whether it is being deleted.
pub(super) fn is_going(object: &DynamicObject) -> bool {
    object.metadata.deletion_timestamp.is_some()
}
