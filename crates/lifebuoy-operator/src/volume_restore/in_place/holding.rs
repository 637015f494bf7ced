//! Who has to be stopped before the volume of a claim can be written, and whether all have
//! let go of it. Pure: decided from what was seen of a namespace.

use k8s_openapi::{
    api::core::v1::{Pod, Volume},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::ResourceExt;
use serde_json::Value;

use super::workload::{Kind, Workload};

/// The namespace of a claim.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    pub(crate) pods: Vec<Pod>,
    pub(crate) workloads: Vec<Workload>,
    /// The nodes to which the volume of the claim is attached.
    pub(crate) attached: Vec<String>,
    /// The uids of the Restores that have not ended.
    pub(crate) working: Vec<String>,
}

/// How it stands about the volume of a claim.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Holding {
    /// Something mounts it that cannot be stopped.
    Refused(String),
    /// These are to be stopped first.
    Hold(Vec<Stop>),
    /// All are stopped, and somebody has not let go yet.
    Waits(String),
    /// Nobody has it, and nobody will.
    Free,
}

/// A workload, and the patch that stops it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stop {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) patch: Value,
}

/// How it stands about the claim, for this Restore.
pub(crate) fn holding(scene: &Scene, restore: &str, claim: &str) -> Holding {
    let wanted = match wanted(scene, claim) {
        Ok(wanted) => wanted,
        Err(why) => return Holding::Refused(why),
    };
    for workload in &wanted {
        if let Some(why) = unsafe_to_stop(workload) {
            return Holding::Refused(why);
        }
        let other = workload.held_for().filter(|other| *other != restore);
        if other.is_some_and(|other| scene.working.iter().any(|works| works == other)) {
            let title = workload.title();
            return Holding::Waits(format!("another Restore holds the {title}"));
        }
    }
    let stops: Vec<Stop> = wanted
        .iter()
        .filter_map(|workload| {
            Some(Stop {
                kind: workload.kind,
                name: workload.name().to_owned(),
                patch: workload.hold(restore, claim)?,
            })
        })
        .collect();
    if !stops.is_empty() {
        return Holding::Hold(stops);
    }
    if let Some(pod) = first_that_mounts(&scene.pods, claim) {
        return Holding::Waits(format!("the pod `{pod}` has not let go of it yet"));
    }
    match scene.attached.first() {
        Some(node) => Holding::Waits(format!("it is still attached to the node `{node}`")),
        None => Holding::Free,
    }
}

/// The first pod that has the claim mounted, or will have.
pub(crate) fn first_that_mounts(pods: &[Pod], claim: &str) -> Option<String> {
    that_mount(pods, claim).next().map(ResourceExt::name_any)
}

/// Pods that have ended have let go, and do not run again.
fn that_mount<'a>(pods: &'a [Pod], claim: &'a str) -> impl Iterator<Item = &'a Pod> {
    pods.iter().filter(move |pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let volumes = pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten());
        let name = pod.name_any();
        let mut volumes = volumes;
        !matches!(phase, Some("Succeeded" | "Failed"))
            && volumes.any(|volume| is_of(volume, &name, claim))
    })
}

fn is_of(volume: &Volume, pod: &str, claim: &str) -> bool {
    let named = volume.persistent_volume_claim.as_ref();
    named.is_some_and(|named| named.claim_name == claim)
        || (volume.ephemeral.is_some() && claim == format!("{pod}-{}", volume.name))
}

/// Everything whose pods mount the claim, now or later.
fn wanted<'a>(scene: &'a Scene, claim: &str) -> Result<Vec<&'a Workload>, String> {
    let mut wanted: Vec<&Workload> = Vec::new();
    let mut add = |found: Vec<&'a Workload>| {
        for workload in found {
            if !wanted.iter().any(|known| known.uid() == workload.uid()) {
                wanted.push(workload);
            }
        }
    };
    for pod in that_mount(&scene.pods, claim) {
        let goes = pod.metadata.deletion_timestamp.is_some();
        let owners = pod.metadata.owner_references.iter().flatten();
        let mut owners = owners.filter(|owner| owner.controller == Some(true));
        let found = match owners.next() {
            Some(owner) => above(scene, owner)
                .map_err(|why| format!("the pod `{}` mounts it, and {why}", pod.name_any())),
            None => Err(format!(
                "the pod `{}` mounts it, and belongs to nothing that could start it again: delete it",
                pod.name_any()
            )),
        };
        match found {
            Ok(found) => add(found),
            // It is waited for.
            Err(_) if goes => {}
            Err(why) => return Err(why),
        }
    }
    for workload in &scene.workloads {
        if !workload.is_over() && workload.mounts(claim) {
            add(to_stop(scene, workload)?);
        }
    }
    Ok(wanted)
}

/// What has to be stopped so that what belongs to this owner stays stopped. Nothing where it
/// is not there any more: what it owned goes after it.
fn above<'a>(scene: &'a Scene, owner: &OwnerReference) -> Result<Vec<&'a Workload>, String> {
    if Kind::of(owner).is_none() {
        return Err(controlled_by(owner));
    }
    let mut workloads = scene.workloads.iter();
    match workloads.find(|workload| workload.uid() == owner.uid) {
        Some(workload) => to_stop(scene, workload),
        None => Ok(Vec::new()),
    }
}

/// What has to be stopped so that a workload stays stopped.
fn to_stop<'a>(scene: &'a Scene, workload: &'a Workload) -> Result<Vec<&'a Workload>, String> {
    let Some(owner) = workload.controller() else {
        return Ok(vec![workload]);
    };
    if Kind::of(&owner).is_none() && (workload.is_stopped() && workload.held_for().is_none()) {
        // Whoever controls it was told by a person to let it rest.
        return Ok(Vec::new());
    }
    let mut found = above(scene, &owner)
        .map_err(|why| format!("the {} mounts it, and {why}", workload.title()))?;
    // A CronJob that is suspended does not stop its Jobs; and what has lost its owner may
    // yet start pods.
    if found.is_empty() || workload.kind == Kind::Job {
        found.push(workload);
    }
    Ok(found)
}

fn controlled_by(owner: &OwnerReference) -> String {
    format!(
        "is controlled by the {} `{}`, which would start it again: pause that, scale down what it controls, and restore again",
        owner.kind, owner.name
    )
}

fn unsafe_to_stop(workload: &Workload) -> Option<String> {
    let title = workload.title();
    if workload.is_unreadable() {
        return Some(format!(
            "the annotation `{}` of the {title} cannot be read: see what it was, and remove it",
            lifebuoy_api::HELD_ANNOTATION
        ));
    }
    (workload.deletes_claims() && !workload.is_stopped()).then(|| {
        format!(
            "the {title} deletes its claims when it is scaled down: set `persistentVolumeClaimRetentionPolicy.whenScaled` to `Retain`"
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::workload::tests::{changed, patched, workload};
    use super::*;

    fn pod(name: &str, claim: &str, owner: Value) -> Pod {
        let owners = if owner.is_null() {
            json!([])
        } else {
            json!([owner])
        };
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "ownerReferences": owners},
            "spec": {"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]},
            "status": {"phase": "Running"},
        }))
        .unwrap()
    }

    fn owner(api: &str, kind: &str, name: &str) -> Value {
        json!({"apiVersion": api, "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true})
    }

    fn owned(workload: &Workload, owner: &Value) -> Workload {
        changed(workload, json!({"metadata": {"ownerReferences": [owner]}}))
    }

    fn mounting(claim: &str, more: Value) -> Value {
        let mut spec = json!({"template": {"spec": {"volumes": [{"persistentVolumeClaim": {"claimName": claim}}]}}});
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        spec
    }

    fn deployment(replicas: i64) -> Workload {
        workload(
            Kind::Deployment,
            "web",
            mounting("data", json!({"replicas": replicas})),
        )
    }

    /// Decides, and does what is decided, until there is nothing to stop.
    fn told(scene: &mut Scene, claim: &str) -> String {
        let mut stopped = Vec::new();
        loop {
            match holding(scene, "r", claim) {
                Holding::Refused(why) => return format!("{stopped:?} refused: {why}"),
                Holding::Waits(why) => return format!("{stopped:?} waits: {why}"),
                Holding::Free => return format!("{stopped:?} free"),
                Holding::Hold(stops) => {
                    for stop in stops {
                        let found = scene
                            .workloads
                            .iter_mut()
                            .find(|of| of.kind == stop.kind && of.name() == stop.name)
                            .unwrap();
                        *found = patched(found, &stop.patch);
                        assert!(found.is_stopped());
                        stopped.push(stop.name);
                    }
                }
            }
        }
    }

    #[test]
    fn whoever_mounts_the_claim_is_stopped_and_nobody_else() {
        let set = workload(
            Kind::ReplicaSet,
            "web-1",
            mounting("data", json!({"replicas": 2})),
        );
        let set = owned(&set, &owner("apps/v1", "Deployment", "web"));
        let other = workload(
            Kind::Deployment,
            "other",
            mounting("logs", json!({"replicas": 1})),
        );
        let mut scene = Scene {
            workloads: vec![deployment(2), set, other],
            pods: vec![
                pod("web-1-x", "data", owner("apps/v1", "ReplicaSet", "web-1")),
                pod("other", "logs", Value::Null),
            ],
            ..Scene::default()
        };
        assert_eq!(
            told(&mut scene, "data"),
            r#"["web"] waits: the pod `web-1-x` has not let go of it yet"#
        );
        scene.pods.remove(0);
        scene.attached = vec!["n1".to_owned()];
        assert_eq!(
            told(&mut scene, "data"),
            "[] waits: it is still attached to the node `n1`"
        );
        scene.attached.clear();
        assert_eq!(told(&mut scene, "data"), "[] free");
    }

    #[test]
    fn what_has_no_pods_now_is_stopped_as_well() {
        let templates =
            json!({"replicas": 0, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]});
        let cron =
            json!({"suspend": false, "jobTemplate": {"spec": mounting("data-db-0", json!({}))}});
        let over = changed(
            &workload(Kind::Job, "over", mounting("data-db-0", json!({}))),
            json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}}),
        );
        let job = workload(
            Kind::Job,
            "nightly-1",
            mounting("data-db-0", json!({"suspend": false})),
        );
        let mut scene = Scene {
            workloads: vec![
                workload(Kind::StatefulSet, "db", templates),
                workload(Kind::CronJob, "nightly", cron),
                owned(&job, &owner("batch/v1", "CronJob", "nightly")),
                workload(Kind::DaemonSet, "agent", mounting("data-db-0", json!({}))),
                over,
            ],
            ..Scene::default()
        };
        assert_eq!(
            told(&mut scene, "data-db-0"),
            r#"["db", "nightly", "nightly-1", "agent"] free"#
        );
    }

    #[test]
    fn what_cannot_be_stopped_is_named() {
        let of = |scene: Scene| told(&mut scene.clone(), "data");
        let bare = pod("shell", "data", Value::Null);
        let refused = of(Scene {
            pods: vec![bare.clone()],
            ..Scene::default()
        });
        assert!(
            refused.contains("refused: the pod `shell` mounts it"),
            "{refused}"
        );
        let mut goes = bare;
        goes.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            ));
        let waits = of(Scene {
            pods: vec![goes],
            ..Scene::default()
        });
        assert!(waits.contains("waits: the pod `shell`"), "{waits}");
        let rollout = owner("argoproj.io/v1alpha1", "Rollout", "web");
        let unknown = of(Scene {
            pods: vec![pod("web-x", "data", rollout)],
            ..Scene::default()
        });
        assert!(
            unknown.contains("the Rollout `web`, which would start it again"),
            "{unknown}"
        );
        let cluster = owner("example.com/v1", "Database", "db");
        let operated = owned(&deployment(1), &cluster);
        let refused = of(Scene {
            workloads: vec![operated],
            ..Scene::default()
        });
        assert!(
            refused.contains("the Deployment `web` mounts it"),
            "{refused}"
        );
        let rests = of(Scene {
            workloads: vec![owned(&deployment(0), &cluster)],
            ..Scene::default()
        });
        assert_eq!(rests, "[] free");
        let deletes = json!({"replicas": 1, "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}});
        let set = workload(Kind::StatefulSet, "db", mounting("data", deletes));
        let refused = of(Scene {
            workloads: vec![set],
            ..Scene::default()
        });
        assert!(refused.contains("deletes its claims"), "{refused}");
    }

    #[test]
    fn what_another_restore_holds_is_waited_for_and_taken_over_when_that_is_over() {
        let held = patched(
            &deployment(2),
            &deployment(2).hold("other", "logs").unwrap(),
        );
        let mut scene = Scene {
            workloads: vec![held],
            working: vec!["other".to_owned()],
            ..Scene::default()
        };
        assert_eq!(
            told(&mut scene, "data"),
            "[] waits: another Restore holds the Deployment `web`"
        );
        scene.working.clear();
        assert_eq!(told(&mut scene, "data"), r#"["web"] free"#);
        let claims = scene.workloads[0].held_claims();
        assert_eq!(claims, ["data".to_owned(), "logs".to_owned()].into());
        assert_eq!(scene.workloads[0].held_for(), Some("r"));
    }
}
