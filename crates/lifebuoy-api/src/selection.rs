//! What a backup or a restore takes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Which objects are taken. An empty selection takes everything but what is
/// never captured.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selection {
    /// Namespaces to take: names or globs (`shop-*`, `team-?`, `{a,b}`). Empty
    /// means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub namespaces: Vec<String>,

    /// Namespaces to leave out, by name or glob; wins over `namespaces`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub excluded_namespaces: Vec<String>,

    /// Types to take, as `kubectl api-resources` names them with their group:
    /// `configmaps`, `deployments.apps`, or a glob such as `*.example.com`.
    /// Empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 316)))]
    pub resources: Vec<String>,

    /// Types to leave out, written as in `resources`; wins over it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 316)))]
    pub excluded_resources: Vec<String>,

    /// Takes only objects whose labels match. Namespaces and what
    /// `clusterScoped: Auto` adds are taken whatever their labels are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,

    /// Which cluster-scoped objects are taken.
    #[serde(default)]
    pub cluster_scoped: ClusterScoped,
}

/// Which cluster-scoped objects a selection takes.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Serialize, schemars::JsonSchema, PartialEq, Eq,
)]
pub enum ClusterScoped {
    /// All when every namespace is selected. Otherwise what the selected
    /// namespaces need: the CustomResourceDefinitions of captured custom
    /// resources, the ClusterRoles and ClusterRoleBindings of their
    /// ServiceAccounts, and the PersistentVolumes and classes that they use.
    #[default]
    Auto,
    /// All.
    All,
    /// None but the Namespaces themselves.
    None,
}
