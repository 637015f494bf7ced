//! The care of a repository: what a person asks for in a `Repository`, and
//! what is reported there about size, collections and checks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Problem, TimeSpan};

/// How a repository is cared for by the one cluster that keeps it.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Maintenance {
    /// Whether a collection deletes what nothing needs, or only reports it.
    /// `Enabled` needs credentials that may delete.
    #[serde(default)]
    pub collect: Collect,

    /// How often the keeper collects and checks, such as `24h`.
    #[serde(default = "default_interval")]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$') && self != '' && duration(self) >= duration('1m') && duration(self) <= duration('8760h')")
        .message("`interval` is a time between 1m and 8760h, in hours, minutes and seconds, such as 24h"))]
    pub interval: TimeSpan,

    /// How long the data of a recovery point stays after somebody asked to
    /// forget it, by the store's clock. A pin keeps it for longer.
    #[serde(default = "default_grace")]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$') && self != '' && duration(self) >= duration('1h') && duration(self) <= duration('8760h')")
        .message("`grace` is a time between 1h and 8760h, in hours, minutes and seconds, such as 168h"))]
    pub grace: TimeSpan,

    /// How many of the newest recovery points of each cluster and schedule, and
    /// how many of the newest complete ones, the keeper never lets go, whoever
    /// asked to forget them and whatever any clock says.
    #[serde(default = "default_keep_at_least")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep_at_least: i64,

    /// A collection that would delete more of the stored bytes than this share,
    /// in percent, deletes nothing and says so: reason `CollectionRefused`. 100
    /// is no limit.
    #[serde(default = "default_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub delete_at_most_percent: i64,

    /// A pack of which less than this share of the bytes is still needed, in
    /// percent, is written anew without the rest. 0 never does that.
    #[serde(default = "default_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub repack_below_percent: i64,

    /// How the keeper checks what is stored.
    #[serde(default)]
    pub check: CheckRules,
}

/// Whether a collection deletes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum Collect {
    /// What could be deleted is counted, and nothing is.
    #[default]
    ReportOnly,
    /// What no recovery point needs is deleted once `grace` has passed.
    Enabled,
}

/// How the keeper checks what is stored.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckRules {
    /// In how many days all data is read once and compared with its checksums,
    /// a share of it with each check. 0 reads no data: only the structure is
    /// checked, and that every object is there.
    #[serde(default = "default_read_all_in_days")]
    #[schemars(range(min = 0, max = 3650))]
    pub read_all_in_days: i64,
}

const fn default_interval() -> TimeSpan {
    TimeSpan::hours(24)
}

const fn default_grace() -> TimeSpan {
    TimeSpan::hours(7 * 24)
}

const fn default_keep_at_least() -> i64 {
    3
}

const fn default_percent() -> i64 {
    50
}

const fn default_read_all_in_days() -> i64 {
    30
}

impl Default for Maintenance {
    fn default() -> Self {
        Self {
            collect: Collect::default(),
            interval: default_interval(),
            grace: default_grace(),
            keep_at_least: default_keep_at_least(),
            delete_at_most_percent: default_percent(),
            repack_below_percent: default_percent(),
            check: CheckRules::default(),
        }
    }
}

impl Default for CheckRules {
    fn default() -> Self {
        Self {
            read_all_in_days: default_read_all_in_days(),
        }
    }
}

/// How much a repository holds.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStorage {
    /// Bytes in the store, as they are stored: compressed and encrypted.
    pub bytes: i64,
    /// Objects in the store.
    pub objects: i64,
    /// Packs among them.
    pub packs: i64,
    /// Bytes of what the recovery points need before compression, each piece
    /// counted once however many points share it; missing where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_bytes: Option<i64>,
    /// Bytes of the packs that no recovery point needs.
    pub garbage_bytes: i64,
    /// How many packs that is.
    pub garbage_packs: i64,
    /// When this was found.
    pub as_of: Time,
}

/// One collection of what nothing needs.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryCollection {
    /// When it ended.
    pub time: Time,
    /// Its number in the repository; missing when none was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// One word: `Collected`, `Reported`, or the reason why it deleted nothing.
    pub outcome: String,
    /// One sentence for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Bytes that it deleted.
    pub deleted_bytes: i64,
    /// Objects that it deleted.
    pub deleted_objects: i64,
    /// Forgotten recovery points whose data it let go.
    pub snapshots_forgotten: i64,
    /// How long it took, in seconds.
    pub duration_seconds: i64,
}

/// One check of what is stored.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryCheck {
    /// When it ended.
    pub time: Time,
    /// How deep it looked.
    pub level: CheckLevel,
    /// One word: `CheckPassed`, `CheckFailed`, or the reason why it did not end.
    pub outcome: String,
    /// One sentence for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Objects that were looked at.
    pub objects_checked: i64,
    /// Bytes that were read and compared with their checksums.
    pub bytes_checked: i64,
    /// How many problems there are; the list below may be shorter.
    #[serde(default)]
    pub problem_count: i64,
    /// At most 20 problems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// Everything that was stored at this time has been read since; missing
    /// until all was read once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_through_time: Option<Time>,
    /// How far the present turn of reading everything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<RepositoryReading>,
}

/// One turn of reading all data, a share of it with each check.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryReading {
    /// When the turn began.
    pub since: Time,
    /// Into how many shares the data is divided.
    pub shares: i64,
    /// How many of them were read.
    pub read: i64,
}

/// How deep a check looks. Each level includes those before it.
#[derive(
    Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum CheckLevel {
    /// The records and the trees of every recovery point.
    Structure,
    /// That every object is in the store with the size that the index says.
    Objects,
    /// A share of the data, read and compared with its checksums.
    Share,
    /// All data, read and compared with its checksums.
    All,
}
