//! What a capture is asked, how far it is, and what it gives back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Utc};
use lifebuoy_api::{BackupProgress, PointCluster, Problem, Selection, VolumePolicy};
use lifebuoy_repo::WriteStats;

use crate::{
    archive::{ObjectKey, TypeRecord},
    point::Point,
    selection::{Glob, Selector},
    volumes::VolumeRecord,
};

/// API groups that only warn when they are down, unless an installation says
/// otherwise. A glob matches a group with or without something before it:
/// `*.metrics.k8s.io` matches `metrics.k8s.io` too.
pub const ONLY_WARN_GROUPS: &[&str] = &["*.metrics.k8s.io"];

/// What is to be captured, for whom.
#[derive(Clone, Debug)]
pub struct CaptureRequest {
    /// The selection, parsed.
    pub selector: Selector,
    /// The selection as it was written; it goes into the manifest.
    pub selection: Selection,
    /// The cluster.
    pub cluster: PointCluster,
    /// The name of the Backup.
    pub backup: String,
    /// The uid of the Backup.
    pub backup_uid: String,
    /// The Schedule; empty for a Backup made by hand.
    pub schedule: String,
    /// What is said about the data of PersistentVolumeClaims.
    pub volumes: VolumePolicy,
    /// Whether pods with emptyDirs are of interest.
    pub empty_dirs: bool,
    /// Now, by the caller's clock.
    pub taken_at: DateTime<Utc>,
    /// The operator's own namespace: of it, only itself and Repository and Schedule objects
    /// are taken.
    pub own_namespace: Option<String>,
    /// API groups that do not make the backup partial when they are down; see
    /// [`ONLY_WARN_GROUPS`].
    pub down_groups_that_only_warn: Vec<Glob>,
}

/// How far a capture is. Read it at any time from anywhere: clones show the same.
#[derive(Clone, Debug, Default)]
pub struct CaptureProgress {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    types: AtomicU64,
    types_total: AtomicU64,
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl CaptureProgress {
    /// Nothing is done yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state of now. The store's figures are with the
    /// [`Writer`](lifebuoy_repo::Writer).
    #[must_use]
    pub fn snapshot(&self) -> BackupProgress {
        let read = |value: &AtomicU64| i64::try_from(value.load(Ordering::Relaxed)).unwrap_or(0);
        BackupProgress {
            types: read(&self.counts.types),
            types_total: read(&self.counts.types_total),
            objects: read(&self.counts.objects),
            bytes: read(&self.counts.bytes),
            ..BackupProgress::default()
        }
    }

    pub(crate) fn expect_types(&self, count: u64) {
        self.counts.types_total.store(count, Ordering::Relaxed);
    }

    pub(crate) fn type_done(&self) {
        self.counts.types.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn object_done(&self, bytes: u64) {
        self.counts.objects.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A type is read once more from its beginning.
    pub(crate) fn take_back(&self, objects: u64, bytes: u64) {
        self.counts.objects.fetch_sub(objects, Ordering::Relaxed);
        self.counts.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What a capture has found whose data can be saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumesFound {
    /// The claims.
    pub claims: Vec<ObjectKey>,
    /// The pods with emptyDirs, where they are of interest: all that are selected, though
    /// those with a controller are not captured.
    pub pods: BTreeSet<ObjectKey>,
}

/// What came of the data of the volumes of a capture.
#[derive(Clone, Debug, Default)]
pub struct VolumesSaved {
    /// Claims and emptyDirs whose data was saved.
    pub saved: Vec<VolumeRecord>,
    /// Claims whose data is not wanted, and why.
    pub skipped: BTreeMap<ObjectKey, String>,
    /// Why the data of others was not saved. A claim that is in neither of the three was
    /// not saved either.
    pub failed: BTreeMap<ObjectKey, String>,
    /// What else a person should know.
    pub problems: Vec<Problem>,
}

/// A capture that was committed.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The recovery point.
    pub point: Point,
    /// What went wrong, in the order of its weight; the manifest has it too.
    pub problems: Vec<Problem>,
    /// What the repository had to do.
    pub stats: WriteStats,
    /// The types.
    pub types: Vec<TypeRecord>,
}
