//! The connection to a cluster, and the few requests that every command makes.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::Request,
};
use lifebuoy_api::FIELD_MANAGER;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{args::ClusterArgs, error::Error};

/// One of our kinds.
pub(crate) trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + 'static
{
}

/// How long the API server may be silent on a connection on which something is awaited.
const SILENCE_MAX: Duration = Duration::from_secs(150);

/// A cluster, and the namespace in it that requests live in.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Cluster {
    /// Reads the kubeconfig, or inside of a pod its ServiceAccount. Talks to
    /// nothing yet.
    ///
    /// # Errors
    /// [`Error::Kubeconfig`].
    pub(crate) async fn connect(args: &ClusterArgs) -> Result<Self, Error> {
        let mut config = config(args).await?;
        // Of a connection that is dead, nobody may ever say so. Whatever lives is heard of
        // sooner: an answer takes the API server a minute at most, each minute a watch has a
        // bookmark, and a command that runs in a container is pinged.
        config.read_timeout = Some(SILENCE_MAX);
        config.reset_reader_on_write = true;
        let client =
            Client::try_from(config).map_err(|error| Error::Kubeconfig(Box::new(error)))?;
        Ok(Self {
            client,
            namespace: args.namespace.clone(),
        })
    }

    pub(crate) fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// One object by its name.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, also when its kind is not served.
    pub(crate) async fn get<K: Kind>(&self, name: &str) -> Result<K, Error> {
        let kind = K::kind(&());
        let found = self
            .api::<K>()
            .get_opt(name)
            .await
            .map_err(|error| Error::kube(format!("get the {kind} {name}"), error))?;
        found.ok_or_else(|| Error::NotFound {
            kind: kind.into_owned(),
            name: name.to_owned(),
            namespace: self.namespace.clone(),
        })
    }

    /// All objects of a kind whose labels match, sorted by name.
    ///
    /// # Errors
    /// [`Error::Kube`].
    pub(crate) async fn list<K: Kind>(&self, labels: &str) -> Result<Vec<K>, Error> {
        let params = ListParams {
            label_selector: non_empty(labels),
            ..ListParams::default()
        };
        let found = self
            .api::<K>()
            .list(&params)
            .await
            .map_err(|error| Error::kube(format!("list {}", K::plural(&())), error))?;
        let mut items = found.items;
        items.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
        Ok(items)
    }

    /// Creates an object; the API server refuses fields that it does not know.
    ///
    /// # Errors
    /// [`Error::Kube`], with the API server's words.
    pub(crate) async fn create<K: Kind>(&self, object: &K) -> Result<K, Error> {
        let what = || format!("create the {}", K::kind(&()));
        let body = serde_json::to_vec(object).map_err(|error| Error::document(what(), error))?;
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let mut request = Request::new(K::url_path(&(), Some(&self.namespace)))
            .create(&params, body)
            .map_err(|error| Error::document(what(), error))?;
        *request.uri_mut() =
            strict(request.uri()).map_err(|error| Error::document(what(), error))?;
        self.client
            .request(request)
            .await
            .map_err(|error| Error::kube(what(), error))
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    /// [`Error::Kube`], with the API server's words.
    pub(crate) async fn patch<K: Kind>(&self, name: &str, change: &Value) -> Result<K, Error> {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default().validation_strict()
        };
        self.api::<K>()
            .patch(name, &params, &Patch::Merge(change))
            .await
            .map_err(|error| Error::kube(format!("change the {} {name}", K::kind(&())), error))
    }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// kube's `create` has no parameter for strict validation.
fn strict(uri: &http::Uri) -> Result<http::Uri, http::uri::InvalidUri> {
    let joint = if uri.query().is_some_and(|query| !query.is_empty()) {
        "&"
    } else {
        "?"
    };
    let text = uri.to_string();
    format!(
        "{}{joint}fieldValidation=Strict",
        text.trim_end_matches(['?', '&'])
    )
    .parse()
}

async fn config(args: &ClusterArgs) -> Result<Config, Error> {
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..Default::default()
    };
    let unusable = |error: kube::config::KubeconfigError| Error::Kubeconfig(Box::new(error));
    match (&args.kubeconfig, &args.context) {
        (Some(path), _) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(unusable)
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(unusable),
        (None, None) => Config::infer()
            .await
            .map_err(|error| Error::Kubeconfig(Box::new(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creation_is_strict() {
        for (uri, expected) in [
            ("/a/b?", "/a/b?fieldValidation=Strict"),
            ("/a/b", "/a/b?fieldValidation=Strict"),
            (
                "/a/b?&fieldManager=x",
                "/a/b?&fieldManager=x&fieldValidation=Strict",
            ),
        ] {
            assert_eq!(strict(&uri.parse().unwrap()).unwrap().to_string(), expected);
        }
    }
}
