//! `Backup`: a request to save a selection now.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Consistency, Hook, Problem, Selection, VolumeRule};

/// A request to save a selection of the cluster now. It ends with the
/// condition `Complete` or `Failed`; what it saved is a RecoveryPoint.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[kube(
    group = "lifebuoy.dev",
    version = "v1alpha1",
    kind = "Backup",
    plural = "backups",
    namespaced,
    status = "BackupStatus",
    category = "lifebuoy",
    shortname = "lbb",
    derive = "PartialEq",
    // Transition rules stand on the kind, not on the spec: a Schedule's template
    // holds the same spec and may change.
    validation = Rule::new("self.spec.repository == oldSelf.spec.repository && self.spec.selection == oldSelf.spec.selection && self.spec.volumes == oldSelf.spec.volumes && has(self.spec.volumePolicies) == has(oldSelf.spec.volumePolicies) && (!has(self.spec.volumePolicies) || self.spec.volumePolicies == oldSelf.spec.volumePolicies) && has(self.spec.hooks) == has(oldSelf.spec.hooks) && (!has(self.spec.hooks) || self.spec.hooks == oldSelf.spec.hooks) && self.spec.?activeDeadlineSeconds == oldSelf.spec.?activeDeadlineSeconds && self.spec.?ttlSecondsAfterFinished == oldSelf.spec.?ttlSecondsAfterFinished")
        .message("a Backup is immutable but for `spec.cancel`: create another one")
        .field_path(".spec"),
    validation = Rule::new("!oldSelf.spec.cancel || self.spec.cancel")
        .message("`cancel` cannot be taken back: create another Backup")
        .field_path(".spec.cancel"),
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Objects","type":"integer","jsonPath":".status.progress.objects"}"#,
    printcolumn = r#"{"name":"Volumes","type":"integer","jsonPath":".status.progress.volumes"}"#,
    printcolumn = r#"{"name":"Point","type":"string","jsonPath":".status.recoveryPoint"}"#,
    printcolumn = r#"{"name":"Consistency","type":"string","jsonPath":".status.consistency","priority":1}"#,
    printcolumn = r#"{"name":"Completed","type":"date","jsonPath":".status.completionTime"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupSpec {
    /// The Repository in the same namespace to save to.
    #[schemars(length(min = 1, max = 253))]
    pub repository: String,

    /// What is saved.
    #[serde(default)]
    pub selection: Selection,

    /// Whether the data of PersistentVolumeClaims belongs to the backup.
    #[serde(default)]
    pub volumes: VolumePolicy,

    /// Which way the data of a volume is saved: the first rule that matches it
    /// counts. A volume that none matches is moved if its CSI driver has a
    /// VolumeSnapshotClass; otherwise what a pod has mounted is read, if it is a
    /// CSI volume that a pod has mounted; everything else is not saved, and said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub volume_policies: Vec<VolumeRule>,

    /// What applications are told around the snapshots of their volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub hooks: Vec<Hook>,

    /// How long the backup may take, in seconds, counted from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub active_deadline_seconds: Option<i64>,

    /// How long this object stays after it has ended, in seconds. The recovery
    /// point stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i64>,

    /// Ends the backup without a result.
    #[serde(default)]
    pub cancel: bool,
}

/// What a backup does about the data of PersistentVolumeClaims.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum VolumePolicy {
    /// The data belongs to the backup: a claim whose data was not saved makes
    /// the recovery point `Partial`, reason `VolumeDataNotSaved`.
    #[default]
    Save,
    /// Claims are saved without their data, and that is what is wanted.
    Skip,
}

/// How the backup goes, and how it ended.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Complete`, `Failed`, `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// One word for the printed column: `Pending`, `Running`, `Complete`,
    /// `Partial`, `Failed`, `Cancelled`, `Stalled`. Programs read the conditions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// When the first attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// How often an attempt was begun.
    #[serde(default)]
    pub attempts: i64,
    /// The session in the repository of the attempt that runs or that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The snapshot in the repository, once it is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The RecoveryPoint in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point: Option<String>,
    /// Whether all types were read at one revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// What was done until now.
    #[serde(default)]
    pub progress: BackupProgress,
    /// How many problems there are; the list below may be shorter.
    #[serde(default)]
    pub problem_count: i64,
    /// At most 20 problems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// What a backup has done until now.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupProgress {
    /// Types that were read.
    pub types: i64,
    /// Types in the selection.
    pub types_total: i64,
    /// Objects that were saved.
    pub objects: i64,
    /// Bytes of their JSON.
    pub bytes: i64,
    /// Bytes that were new to the repository, as stored.
    pub bytes_stored: i64,
    /// Objects put into the store.
    pub puts: i64,
    /// Volumes whose data is dealt with.
    #[serde(default)]
    pub volumes: i64,
    /// Volumes whose data is to be saved; 0 while that is unknown.
    #[serde(default)]
    pub volumes_total: i64,
    /// Bytes of volumes that were read, or found to be unchanged.
    #[serde(default)]
    pub volume_bytes: i64,
    /// Bytes of volumes that are to be read, as far as it is known.
    #[serde(default)]
    pub volume_bytes_total: i64,
    /// Files of volumes that were read, or found to be unchanged.
    #[serde(default)]
    pub volume_files: i64,
    /// Bytes of volumes that were new to the repository, as stored.
    #[serde(default)]
    pub volume_bytes_stored: i64,
}
