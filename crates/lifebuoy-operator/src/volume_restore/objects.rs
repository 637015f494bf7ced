//! Claims and volumes, as far as a VolumeRestore looks at them, and the claim that it
//! makes. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedLocalObjectReference,
};
use kube::{ResourceExt, api::ObjectMeta};
use lifebuoy_api::{
    FOR_LABEL, GROUP, RECLAIM_POLICY_ANNOTATION, VOLUME_RESTORE_ANNOTATION, VolumeRestore,
    time::from_kube,
};

use lifebuoy_engine::volumes::bytes_of_quantity;

use crate::mover;

/// Where the scheduler notes the node of the first pod.
pub(super) const NODE_ANNOTATION: &str = "volume.kubernetes.io/selected-node";
const KIND: &str = "VolumeRestore";
const READ_WRITE_ONCE: &str = "ReadWriteOnce";

/// The claim that is to be filled.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) uid: String,
    /// Whether it names this VolumeRestore.
    pub(crate) asks: bool,
    pub(crate) deleted: bool,
    pub(crate) made: Option<DateTime<Utc>>,
    pub(crate) node: Option<String>,
    pub(crate) class: Option<String>,
    /// The volume that it is, or is going to be, bound to.
    pub(crate) volume: Option<String>,
    pub(crate) bound: bool,
    /// The whole of it.
    pub(crate) object: PersistentVolumeClaim,
}

/// The claim in the movers' namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Between {
    pub(crate) uid: String,
    pub(crate) deleted: bool,
    pub(crate) made: Option<DateTime<Utc>>,
    pub(crate) node: Option<String>,
    pub(crate) volume: Option<String>,
    pub(crate) bound: bool,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) deleted: bool,
    /// The uid of the claim that it belongs to.
    pub(crate) owner: Option<String>,
    pub(crate) policy: Option<String>,
    /// What its policy is going to be again.
    pub(crate) own_policy: Option<String>,
    /// The uid of the request that it carries.
    pub(crate) made_for: Option<String>,
    pub(crate) access_modes: Vec<String>,
}

impl Claim {
    pub(super) fn read(object: PersistentVolumeClaim, request: &str) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let (volume, bound) = binding(&object);
        Self {
            uid: object.uid().unwrap_or_default(),
            asks: asked(&object) == Some(request),
            deleted: object.metadata.deletion_timestamp.is_some(),
            made: object.metadata.creation_timestamp.as_ref().map(from_kube),
            node: object.annotations().get(NODE_ANNOTATION).cloned(),
            class: spec.storage_class_name,
            volume,
            bound,
            object,
        }
    }

    pub(super) fn is_block(&self) -> bool {
        let spec = self.object.spec.as_ref();
        spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block")
    }

    /// How large it asks to be, in bytes.
    pub(super) fn bytes(&self) -> Option<i64> {
        let resources = self.object.spec.as_ref()?.resources.as_ref()?;
        let asked = resources.requests.as_ref()?.get("storage")?;
        i64::try_from(bytes_of_quantity(&asked.0)?).ok()
    }

    /// How large its volume is, in bytes, if it says so.
    pub(super) fn capacity(&self) -> Option<u64> {
        let status = self.object.status.as_ref()?;
        let storage = status.capacity.as_ref()?.get("storage")?;
        bytes_of_quantity(&storage.0)
    }

    pub(super) fn access_modes(&self) -> Vec<String> {
        let spec = self.object.spec.as_ref();
        spec.and_then(|spec| spec.access_modes.clone())
            .unwrap_or_default()
    }
}

impl Between {
    pub(super) fn read(object: &PersistentVolumeClaim) -> Self {
        let (volume, bound) = binding(object);
        Self {
            uid: object.uid().unwrap_or_default(),
            deleted: object.metadata.deletion_timestamp.is_some(),
            made: object.metadata.creation_timestamp.as_ref().map(from_kube),
            node: object.annotations().get(NODE_ANNOTATION).cloned(),
            volume,
            bound,
        }
    }
}

impl Volume {
    pub(super) fn read(object: &PersistentVolume) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        Self {
            name: object.name_any(),
            version: object.resource_version(),
            deleted: object.metadata.deletion_timestamp.is_some(),
            owner: spec.claim_ref.and_then(|claim| claim.uid),
            policy: spec.persistent_volume_reclaim_policy,
            own_policy: object.annotations().get(RECLAIM_POLICY_ANNOTATION).cloned(),
            made_for: object.labels().get(FOR_LABEL).cloned(),
            access_modes: spec.access_modes.unwrap_or_default(),
        }
    }
}

fn binding(claim: &PersistentVolumeClaim) -> (Option<String>, bool) {
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.clone());
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    let volume = volume.filter(|name| !name.is_empty());
    let bound = volume.is_some() && phase == Some("Bound");
    (volume, bound)
}

/// The VolumeRestore that a claim asks.
fn asked(claim: &PersistentVolumeClaim) -> Option<&str> {
    let reference = claim.spec.as_ref()?.data_source_ref.as_ref()?;
    let ours = reference.api_group.as_deref() == Some(GROUP) && reference.kind == KIND;
    ours.then_some(reference.name.as_str())
}

/// The VolumeRestore that has to look at a claim when it changes: the one that it
/// asks, or the one that it was made for.
pub(crate) fn of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    let made_for = claim.annotations().get(VOLUME_RESTORE_ANNOTATION);
    asked(claim).or(made_for.map(String::as_str))
}

/// The name of the claim through which the claim with this uid is filled.
pub(super) fn between_name(claim_uid: &str) -> String {
    format!("lifebuoy-{claim_uid}")
}

/// The claim between: the same class, size and modes, so that the volume fits the
/// claim that it is for. Where that is made of a snapshot in the storage system, it is of
/// the copy of the same name.
pub(super) fn between(request: &VolumeRestore, claim: &Claim) -> PersistentVolumeClaim {
    let spec = claim.object.spec.clone().unwrap_or_default();
    let mut annotations =
        BTreeMap::from([(VOLUME_RESTORE_ANNOTATION.to_owned(), request.name_any())]);
    if let Some(node) = &claim.node {
        annotations.insert(NODE_ANNOTATION.to_owned(), node.clone());
    }
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(between_name(&claim.uid)),
            labels: Some(mover::labels(&request.uid().unwrap_or_default())),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: spec.access_modes.map(writable),
            resources: spec.resources,
            storage_class_name: spec.storage_class_name,
            volume_attributes_class_name: spec.volume_attributes_class_name,
            volume_mode: spec.volume_mode,
            data_source: request
                .spec
                .kept
                .as_ref()
                .map(|_| TypedLocalObjectReference {
                    api_group: Some("snapshot.storage.k8s.io".to_owned()),
                    kind: "VolumeSnapshot".to_owned(),
                    name: between_name(&claim.uid),
                }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// A volume that pods may only read has to be written once.
pub(super) fn writable(mut modes: Vec<String>) -> Vec<String> {
    if !modes.iter().any(|mode| mode.starts_with("ReadWrite")) {
        modes.push(READ_WRITE_ONCE.to_owned());
    }
    modes
}

#[cfg(test)]
mod tests {
    use lifebuoy_api::{EXCLUDE_LABEL, MANAGED_BY, MANAGED_BY_LABEL};
    use serde_json::{Value, json};

    use super::*;

    fn request() -> VolumeRestore {
        serde_json::from_value(json!({
            "metadata": {"name": "data-1", "uid": "r"},
            "spec": {"repository": "main", "snapshot": "0".repeat(32),
                "volume": {"namespace": "a", "name": "data"}, "claim": {"namespace": "b", "name": "data"},
                "restore": {"name": "x", "uid": "u"}},
        }))
        .unwrap()
    }

    fn claim(modes: &[&str]) -> Claim {
        let object = json!({
            "metadata": {"name": "data", "namespace": "b", "uid": "c", "annotations": {NODE_ANNOTATION: "n", "other": "x"},
                "labels": {"app": "db"}},
            "spec": {"accessModes": modes, "storageClassName": "fast", "volumeMode": "Filesystem",
                "resources": {"requests": {"storage": "1Gi"}},
                "dataSource": {"apiGroup": GROUP, "kind": KIND, "name": "data-1"},
                "dataSourceRef": {"apiGroup": GROUP, "kind": KIND, "name": "data-1"}},
        });
        Claim::read(serde_json::from_value(object).unwrap(), "data-1")
    }

    #[test]
    fn the_claim_between_is_like_the_claim_and_asks_nobody() {
        let made = serde_json::to_value(between(&request(), &claim(&["ReadWriteMany"]))).unwrap();
        assert_eq!(
            made,
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": "lifebuoy-c",
                    "annotations": {NODE_ANNOTATION: "n", VOLUME_RESTORE_ANNOTATION: "data-1"},
                    "labels": {MANAGED_BY_LABEL: MANAGED_BY, FOR_LABEL: "r", EXCLUDE_LABEL: "true"}},
                "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "fast",
                    "volumeMode": "Filesystem", "resources": {"requests": {"storage": "1Gi"}}}})
        );
        let read_only = between(&request(), &claim(&["ReadOnlyMany"]));
        let modes = read_only.spec.and_then(|spec| spec.access_modes).unwrap();
        assert_eq!(modes, ["ReadOnlyMany", "ReadWriteOnce"]);
    }

    #[test]
    fn the_claim_between_is_of_the_copy_of_a_snapshot() {
        let mut request = request();
        request.spec.kept = Some(Default::default());
        let made = serde_json::to_value(between(&request, &claim(&[]))).unwrap();
        assert_eq!(
            made["spec"]["dataSource"],
            json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "lifebuoy-c"})
        );
    }

    #[test]
    fn a_claim_asks_by_all_parts_of_its_reference() {
        assert!(claim(&[]).asks);
        let mut object = claim(&[]).object;
        assert_eq!(of_claim(&object), Some("data-1"));
        assert!(!Claim::read(object.clone(), "data-2").asks);
        let spec = object.spec.as_mut().unwrap();
        spec.data_source_ref.as_mut().unwrap().api_group = Some("other.example".to_owned());
        assert!(!Claim::read(object, "data-1").asks);
        let made: Value = serde_json::to_value(between(&request(), &claim(&[]))).unwrap();
        let made: PersistentVolumeClaim = serde_json::from_value(made).unwrap();
        assert_eq!(of_claim(&made), Some("data-1"));
    }
}
