//! What is on the volumes of an application was damaged: it is stopped, gets what was
//! saved back into the very same claims, and runs again as before. Where something mounts
//! a volume that cannot be stopped, nothing is touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use lifebuoy_api::{ExistingVolumes, HELD_ANNOTATION, HELD_FOR_LABEL, Restore, VolumeWay};
use lifebuoy_scenarios::{
    Ended, NodeWorld, OPERATOR_NAMESPACE, OneNodeWorld, backup_of_volumes, copy_image_to_disk,
    create, eventually, newest_of, node_scenario, restore, run, start_holder, until,
};
use lifebuoy_testkit::node::images::BUSYBOX;
use lifebuoy_testkit::oddities::Seen;
use lifebuoy_testkit::sample::apply_yaml;
use lifebuoy_testkit::{directory, oddities};

const NAMESPACE: &str = "files";
const HOLDER: &str = "deployment/holder";
/// Files of a megabyte, so that a restore takes some seconds.
const LARGE_FILES: u64 = 200;
/// How long saving or restoring may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

#[test]
fn a_damaged_volume_is_restored_in_place() {
    node_scenario(&NodeWorld::needs(&[]), async {
        let OneNodeWorld { a, s3: _s3, .. } = OneNodeWorld::start().await?;
        let told = story(&a).await;
        a.recorded(told).await
    });
}

async fn story(a: &NodeWorld) -> Result<()> {
    start_holder(a, NAMESPACE, "2Gi").await?;
    apply_yaml(&a.client(), &idle()).await?;
    let tree = a.content(NAMESPACE, "tree").await?;
    fill(&tree)?;
    copy_image_to_disk(a, NAMESPACE).await?;
    save(a).await?;
    let expected = keep(a, &tree).await?;
    let bound = claims(a).await?;

    damage(a, &tree).await?;
    let restored = overwrite(a).await?;
    ensure!(restored.complete(), "{}", restored.verdict());
    ensure!(
        bound == claims(a).await?,
        "the claims are not the same ones"
    );
    expected.is_there_again(a, &tree).await?;
    runs_as_before(a).await?;
    nothing_is_held(a).await?;
    a.nothing_is_left().await?;

    refused_where_a_pod_stands_alone(a, &tree).await?;
    runs_as_before(a).await?;
    nothing_is_held(a).await?;
    a.nothing_is_left().await
}

/// A Deployment that mounts a volume, and has no pod at the moment.
fn idle() -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{namespace: {NAMESPACE}, name: idle}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app: idle}}}}
  template:
    metadata: {{labels: {{app: idle}}}}
    spec:
      containers: [{{name: idle, image: {BUSYBOX}, imagePullPolicy: Never, command: [sleep, '86400']}}]
      volumes: [{{name: tree, persistentVolumeClaim: {{claimName: tree}}}}]
"
    )
}

fn fill(tree: &Path) -> Result<()> {
    let odd = tree.join("odd");
    fs::create_dir(&odd)?;
    oddities::make(&odd)?;
    // As docs/install.md says of movers.
    oddities::remove_trusted(&odd)?;
    oddities::make_image(&tree.join("image"))?;
    fs::create_dir_all(tree.join("data/deep"))?;
    fs::write(tree.join("data/deep/file"), "as it was")?;
    fs::write(tree.join("data/same size"), "as it was")?;
    for file in 0..LARGE_FILES {
        fs::write(
            tree.join(format!("data/{file}")),
            oddities::noise(file, 1 << 20),
        )?;
    }
    Ok(())
}

async fn save(a: &NodeWorld) -> Result<()> {
    let request = backup_of_volumes("files", "main", NAMESPACE, VolumeWay::Move);
    let saved = run(&a.client(), OPERATOR_NAMESPACE, request, LIMIT).await?;
    ensure!(saved.complete(), "{}", saved.verdict());
    Ok(())
}

/// What was on the volumes.
struct Expected {
    tree: PathBuf,
    /// Holes, times and attributes of the odd files, which a copy does not keep.
    odd: BTreeMap<PathBuf, Seen>,
    disk: PathBuf,
}

async fn keep(a: &NodeWorld, tree: &Path) -> Result<Expected> {
    let expected = Expected {
        tree: directory::root().join("expected"),
        odd: oddities::seen(&tree.join("odd"))?,
        disk: directory::root().join("expected.disk"),
    };
    let from = a.content(NAMESPACE, "disk").await?;
    command(
        "rsync",
        &["-aHAX"],
        &[&tree.join(""), &expected.tree.join("")],
    )?;
    command("cp", &["--sparse=always"], &[&from, &expected.disk])?;
    Ok(expected)
}

impl Expected {
    async fn is_there_again(&self, a: &NodeWorld, tree: &Path) -> Result<()> {
        let words = ["-aHAXn", "--checksum", "--delete", "--itemize-changes"];
        let differs = command("rsync", &words, &[&self.tree.join(""), &tree.join("")])?;
        ensure!(differs.is_empty(), "the files differ: {differs}");
        let odd = oddities::seen(&tree.join("odd"))?;
        ensure!(self.odd == odd, "holes, times or attributes differ");
        let disk = a.content(NAMESPACE, "disk").await?;
        command("cmp", &[], &[&self.disk, &disk])?;
        Ok(())
    }
}

fn command(program: &str, words: &[&str], places: &[&Path]) -> Result<String> {
    let output = Command::new(program).args(words).args(places).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complains = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {said}{complains}");
    Ok(said)
}

/// The uid and the volume of each claim.
async fn claims(a: &NodeWorld) -> Result<Vec<(Option<String>, Option<String>)>> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(a.client(), NAMESPACE);
    let listed = claims.list(&ListParams::default()).await?;
    let of =
        |claim: PersistentVolumeClaim| (claim.uid(), claim.spec.and_then(|spec| spec.volume_name));
    Ok(listed.items.into_iter().map(of).collect())
}

/// Removes, changes and adds, and lays links out.
async fn damage(a: &NodeWorld, tree: &Path) -> Result<()> {
    fs::remove_dir_all(tree.join("odd"))?;
    fs::write(tree.join("odd"), "a file where a directory was")?;
    fs::remove_file(tree.join("data/0"))?;
    fs::create_dir_all(tree.join("data/0/not/saved"))?;
    let same = tree.join("data/same size");
    let modified = fs::metadata(&same)?.modified()?;
    fs::write(&same, "as it IS!")?;
    fs::File::options()
        .write(true)
        .open(&same)?
        .set_modified(modified)?;
    fs::remove_dir_all(tree.join("data/deep"))?;
    let outside = directory::root().join("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("file"), "not of the volume")?;
    symlink(&outside, tree.join("data/deep"))?;
    fs::write(tree.join("data/1"), "short")?;
    fs::File::open(tree.join("data/2"))?.set_modified(UNIX_EPOCH)?;
    let disk = "dd if=/dev/urandom of=/dev/disk bs=64k count=100 seek=3 conv=fsync";
    a.exec(NAMESPACE, HOLDER, disk).await?;
    Ok(())
}

fn request(name: &str) -> Restore {
    let mut request = restore(name, newest_of("main", "a"));
    request.spec.selection.namespaces = vec![NAMESPACE.to_owned()];
    request.spec.existing_volumes = ExistingVolumes::Overwrite;
    request.spec.rerun = Some(name.to_owned());
    request
}

/// Restores, and sees that what mounts the volumes is held meanwhile.
async fn overwrite(a: &NodeWorld) -> Result<Restore> {
    create(&a.client(), OPERATOR_NAMESPACE, request("again")).await?;
    let deployments: Api<Deployment> = Api::namespaced(a.client(), NAMESPACE);
    for name in ["holder", "idle"] {
        eventually("a Deployment is held", LIMIT, async || {
            let found = deployments.get(name).await?;
            let held = found.labels().contains_key(HELD_FOR_LABEL)
                && found.annotations().contains_key(HELD_ANNOTATION);
            Ok((held && replicas(&found) == Some(0)).then_some(()))
        })
        .await?;
    }
    let restored = until(
        &a.client(),
        OPERATOR_NAMESPACE,
        "again",
        LIMIT,
        |of: &Restore| of.ended(),
    )
    .await?;
    let outside = fs::read_to_string(directory::root().join("outside/file"))?;
    ensure!(outside == "not of the volume", "a link was followed");
    Ok(restored)
}

fn replicas(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref().and_then(|spec| spec.replicas)
}

async fn runs_as_before(a: &NodeWorld) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(a.client(), NAMESPACE);
    for (name, expected) in [("holder", 1), ("idle", 0)] {
        let found = replicas(&deployments.get(name).await?);
        ensure!(found == Some(expected), "{name} has {found:?} replicas");
    }
    a.rolled_out(NAMESPACE, HOLDER).await?;
    let read = a
        .exec(NAMESPACE, HOLDER, "cat /tree/data/deep/file")
        .await?;
    ensure!(read == "as it was", "the pod reads {read:?}");
    Ok(())
}

/// From the end of the Restore on: nobody has to wait for it.
async fn nothing_is_held(a: &NodeWorld) -> Result<()> {
    let held = a.held().await?;
    ensure!(held.is_empty(), "still held: {}", held.join(", "));
    Ok(())
}

async fn refused_where_a_pod_stands_alone(a: &NodeWorld, tree: &Path) -> Result<()> {
    let pod = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{namespace: {NAMESPACE}, name: shell}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: shell, image: {BUSYBOX}, imagePullPolicy: Never, command: [sleep, '86400'], volumeMounts: [{{name: tree, mountPath: /tree}}]}}]
  volumes: [{{name: tree, persistentVolumeClaim: {{claimName: tree}}}}]
"
    );
    apply_yaml(&a.client(), &pod).await?;
    let ready = [
        "wait",
        "pod/shell",
        "-n",
        NAMESPACE,
        "--for=condition=Ready",
        "--timeout=300s",
    ];
    a.kubectl(&ready).await?;
    fs::write(tree.join("mine"), "must stay")?;
    let refused = run(&a.client(), OPERATOR_NAMESPACE, request("refused"), LIMIT).await?;
    ensure!(!refused.complete(), "{}", refused.verdict());
    let status = refused.status.context("it has a status")?;
    let problem = status.problems.iter().find(|of| of.reason == "VolumeInUse");
    let problem = problem.with_context(|| format!("no such problem: {:?}", status.problems))?;
    ensure!(problem.message.contains("`shell`"), "{}", problem.message);
    ensure!(tree.join("mine").exists(), "the volume was touched");
    let delete = ["delete", "pod/shell", "-n", NAMESPACE, "--wait"];
    a.kubectl(&delete).await?;
    Ok(())
}
