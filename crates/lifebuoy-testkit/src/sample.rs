//! The sample application: a web shop in three namespaces, with one object of
//! nearly every kind that people restore, and every place where a name of
//! the source cluster can hide. It never needs a node to be complete.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams, TypeMeta};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, Scope, pinned_kind};
use kube::{Api, Client};
use serde_json::Value;

/// The namespaces of the sample.
pub const NAMESPACES: [&str; 3] = ["shop", "shop-data", "shop-monitoring"];

/// Its cluster-scoped objects that any backup of the namespaces must bring
/// along: the definition of its custom resources, and what its
/// ServiceAccounts may do. As `kind/name`.
pub const CLUSTER_SCOPED: [&str; 3] = [
    "CustomResourceDefinition/tickets.support.shop.example",
    "ClusterRole/shop-watcher",
    "ClusterRoleBinding/shop-watchers",
];

/// The classes that its objects name. As `kind/name`.
pub const CLASSES: [&str; 3] = [
    "StorageClass/fast-a",
    "PriorityClass/shop-critical",
    "IngressClass/edge-a",
];

const FILES: [&str; 5] = [
    include_str!("../sample/00-cluster.yaml"),
    include_str!("../sample/10-namespaces.yaml"),
    include_str!("../sample/20-shop.yaml"),
    include_str!("../sample/30-shop-data.yaml"),
    include_str!("../sample/40-shop-monitoring.yaml"),
];
const APPLIED_WITH_KUBECTL: &str = include_str!("../sample/50-applied-with-kubectl.yaml");

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ESTABLISHED_LIMIT: Duration = Duration::from_secs(30);
const ESTABLISHED_POLL: Duration = Duration::from_millis(50);

/// Deploys the sample application. Returns the number of objects.
///
/// # Errors
/// When the API server refuses one of them.
pub async fn deploy(client: &Client) -> Result<usize> {
    let mut count = 0;
    for file in FILES {
        count += apply_yaml(client, file).await?;
    }
    let mut types = Types::new(client);
    for object in parse(APPLIED_WITH_KUBECTL)? {
        types.create_as_kubectl(object).await?;
        count += 1;
    }
    Ok(count)
}

/// Applies the objects of a YAML text in their order, server-side, and waits
/// until each CustomResourceDefinition among them is established. Returns
/// their number.
///
/// # Errors
/// When the text is no YAML, or the API server refuses an object.
pub async fn apply_yaml(client: &Client, yaml: &str) -> Result<usize> {
    let mut types = Types::new(client);
    let objects = parse(yaml)?;
    let count = objects.len();
    for object in objects {
        types.apply(object).await?;
    }
    Ok(count)
}

fn parse(yaml: &str) -> Result<Vec<DynamicObject>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("the YAML is broken")?;
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .map(|document| serde_json::from_value(document).context("a document is no object"))
        .collect()
}

/// Finds the API of each object's type, asking the server once for each type.
struct Types<'a> {
    client: &'a Client,
    known: BTreeMap<(String, String), (ApiResource, Scope)>,
}

impl<'a> Types<'a> {
    fn new(client: &'a Client) -> Self {
        Self {
            client,
            known: BTreeMap::new(),
        }
    }

    async fn api_of(&mut self, object: &DynamicObject) -> Result<Api<DynamicObject>> {
        let types = object.types.clone().context("an object has no kind")?;
        let TypeMeta { api_version, kind } = types;
        let key = (api_version.clone(), kind.clone());
        if !self.known.contains_key(&key) {
            let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
            let kind = GroupVersionKind::gvk(group, version, &kind);
            let (resource, capabilities) = pinned_kind(self.client, &kind)
                .await
                .with_context(|| format!("the server does not know {api_version} {}", kind.kind))?;
            self.known
                .insert(key.clone(), (resource, capabilities.scope));
        }
        let (resource, scope) = &self.known[&key];
        Ok(match (scope, object.metadata.namespace.as_deref()) {
            (Scope::Namespaced, Some(namespace)) => {
                Api::namespaced_with(self.client.clone(), namespace, resource)
            }
            (Scope::Namespaced, None) => {
                Api::default_namespaced_with(self.client.clone(), resource)
            }
            (Scope::Cluster, _) => Api::all_with(self.client.clone(), resource),
        })
    }

    async fn apply(&mut self, object: DynamicObject) -> Result<()> {
        let api = self.api_of(&object).await?;
        let name = object
            .metadata
            .name
            .clone()
            .context("an object has no name")?;
        let parameters = PatchParams::apply("sample").force();
        let applied = api
            .patch(&name, &parameters, &Patch::Apply(&object))
            .await
            .with_context(|| format!("cannot apply {} {name}", kind_of(&object)))?;
        if kind_of(&object) == "CustomResourceDefinition" {
            wait_established(&api, &name, applied).await?;
        }
        Ok(())
    }

    async fn create_as_kubectl(&mut self, mut object: DynamicObject) -> Result<()> {
        let api = self.api_of(&object).await?;
        let mut text = serde_json::to_value(&object)?;
        // kubectl writes an empty map there, and a newline at the end.
        text["metadata"]["annotations"] = Value::Object(serde_json::Map::default());
        let annotations = object.metadata.annotations.get_or_insert_default();
        annotations.insert(LAST_APPLIED.to_owned(), format!("{text}\n"));
        let parameters = PostParams {
            field_manager: Some("kubectl-client-side-apply".to_owned()),
            ..PostParams::default()
        };
        api.create(&parameters, &object)
            .await
            .with_context(|| format!("cannot create {} of the sample", kind_of(&object)))?;
        Ok(())
    }
}

fn kind_of(object: &DynamicObject) -> &str {
    object
        .types
        .as_ref()
        .map_or("object", |types| types.kind.as_str())
}

async fn wait_established(
    api: &Api<DynamicObject>,
    name: &str,
    mut definition: DynamicObject,
) -> Result<()> {
    let started = Instant::now();
    loop {
        let conditions = definition.data["status"]["conditions"].as_array();
        let is_established = conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
        if is_established {
            return Ok(());
        }
        if started.elapsed() > ESTABLISHED_LIMIT {
            bail!(
                "{name} is not established after {} s",
                ESTABLISHED_LIMIT.as_secs()
            );
        }
        tokio::time::sleep(ESTABLISHED_POLL).await;
        definition = api.get(name).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_parses_and_names_its_objects() {
        for file in FILES.into_iter().chain([APPLIED_WITH_KUBECTL]) {
            let objects = parse(file).unwrap();
            assert!(!objects.is_empty());
            assert!(objects.iter().all(|object| object.metadata.name.is_some()));
        }
    }
}
