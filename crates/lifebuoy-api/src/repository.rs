//! `Repository`: a place in object storage.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Maintenance, RepositoryCheck, RepositoryCollection, RepositoryStorage};

/// A place in object storage that holds recovery points of one or more
/// clusters, encrypted under one passphrase. Whoever has the passphrase reads
/// the Secrets of every cluster that saves there.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[kube(
    group = "lifebuoy.dev",
    version = "v1alpha1",
    kind = "Repository",
    plural = "repositories",
    namespaced,
    status = "RepositoryStatus",
    category = "lifebuoy",
    shortname = "lbrepo",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Access","type":"string","jsonPath":".status.access"}"#,
    printcolumn = r#"{"name":"Points","type":"integer","jsonPath":".status.recoveryPoints"}"#,
    printcolumn = r#"{"name":"Healthy","type":"string","jsonPath":".status.conditions[?(@.type==\"Healthy\")].status"}"#,
    printcolumn = r#"{"name":"Bytes","type":"integer","jsonPath":".status.storage.bytes"}"#,
    printcolumn = r#"{"name":"Garbage","type":"integer","jsonPath":".status.storage.garbageBytes","priority":1}"#,
    printcolumn = r#"{"name":"Keeper","type":"string","jsonPath":".status.keeper","priority":1}"#,
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".spec.url","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.url == oldSelf.url")
    .message("`url` cannot change: another place is another Repository"))]
#[x_kube(validation = Rule::new("!(has(self.endpoint) && self.endpoint.startsWith('http://')) || self.allowHttp")
    .message("an `endpoint` with http:// needs `allowHttp: true`: credentials and traffic are then visible on the way"))]
#[x_kube(validation = Rule::new("!self.url.startsWith('file://') || !has(self.endpoint)")
    .message("`endpoint` makes no sense with a file:// URL"))]
#[x_kube(validation = Rule::new("!(self.access == 'ReadOnly' && self.maintenance.collect == 'Enabled')")
    .message("`maintenance.collect: Enabled` deletes, and `access: ReadOnly` never writes: choose one"))]
pub struct RepositorySpec {
    /// Where the repository is: `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix` or `file:///path`. The prefix may be empty.
    #[schemars(length(min = 8, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^(s3|gs|az|file)://.+')")
        .message("`url` starts with s3://, gs://, az:// or file://"))]
    pub url: String,

    /// The endpoint of an S3-compatible server, such as `https://s3.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 1024))]
    pub endpoint: Option<String>,

    /// The region of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,

    /// Allows an endpoint without TLS.
    #[serde(default)]
    pub allow_http: bool,

    /// A Secret in the same namespace with the store's credentials under the
    /// names of the environment variables of its SDK: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; `GOOGLE_SERVICE_ACCOUNT_KEY`;
    /// `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`. Without it the
    /// workload identity of the operator is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<LocalReference>,

    /// The key of a Secret in the same namespace that holds the passphrase.
    pub passphrase_secret_ref: KeyReference,

    /// The key of a Secret in the same namespace that holds the PEM
    /// certificates of authorities to trust besides the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<KeyReference>,

    /// The URL of an HTTP proxy on the way to the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 1024))]
    pub proxy: Option<String>,

    /// Whether this cluster may write.
    #[serde(default)]
    pub access: Access,

    /// What happens when there is no repository at `url`.
    #[serde(default)]
    pub initialize: Initialize,

    /// Which recovery points appear in this cluster as RecoveryPoints. All of
    /// them can be restored, whether they appear or not.
    #[serde(default)]
    pub mirror: Mirroring,

    /// How the repository is cared for: data that nothing needs any more is
    /// collected, and what is stored is checked. Of the clusters that share a
    /// repository one does it at a time, the keeper.
    #[serde(default)]
    pub maintenance: Maintenance,

    /// How many movers of this cluster save into the repository, and as many again restore
    /// from it, at a time. Without it as many as the installation lets run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrent_movers: Option<u16>,

    /// Stops all use of the repository. Set on a Repository that was restored.
    #[serde(default)]
    pub suspend: bool,
}

/// Whether a cluster may write to a repository.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Access {
    /// Backups are written, and recovery points may be marked as forgotten.
    #[default]
    ReadWrite,
    /// Nothing is ever written, not even a probe.
    ReadOnly,
}

/// What happens when there is no repository at the URL.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Initialize {
    /// One is made, if the place is empty.
    #[default]
    IfMissing,
    /// The Repository is not ready until someone runs `lifebuoy repo init`.
    Never,
}

/// Which recovery points are mirrored into the cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mirroring {
    /// Names of other clusters whose newest five points of each schedule are
    /// mirrored. The own cluster's points always are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub clusters: Vec<String>,
}

/// An object in the same namespace.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A key of a Secret in the same namespace.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyReference {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in its data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// What the operator found at the place.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling`, `Stalled`, `Healthy`, `Maintained`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The repository's own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The version of the repository's format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format_version: Option<i64>,
    /// `ReadWrite`, or `ReadOnly` where the spec, the credentials or the format
    /// allow no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// How many recovery points can be restored, of all clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_points: Option<i64>,
    /// The clusters that have saved here, at most 64 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<RepositoryCluster>,
    /// When the store was last probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Time>,
    /// How much is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<RepositoryStorage>,
    /// The `clusterName` of the cluster that keeps the repository: the one that
    /// collects and checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<String>,
    /// The last collection by this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_collection: Option<RepositoryCollection>,
    /// The last check by this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_check: Option<RepositoryCheck>,
}

/// A cluster that has saved to the repository.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryCluster {
    /// Its `clusterName`.
    pub name: String,
    /// The uid of its `kube-system` namespace.
    pub uid: String,
    /// How many of its recovery points can be restored.
    pub recovery_points: i64,
}
