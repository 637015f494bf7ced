//! The kinds of lifebuoy (`lifebuoy.dev/v1alpha1`): one file a kind.
//!
//! Holds types, names and reasons only. It never talks to a cluster, has no
//! async code, and decides nothing: rules that a schema can express are CEL
//! rules on the types, everything else is validated where it is used.

mod backup;
mod conditions;
mod names;
mod problem;
mod recovery_point;
mod remap;
mod repository;
mod restore;
mod schedule;
mod selection;
pub mod time;

pub use backup::{Backup, BackupProgress, BackupSpec, BackupStatus, VolumePolicy};
pub use conditions::{ConditionType, Reason, condition, find, is_true, upsert};
pub use names::*;
pub use problem::{MAX_PROBLEM_BYTES, MAX_PROBLEMS, Problem, Severity, bounded};
pub use recovery_point::{
    Completeness, Consistency, PointCluster, RecoveryPoint, RecoveryPointSpec, RecoveryPointStatus,
};
pub use remap::{
    ExistingOverride, ExistingPolicy, ExistingRules, Mapping, NameMapping, ObjectMatch,
    PrefixMapping, Transform,
};
pub use repository::{
    Access, Initialize, KeyReference, LocalReference, Mirroring, Repository, RepositoryCluster,
    RepositorySpec, RepositoryStatus,
};
pub use restore::{
    Restore, RestoreCounts, RestoreMode, RestoreSource, RestoreSpec, RestoreStatus,
    RestoreVolumePolicy,
};
pub use schedule::{
    BackupTemplate, ConcurrencyPolicy, Retention, Schedule, ScheduleSpec, ScheduleStatus,
    TemplateMetadata,
};
pub use selection::{ClusterScoped, Selection};

/// Every CustomResourceDefinition of lifebuoy, in the order in which they are
/// listed in the chart.
#[must_use]
pub fn all_crds()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>
{
    use kube::CustomResourceExt;
    vec![
        Repository::crd(),
        Backup::crd(),
        Schedule::crd(),
        RecoveryPoint::crd(),
        Restore::crd(),
    ]
}
