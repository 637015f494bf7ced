//! The second way to the storage of a claim: a volume of the same source, and a claim for it
//! in the movers' namespace, since a pod mounts claims of its own namespace only. Pure.
//!
//! The first volume is not touched at all. The policy of the second is `Retain`, and no
//! provisioner has made it: whoever deletes it deletes an object of the API, and nothing in
//! the storage.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
        PersistentVolumeSpec, VolumeResourceRequirements,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use lifebuoy_api::{STAND_IN_LABEL, VOLUME_RESTORE_ANNOTATION, VolumeRestore};

use super::super::objects::{Claim, between_name, writable};
use crate::mover;

const RETAIN: &str = "Retain";
/// No class: nobody provisions for it, and none has to be there.
const NO_CLASS: &str = "";

/// The name of the second volume.
pub(crate) fn name(request: &VolumeRestore) -> String {
    format!("lifebuoy-{}", request.uid().unwrap_or_default())
}

fn metadata(request: &VolumeRestore, claim: &Claim, name: String) -> ObjectMeta {
    let mut labels = mover::labels(&request.uid().unwrap_or_default());
    labels.insert(STAND_IN_LABEL.to_owned(), claim.uid.clone());
    ObjectMeta {
        name: Some(name),
        labels: Some(labels),
        annotations: Some(BTreeMap::from([(
            VOLUME_RESTORE_ANNOTATION.to_owned(),
            request.name_any(),
        )])),
        ..ObjectMeta::default()
    }
}

/// The claim, which waits for the second volume and takes no other.
pub(super) fn claim(
    request: &VolumeRestore,
    of: &Claim,
    volume: &PersistentVolume,
) -> PersistentVolumeClaim {
    let spec = volume.spec.clone().unwrap_or_default();
    PersistentVolumeClaim {
        metadata: metadata(request, of, between_name(&of.uid)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: spec.access_modes.map(writable),
            resources: Some(VolumeResourceRequirements {
                requests: spec.capacity,
                ..VolumeResourceRequirements::default()
            }),
            storage_class_name: Some(NO_CLASS.to_owned()),
            volume_mode: spec.volume_mode,
            volume_name: Some(name(request)),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// The second volume, for that claim and no other.
pub(super) fn volume(
    request: &VolumeRestore,
    of: &Claim,
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> PersistentVolume {
    let spec = volume.spec.clone().unwrap_or_default();
    PersistentVolume {
        metadata: metadata(request, of, name(request)),
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes.map(writable),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                namespace: claim.namespace(),
                name: claim.metadata.name.clone(),
                uid: claim.uid(),
                ..ObjectReference::default()
            }),
            persistent_volume_reclaim_policy: Some(RETAIN.to_owned()),
            storage_class_name: Some(NO_CLASS.to_owned()),
            volume_attributes_class_name: None,
            // The source of whatever kind, where it is, how it is mounted, how large it is.
            ..spec
        }),
        status: None,
    }
}

/// Why the volume of a claim cannot be written in place, if so.
pub(super) fn unwritable(of: &Claim, volume: Option<&PersistentVolume>) -> Option<&'static str> {
    let Some(volume) = volume else {
        return Some("its volume is not there");
    };
    let spec = volume.spec.as_ref();
    let owner = spec.and_then(|spec| spec.claim_ref.as_ref()?.uid.as_deref());
    if owner != Some(&of.uid) {
        return Some("its volume belongs to another claim");
    }
    if volume.metadata.deletion_timestamp.is_some() {
        return Some("its volume is being deleted");
    }
    let read_only = spec.and_then(|spec| spec.csi.as_ref()?.read_only);
    (read_only == Some(true)).then_some("its volume can only be read")
}

/// A volume of another claim that leads to the same storage, as far as that can be told:
/// nobody holds what mounts it.
pub(super) fn another_way(
    request: &VolumeRestore,
    volume: &PersistentVolume,
    all: &[PersistentVolume],
) -> Option<String> {
    let storage = storage(volume)?;
    let own = [volume.name_any(), name(request)];
    let is_bound = |other: &&PersistentVolume| {
        let phase = other.status.as_ref().and_then(|s| s.phase.as_deref());
        phase == Some("Bound")
    };
    let mut others = all.iter().filter(is_bound);
    others
        .find(|other| !own.contains(&other.name_any()) && self::storage(other) == Some(storage))
        .map(ResourceExt::name_any)
}

/// What is behind a volume, wherever it is used: driver and handle, or server and path. Paths
/// of nodes are equal on many of them.
fn storage(volume: &PersistentVolume) -> Option<(&str, &str)> {
    let spec = volume.spec.as_ref()?;
    let csi = spec
        .csi
        .as_ref()
        .map(|csi| (&*csi.driver, &*csi.volume_handle));
    csi.or(spec.nfs.as_ref().map(|nfs| (&*nfs.server, &*nfs.path)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request() -> VolumeRestore {
        serde_json::from_value(json!({
            "metadata": {"name": "data-1", "uid": "r"},
            "spec": {"repository": "main", "snapshot": "0".repeat(32), "inPlace": true,
                "volume": {"namespace": "a", "name": "data"}, "claim": {"namespace": "b", "name": "data"},
                "restore": {"name": "x", "uid": "u"}},
        }))
        .unwrap()
    }

    fn of() -> Claim {
        let object = json!({"metadata": {"name": "data", "namespace": "b", "uid": "c"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeName": "pv"},
            "status": {"phase": "Bound"}});
        Claim::read(serde_json::from_value(object).unwrap(), "data-1")
    }

    fn first() -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": {"name": "pv", "annotations": {"pv.kubernetes.io/provisioned-by": "csi.example"}, "finalizers": ["x"]},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"], "volumeMode": "Filesystem",
                "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "fast", "mountOptions": ["noatime"],
                "volumeAttributesClassName": "gold",
                "claimRef": {"namespace": "b", "name": "data", "uid": "c"},
                "csi": {"driver": "csi.example", "volumeHandle": "h"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": []}}},
        }))
        .unwrap()
    }

    #[test]
    fn the_second_volume_leads_to_the_same_storage_and_deletes_nothing() {
        let mut between = claim(&request(), &of(), &first());
        between.metadata.namespace = Some("movers".to_owned());
        between.metadata.uid = Some("b".to_owned());
        let second = serde_json::to_value(volume(&request(), &of(), &first(), &between)).unwrap();
        let original = serde_json::to_value(first()).unwrap();
        for same in [
            "csi",
            "nodeAffinity",
            "mountOptions",
            "capacity",
            "volumeMode",
        ] {
            assert_eq!(second["spec"][same], original["spec"][same], "{same}");
        }
        assert_eq!(second["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert_eq!(second["spec"]["storageClassName"], "");
        assert_eq!(second["spec"]["volumeAttributesClassName"], Value::Null);
        assert_eq!(second["spec"]["claimRef"]["uid"], "b");
        assert_eq!(second["spec"]["claimRef"]["namespace"], "movers");
        assert_eq!(second["metadata"]["name"], "lifebuoy-r");
        assert_eq!(second["metadata"]["labels"][STAND_IN_LABEL], "c");
        let provisioned = &second["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"];
        assert_eq!(
            (provisioned, &second["metadata"]["finalizers"]),
            (&Value::Null, &Value::Null)
        );
        let spec = between.spec.unwrap();
        assert_eq!(spec.volume_name.as_deref(), Some("lifebuoy-r"));
        assert_eq!(
            spec.access_modes.unwrap(),
            ["ReadOnlyMany", "ReadWriteOnce"]
        );
        assert_eq!(spec.storage_class_name.as_deref(), Some(""));
    }

    #[test]
    fn another_volume_of_the_same_storage_is_found() {
        let like = |name: &str, change: fn(&mut PersistentVolume)| {
            let mut volume = first();
            volume.metadata.name = Some(name.to_owned());
            volume.status = serde_json::from_value(json!({"phase": "Bound"})).unwrap();
            change(&mut volume);
            volume
        };
        let found = |other: PersistentVolume| {
            another_way(
                &request(),
                &first(),
                &[like("pv", |_| {}), like("lifebuoy-r", |_| {}), other],
            )
        };
        assert_eq!(found(like("twin", |_| {})).as_deref(), Some("twin"));
        let others: [fn(&mut PersistentVolume); 3] = [
            |volume| volume.status = None,
            |volume| volume.spec.as_mut().unwrap().csi = None,
            |volume| {
                volume
                    .spec
                    .as_mut()
                    .unwrap()
                    .csi
                    .as_mut()
                    .unwrap()
                    .volume_handle = "i".into()
            },
        ];
        for change in others {
            assert_eq!(found(like("other", change)), None);
        }
    }

    #[test]
    fn a_volume_of_another_or_only_to_read_is_not_written() {
        assert_eq!(unwritable(&of(), Some(&first())), None);
        assert!(unwritable(&of(), None).is_some());
        let changed = |change: fn(&mut PersistentVolumeSpec)| {
            let mut volume = first();
            change(volume.spec.as_mut().unwrap());
            unwritable(&of(), Some(&volume)).is_some()
        };
        assert!(changed(|spec| spec.claim_ref = None));
        assert!(changed(
            |spec| spec.csi.as_mut().unwrap().read_only = Some(true)
        ));
    }
}
