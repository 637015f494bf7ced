//! Names that other programs and people may rely on: the API group, labels,
//! annotations.

/// The API group of all kinds of lifebuoy.
pub const GROUP: &str = "lifebuoy.dev";

/// The served version of the API group.
pub const VERSION: &str = "v1alpha1";

/// Label: an object that carries it with the value `true` is never captured.
pub const EXCLUDE_LABEL: &str = "lifebuoy.dev/exclude-from-backup";

/// Annotation on every object that a restore created: the uid of the Restore.
/// A restore that was killed recognises its own work by it, so that nothing is
/// created twice and nothing of others is taken for its own.
pub const RESTORED_BY_ANNOTATION: &str = "lifebuoy.dev/restored-by";

/// Label on Backups and RecoveryPoints: the Schedule that they belong to.
pub const SCHEDULE_LABEL: &str = "lifebuoy.dev/schedule";

/// Label on RecoveryPoints: the Repository that holds the snapshot.
pub const REPOSITORY_LABEL: &str = "lifebuoy.dev/repository";

/// Label on RecoveryPoints: the `clusterName` that made the snapshot.
pub const CLUSTER_LABEL: &str = "lifebuoy.dev/cluster";

/// Label on plan and report Secrets: `plan` or `report`.
pub const DOCUMENT_LABEL: &str = "lifebuoy.dev/document";

/// Annotation on a Backup that a Schedule made: the tick it stands for, RFC 3339.
pub const SCHEDULED_AT_ANNOTATION: &str = "lifebuoy.dev/scheduled-at";

/// Annotation on what is made to fill a volume: the VolumeRestore that it is for.
pub const VOLUME_RESTORE_ANNOTATION: &str = "lifebuoy.dev/volume-restore";

/// Annotation on a volume while it goes from the claim that it was filled through to
/// the one that it is for: its own reclaim policy. Meanwhile that is `Retain`.
pub const RECLAIM_POLICY_ANNOTATION: &str = "lifebuoy.dev/reclaim-policy";

/// Label on every object that is made for a request and goes when the request ends, in
/// whatever namespace: the uid of the Backup or VolumeRestore.
pub const FOR_LABEL: &str = "lifebuoy.dev/for";

/// Label on a VolumeSnapshotContent that stands for a snapshot which a recovery point
/// keeps in the storage system: the session of the point.
pub const KEPT_FOR_LABEL: &str = "lifebuoy.dev/kept-for";

/// Label on the same: the id of the repository that has the point.
pub const REPOSITORY_ID_LABEL: &str = "lifebuoy.dev/repository-id";

/// Annotation on the same: the uid of the cluster that the point is of.
pub const CLUSTER_UID_ANNOTATION: &str = "lifebuoy.dev/cluster-uid";

/// Annotation on the same: since when the repository lists no such point, RFC 3339.
pub const UNNEEDED_SINCE_ANNOTATION: &str = "lifebuoy.dev/unneeded-since";

/// Label on what a Restore keeps from running while volumes that it mounts are overwritten:
/// the uid of the Restore.
pub const HELD_FOR_LABEL: &str = "lifebuoy.dev/held-for";

/// Annotation on what is kept from running: for which claims, and what it was before, as
/// JSON. It goes when it runs again.
pub const HELD_ANNOTATION: &str = "lifebuoy.dev/held";

/// Annotation on a claim whose volume is being overwritten, from before the first byte until
/// all are there: the uid of the VolumeRestore. What mounts the claim is held for as long.
/// Once it is removed by hand, what is held runs again.
pub const OVERWRITING_ANNOTATION: &str = "lifebuoy.dev/overwriting";

/// Label on a second PersistentVolume for the storage of a first one, through which that is
/// overwritten: the uid of the claim that the first belongs to.
pub const STAND_IN_LABEL: &str = "lifebuoy.dev/stand-in";

/// The number of the place of a mover: pods with the same run on different nodes.
pub const PLACE_LABEL: &str = "lifebuoy.dev/place";

/// Annotation on the Job of a mover that saves: the session that it saves under.
pub const SESSION_ANNOTATION: &str = "lifebuoy.dev/session";

/// Label of whoever manages an object, as many programs use it; ours has
/// [`MANAGED_BY`].
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The value of [`MANAGED_BY_LABEL`] on objects that the operator made.
pub const MANAGED_BY: &str = "lifebuoy";

/// The field manager of every write to a cluster.
pub const FIELD_MANAGER: &str = "lifebuoy";
