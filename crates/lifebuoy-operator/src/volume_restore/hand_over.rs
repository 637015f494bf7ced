//! The volume on its way from the claim between to the claim: single writes, each of
//! which is refused if the object is not the one that was seen.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use lifebuoy_api::{
    FIELD_MANAGER, FOR_LABEL, MANAGED_BY_LABEL, RECLAIM_POLICY_ANNOTATION, VolumeRestore,
};
use serde_json::{Value, json};

use super::objects::{Claim, NODE_ANNOTATION, Volume};
use crate::Error;

const RETAIN: &str = "Retain";

pub(super) fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Makes the volume that of the claim. In the same write it begins to be kept whatever
/// becomes of either claim, and notes the policy that it had.
pub(super) async fn hand_over(
    client: &Client,
    request: &VolumeRestore,
    claim: &Claim,
    volume: &Volume,
) -> Result<(), Error> {
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let patch = Patch::Merge(to_claim(request, claim, volume));
    match volumes.patch(&volume.name, &params(), &patch).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::kube("hand a filled volume over to its claim", error)),
    }
}

fn to_claim(request: &VolumeRestore, claim: &Claim, volume: &Volume) -> Value {
    // What was noted first is true: a second time it would be ours.
    let own_policy = volume.own_policy.as_ref().or(volume.policy.as_ref());
    let mut modes = volume.access_modes.clone();
    for mode in claim.access_modes() {
        if !modes.contains(&mode) {
            modes.push(mode);
        }
    }
    json!({
        "metadata": {
            "resourceVersion": volume.version,
            "annotations": {RECLAIM_POLICY_ANNOTATION: own_policy},
            // No more: a volume outlives the request, and is captured like any other.
            "labels": {FOR_LABEL: request.uid().unwrap_or_default()},
        },
        "spec": {
            "accessModes": modes,
            "persistentVolumeReclaimPolicy": RETAIN,
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim.object.namespace(),
                "name": claim.object.name_any(),
                "uid": claim.uid,
                "resourceVersion": null,
            },
        },
    })
}

/// Gives every volume that was handed over for this request its own policy back. One
/// whose claim has gone meanwhile is then reclaimed as its policy says.
pub(super) async fn release(client: &Client, request: &VolumeRestore) -> Result<(), Error> {
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let label = format!("{FOR_LABEL}={}", request.uid().unwrap_or_default());
    let listed = volumes
        .list(&ListParams::default().labels(&label))
        .await
        .map_err(|error| Error::kube("list the volumes that were handed over", error))?;
    for volume in listed.items.iter().map(Volume::read) {
        match volumes
            .patch(&volume.name, &params(), &Patch::Merge(released(&volume)))
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                return Err(Error::kube("give a volume its own policy back", error));
            }
        }
    }
    Ok(())
}

fn released(volume: &Volume) -> Value {
    let mut patch = json!({
        "metadata": {
            "resourceVersion": volume.version,
            "annotations": {RECLAIM_POLICY_ANNOTATION: null},
            "labels": {FOR_LABEL: null, MANAGED_BY_LABEL: null},
        },
    });
    if let Some(policy) = &volume.own_policy {
        patch["spec"] = json!({"persistentVolumeReclaimPolicy": policy});
    }
    patch
}

/// Lets the scheduler choose another node: the storage has no room on this one.
pub(super) async fn choose_again(client: &Client, claim: &Claim) -> Result<(), Error> {
    let namespace = claim.object.namespace().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let patch = Patch::Merge(json!({"metadata": {
        "resourceVersion": claim.object.resource_version(),
        "annotations": {NODE_ANNOTATION: null},
    }}));
    match claims
        .patch(&claim.object.name_any(), &params(), &patch)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::kube("let another node be chosen for a claim", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(policy: &str, own: Option<&str>) -> Volume {
        Volume {
            name: "pv".into(),
            version: Some("7".into()),
            deleted: false,
            owner: Some("b".into()),
            policy: Some(policy.into()),
            own_policy: own.map(str::to_owned),
            made_for: None,
            access_modes: vec!["ReadWriteOnce".into()],
        }
    }

    fn to(volume: &Volume) -> Value {
        let request: VolumeRestore = serde_json::from_value(json!({
            "metadata": {"name": "data-1", "uid": "r"},
            "spec": {"repository": "main", "snapshot": "0".repeat(32),
                "volume": {"namespace": "a", "name": "data"}, "claim": {"namespace": "b", "name": "data"},
                "restore": {"name": "x", "uid": "u"}},
        }))
        .unwrap();
        let claim = json!({"metadata": {"name": "data", "namespace": "b", "uid": "c"},
            "spec": {"accessModes": ["ReadOnlyMany"]}});
        let claim = Claim::read(serde_json::from_value(claim).unwrap(), "data-1");
        to_claim(&request, &claim, volume)
    }

    #[test]
    fn a_volume_is_kept_from_the_moment_at_which_it_is_handed_over() {
        let patch = to(&volume("Delete", None));
        assert_eq!(
            patch,
            json!({
                "metadata": {"resourceVersion": "7", "labels": {FOR_LABEL: "r"},
                    "annotations": {RECLAIM_POLICY_ANNOTATION: "Delete"}},
                "spec": {"accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                        "namespace": "b", "name": "data", "uid": "c", "resourceVersion": null}},
            })
        );
    }

    #[test]
    fn its_own_policy_survives_a_second_time_and_comes_back() {
        let again = volume("Retain", Some("Delete"));
        let noted = &to(&again)["metadata"]["annotations"][RECLAIM_POLICY_ANNOTATION];
        assert_eq!(noted, "Delete");
        let back = released(&again);
        assert_eq!(back["spec"]["persistentVolumeReclaimPolicy"], "Delete");
        assert_eq!(back["metadata"]["labels"][FOR_LABEL], Value::Null);
        assert_eq!(released(&volume("Retain", None)).get("spec"), None);
    }
}
