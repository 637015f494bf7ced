//! Compares two clusters by what their API servers say, object by object and
//! field by field. Independent of lifebuoy's own code on purpose: a mistake
//! there must not hide itself here. Never prints a value of a Secret.
//!
//! ```text
//! read A → Picture → expected(Remapping) ┐
//! read B → Picture ──────────────────────┴ differences
//! ```

mod difference;
mod normalise;
mod remap;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DynamicObject, ListParams};
use kube::discovery::{ApiResource, Discovery, Scope as TypeScope, verbs};
use kube::{Api, Client};
use serde_json::Value;

pub use difference::{Difference, differences};
pub use remap::Remapping;

/// Objects on one page of a listing.
const PAGE_OBJECTS: u32 = 500;
/// Listings at the same time.
const PARALLEL_LISTS: usize = 8;

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Everything in these namespaces, and the namespaces themselves.
    pub namespaces: Vec<String>,
    /// These cluster-scoped objects, as `kind/name`.
    pub cluster_scoped: Vec<String>,
    /// Kinds that are left out.
    pub ignored_kinds: Vec<String>,
}

impl Scope {
    /// These namespaces and nothing cluster-scoped.
    pub fn namespaces<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self {
            namespaces: names.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Adds cluster-scoped objects, as `kind/name`.
    #[must_use]
    pub fn with_cluster_scoped<N: Into<String>>(
        mut self,
        objects: impl IntoIterator<Item = N>,
    ) -> Self {
        self.cluster_scoped
            .extend(objects.into_iter().map(Into::into));
        self
    }

    /// Leaves out a kind.
    #[must_use]
    pub fn without(mut self, kind: impl Into<String>) -> Self {
        self.ignored_kinds.push(kind.into());
        self
    }

    /// The same scope where a restore with `remapping` puts it.
    #[must_use]
    pub fn remapped(&self, remapping: &Remapping) -> Self {
        let namespaces = self.namespaces.iter().map(|name| remapping.namespace(name));
        Self {
            namespaces: namespaces.collect(),
            ..self.clone()
        }
    }
}

/// Which object: the version it is served in does not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The API group; empty for the core group.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            group,
            kind,
            namespace,
            name,
        } = self;
        let dot = if group.is_empty() { "" } else { "." };
        let slash = if namespace.is_empty() { "" } else { "/" };
        write!(f, "{kind}{dot}{group} {namespace}{slash}{name}")
    }
}

/// What a cluster holds, without what every cluster gives its own value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    objects: BTreeMap<ObjectKey, Value>,
}

impl Picture {
    /// Reads what `scope` names, straight from the API server.
    ///
    /// # Errors
    /// When a type cannot be listed.
    pub async fn read(client: &Client, scope: &Scope) -> Result<Self> {
        let discovery = Discovery::new(client.clone()).run_aggregated().await?;
        let mut listings = Vec::new();
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                let is_wanted = capabilities.supports_operation(verbs::LIST)
                    && !normalise::is_ignored_type(&resource)
                    && !scope.ignored_kinds.contains(&resource.kind);
                if is_wanted {
                    listings.extend(listings_of(client, scope, &resource, &capabilities.scope));
                }
            }
        }
        let lists = stream::iter(listings)
            .map(Listing::run)
            .buffer_unordered(PARALLEL_LISTS);
        let objects: Vec<_> = lists.try_concat().await?;
        Ok(Self {
            objects: objects.into_iter().collect(),
        })
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The objects that are in the picture.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.objects.keys()
    }

    /// One object, as it is compared.
    pub fn get(&self, key: &ObjectKey) -> Option<&Value> {
        self.objects.get(key)
    }

    /// How many objects there are of each kind.
    pub fn kinds(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for key in self.objects.keys() {
            *kinds.entry(key.kind.clone()).or_default() += 1;
        }
        kinds
    }

    /// What a restore of this with `remapping` has to look like.
    #[must_use]
    pub fn expected(&self, remapping: &Remapping) -> Self {
        let remapped = self
            .objects
            .iter()
            .map(|(key, object)| remapping.apply(key, object));
        Self {
            objects: remapped.collect(),
        }
    }

    /// The picture without the objects that `unwanted` says yes to.
    #[must_use]
    pub fn without(mut self, unwanted: impl Fn(&ObjectKey) -> bool) -> Self {
        self.objects.retain(|key, _| !unwanted(key));
        self
    }
}

/// One type in one namespace, or cluster-wide.
struct Listing {
    api: Api<DynamicObject>,
    resource: ApiResource,
    /// With names, no other object counts.
    names: Option<BTreeSet<String>>,
}

fn listings_of(
    client: &Client,
    scope: &Scope,
    resource: &ApiResource,
    type_scope: &TypeScope,
) -> Vec<Listing> {
    if *type_scope == TypeScope::Namespaced {
        let listing = |namespace: &String| Listing {
            api: Api::namespaced_with(client.clone(), namespace, resource),
            resource: resource.clone(),
            names: None,
        };
        return scope.namespaces.iter().map(listing).collect();
    }
    let named = scope
        .cluster_scoped
        .iter()
        .filter_map(|entry| entry.split_once('/'));
    let mut names: BTreeSet<String> = named
        .filter(|(kind, _)| *kind == resource.kind)
        .map(|(_, name)| name.to_owned())
        .collect();
    if resource.kind == "Namespace" && resource.group.is_empty() {
        names.extend(scope.namespaces.iter().cloned());
    }
    if names.is_empty() {
        return Vec::new();
    }
    let api = Api::all_with(client.clone(), resource);
    vec![Listing {
        api,
        resource: resource.clone(),
        names: Some(names),
    }]
}

impl Listing {
    async fn run(self) -> Result<Vec<(ObjectKey, Value)>> {
        let mut parameters = ListParams::default().limit(PAGE_OBJECTS);
        let mut objects = Vec::new();
        loop {
            let page = self
                .api
                .list(&parameters)
                .await
                .with_context(|| format!("cannot list {}", self.resource.plural))?;
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            for object in page.items {
                objects.extend(self.accept(&object)?);
            }
            match next {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(objects),
            }
        }
    }

    fn accept(&self, object: &DynamicObject) -> Result<Option<(ObjectKey, Value)>> {
        let name = object.metadata.name.clone().unwrap_or_default();
        if self
            .names
            .as_ref()
            .is_some_and(|names| !names.contains(&name))
        {
            return Ok(None);
        }
        let key = ObjectKey {
            group: self.resource.group.clone(),
            kind: self.resource.kind.clone(),
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name,
        };
        let value = normalise::normalise(&key, serde_json::to_value(object)?);
        Ok(value.map(|value| (key, value)))
    }
}
