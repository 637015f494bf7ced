//! What an API server serves, by aggregated discovery: two requests.
//!
//! A group whose server is down is reported as such, so that nobody takes its
//! absence for emptiness.

use serde::Deserialize;

use crate::Error;

/// A type that the API server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedType {
    /// The API group; empty for the core group.
    pub group: String,
    /// The preferred version that serves it.
    pub version: String,
    /// Every version that serves it, the preferred one first.
    pub served_versions: Vec<String>,
    /// The kind.
    pub kind: String,
    /// The resource in the plural.
    pub resource: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// The verbs that the server knows for it.
    pub verbs: Vec<String>,
    /// Short names, as `kubectl` takes them.
    pub short_names: Vec<String>,
    /// Whether the server behind this group version is down; what is said here
    /// is what it served when it was last seen.
    pub stale: bool,
}

impl ServedType {
    /// `group/version`, or the version alone for the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The path under which the type is listed in `version`, in one namespace
    /// or everywhere.
    #[must_use]
    pub fn path(&self, version: &str, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{}/{version}", self.group)
        };
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.resource),
            None => format!("{root}/{}", self.resource),
        }
    }

    /// Whether the server knows all these verbs for it.
    #[must_use]
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs
            .iter()
            .all(|verb| self.verbs.iter().any(|v| v == verb))
    }
}

/// `group/version`, or the version alone for the core group.
#[must_use]
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// What was discovered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Every served type, by group and resource. No subresources.
    pub types: Vec<ServedType>,
    /// Group versions whose server is down: group, version, and what is known.
    pub unavailable_groups: Vec<(String, String, String)>,
    /// The Git version of the API server, such as `v1.36.3`.
    pub kubernetes_version: String,
}

impl Discovered {
    /// The type of a group and kind.
    #[must_use]
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&ServedType> {
        self.types
            .iter()
            .find(|t| t.group == group && t.kind == kind)
    }

    /// The type of a group and resource.
    #[must_use]
    pub fn by_resource(&self, group: &str, resource: &str) -> Option<&ServedType> {
        self.types
            .iter()
            .find(|t| t.group == group && t.resource == resource)
    }
}

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Asks an API server what it serves.
///
/// # Errors
/// [`Error::Kube`] when it cannot be asked, [`Error::Api`] when it does not
/// know aggregated discovery.
pub async fn discover(client: &kube::Client) -> Result<Discovered, Error> {
    let (core, groups, version) = futures::try_join!(
        fetch(client, "/api"),
        fetch(client, "/apis"),
        kubernetes_version(client),
    )?;
    let mut discovered = Discovered {
        kubernetes_version: version,
        ..Discovered::default()
    };
    for group in core.items.into_iter().chain(groups.items) {
        add_group(&mut discovered, group);
    }
    discovered
        .types
        .sort_by(|a, b| (&a.group, &a.resource).cmp(&(&b.group, &b.resource)));
    Ok(discovered)
}

async fn fetch(client: &kube::Client, path: &str) -> Result<GroupList, Error> {
    let what = || format!("list the served types ({path})");
    let request = http::Request::get(path)
        .header(http::header::ACCEPT, ACCEPT)
        .body(Vec::new())
        .map_err(|error| Error::Internal(format!("cannot {}: {error}", what())))?;
    let list: GroupList = client
        .request(request)
        .await
        .map_err(|error| Error::kube(what(), error))?;
    if list.kind == "APIGroupDiscoveryList" {
        Ok(list)
    } else {
        Err(Error::Api {
            what: what(),
            message: format!(
                "it answered with a {} instead of aggregated discovery (Kubernetes 1.33 or newer is needed)",
                list.kind
            ),
        })
    }
}

async fn kubernetes_version(client: &kube::Client) -> Result<String, Error> {
    client
        .apiserver_version()
        .await
        .map(|info| info.git_version)
        .map_err(|error| Error::kube("read the API server's version", error))
}

#[derive(Debug, Deserialize)]
struct GroupList {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Debug, Default, Deserialize)]
struct Group {
    #[serde(default)]
    metadata: GroupMetadata,
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Debug, Default, Deserialize)]
struct GroupMetadata {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Default, Deserialize)]
struct GroupVersion {
    version: String,
    #[serde(default)]
    freshness: String,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource: String,
    #[serde(default)]
    response_kind: ResponseKind,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

/// Versions come in the server's order of preference, so the first one that has
/// a resource is the preferred one for it; a version that is up wins over one
/// that is down.
fn add_group(discovered: &mut Discovered, group: Group) {
    let name = group.metadata.name;
    let start = discovered.types.len();
    let (up, down): (Vec<_>, Vec<_>) = group
        .versions
        .into_iter()
        .partition(|v| v.freshness != "Stale");
    for version in &down {
        discovered.unavailable_groups.push((
            name.clone(),
            version.version.clone(),
            "its API server does not answer".to_owned(),
        ));
    }
    for (stale, version) in up
        .into_iter()
        .map(|v| (false, v))
        .chain(down.into_iter().map(|v| (true, v)))
    {
        for resource in version.resources {
            let known = discovered.types[start..]
                .iter_mut()
                .find(|t| t.resource == resource.resource);
            match known {
                Some(known) => known.served_versions.push(version.version.clone()),
                None => discovered.types.push(ServedType {
                    group: name.clone(),
                    version: version.version.clone(),
                    served_versions: vec![version.version.clone()],
                    kind: resource.response_kind.kind,
                    resource: resource.resource,
                    namespaced: resource.scope == "Namespaced",
                    verbs: resource.verbs,
                    short_names: resource.short_names,
                    stale,
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discovered(json: serde_json::Value) -> Discovered {
        let mut found = Discovered::default();
        for group in serde_json::from_value::<GroupList>(json).unwrap().items {
            add_group(&mut found, group);
        }
        found
    }

    fn resource(name: &str, kind: &str) -> serde_json::Value {
        serde_json::json!({"resource": name, "scope": "Namespaced", "verbs": ["list", "create"],
            "responseKind": {"group": "", "version": "", "kind": kind}})
    }

    #[test]
    fn the_first_version_that_has_a_type_is_its_preferred_one() {
        let found = discovered(serde_json::json!({"items": [{
        "metadata": {"name": "example.com"},
        "versions": [
            {"version": "v2", "freshness": "Current", "resources": [resource("as", "A")]},
            {"version": "v1", "freshness": "Current",
             "resources": [resource("as", "A"), resource("bs", "B")]},
        ]}]}));
        let of = |r: &str| found.by_resource("example.com", r).unwrap();
        assert_eq!(of("as").version, "v2");
        assert_eq!(of("as").served_versions, ["v2", "v1"]);
        assert_eq!(of("bs").version, "v1");
        assert_eq!(of("bs").path("v1", None), "/apis/example.com/v1/bs");
        assert_eq!(
            of("bs").path("v1", Some("shop")),
            "/apis/example.com/v1/namespaces/shop/bs"
        );
        assert!(of("as").can(&["list", "create"]) && !of("as").can(&["watch"]));
        assert_eq!(found.by_kind("example.com", "B").unwrap().resource, "bs");
    }

    #[test]
    fn a_group_that_is_down_is_reported_and_its_known_types_are_stale() {
        let found = discovered(serde_json::json!({"items": [{
            "metadata": {"name": "metrics.k8s.io"},
            "versions": [{"version": "v1beta1", "freshness": "Stale",
                "resources": [resource("pods", "PodMetrics")]}]}]}));
        assert!(found.types[0].stale);
        assert_eq!(found.unavailable_groups[0].0, "metrics.k8s.io");
    }
}
