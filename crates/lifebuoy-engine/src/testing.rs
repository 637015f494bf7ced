//! What the unit tests of this crate share: a repository in memory.

use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;
use lifebuoy_api::{Completeness, Consistency, PointCluster, Selection, VolumePolicy};
use lifebuoy_repo::{KdfCost, Passphrase, Purpose, Repository, SessionId, SessionRequest, Writer};
use object_store::memory::InMemory;

use crate::{
    archive::{Fidelity, MANIFEST_VERSION, Manifest, TypeId, TypeRecord, TypeTotals},
    point::{PointSummary, SUMMARY_VERSION},
};

pub(crate) async fn repository() -> Repository {
    let passphrase = Passphrase::new("correct horse").unwrap();
    Repository::init(Arc::new(InMemory::new()), &passphrase, KdfCost::cheapest())
        .await
        .unwrap()
}

pub(crate) async fn session(repo: &Repository) -> (SessionId, Arc<Writer>) {
    let id = SessionId::random(&mut rand::rng());
    let request = SessionRequest {
        id,
        cluster: repo.cluster_key("uid-a"),
        purpose: Purpose::Backup,
        label: Bytes::new(),
    };
    (id, Arc::new(repo.begin(request).await.unwrap()))
}

pub(crate) fn summary() -> PointSummary {
    PointSummary {
        version: SUMMARY_VERSION,
        cluster: PointCluster {
            name: "a".to_owned(),
            uid: "uid-a".to_owned(),
        },
        schedule: String::new(),
        backup: "by-hand".to_owned(),
        backup_uid: "uid-b".to_owned(),
        taken_at: DateTime::UNIX_EPOCH,
        completeness: Completeness::Complete,
        consistency: Consistency::Exact,
        objects: 0,
        kubernetes_version: "v1.36.3".to_owned(),
    }
}

/// A manifest with one type.
pub(crate) fn fake_manifest(id: &TypeId, totals: TypeTotals) -> Manifest {
    Manifest {
        version: MANIFEST_VERSION,
        summary: summary(),
        revision: Some("7".to_owned()),
        selection: Selection::default(),
        volumes: VolumePolicy::Save,
        own_namespace: None,
        volumes_not_saved: Vec::new(),
        volumes_saved: Vec::new(),
        types: vec![TypeRecord {
            group: id.group.clone(),
            version: "v1".to_owned(),
            served_versions: vec!["v1".to_owned()],
            kind: "ConfigMap".to_owned(),
            resource: id.resource.clone(),
            namespaced: true,
            fidelity: Fidelity::Exact,
            resource_version: Some("7".to_owned()),
            objects: totals.objects,
            bytes: totals.bytes,
            tree: totals.tree,
        }],
        unavailable_groups: Vec::new(),
        problems: Vec::new(),
    }
}
