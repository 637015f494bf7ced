//! `Schedule`: Backups at set times.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BackupSpec, TimeSpan};

/// Makes a Backup at set times, and says which recovery points are kept.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[kube(
    group = "lifebuoy.dev",
    version = "v1alpha1",
    kind = "Schedule",
    plural = "schedules",
    namespaced,
    status = "ScheduleStatus",
    category = "lifebuoy",
    shortname = "lbs",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Cron","type":"string","jsonPath":".spec.cron"}"#,
    printcolumn = r#"{"name":"TimeZone","type":"string","jsonPath":".spec.timeZone"}"#,
    printcolumn = r#"{"name":"Suspend","type":"boolean","jsonPath":".spec.suspend"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Last","type":"date","jsonPath":".status.lastSuccessfulTime"}"#,
    printcolumn = r#"{"name":"Next","type":"string","jsonPath":".status.nextScheduleTime"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduleSpec {
    /// When, in the five fields of a Kubernetes CronJob (minute, hour, day of
    /// month, month, day of week), or a name such as `@daily`.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self.startsWith('@') || self.trim().split(' ').filter(f, f != '').size() == 5")
        .message("`cron` has five fields (minute hour day month weekday), or is a name such as @daily"))]
    #[x_kube(validation = Rule::new("!self.contains('TZ=')")
        .message("the time zone goes into `timeZone`, not into `cron`"))]
    pub cron: String,

    /// The IANA name of the time zone of `cron`, such as `Europe/Berlin`.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,

    /// No Backups are made while it is set. Set on a Schedule that was restored.
    #[serde(default)]
    pub suspend: bool,

    /// How late a Backup may begin, in seconds after its time. Without it, a
    /// Backup that was missed is made however late it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub starting_deadline_seconds: Option<i64>,

    /// What happens at a time when the Backup before has not ended.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,

    /// The Backups that are made.
    pub template: BackupTemplate,

    /// Which recovery points of this cluster and schedule are kept. A point
    /// stays if any of the rules keeps it; without a rule, all stay. What does
    /// not stay is marked as forgotten in the repository; its data is deleted as
    /// the Repository's `maintenance` says, and not before.
    ///
    /// The rules choose among complete points. A partial one stays as long as
    /// the complete one before it. Nothing is forgotten while the newest point is
    /// partial, or while anything in the repository cannot be read; the newest
    /// complete point and pinned ones never are.
    ///
    /// Newer is what has the higher sequence number in the repository, whatever
    /// any clock says. The time at which a point was taken only tells its hour,
    /// day, week, month and year, in the `timeZone` of the Schedule.
    #[serde(default)]
    pub retention: Retention,

    /// How many Backups that completed stay as objects; their recovery points
    /// do not depend on it.
    #[serde(default = "default_successful")]
    #[schemars(range(min = 0, max = 1000))]
    pub successful_backups_history_limit: i64,

    /// How many Backups that failed stay as objects.
    #[serde(default = "default_failed")]
    #[schemars(range(min = 0, max = 1000))]
    pub failed_backups_history_limit: i64,
}

fn utc() -> String {
    "Etc/UTC".to_owned()
}

const fn default_successful() -> i64 {
    3
}

const fn default_failed() -> i64 {
    3
}

/// The Backups that a Schedule makes.
#[derive(Clone, Debug, Deserialize, Serialize, KubeSchema, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupTemplate {
    /// Labels and annotations of the Backups.
    #[serde(default)]
    pub metadata: TemplateMetadata,
    /// Their spec.
    #[x_kube(validation = Rule::new("!self.cancel").message("a template cannot be cancelled: use `suspend`"))]
    pub spec: BackupSpec,
}

/// Labels and annotations for objects made from a template.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What happens at a time when the Backup before has not ended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
pub enum ConcurrencyPolicy {
    /// The new one is not made.
    #[default]
    Forbid,
    /// Both run.
    Allow,
    /// The old one is cancelled.
    Replace,
}

/// Which recovery points are kept: those that any of the rules keeps.
#[derive(Clone, Debug, Default, Deserialize, Serialize, KubeSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// This many of the newest points are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_last: Option<i64>,
    /// The newest point of each of this many hours is kept. Hours without a
    /// point do not count; an hour that the clocks repeat is two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_hourly: Option<i64>,
    /// The newest point of each of this many days is kept. Days without a
    /// point do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_daily: Option<i64>,
    /// The newest point of each of this many weeks, which begin on Monday, is
    /// kept. Weeks without a point do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_weekly: Option<i64>,
    /// The newest point of each of this many months is kept. Months without a
    /// point do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_monthly: Option<i64>,
    /// The newest point of each of this many years is kept. Years without a
    /// point do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_yearly: Option<i64>,
    /// Every point is kept that was taken at most this long before the newest
    /// one, such as `72h`. The longest pause between two points is not counted,
    /// so that neither a Schedule that was suspended nor a clock that jumped
    /// lets them all go at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?$') && self != '' && duration(self) >= duration('1m') && duration(self) <= duration('876000h')")
        .message("`keepWithin` is a time between 1m and 876000h, in hours, minutes and seconds, such as 72h"))]
    pub keep_within: Option<TimeSpan>,
}

/// What the schedule has done, and what comes next.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Names of the Backups that have not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<String>,
    /// The newest tick for which a Backup was made or skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When a Backup last completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,
    /// The next tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// How many ticks passed without a Backup of their own.
    #[serde(default)]
    pub missed_ticks: i64,
}
