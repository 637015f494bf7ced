//! Volumes that nobody snapshots are read where a running pod has them: one of a driver,
//! a directory of the node that the installation allows, and emptyDirs, because a rule
//! says so. Claims are restored into other volumes; files of emptyDirs are brought to the
//! machine at hand. A directory that is not allowed is not read, also behind a link.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use lifebuoy_api::{
    Backup, NameMapping, Reason, VolumeMatch, VolumePolicy, VolumeRule, VolumeType, VolumeWay,
};
use lifebuoy_scenarios::{
    Ended, NodeWorld, OPERATOR_NAMESPACE, OneNodeWorld, PODS_LIMIT, backup, extract, from_snapshot,
    node_scenario, restore, run, same_files, saved_volumes,
};
use lifebuoy_testkit::directory;
use lifebuoy_testkit::node::images::BUSYBOX;
use lifebuoy_testkit::oddities::{self, noise};
use lifebuoy_testkit::sample::apply_yaml;

const NAMESPACE: &str = "files";
const AGAIN: &str = "files-again";
/// Where claims are whose directories may not be read.
const PRIVATE: &str = "private";
const FILES: u64 = 200;
/// How long saving or restoring may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn volumes_without_snapshots_are_read_where_they_are_mounted() {
    node_scenario(&NodeWorld::needs(&[]), async {
        let world = OneNodeWorld::start().await?;
        let told = tell(&world).await;
        world.a.recorded(told).await
    });
}

async fn tell(world: &OneNodeWorld) -> Result<()> {
    let a = &world.a;
    let records = a.host_path().join("shop/records");
    start(a, &records).await?;
    let saved = run(&a.client(), OPERATOR_NAMESPACE, request(NAMESPACE), LIMIT).await?;
    ensure!(saved.complete(), "{}", saved.verdict());
    let snapshot = saved.status.and_then(|status| status.snapshot);
    let snapshot = snapshot.context("complete, and where?")?;
    let volumes = saved_volumes(&world.store, &snapshot).await?;
    let ways: Vec<_> = volumes
        .iter()
        .map(|(name, of)| (&**name, &of["saved"]["way"], &of["reason"]))
        .collect();
    let rule = |number: u32| format!("rule {number} of `volumePolicies`");
    ensure!(
        ways.iter().all(|(_, way, _)| **way == "FileSystem")
            && ways
                .iter()
                .map(|(name, _, why)| (*name, (*why).clone()))
                .eq([
                    ("files/holder/in-memory", rule(3).into()),
                    ("files/holder/on-disk", rule(3).into()),
                    ("files/records", rule(2).into()),
                    ("files/tree", rule(1).into()),
                ]),
        "{ways:#?}"
    );
    bring_back_claims(a, &snapshot, &records).await?;
    for name in ["on-disk", "in-memory"] {
        let target = directory::root().join(format!("extracted-{name}"));
        let volume = format!("{NAMESPACE}/holder/{name}");
        extract(&world.store, &snapshot, &volume, &target).await?;
        same_files(&empty_dir(a, name).await?, &target)?;
    }
    nothing_private_is_read(a).await?;
    a.nothing_is_left().await
}

/// Starts the pod, and fills its volumes.
async fn start(a: &NodeWorld, records: &Path) -> Result<()> {
    fs::create_dir_all(records)?;
    let claims = [
        ("tree", claim(NAMESPACE, "tree", "fast")),
        ("records", on_node(NAMESPACE, "records", records)),
    ];
    let empty_dirs = [
        ("on-disk", "{}"),
        ("in-memory", "{medium: Memory, sizeLimit: 16Mi}"),
    ];
    start_pod(a, NAMESPACE, &claims, &empty_dirs).await?;
    let tree = a.content(NAMESPACE, "tree").await?;
    let odd = tree.join("odd");
    fs::create_dir(&odd)?;
    oddities::make(&odd)?;
    // As docs/install.md says of movers.
    oddities::remove_trusted(&odd)?;
    let places = [
        tree,
        records.to_owned(),
        empty_dir(a, "on-disk").await?,
        empty_dir(a, "in-memory").await?,
    ];
    for (seed, place) in (0..).zip(&places) {
        let folder = place.join("some");
        fs::create_dir(&folder)?;
        for file in 0..FILES {
            let content = noise(seed * FILES + file, 1000);
            fs::write(folder.join(file.to_string()), content)?;
        }
    }
    Ok(())
}

/// Restores the claims beside themselves, into volumes that the driver makes.
async fn bring_back_claims(a: &NodeWorld, snapshot: &str, records: &Path) -> Result<()> {
    let mut request = restore("again", from_snapshot("main", snapshot));
    let to = |from: &str, to: &str| NameMapping {
        from: from.to_owned(),
        to: to.to_owned(),
    };
    request.spec.selection.namespaces = vec![NAMESPACE.to_owned()];
    // With its volume the claim would come back to the directory as it is.
    request.spec.selection.excluded_resources = vec!["persistentvolumes".to_owned()];
    request.spec.mapping.namespaces = vec![to(NAMESPACE, AGAIN)];
    request.spec.mapping.storage_classes = vec![to("by-hand", "fast")];
    let restored = run(&a.client(), OPERATOR_NAMESPACE, request, LIMIT).await?;
    ensure!(restored.complete(), "{}", restored.verdict());
    let problems = restored.status.map(|status| status.problems);
    ensure!(
        problems.iter().flatten().any(|problem| {
            problem.reason == Reason::EmptyDirNotRestored.as_str()
                && problem.message.contains("files/holder/on-disk")
        }),
        "the restore does not say that emptyDirs stay empty: {problems:?}"
    );
    ready(a, AGAIN).await?;
    let [tree, tree_again] = [
        a.content(NAMESPACE, "tree").await?,
        a.content(AGAIN, "tree").await?,
    ];
    same_files(&tree, &tree_again)?;
    let odd = |tree: &Path| oddities::seen(&tree.join("odd"));
    ensure!(
        odd(&tree)? == odd(&tree_again)?,
        "rsync sees no difference, but there is one: in holes, times or attributes"
    );
    same_files(records, &a.content(AGAIN, "records").await?)
}

/// A directory that the installation does not name, and a link to one in what it names.
async fn nothing_private_is_read(a: &NodeWorld) -> Result<()> {
    let private = a.node.folder().join("private");
    let linked = a.host_path().join("linked");
    fs::create_dir_all(&private)?;
    fs::write(private.join("word"), "secret")?;
    symlink(&private, &linked)?;
    let claims = [
        ("elsewhere", on_node(PRIVATE, "elsewhere", &private)),
        ("linked", on_node(PRIVATE, "linked", &linked)),
    ];
    start_pod(a, PRIVATE, &claims, &[]).await?;
    let saved = run(&a.client(), OPERATOR_NAMESPACE, request(PRIVATE), LIMIT).await?;
    ensure!(!saved.complete(), "{}", saved.verdict());
    let status = saved.status.unwrap_or_default();
    for (claim, said) in [
        ("elsewhere", "is not among `movers.hostPaths`"),
        ("linked", "failed to prepare subPath"),
    ] {
        let subject = format!("persistentvolumeclaims {PRIVATE}/{claim}");
        let mut problems = status.problems.iter();
        ensure!(
            problems.any(|of| of.subject == subject && of.message.contains(said)),
            "it does not say of {claim}: {said}: {:#?}",
            status.problems
        );
    }
    Ok(())
}

/// A Backup of the namespace that reads what pods have mounted.
fn request(namespace: &str) -> Backup {
    let mut request = backup(namespace, "main");
    request.spec.selection.namespaces = vec![namespace.to_owned()];
    request.spec.volumes = VolumePolicy::Save;
    let of_type = |of| VolumeMatch {
        volume_types: vec![of],
        ..VolumeMatch::default()
    };
    let of_class = VolumeMatch {
        storage_classes: vec!["fast".to_owned()],
        ..VolumeMatch::default()
    };
    let matching = [
        of_class,
        of_type(VolumeType::HostPath),
        of_type(VolumeType::EmptyDir),
    ];
    let rules = matching.map(|matching| VolumeRule {
        matching,
        way: VolumeWay::FileSystem,
        snapshot_class: None,
    });
    request.spec.volume_policies = rules.into();
    request
}

/// Where the kubelet has an emptyDir of the pod.
async fn empty_dir(a: &NodeWorld, name: &str) -> Result<PathBuf> {
    let pods: Api<Pod> = Api::namespaced(a.client(), NAMESPACE);
    let uid = pods.get("holder").await?.uid().context("no uid")?;
    let pods = a.node.kubelet_root().join("pods");
    Ok(pods
        .join(uid)
        .join("volumes/kubernetes.io~empty-dir")
        .join(name))
}

/// A namespace with claims, and the pod `holder` that has them and so many emptyDirs, and
/// does nothing with them. Waits until it runs.
async fn start_pod(
    a: &NodeWorld,
    namespace: &str,
    claims: &[(&str, String)],
    empty_dirs: &[(&str, &str)],
) -> Result<()> {
    let objects: String = claims.iter().map(|(_, yaml)| &**yaml).collect();
    let of_claim = |name: &str| format!("persistentVolumeClaim: {{claimName: {name}}}");
    let claims = claims.iter().map(|(name, _)| (*name, of_claim(name)));
    let empty_dirs = empty_dirs
        .iter()
        .map(|(name, of)| (*name, format!("emptyDir: {of}")));
    let (mut mounts, mut volumes) = (String::new(), String::new());
    for (name, source) in claims.chain(empty_dirs) {
        mounts += &format!("\n    - {{name: {name}, mountPath: /mnt/{name}}}");
        volumes += &format!("\n  - {{name: {name}, {source}}}");
    }
    let yaml = format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
{objects}
---
apiVersion: v1
kind: Pod
metadata: {{namespace: {namespace}, name: holder}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: holder
    image: {BUSYBOX}
    imagePullPolicy: Never
    command: [sleep, '86400']
    volumeMounts:{mounts}
  volumes:{volumes}
"
    );
    apply_yaml(&a.client(), &yaml).await?;
    ready(a, namespace).await
}

async fn ready(a: &NodeWorld, namespace: &str) -> Result<()> {
    let limit = format!("--timeout={}s", PODS_LIMIT.as_secs());
    let ready = ["wait", "pod/holder", "--for=condition=Ready"];
    a.kubectl(&[&ready[..], &["-n", namespace, &limit]].concat())
        .await?;
    Ok(())
}

fn claim(namespace: &str, name: &str, class: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{namespace: {namespace}, name: {name}}}
spec:
  storageClassName: {class}
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 1Gi}}}}
"
    )
}

/// A claim of its own for a directory of the node.
fn on_node(namespace: &str, name: &str, place: &Path) -> String {
    let claim = claim(namespace, name, "by-hand");
    let place = place.display();
    format!(
        "
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {namespace}-{name}}}
spec:
  storageClassName: by-hand
  accessModes: [ReadWriteOnce]
  capacity: {{storage: 1Gi}}
  claimRef: {{namespace: {namespace}, name: {name}}}
  hostPath: {{path: {place}, type: Directory}}
{claim}"
    )
}
