//! The capture account can read what it saves, and cannot use it to get further.
//! A request in a tenant's namespace is refused before anything is read.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use lifebuoy_api::{Backup, ConditionType, find};
use lifebuoy_engine::volumes::{
    JobRequest, MountedVolume, MoverConfig, NodeDirectory, NodePath, job,
};
use lifebuoy_scenarios::{
    HOST_PATH, Installation, InstallationOptions, OPERATOR_NAMESPACE, SOON, World, backup, create,
    namespace, scenario, until,
};

use serde_json::{Value, json};

use crate::support::capture_account;

const MOVER_NAMESPACE: &str = "lifebuoy-movers";

#[test]
fn the_capture_account_cannot_reach_nodes_pods_or_single_objects() {
    scenario(async {
        let world = World::shared().await?;
        let account = capture_account(&world.client()).await?;
        let kubeconfig = world
            .installation
            .cluster
            .kubeconfig_for_service_account(OPERATOR_NAMESPACE, &account)
            .await?;
        let home = world.installation.cluster.directory().join("capture-home");
        let kubectl = lifebuoy_testkit::kubectl::CommandLine::kubectl(kubeconfig, home).await?;
        for refused in [
            "get nodes/proxy",
            "get pods/exec",
            "create pods/exec",
            "create pods",
            "get secrets",
            "delete pods",
            "update secrets",
            "patch deployments.apps",
            "create serviceaccounts/token",
            "impersonate users",
            "escalate clusterroles",
            "bind clusterroles",
        ] {
            let args = ["auth", "can-i", "--namespace=default"];
            let finished = kubectl
                .output(args.into_iter().chain(refused.split(' ')), "")
                .await?;
            ensure!(
                finished.stdout.trim() == "no",
                "{refused}: {}",
                finished.stdout
            );
        }
        for allowed in [
            "list secrets",
            "watch pods",
            "list customresourcedefinitions",
        ] {
            let args = ["auth", "can-i", "--all-namespaces"];
            let finished = kubectl
                .output(args.into_iter().chain(allowed.split(' ')), "")
                .await?;
            ensure!(
                finished.stdout.trim() == "yes",
                "{allowed}: {}",
                finished.stdout
            );
        }
        Ok(())
    });
}

#[test]
fn the_capture_account_makes_movers_and_reads_none_of_their_secrets() {
    scenario(async {
        let client = World::shared().await?.client();
        let account = capture_account(&client).await?;
        let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{account}");
        for (verb, group, resource, expected) in [
            ("create", "batch", "jobs", true),
            ("delete", "batch", "jobs", true),
            ("create", "", "secrets", true),
            ("get", "", "pods/log", true),
            ("create", "", "persistentvolumeclaims", true),
            ("get", "", "secrets", false),
            ("update", "", "secrets", false),
            ("create", "", "pods", false),
            ("create", "", "pods/exec", false),
            ("patch", "batch", "jobs", false),
            ("create", "", "serviceaccounts/token", false),
        ] {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let attributes = ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: Some(subresource.to_owned()),
                verb: Some(verb.to_owned()),
                namespace: Some(MOVER_NAMESPACE.to_owned()),
                ..ResourceAttributes::default()
            };
            let found = reviewed(&client, &user, attributes).await?;
            ensure!(
                found == expected,
                "{verb} {resource}/{subresource}: {found}"
            );
        }
        Ok(())
    });
}

#[test]
fn nothing_but_movers_runs_in_their_namespace() {
    scenario(async {
        let client = World::shared().await?.client();
        let pods: Api<Pod> = Api::namespaced(client, MOVER_NAMESPACE);
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let pod = |spec: Value| -> Result<Pod> {
            let metadata = json!({"generateName": "pod-"});
            Ok(serde_json::from_value(
                json!({"metadata": metadata, "spec": spec}),
            )?)
        };
        for volume in volumes()? {
            for restores in [false, true] {
                if restores && !matches!(volume, MountedVolume::Claim { .. }) {
                    continue;
                }
                let spec = serde_json::to_value(mover(&volume, restores)?)?;
                pods.create(&dry, &pod(spec)?).await?;
            }
        }
        let change = |pointer: &str, value: Value| -> Result<Value> {
            let mut spec = serde_json::to_value(mover(&volumes()?[0], false)?)?;
            let (above, name) = pointer.rsplit_once('/').context("no pointer")?;
            let above = spec.pointer_mut(above).context("nothing there")?;
            above[name] = value;
            Ok(spec)
        };
        let root = json!([{"name": "node", "hostPath": {"path": "/"}}]);
        for (pointer, value, said) in [
            ("/containers/0/image", json!("busybox:1"), "only movers"),
            ("/containers/0/command", json!(["sh"]), "only movers"),
            ("/containers/0/args", json!(["operator"]), "only movers"),
            (
                "/initContainers",
                json!([{"name": "first", "image": "lifebuoy:1"}]),
                "only movers",
            ),
            ("/automountServiceAccountToken", json!(true), "no token"),
            ("/hostNetwork", json!(true), "apart from its node"),
            ("/hostPID", json!(true), "apart from its node"),
            (
                "/containers/0/securityContext/capabilities/add",
                json!(["SYS_ADMIN"]),
                "no more rights",
            ),
            ("/containers/0/securityContext", json!({}), "no more rights"),
            ("/volumes", root, "nothing of its node"),
        ] {
            let mut spec = change(pointer, value)?;
            if pointer == "/volumes" {
                spec["containers"][0]["volumeMounts"] = json!([]);
            }
            let refused = pods.create(&dry, &pod(spec)?).await.err();
            let refused = refused.with_context(|| format!("{pointer} is admitted"))?;
            ensure!(refused.to_string().contains(said), "{pointer}: {refused}");
        }
        for (path, kind, read_only, said) in [
            ("/etc", "Directory", true, "nothing of its node"),
            ("/srv", "Directory", true, "nothing of its node"),
            ("/srv/database", "Directory", true, "nothing of its node"),
            (HOST_PATH, "Directory", false, "changes nothing"),
            (HOST_PATH, "DirectoryOrCreate", true, "changes nothing"),
            (HOST_PATH, "", true, "changes nothing"),
        ] {
            let host_path = json!({"path": path, "type": kind});
            let mut spec = change(
                "/volumes",
                json!([{"name": "volume", "hostPath": host_path}]),
            )?;
            spec["containers"][0]["volumeMounts"] =
                json!([{"name": "volume", "mountPath": "/volume", "readOnly": read_only}]);
            let refused = pods.create(&dry, &pod(spec)?).await.err();
            let refused = refused.with_context(|| format!("{path} as {kind} is admitted"))?;
            ensure!(refused.to_string().contains(said), "{path}: {refused}");
        }
        Ok(())
    });
}

fn volumes() -> Result<[MountedVolume; 5]> {
    let claim = |block| MountedVolume::Claim {
        name: "data".to_owned(),
        block,
    };
    let path = "/var/lib/kubelet/pods/1/volumes/x/y/mount".to_owned();
    let allowed = [NodePath::parse(HOST_PATH).map_err(Error::msg)?];
    let on_node = |path: String| -> Result<MountedVolume> {
        let path = NodePath::parse(&path).map_err(Error::msg)?;
        let directory = NodeDirectory::find(&path, &allowed).context("not allowed")?;
        Ok(MountedVolume::HostPath(directory))
    };
    Ok([
        claim(false),
        claim(true),
        MountedVolume::Mounted { path },
        on_node(HOST_PATH.to_owned())?,
        on_node(format!("{HOST_PATH}/shop/1"))?,
    ])
}

/// What the operator makes, as the chart tells it to.
fn mover(volume: &MountedVolume, restores: bool) -> Result<PodSpec> {
    let job = job(&JobRequest {
        name: "mover-1",
        labels: &BTreeMap::new(),
        volume,
        node: Some("node-a"),
        read_only: !restores,
        restores,
        place: 0,
        session: None,
        config: &MoverConfig::new(OPERATOR_NAMESPACE),
    });
    let spec = job.spec.and_then(|spec| spec.template.spec);
    spec.context("a Job without a pod")
}

#[test]
fn a_backup_in_a_tenants_namespace_reads_nothing() {
    scenario(async {
        // A cluster of its own: the audit log must hold this Backup's requests only.
        let mut options = InstallationOptions::named("tenant");
        options.cluster.audit = true;
        let installation = Installation::start(options).await?;
        let client = installation.client();
        let tenant = namespace(&client, "tenant").await?;
        let account = capture_account(&client).await?;
        let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{account}");
        let lists = || -> Result<u64> {
            let counts = installation.cluster.request_counts()?;
            Ok(counts.of(&user).get("list").copied().unwrap_or_default())
        };
        // Its watches begin with lists of their own.
        let mut before = lists()?;
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = lists()?;
            if now == before {
                break;
            }
            before = now;
        }
        create(&client, &tenant, backup("mine", "main")).await?;
        let refused = until(&client, &tenant, "mine", SOON, |backup: &Backup| {
            backup.status.as_ref().is_some_and(|status| {
                find(&status.conditions, ConditionType::Stalled).is_some_and(|c| c.status == "True")
            })
        })
        .await?;
        let status = refused.status.context("no status")?;
        let stalled = find(&status.conditions, ConditionType::Stalled).context("not stalled")?;
        ensure!(stalled.reason == "NamespaceNotPermitted", "{stalled:?}");
        ensure!(
            status.session.is_none() && status.progress.types == 0,
            "{status:?}"
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
        ensure!(
            lists()? == before,
            "the operator has listed something for a tenant"
        );
        Ok(())
    });
}

#[test]
fn ordinary_users_have_no_rights_on_our_kinds() {
    scenario(async {
        let client = World::shared().await?.client();
        for verb in ["create", "get", "list", "delete"] {
            for resource in [
                "backups",
                "restores",
                "recoverypoints",
                "repositories",
                "schedules",
                "volumerestores",
            ] {
                ensure!(
                    !allowed(&client, "somebody", verb, resource).await?,
                    "an ordinary user may {verb} {resource}"
                );
            }
        }
        Ok(())
    });
}

async fn allowed(client: &Client, user: &str, verb: &str, resource: &str) -> Result<bool> {
    let attributes = ResourceAttributes {
        group: Some(lifebuoy_api::GROUP.to_owned()),
        resource: Some(resource.to_owned()),
        verb: Some(verb.to_owned()),
        namespace: Some(OPERATOR_NAMESPACE.to_owned()),
        ..ResourceAttributes::default()
    };
    reviewed(client, user, attributes).await
}

async fn reviewed(client: &Client, user: &str, attributes: ResourceAttributes) -> Result<bool> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            groups: Some(vec!["system:authenticated".to_owned()]),
            resource_attributes: Some(attributes),
            non_resource_attributes: None::<NonResourceAttributes>,
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let review = reviews.create(&PostParams::default(), &review).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}
