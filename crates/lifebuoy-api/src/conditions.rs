//! Condition types and reasons, and how a condition changes in a list.

use std::fmt;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::time::to_kube;

/// The condition types that lifebuoy sets.
///
/// `Complete` and `Failed` work as those of Jobs; the others follow kstatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionType {
    /// The request has ended, and what it asked for was done.
    Complete,
    /// The request has ended without having done what it asked for.
    Failed,
    /// The object does what its spec says.
    Ready,
    /// Work is under way.
    Reconciling,
    /// No progress is possible until a person changes something.
    Stalled,
    /// Nothing that is stored was found to be damaged.
    Healthy,
    /// The repository is cared for as its spec says.
    Maintained,
}

impl ConditionType {
    /// The type as it stands in a condition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::Failed => "Failed",
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Healthy => "Healthy",
            Self::Maintained => "Maintained",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why something is as it is: one machine-readable word, shared by
        /// conditions, Events, problems and metric labels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, for documentation and metrics.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The reason as it stands in a condition.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

reasons! {
    // Outcomes.
    /// Everything that was asked for was done.
    Succeeded,
    /// The work ended, but something is missing; the problems say what.
    Partial,
    /// Someone set `spec.cancel`.
    Cancelled,
    /// Work is under way.
    InProgress,
    /// The request waits for something to be ready.
    Waiting,
    /// The plan was made; nothing was applied, as the request said.
    Planned,
    /// An equal Restore ran already.
    AlreadyRestored,
    /// The operator was stopped too often while it worked on this request.
    Interrupted,
    /// `activeDeadlineSeconds` passed before the work ended.
    DeadlineExceeded,
    /// The work ended with an error that a new request may not meet.
    InternalError,

    // What a spec can have wrong that only the operator sees.
    /// A field's value does not parse; the message names it.
    InvalidSpec,
    /// The request is outside the operator's namespace.
    NamespaceNotPermitted,
    /// This installation's `mode` does not serve such requests.
    ModeNotPermitted,
    /// The named Repository does not exist.
    RepositoryNotFound,
    /// The named Repository is not ready.
    RepositoryNotReady,
    /// The named Schedule does not exist.
    ScheduleNotFound,
    /// A Secret that the spec names does not exist or lacks a key.
    SecretNotFound,
    /// The recovery point or snapshot does not exist.
    RecoveryPointNotFound,
    /// The recovery point was forgotten.
    RecoveryPointForgotten,
    /// The session of the recovery point never ended with a commit.
    RecoveryPointNeverEnded,
    /// The recovery point was written in a newer format.
    RecoveryPointTooNew,
    /// The plan of now differs from the plan that was reviewed.
    PlanChanged,
    /// The plan cannot be carried out; the problems say why.
    PlanRefused,

    // Repositories.
    /// The store cannot be reached.
    StoreUnreachable,
    /// The store does not know the bucket.
    BucketNotFound,
    /// The credentials are refused altogether.
    AccessDenied,
    /// The credentials can read but not write.
    ReadOnlyCredentials,
    /// The credentials cannot list.
    ListDenied,
    /// The store's disk or quota is full.
    StoreFull,
    /// There is no repository at this place.
    NotInitialized,
    /// Something else lives at this place.
    ForeignBucket,
    /// The passphrase is wrong.
    WrongPassphrase,
    /// The repository's format is newer than this version understands.
    FormatTooNew,
    /// An object of the repository is damaged.
    RepositoryDamaged,
    /// The store does not create atomically; one writer at a time is safe.
    NoAtomicCreate,
    /// Another cluster uses this cluster's name, or this cluster another name.
    ClusterNameConflict,
    /// The repository can be used.
    Usable,

    // The care of a repository.
    /// No check has ended yet.
    NotChecked,
    /// The last check found everything as it should be.
    CheckPassed,
    /// The last check found damage; the problems say what.
    CheckFailed,
    /// A record of the repository cannot be read.
    RecordUnreadable,
    /// What nothing needed was deleted.
    Collected,
    /// What nothing needs was counted, and nothing was deleted.
    Reported,
    /// A collection stopped at one of its own limits, and deleted nothing.
    CollectionRefused,
    /// A collection ended with an error; the next one goes on where it stopped.
    CollectionFailed,
    /// The credentials cannot do what a keeper does.
    DeleteDenied,
    /// The repository's format is too old to be collected.
    UpgradeNeeded,
    /// Another cluster keeps the repository.
    NotKeeper,

    // Capture.
    /// A type could not be read.
    TypeUnavailable,
    /// A type could not be read at the revision of the others.
    TypeFuzzy,
    /// The data of a PersistentVolumeClaim, or of an emptyDir that a rule asks for, was
    /// not saved.
    VolumeDataNotSaved,
    /// The data of a volume was left out, as the Backup asked for.
    VolumeSkipped,
    /// The data of a volume stays in its storage system as a snapshot, as the Backup
    /// asked for.
    VolumeInStorage,
    /// A hook around a snapshot failed, or held the application for too short.
    HookFailed,
    /// Files of a volume could not be saved, or changed while they were read.
    VolumeFilesNotSaved,
    /// An object could not be understood.
    MalformedObject,

    // Schedules.
    /// The schedule makes Backups.
    Scheduling,
    /// `spec.suspend` is set.
    Suspended,
    /// A tick was skipped because a Backup was still running.
    TickSkipped,
    /// Ticks passed while nobody looked.
    TicksMissed,

    // Restore.
    /// An emptyDir was saved, and is not filled again.
    EmptyDirNotRestored,

    // Restore, an object at a time.
    /// The object was created.
    Created,
    /// The object exists, and was left alone.
    SkippedExisting,
    /// The object exists, and the captured fields were merged into it.
    Merged,
    /// The object exists, and was replaced.
    Replaced,
    /// The object exists, and the policy says that it must not.
    ExistingObject,
    /// The API server refused the object.
    Refused,
    /// A transform cannot be applied to the object.
    TransformFailed,
    /// Two objects would get the same name.
    MappingCollision,
    /// The target namespace is being deleted.
    NamespaceTerminating,
    /// The target cluster does not serve the object's type.
    TypeNotServed,
    /// The object is withheld because the data of its volumes was not saved.
    Withheld,
    /// What the object needs did not come in time.
    DependencyNotReady,

    // Restore, the data of a volume.
    /// The claim cannot hold the data that was saved of it.
    VolumeDoesNotFit,
    /// The volume is filled when a pod asks for it: its class waits for the first one.
    WaitingForPod,
    /// The claim that was to be filled is not there, or another one is.
    ClaimNotFound,
    /// The claim was bound to a volume that was not filled for it.
    ClaimBoundElsewhere,
    /// The data of the volume could not be restored.
    VolumeNotFilled,
    /// The claim exists, and the data on its volume was replaced by what was saved.
    Overwritten,
    /// The volume is mounted by something that cannot be stopped, or did not stop in time:
    /// nothing on it was changed.
    VolumeInUse,
    /// The data on the volume was to be replaced, and that has begun and not ended: neither
    /// what was there nor what was saved is on it. What mounts it stays stopped.
    VolumeHalfWritten,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.as_str().to_owned()
    }
}

/// A condition as of `now`; `upsert` keeps an older transition time where the
/// status did not change.
#[must_use]
pub fn condition(
    kind: ConditionType,
    status: bool,
    reason: Reason,
    message: impl Into<String>,
    generation: Option<i64>,
    now: DateTime<Utc>,
) -> Condition {
    Condition {
        type_: kind.as_str().to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: to_kube(now),
    }
}

/// A condition of which nobody knows whether it is true.
#[must_use]
pub fn unknown(
    kind: ConditionType,
    reason: Reason,
    message: impl Into<String>,
    generation: Option<i64>,
    now: DateTime<Utc>,
) -> Condition {
    Condition {
        status: "Unknown".to_owned(),
        ..condition(kind, false, reason, message, generation, now)
    }
}

/// Puts `new` into `conditions` in the place of the one of its type. The
/// transition time stays when the status does.
pub fn upsert(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// The condition of this type, if there is one.
#[must_use]
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == kind.as_str())
}

/// Whether the condition of this type is there and `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    find(conditions, kind).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_time_moves_only_with_the_status() {
        let at = |s| DateTime::from_timestamp(s, 0).unwrap();
        let ready =
            |status, now| condition(ConditionType::Ready, status, Reason::Usable, "", None, now);
        let mut list = vec![];
        upsert(&mut list, ready(true, at(1)));
        upsert(&mut list, ready(true, at(2)));
        assert_eq!(list[0].last_transition_time, to_kube(at(1)));
        upsert(&mut list, ready(false, at(3)));
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].last_transition_time, to_kube(at(3)));
    }
}
