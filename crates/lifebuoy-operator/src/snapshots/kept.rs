//! What stands for a snapshot that a recovery point keeps in the storage system: a content of
//! no namespace and for no VolumeSnapshot, so that neither the loss of the claim's namespace
//! nor that of the movers' takes it away.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use kube::{ResourceExt, api::DynamicObject};
use lifebuoy_api::{
    CLUSTER_UID_ANNOTATION, EXCLUDE_LABEL, KEPT_FOR_LABEL, MANAGED_BY, MANAGED_BY_LABEL,
    REPOSITORY_ID_LABEL, UNNEEDED_SINCE_ANNOTATION,
};
use lifebuoy_repo::SessionId;
use serde_json::json;

use super::{
    copy::Stored,
    objects::{Kind, Snapshots, is_going},
};
use crate::Error;

/// Lets the driver's controller see that the content is deleted, as it does for those that a
/// VolumeSnapshot is bound to. It removes this when it is done in the storage system.
const PROTECTION: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";

/// The recovery point that keeps a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct KeptFor {
    pub(crate) session: SessionId,
    pub(crate) repository_id: String,
    pub(crate) cluster_uid: String,
}

/// A snapshot that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) session: SessionId,
    pub(super) repository_id: String,
    pub(super) cluster_uid: String,
    /// Since when the repository lists no such point.
    pub(super) unneeded_since: Option<DateTime<Utc>>,
}

impl Kept {
    /// Nothing of one that is going, or that somebody has written into.
    fn read(object: &DynamicObject) -> Option<Self> {
        let (labels, annotations) = (object.labels(), object.annotations());
        let since = annotations.get(UNNEEDED_SINCE_ANNOTATION);
        let since = since.and_then(|since| DateTime::parse_from_rfc3339(since).ok());
        (!is_going(object)).then_some(())?;
        Some(Self {
            name: object.name_any(),
            session: labels.get(KEPT_FOR_LABEL)?.parse().ok()?,
            repository_id: labels.get(REPOSITORY_ID_LABEL)?.clone(),
            cluster_uid: annotations.get(CLUSTER_UID_ANNOTATION)?.clone(),
            unneeded_since: since.map(|since| since.to_utc()),
        })
    }
}

/// Makes what stands for a snapshot. It is not its owner before the driver knows it, nor
/// before the content of the claim's snapshot is not.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn keep(
    snapshots: &Snapshots,
    name: &str,
    namespace: &str,
    of: &Stored,
    kept_for: &KeptFor,
) -> Result<(), Error> {
    let labels = BTreeMap::from(
        [
            (MANAGED_BY_LABEL, MANAGED_BY),
            // Another cluster must not take itself for the one that deletes it.
            (EXCLUDE_LABEL, "true"),
            (KEPT_FOR_LABEL, &kept_for.session.to_string()),
            (REPOSITORY_ID_LABEL, &kept_for.repository_id),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    let mut content = of.content(name, namespace, &labels);
    content["metadata"]["annotations"][CLUSTER_UID_ANNOTATION] = json!(kept_for.cluster_uid);
    content["metadata"]["finalizers"] = json!([PROTECTION]);
    snapshots.make(Kind::Content, content).await
}

/// Those that are kept by the points of any repository.
pub(super) async fn list(snapshots: &Snapshots) -> Result<Vec<Kept>, Error> {
    let found = snapshots.list(Kind::Content, KEPT_FOR_LABEL).await?;
    Ok(found.iter().filter_map(Kept::read).collect())
}

/// Deletes what stands for a snapshot, and the snapshot, if the driver knows it. One that it
/// does not know is still another content's, or nobody's.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn discard(snapshots: &Snapshots, name: &str) -> Result<(), Error> {
    let patch = json!({"spec": {"deletionPolicy": "Delete"}});
    snapshots.patch_content(name, &patch).await?;
    snapshots.delete(Kind::Content, None, name).await
}

/// Notes since when a snapshot is not needed, or that it is needed again.
pub(super) async fn note(
    snapshots: &Snapshots,
    name: &str,
    since: Option<DateTime<Utc>>,
) -> Result<(), Error> {
    let since = since.map(|since| since.to_rfc3339_opts(SecondsFormat::Secs, true));
    let patch = json!({"metadata": {"annotations": {UNNEEDED_SINCE_ANNOTATION: since}}});
    snapshots.patch_content(name, &patch).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_has_written_into_is_left_alone() {
        let read = |change: fn(&mut serde_json::Value)| {
            let mut object = json!({
                "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
                "metadata": {"name": "k",
                    "labels": {KEPT_FOR_LABEL: "0a".repeat(16), REPOSITORY_ID_LABEL: "r"},
                    "annotations": {CLUSTER_UID_ANNOTATION: "c",
                        UNNEEDED_SINCE_ANNOTATION: "2026-11-23T23:00:00Z"}},
            });
            change(&mut object);
            Kept::read(&serde_json::from_value(object).unwrap())
        };
        let kept = read(|_| {}).unwrap();
        assert_eq!(kept.session, SessionId::from_bytes([10; 16]));
        assert!(kept.unneeded_since.is_some());
        let changes: [fn(&mut serde_json::Value); 3] = [
            |o| o["metadata"]["labels"][KEPT_FOR_LABEL] = json!("x"),
            |o| o["metadata"]["annotations"] = json!({}),
            |o| o["metadata"]["deletionTimestamp"] = json!("2026-11-23T23:00:00Z"),
        ];
        for change in changes {
            assert_eq!(read(change), None);
        }
    }
}
