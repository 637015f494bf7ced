//! The kinds of lifebuoy (`lifebuoy.dev/v1alpha1`): one file a kind.
//!
//! Holds types, names and reasons only. It never talks to a cluster, has no
//! async code, and decides nothing: rules that a schema can express are CEL
//! rules on the types, everything else is validated where it is used.

#![allow(
    unreachable_pub,
    reason = "the derive of KubeSchema copies each type into a function, with its visibility"
)]

mod backup;
mod conditions;
mod maintenance;
mod names;
mod problem;
mod recovery_point;
mod remap;
mod repository;
mod restore;
mod schedule;
mod selection;
mod span;
pub mod time;
mod volume_restore;
mod volumes;

pub use backup::{Backup, BackupProgress, BackupSpec, BackupStatus, VolumePolicy};
pub use conditions::{ConditionType, Reason, condition, find, is_true, unknown, upsert};
pub use maintenance::{
    CheckLevel, CheckRules, Collect, Maintenance, RepositoryCheck, RepositoryCollection,
    RepositoryReading, RepositoryStorage,
};
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
    ExistingVolumes, Restore, RestoreCounts, RestoreMode, RestoreSource, RestoreSpec,
    RestoreStatus, RestoreVolumePolicy, RestoreVolumes,
};
pub use schedule::{
    BackupTemplate, ConcurrencyPolicy, Retention, Schedule, ScheduleSpec, ScheduleStatus,
    TemplateMetadata,
};
pub use selection::{ClusterScoped, Selection};
pub use span::{ParseTimeSpanError, TimeSpan};
pub use volume_restore::{
    ClaimReference, KeptSnapshot, RestoreReference, VolumeRestore, VolumeRestoreProgress,
    VolumeRestoreSpec, VolumeRestoreStatus,
};
pub use volumes::{AccessMode, Hook, HookFailure, VolumeMatch, VolumeRule, VolumeType, VolumeWay};

/// Every CustomResourceDefinition of lifebuoy, in the order in which they are
/// listed in the chart.
#[must_use]
pub fn all_crds()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>
{
    use kube::CustomResourceExt;
    let mut crds = vec![
        Repository::crd(),
        Backup::crd(),
        Schedule::crd(),
        RecoveryPoint::crd(),
        Restore::crd(),
        VolumeRestore::crd(),
    ];
    crds.iter_mut().for_each(describe_kind);
    crds
}

/// Gives the kind the description of its spec: the derive writes the type's
/// documentation there, and `kubectl explain` looks for it on the kind.
fn describe_kind(
    crd: &mut k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) {
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        let spec = root
            .properties
            .as_ref()
            .and_then(|fields| fields.get("spec"));
        root.description = spec.and_then(|spec| spec.description.clone());
    }
}
