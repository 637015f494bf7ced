//! What saving volumes asks the API server for. Reads by `list` alone: nobody who
//! captures may `get`.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, Client, api::ListParams};

use crate::{
    Error,
    snapshots::{Snapshots, one},
};

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// The API server, for volumes.
#[derive(Clone)]
pub(super) struct Cluster {
    client: Client,
    snapshots: Snapshots,
}

impl Cluster {
    pub(super) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            snapshots: Snapshots::new(client),
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
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
