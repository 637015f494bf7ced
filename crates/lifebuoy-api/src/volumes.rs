//! How a backup saves the data of volumes: which way for which volume, and what
//! applications are told meanwhile.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which way the data of some volumes is saved. Of several rules, the first that
/// matches a volume counts.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.snapshotClass) || self.way == 'Move' || self.way == 'Snapshot'")
    .message("`snapshotClass` goes with `way: Move` or `way: Snapshot`"))]
pub struct VolumeRule {
    /// The volumes that it is about: those that match each field that is given.
    #[serde(default, rename = "match")]
    pub matching: VolumeMatch,

    /// What is done about them.
    pub way: VolumeWay,

    /// The VolumeSnapshotClass to take. Without it, the default class of the
    /// volume's driver; if there is none, its only class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub snapshot_class: Option<String>,
}

/// Volumes, by what is known of them. Without any field, all.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeMatch {
    /// Namespaces of the claims, by name or glob.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub namespaces: Vec<String>,

    /// Labels of the claims; of the pods for the type `EmptyDir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,

    /// Storage classes, by name or glob.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub storage_classes: Vec<String>,

    /// CSI drivers, by name or glob.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub drivers: Vec<String>,

    /// What is behind the volumes. Without it, anything but `EmptyDir`: the directory that
    /// a pod has for as long as it is there is saved by a rule that names it only, with
    /// `way: FileSystem`, and no Restore fills it again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub volume_types: Vec<VolumeType>,

    /// Access modes: volumes that have one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub access_modes: Vec<AccessMode>,

    /// No smaller than this, such as `10Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub min_size: Option<String>,

    /// No larger than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub max_size: Option<String>,
}

/// What is done about the data of a volume.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum VolumeWay {
    /// A snapshot of the storage system is read into the repository, and deleted.
    Move,
    /// What is mounted on a pod's node is read into the repository, while the pod
    /// writes. For storage without snapshots: files that change meanwhile are
    /// named.
    FileSystem,
    /// A snapshot of the storage system is kept there, for as long as the recovery
    /// point is. A fast way back, and no backup elsewhere: what destroys the storage
    /// system destroys it too. Only clusters that this very storage serves can restore
    /// it, and no single file of it.
    Snapshot,
    /// Nothing; the recovery point says so.
    Skip,
}

/// What is behind a volume.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub enum VolumeType {
    /// A CSI driver.
    Csi,
    /// A directory of a node.
    HostPath,
    /// A disk or directory that belongs to a node.
    Local,
    /// An NFS share.
    Nfs,
    /// A directory that a pod has for as long as it is there. It is no claim: the labels
    /// are those of the pod, and its `sizeLimit` is its size. Only rules that name this
    /// type are about it, and only `way: FileSystem` saves it; a Restore does not fill it
    /// again.
    EmptyDir,
    /// Anything else.
    Other,
}

/// How pods may have a volume.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum AccessMode {
    /// One node writes.
    ReadWriteOnce,
    /// Many nodes read.
    ReadOnlyMany,
    /// Many nodes write.
    ReadWriteMany,
    /// One pod writes.
    ReadWriteOncePod,
}

/// What is run in pods around the snapshots of their volumes, and not while data
/// is sent: the application is asked to be consistent on disk, and is asked to go
/// on as soon as the snapshots are cut.
///
/// Both commands are run by one process in the container. That process runs
/// `resume` at the latest when the timeout passes or when its connection to the
/// operator ends, whatever becomes of the operator. The container needs `sh`,
/// `cat` and `sleep`.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// Namespaces of the pods, by name or glob. Empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub namespaces: Vec<String>,

    /// Labels of the pods. Of these, the running ones that mount a volume which is
    /// snapshotted are meant.
    pub label_selector: LabelSelector,

    /// The container; the first one of the pod without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,

    /// A command of `sh` that makes the application consistent on disk.
    #[schemars(length(min = 1, max = 4096))]
    pub quiesce: String,

    /// A command of `sh` that lets the application go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub resume: Option<String>,

    /// How long the application may be held, in seconds.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: i64,

    /// What a failure of a command, or a snapshot that was not cut in time, means.
    #[serde(default)]
    pub on_failure: HookFailure,
}

const fn default_timeout() -> i64 {
    60
}

/// What the failure of a hook means.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum HookFailure {
    /// The volumes of the pod are not saved, and the recovery point is `Partial`.
    #[default]
    Fail,
    /// The volumes are saved as they are, and the recovery point warns of it.
    Continue,
}
