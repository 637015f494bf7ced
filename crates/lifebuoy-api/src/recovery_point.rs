//! `RecoveryPoint`: a committed snapshot, as people and tools see it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One committed snapshot in a repository. It is a projection: a restore reads
/// the repository again, and deleting this object deletes no data.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[kube(
    group = "lifebuoy.dev",
    version = "v1alpha1",
    kind = "RecoveryPoint",
    plural = "recoverypoints",
    namespaced,
    status = "RecoveryPointStatus",
    category = "lifebuoy",
    shortname = "lbrp",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Cluster","type":"string","jsonPath":".spec.cluster.name"}"#,
    printcolumn = r#"{"name":"Schedule","type":"string","jsonPath":".spec.schedule"}"#,
    printcolumn = r#"{"name":"Completeness","type":"string","jsonPath":".spec.completeness"}"#,
    printcolumn = r#"{"name":"Consistency","type":"string","jsonPath":".spec.consistency"}"#,
    printcolumn = r#"{"name":"Objects","type":"integer","jsonPath":".spec.objects"}"#,
    printcolumn = r#"{"name":"Taken","type":"date","jsonPath":".spec.takenAt"}"#,
    printcolumn = r#"{"name":"Snapshot","type":"string","jsonPath":".spec.snapshot","priority":1}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self == oldSelf")
    .message("a RecoveryPoint mirrors the repository and cannot be changed"))]
pub struct RecoveryPointSpec {
    /// The Repository in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub repository: String,
    /// The snapshot in it.
    #[schemars(length(min = 1, max = 64))]
    pub snapshot: String,
    /// The cluster that was saved.
    pub cluster: PointCluster,
    /// The Schedule that asked for it; empty for a Backup made by hand.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub schedule: String,
    /// The Backup that asked for it.
    #[schemars(length(max = 253))]
    pub backup: String,
    /// When the capture began, by the clock of the cluster that was saved.
    pub taken_at: Time,
    /// Whether everything in the selection was saved.
    pub completeness: Completeness,
    /// Whether all types were read at one revision.
    pub consistency: Consistency,
    /// How many objects it holds.
    pub objects: i64,
    /// The Kubernetes version of the cluster that was saved.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kubernetes_version: String,
}

/// A cluster: a name that its installation gave, and the uid of its
/// `kube-system` namespace.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PointCluster {
    /// The `clusterName` of the installation.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The uid of the `kube-system` namespace.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// Whether everything in a selection was saved.
#[derive(
    Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum Completeness {
    /// Everything was.
    Complete,
    /// Something is missing; the manifest in the repository names it.
    Partial,
}

/// Whether all types were read at one revision of the cluster's store.
#[derive(
    Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum Consistency {
    /// Every type is as it was at one revision.
    Exact,
    /// Some types were read at other moments; the manifest names them.
    Fuzzy,
}

/// Whether the point can still be restored.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryPointStatus {
    /// `Ready`: the snapshot was seen in the repository and is not forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
