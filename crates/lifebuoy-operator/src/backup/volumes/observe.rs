//! What is known of the claims, of the pods that mount them, and of the pods' emptyDirs.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod,
};
use kube::ResourceExt;
use lifebuoy_api::{OVERWRITING_ANNOTATION, VolumeType};
use lifebuoy_engine::{
    archive::ObjectKey,
    capture::VolumesFound,
    volumes::{
        NodeDirectory, NodePath, Reach, SnapshotClass, Volume, VolumeMode, bytes_of_quantity,
        empty_dir_key,
    },
};

use super::cluster::Cluster;
use crate::Error;

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) volumes: Vec<SeenVolume>,
    /// Claims that nothing can be done about, and why.
    pub(super) unusable: BTreeMap<ObjectKey, String>,
    pub(super) classes: Vec<SnapshotClass>,
    /// The running pods of the namespaces.
    pub(super) pods: Vec<SeenPod>,
}

/// A bound claim with its volume, or an emptyDir.
#[derive(Clone, Debug)]
pub(super) struct SeenVolume {
    pub(super) volume: Volume,
    /// Where a node has it, if a pod has it mounted.
    pub(super) mounted: Option<Mounted>,
}

/// Where a volume is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) node: String,
    pub(super) place: Place,
}

/// Where on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Below the kubelet's directory.
    BelowKubelet(String),
    /// A directory of the node itself.
    OnNode(NodeDirectory),
}

/// A running pod.
#[derive(Clone, Debug, Default)]
pub(super) struct SeenPod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) node: String,
    pub(super) labels: BTreeMap<String, String>,
    /// Names of its containers, the first one first.
    pub(super) containers: Vec<String>,
    /// Claims that it mounts.
    pub(super) claims: BTreeSet<String>,
    pub(super) empty_dirs: Vec<EmptyDir>,
}

/// A directory that a pod has for as long as it is there: on the node's disk, or in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EmptyDir {
    name: String,
    /// 0 without a limit.
    limit_bytes: u64,
}

/// Looks at the volumes. Of the node itself, movers may read what is in `host_paths`.
///
/// # Errors
/// When the API server does not answer. What concerns one claim is in the result.
pub(super) async fn observe(
    cluster: &Cluster,
    wanted: &VolumesFound,
    host_paths: &[NodePath],
) -> Result<Seen, Error> {
    let mut seen = Seen {
        classes: cluster.snapshots().classes().await?,
        ..Seen::default()
    };
    let VolumesFound {
        claims,
        pods: with_empty_dirs,
    } = wanted;
    let keys = claims.iter().chain(with_empty_dirs);
    let namespaces: BTreeSet<&str> = keys.map(|key| &*key.namespace).collect();
    for namespace in namespaces {
        let pods = cluster.pods(namespace).await?;
        let pods: Vec<_> = pods.iter().filter_map(seen_pod).collect();
        let found = cluster.claims(namespace).await?;
        for claim in claims.iter().filter(|claim| &*claim.namespace == namespace) {
            let object = found.iter().find(|of| of.name_any() == *claim.name);
            let volume = match object.and_then(volume_name) {
                Some(name) => cluster.volume(name).await?,
                None => None,
            };
            match look(claim, object, volume.as_ref(), &pods, host_paths) {
                Ok(volume) => seen.volumes.push(volume),
                Err(why) => {
                    seen.unusable.insert(claim.clone(), why.to_owned());
                }
            }
        }
        let selected =
            |pod: &&SeenPod| with_empty_dirs.contains(&ObjectKey::new(&*pod.namespace, &*pod.name));
        let empty_dirs = pods.iter().filter(selected).flat_map(empty_dirs_of);
        seen.volumes.extend(empty_dirs);
        seen.pods.extend(pods);
    }
    Ok(seen)
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref()
}

fn look(
    claim: &ObjectKey,
    object: Option<&PersistentVolumeClaim>,
    volume: Option<&PersistentVolume>,
    pods: &[SeenPod],
    host_paths: &[NodePath],
) -> Result<SeenVolume, &'static str> {
    let object = object.ok_or("the claim was deleted meanwhile")?;
    if object.metadata.deletion_timestamp.is_some() {
        return Err("the claim is being deleted");
    }
    let status = object.status.as_ref();
    if status.and_then(|status| status.phase.as_deref()) != Some("Bound") {
        return Err("the claim has no volume yet");
    }
    let spec = object.spec.as_ref().ok_or("the claim has no spec")?;
    let of = volume
        .and_then(|volume| volume.spec.as_ref())
        .ok_or("the claim's PersistentVolume is not there")?;
    let pod = pods.iter().find(|pod| pod.claims.contains(&*claim.name));
    let capacity = |map: Option<&BTreeMap<String, _>>| {
        let quantity: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> =
            map.and_then(|map| map.get("storage"));
        quantity.and_then(|quantity| bytes_of_quantity(&quantity.0))
    };
    let name = spec.volume_name.as_deref().unwrap_or_default();
    let mounted = pod.ok_or(Reach::NotMounted).and_then(|pod| {
        Ok(Mounted {
            node: pod.node.clone(),
            place: place(of, name, &pod.uid, host_paths)?,
        })
    });
    Ok(SeenVolume {
        volume: Volume {
            claim: claim.clone(),
            labels: object.labels().clone(),
            storage_class: spec.storage_class_name.clone().unwrap_or_default(),
            of: volume_type(of),
            driver: of
                .csi
                .as_ref()
                .map(|csi| csi.driver.clone())
                .unwrap_or_default(),
            mode: match spec.volume_mode.as_deref() {
                Some("Block") => VolumeMode::Block,
                _ => VolumeMode::Filesystem,
            },
            access_modes: spec.access_modes.clone().unwrap_or_default(),
            capacity_bytes: capacity(status.and_then(|s| s.capacity.as_ref()))
                .or_else(|| capacity(of.capacity.as_ref()))
                .unwrap_or_default(),
            reach: mounted.as_ref().err().cloned().unwrap_or(Reach::Mounted),
            half_written: object.annotations().contains_key(OVERWRITING_ANNOTATION),
        },
        mounted: mounted.ok(),
    })
}

fn empty_dirs_of(pod: &SeenPod) -> impl Iterator<Item = SeenVolume> {
    pod.empty_dirs.iter().map(|EmptyDir { name, limit_bytes }| {
        let place = format!("pods/{}/volumes/kubernetes.io~empty-dir/{name}", pod.uid);
        SeenVolume {
            volume: Volume {
                claim: empty_dir_key(&pod.namespace, &pod.name, name),
                labels: pod.labels.clone(),
                storage_class: String::new(),
                of: VolumeType::EmptyDir,
                driver: String::new(),
                mode: VolumeMode::Filesystem,
                access_modes: Vec::new(),
                capacity_bytes: *limit_bytes,
                reach: Reach::Mounted,
                half_written: false,
            },
            mounted: Some(Mounted {
                node: pod.node.clone(),
                place: Place::BelowKubelet(place),
            }),
        }
    })
}

fn volume_type(of: &PersistentVolumeSpec) -> VolumeType {
    if of.csi.is_some() {
        VolumeType::Csi
    } else if of.host_path.is_some() {
        VolumeType::HostPath
    } else if of.local.is_some() {
        VolumeType::Local
    } else if of.nfs.is_some() {
        VolumeType::Nfs
    } else {
        VolumeType::Other
    }
}

/// Where the kubelet has the volume for a pod, by the names of its plugins; or why a mover
/// cannot read it there.
fn place(
    of: &PersistentVolumeSpec,
    name: &str,
    pod: &str,
    host_paths: &[NodePath],
) -> Result<Place, Reach> {
    let below = |rest: String| Ok(Place::BelowKubelet(format!("pods/{pod}/volumes/{rest}")));
    match volume_type(of) {
        VolumeType::Csi => below(format!("kubernetes.io~csi/{name}/mount")),
        VolumeType::Local => below(format!("kubernetes.io~local-volume/{name}")),
        VolumeType::Nfs => below(format!("kubernetes.io~nfs/{name}")),
        // The kubelet mounts it nowhere: the runtime binds the directory itself.
        VolumeType::HostPath => {
            let path = of
                .host_path
                .as_ref()
                .map(|of| &*of.path)
                .unwrap_or_default();
            NodePath::parse(path)
                .ok()
                .and_then(|path| NodeDirectory::find(&path, host_paths))
                .map(Place::OnNode)
                .ok_or_else(|| Reach::NotAllowed(path.to_owned()))
        }
        // A PersistentVolume is no emptyDir.
        VolumeType::Other | VolumeType::EmptyDir => Err(Reach::Unknown),
    }
}

fn seen_pod(pod: &Pod) -> Option<SeenPod> {
    let spec = pod.spec.as_ref()?;
    let phase = pod.status.as_ref()?.phase.as_deref();
    if phase != Some("Running") || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let claims = spec.volumes.iter().flatten().filter_map(|volume| {
        if volume.ephemeral.is_some() {
            // By this name Kubernetes makes its claim.
            return Some(format!("{}-{}", pod.name_any(), volume.name));
        }
        let claim = volume.persistent_volume_claim.as_ref()?;
        Some(claim.claim_name.clone())
    });
    let empty_dirs = spec.volumes.iter().flatten().filter_map(|volume| {
        let limit = volume.empty_dir.as_ref()?.size_limit.as_ref();
        Some(EmptyDir {
            name: volume.name.clone(),
            limit_bytes: limit
                .and_then(|limit| bytes_of_quantity(&limit.0))
                .unwrap_or_default(),
        })
    });
    Some(SeenPod {
        namespace: pod.namespace()?,
        name: pod.name_any(),
        uid: pod.uid()?,
        node: spec.node_name.clone()?,
        labels: pod.labels().clone(),
        containers: spec.containers.iter().map(|c| c.name.clone()).collect(),
        claims: claims.collect(),
        empty_dirs: empty_dirs.collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_bound_claim_is_known_with_its_volume_and_where_it_is_mounted() {
        let claim: PersistentVolumeClaim = parsed(json!({
            "metadata": {"name": "data", "namespace": "shop", "labels": {"a": "b"}},
            "spec": {"volumeName": "pv-1", "storageClassName": "fast", "accessModes": ["ReadWriteOnce"]},
            "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}},
        }));
        let volume: PersistentVolume = parsed(json!({
            "metadata": {"name": "pv-1"},
            "spec": {"csi": {"driver": "d.example.com", "volumeHandle": "h"}},
        }));
        let pod: Pod = parsed(json!({
            "metadata": {"name": "db-0", "namespace": "shop", "uid": "u"},
            "spec": {"nodeName": "n", "containers": [{"name": "db"}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]},
            "status": {"phase": "Running"},
        }));
        let key = ObjectKey::new("shop", "data");
        let pods = [seen_pod(&pod).unwrap()];
        let seen = look(&key, Some(&claim), Some(&volume), &pods, &[]).unwrap();
        assert_eq!(seen.volume.capacity_bytes, 2 << 30);
        assert_eq!(seen.volume.driver, "d.example.com");
        let mounted = seen.mounted.unwrap();
        assert_eq!(mounted.node, "n");
        assert_eq!(
            mounted.place,
            Place::BelowKubelet("pods/u/volumes/kubernetes.io~csi/pv-1/mount".to_owned())
        );
        assert_eq!(seen.volume.reach, Reach::Mounted);
        let alone = look(&key, Some(&claim), Some(&volume), &[], &[]).unwrap();
        assert_eq!(alone.volume.reach, Reach::NotMounted);
        assert!(look(&key, None, None, &[], &[]).is_err());
        assert!(look(&key, Some(&claim), None, &[], &[]).is_err());
    }

    #[test]
    fn each_type_of_volume_is_where_its_plugin_has_it() {
        let allowed = [NodePath::parse("/srv").unwrap()];
        let placed = |spec: serde_json::Value| place(&parsed(spec), "pv", "u", &allowed);
        let below = |rest: &str| Ok(Place::BelowKubelet(format!("pods/u/volumes/{rest}")));
        let csi = json!({"csi": {"driver": "d", "volumeHandle": "h"}});
        assert_eq!(placed(csi), below("kubernetes.io~csi/pv/mount"));
        let local = json!({"local": {"path": "/mnt/disk"}});
        assert_eq!(placed(local), below("kubernetes.io~local-volume/pv"));
        let nfs = json!({"nfs": {"server": "s", "path": "/x"}});
        assert_eq!(placed(nfs), below("kubernetes.io~nfs/pv"));
        let iscsi = json!({"iscsi": {"targetPortal": "t", "iqn": "i", "lun": 0}});
        assert_eq!(placed(iscsi), Err(Reach::Unknown));
        let on_node = |path: &str| placed(json!({"hostPath": {"path": path}}));
        let directory = NodeDirectory::find(&NodePath::parse("/srv/shop").unwrap(), &allowed);
        assert_eq!(
            on_node("/srv//shop/"),
            Ok(Place::OnNode(directory.unwrap()))
        );
        for path in ["/srv2", "/etc", "/srv/../etc", "/", "srv/shop"] {
            assert_eq!(on_node(path), Err(Reach::NotAllowed(path.to_owned())));
        }
    }

    #[test]
    fn volumes_of_a_pod_are_known_and_empty_dirs_are_where_the_kubelet_has_them() {
        let pod: Pod = parsed(json!({
            "metadata": {"name": "web-0", "namespace": "shop", "uid": "u", "labels": {"a": "b"}},
            "spec": {"nodeName": "n", "containers": [{"name": "web"}], "volumes": [
                {"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                {"name": "tmp", "emptyDir": {}},
            ]},
            "status": {"phase": "Running"},
        }));
        let pod = seen_pod(&pod).unwrap();
        let claims: Vec<_> = pod.claims.iter().map(String::as_str).collect();
        assert_eq!(claims, ["data", "web-0-own"]);
        let seen: Vec<_> = empty_dirs_of(&pod).collect();
        let known: Vec<_> = seen
            .iter()
            .map(|of| (of.volume.claim.to_string(), of.volume.capacity_bytes))
            .collect();
        assert_eq!(
            known,
            [
                ("shop/web-0/cache".to_owned(), 64 << 20),
                ("shop/web-0/tmp".to_owned(), 0)
            ]
        );
        let place = "pods/u/volumes/kubernetes.io~empty-dir/cache".to_owned();
        let mounted = Mounted {
            node: "n".to_owned(),
            place: Place::BelowKubelet(place),
        };
        assert_eq!(seen[0].mounted, Some(mounted));
        assert_eq!(seen[0].volume.labels["a"], "b");
    }

    #[test]
    fn a_claim_without_a_volume_is_said() {
        let claim: PersistentVolumeClaim = parsed(json!({
            "metadata": {"name": "data", "namespace": "shop"},
            "spec": {}, "status": {"phase": "Pending"},
        }));
        let key = ObjectKey::new("shop", "data");
        let why = look(&key, Some(&claim), None, &[], &[]).unwrap_err();
        assert_eq!(why, "the claim has no volume yet");
    }
}
