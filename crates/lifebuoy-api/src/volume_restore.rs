//! `VolumeRestore`: what one claim is filled with. Made by a Restore, and named by
//! the claim's `spec.dataSourceRef`, unless the claim exists and its volume is overwritten.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Problem;

/// One volume that is filled with the data of a recovery point, before its
/// PersistentVolumeClaim is bound to it. A Restore makes one for each claim whose
/// data was saved. The claim names it in `spec.dataSourceRef`, and it names the
/// claim: only if both point to each other is anything done. With `inPlace` the claim
/// exists, and the data on its volume is replaced: only if the Restore is there and says
/// `existingVolumes: Overwrite`.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[kube(
    group = "lifebuoy.dev",
    version = "v1alpha1",
    kind = "VolumeRestore",
    plural = "volumerestores",
    namespaced,
    status = "VolumeRestoreStatus",
    category = "lifebuoy",
    shortname = "lbv",
    derive = "PartialEq",
    validation = Rule::new("self.spec == oldSelf.spec")
        .message("a VolumeRestore is immutable: a Restore makes another one")
        .field_path(".spec"),
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Claim-Namespace","type":"string","jsonPath":".spec.claim.namespace"}"#,
    printcolumn = r#"{"name":"Claim","type":"string","jsonPath":".spec.claim.name"}"#,
    printcolumn = r#"{"name":"Bytes","type":"integer","jsonPath":".status.progress.bytes"}"#,
    printcolumn = r#"{"name":"Of","type":"integer","jsonPath":".status.progress.bytesTotal"}"#,
    printcolumn = r#"{"name":"In-Place","type":"boolean","jsonPath":".spec.inPlace","priority":1}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".status.node","priority":1}"#,
    printcolumn = r#"{"name":"Completed","type":"date","jsonPath":".status.completionTime"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeRestoreSpec {
    /// The Repository in the same namespace that holds the data.
    #[schemars(length(min = 1, max = 253))]
    pub repository: String,

    /// The snapshot of the recovery point.
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub snapshot: String,

    /// The claim whose data was saved, as it was captured.
    pub volume: ClaimReference,

    /// The claim in this cluster that is filled.
    pub claim: ClaimReference,

    /// The Restore that asked for it.
    pub restore: RestoreReference,

    /// Whether the claim exists, and the data on its volume is replaced.
    #[serde(default)]
    pub in_place: bool,

    /// The snapshot in the storage system that the volume is made of. Without it, the
    /// data is read from the Repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptSnapshot>,
}

/// A snapshot that is kept in the storage system.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeptSnapshot {
    /// The CSI driver that made it.
    #[schemars(length(min = 1, max = 253))]
    pub driver: String,
    /// What the driver calls it.
    #[schemars(length(min = 1, max = 1024))]
    pub handle: String,
    /// Its VolumeSnapshotClass. Where a cluster has none of this name for the driver,
    /// another one of the driver is taken.
    #[schemars(length(min = 1, max = 253))]
    pub snapshot_class: String,
    /// How large a volume of it is at least, in bytes.
    #[schemars(range(min = 0))]
    pub restore_bytes: i64,
}

/// A PersistentVolumeClaim, by its name.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimReference {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A Restore in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its uid.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// How the filling goes, and how it ended.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRestoreStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Complete`, `Failed`, `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// One word for the printed column: `Pending`, `Holding`, `Running`, `Binding`,
    /// `Releasing`, `Complete`, `Partial`, `Failed`, `Cancelled`, `Stalled`. Programs read the conditions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// When work began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The uid of the claim that is filled. One that is made later under the same
    /// name is another claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_uid: Option<String>,
    /// The node that the first pod was scheduled to, where the class waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The volume that is filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_name: Option<String>,
    /// When all data was in the volume. From then on nothing writes to it but the
    /// pods of the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled_time: Option<Time>,
    /// How often filling was begun.
    #[serde(default)]
    pub attempts: i64,
    /// What was done until now.
    #[serde(default)]
    pub progress: VolumeRestoreProgress,
    /// How many problems there are; the list below may be shorter.
    #[serde(default)]
    pub problem_count: i64,
    /// At most 20 problems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// How much of a volume is filled.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRestoreProgress {
    /// Files, directories and whatever else is there.
    pub entries: i64,
    /// How many there will be.
    pub entries_total: i64,
    /// Bytes that are there.
    pub bytes: i64,
    /// How many there will be.
    pub bytes_total: i64,
}
