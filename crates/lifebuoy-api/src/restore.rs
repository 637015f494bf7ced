//! `Restore`: a request to replay a recovery point into this cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ExistingRules, Mapping, Problem, Selection, Transform};

/// A request to replay a recovery point into this cluster, remapped. It begins
/// as a plan that can be read before anything is changed.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[kube(
    group = "lifebuoy.dev",
    version = "v1alpha1",
    kind = "Restore",
    plural = "restores",
    namespaced,
    status = "RestoreStatus",
    category = "lifebuoy",
    shortname = "lbr",
    derive = "PartialEq",
    // `has` instead of `.?` where the field is a string or a list: the server
    // cannot bound the cost of comparing optional values.
    validation = Rule::new("self.spec.from == oldSelf.spec.from && self.spec.mode == oldSelf.spec.mode && has(self.spec.planDigest) == has(oldSelf.spec.planDigest) && (!has(self.spec.planDigest) || self.spec.planDigest == oldSelf.spec.planDigest) && self.spec.selection == oldSelf.spec.selection && self.spec.mapping == oldSelf.spec.mapping && has(self.spec.transforms) == has(oldSelf.spec.transforms) && (!has(self.spec.transforms) || self.spec.transforms == oldSelf.spec.transforms) && self.spec.existing == oldSelf.spec.existing && self.spec.volumes == oldSelf.spec.volumes && self.spec.existingVolumes == oldSelf.spec.existingVolumes && has(self.spec.rerun) == has(oldSelf.spec.rerun) && (!has(self.spec.rerun) || self.spec.rerun == oldSelf.spec.rerun) && self.spec.?ttlSecondsAfterFinished == oldSelf.spec.?ttlSecondsAfterFinished")
        .message("a Restore is immutable but for `spec.cancel`: create another one")
        .field_path(".spec"),
    validation = Rule::new("!oldSelf.spec.cancel || self.spec.cancel")
        .message("`cancel` cannot be taken back: create another Restore")
        .field_path(".spec.cancel"),
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode"}"#,
    printcolumn = r#"{"name":"Planned","type":"integer","jsonPath":".status.counts.planned"}"#,
    printcolumn = r#"{"name":"Done","type":"integer","jsonPath":".status.counts.done"}"#,
    printcolumn = r#"{"name":"Failed","type":"integer","jsonPath":".status.counts.failed"}"#,
    printcolumn = r#"{"name":"Volumes","type":"integer","jsonPath":".status.volumes.done"}"#,
    printcolumn = r#"{"name":"Completed","type":"date","jsonPath":".status.completionTime"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.planDigest) || self.mode == 'Run'")
    .message("`planDigest` goes with `mode: Run`: it says which reviewed plan may run"))]
#[x_kube(validation = Rule::new("self.existingVolumes == 'Keep' || self.volumes != 'Skip'")
    .message("`existingVolumes: Overwrite` restores data, and `volumes: Skip` restores none"))]
pub struct RestoreSpec {
    /// What is restored.
    pub from: RestoreSource,

    /// Whether the plan is only made, or also carried out.
    #[serde(default)]
    pub mode: RestoreMode,

    /// The digest of the plan that was reviewed, from the status of a Restore
    /// with `mode: Plan`. The restore is refused when the plan of now differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"))]
    pub plan_digest: Option<String>,

    /// Which of the captured objects are restored, by their names in the source
    /// cluster.
    #[serde(default)]
    pub selection: Selection,

    /// Names that differ in this cluster.
    #[serde(default)]
    pub mapping: Mapping,

    /// Changes to objects, after the mapping, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub transforms: Vec<Transform>,

    /// What happens to objects that exist.
    #[serde(default)]
    pub existing: ExistingRules,

    /// What happens to PersistentVolumeClaims whose data was not saved, and whether
    /// the others are filled.
    #[serde(default)]
    pub volumes: RestoreVolumePolicy,

    /// What happens to the data on the volumes of claims that exist.
    // Rules ask for it, and a default that is not written would not be in the schema.
    #[serde(default, skip_serializing_if = "ExistingVolumes::is_keep")]
    #[schemars(extend("default" = "Keep"))]
    pub existing_volumes: ExistingVolumes,

    /// A Restore equal to one that ran already (same recovery point, cluster and
    /// spec) ends without doing anything, unless it has another token here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub rerun: Option<String>,

    /// How long this object stays after it has ended, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i64>,

    /// Stops the restore. What was restored stays.
    #[serde(default)]
    pub cancel: bool,
}

/// Where a restore reads: a RecoveryPoint, or a snapshot in a repository, or
/// the newest complete one of a cluster and schedule.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.recoveryPoint) != has(self.repository)")
    .message("`from` has either `recoveryPoint`, or `repository` with `snapshot`, or `repository` with `cluster`"))]
#[x_kube(validation = Rule::new("!has(self.recoveryPoint) || !(has(self.snapshot) || has(self.cluster) || has(self.schedule))")
    .message("with `recoveryPoint`, nothing else goes into `from`"))]
#[x_kube(validation = Rule::new("!has(self.repository) || has(self.snapshot) != has(self.cluster)")
    .message("`repository` needs either `snapshot`, or `cluster` (and `schedule`) for the newest complete one"))]
#[x_kube(validation = Rule::new("!has(self.schedule) || has(self.cluster)")
    .message("`schedule` needs `cluster`: a lineage is a cluster and a schedule"))]
pub struct RestoreSource {
    /// A RecoveryPoint in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub recovery_point: Option<String>,
    /// A Repository in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub repository: Option<String>,
    /// A snapshot in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub snapshot: Option<String>,
    /// The `clusterName` whose newest complete snapshot is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub cluster: Option<String>,
    /// The Schedule of that cluster; without it, Backups of all schedules and
    /// those made by hand count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub schedule: Option<String>,
}

/// Whether a plan is only made, or also carried out.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum RestoreMode {
    /// The plan is made and nothing is changed.
    Plan,
    /// The plan is made and carried out.
    #[default]
    Run,
}

/// What a restore does with the data of PersistentVolumeClaims.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum RestoreVolumePolicy {
    /// Claims whose data was saved are filled with it. Others are withheld, and with
    /// them everything that mounts them.
    #[default]
    Withhold,
    /// Claims whose data was saved are filled with it. Others are created empty.
    Empty,
    /// No data is restored: all claims are created empty.
    Skip,
}

/// What a restore does with the data on the volumes of PersistentVolumeClaims that exist.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum ExistingVolumes {
    /// It stays.
    #[default]
    Keep,
    /// It is replaced by what was saved of it: files that were not saved are removed. What
    /// mounts the volume is stopped before, and started again when the volume is whole. The
    /// claim itself stays as it is.
    Overwrite,
}

impl ExistingVolumes {
    /// Whether nothing on them changes. Without the field, specs are what they were before
    /// there was one.
    #[must_use]
    pub fn is_keep(&self) -> bool {
        *self == Self::Keep
    }
}

/// How the restore goes, and how it ended.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Complete`, `Failed`, `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// One word for the printed column: `Pending`, `Planning`, `Planned`,
    /// `Running`, `Complete`, `Partial`, `Failed`, `Cancelled`, `Stalled`.
    /// Programs read the conditions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// When work began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// How often an attempt was begun.
    #[serde(default)]
    pub attempts: i64,
    /// The snapshot that `from` stands for. Once set it does not change, so a
    /// resumed restore reads what it read before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// A hash of the spec, of what is restored and of the cluster; two Restores
    /// with one fingerprint ask for the same thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The digest of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_digest: Option<String>,
    /// Names of the Secrets that hold the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan_secrets: Vec<String>,
    /// Names of the Secrets that hold the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub report_secrets: Vec<String>,
    /// What was done until now.
    #[serde(default)]
    pub counts: RestoreCounts,
    /// What was done until now about the data of volumes; none if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<RestoreVolumes>,
    /// How many problems there are; the list below may be shorter.
    #[serde(default)]
    pub problem_count: i64,
    /// At most 20 problems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// What a restore has done until now, in objects.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestoreCounts {
    /// Objects in the plan that something is to be done about.
    pub planned: i64,
    /// Objects that were dealt with: the sum of the following.
    pub done: i64,
    /// Created.
    pub created: i64,
    /// Merged into an existing object.
    pub merged: i64,
    /// Replaced.
    pub replaced: i64,
    /// Left alone, because they exist.
    pub skipped: i64,
    /// Withheld, because the data of their volumes was not saved.
    pub withheld: i64,
    /// Not restored; the report says why.
    pub failed: i64,
}

/// What a restore has done until now about the data of volumes.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RestoreVolumes {
    /// Volumes that are to be filled.
    pub total: i64,
    /// Volumes that are filled, with their claims bound to them.
    pub done: i64,
    /// Volumes among them whose own data was replaced.
    #[serde(default)]
    pub overwritten: i64,
    /// Volumes that were not filled, or not with everything; the report says why.
    pub failed: i64,
    /// Volumes that are filled when a pod asks for them: their class wants to know
    /// the node first. They do not hold up the end of the Restore.
    pub waiting: i64,
    /// Bytes that are in the volumes.
    pub bytes: i64,
    /// Bytes that were saved of them.
    pub bytes_total: i64,
}
