//! A pod that has volumes and does nothing with them.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use lifebuoy_testkit::node::images::BUSYBOX;
use lifebuoy_testkit::sample::apply_yaml;

use crate::NodeWorld;

const HOLDER: &str = "deployment/holder";

/// A claim that the pod has: of files at `/<name>`, of a device at `/dev/<name>`.
struct Held {
    name: String,
    block: bool,
    size: String,
}

/// Makes a namespace with the claims `tree`, of this size, and `disk`, and a Deployment
/// `holder` whose pod has both, at `/tree` and `/dev/disk`. Waits until it runs.
///
/// # Errors
/// When it does not run in time.
pub async fn start_holder(world: &NodeWorld, namespace: &str, tree: &str) -> Result<()> {
    let held = |name: &str, block, size: &str| Held {
        name: name.to_owned(),
        block,
        size: size.to_owned(),
    };
    let both = [held("tree", false, tree), held("disk", true, "64Mi")];
    start(world, namespace, &both).await
}

/// Makes a namespace with so many claims of a kind and size, and a Deployment `holder` whose
/// pod has them. Waits until it runs, and gives where their contents are.
///
/// # Errors
/// When it does not run in time.
pub async fn start_holder_of(
    world: &NodeWorld,
    namespace: &str,
    count: usize,
    block: bool,
    bytes: u64,
) -> Result<Vec<PathBuf>> {
    let held = |number| Held {
        name: format!("data-{number}"),
        block,
        size: bytes.to_string(),
    };
    let all: Vec<Held> = (0..count).map(held).collect();
    start(world, namespace, &all).await?;
    let mut contents = Vec::new();
    for one in &all {
        contents.push(world.content(namespace, &one.name).await?);
    }
    Ok(contents)
}

/// Copies the file `image` of the tree to the disk: through the device, as a pod writes.
///
/// # Errors
/// When the pod cannot.
pub async fn copy_image_to_disk(world: &NodeWorld, namespace: &str) -> Result<()> {
    let copy = "dd if=/tree/image of=/dev/disk bs=64k conv=fsync";
    let exec = ["exec", "-n", namespace, HOLDER, "--", "sh", "-c", copy];
    world.kubectl(&exec).await?;
    Ok(())
}

async fn start(world: &NodeWorld, namespace: &str, held: &[Held]) -> Result<()> {
    apply_yaml(&world.client(), &holder(namespace, held)).await?;
    world.rolled_out(namespace, HOLDER).await
}

fn holder(namespace: &str, held: &[Held]) -> String {
    let (mut claims, mut volumes) = (String::new(), String::new());
    let (mut mounts, mut devices) = (String::new(), String::new());
    for Held { name, block, size } in held {
        let mode = if *block { "Block" } else { "Filesystem" };
        // Writing to a string cannot fail.
        let _ = write!(
            claims,
            "
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{namespace: {namespace}, name: {name}}}
spec:
  storageClassName: fast
  volumeMode: {mode}
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: '{size}'}}}}"
        );
        let _ = match block {
            true => write!(devices, "{{name: {name}, devicePath: /dev/{name}}},"),
            false => write!(mounts, "{{name: {name}, mountPath: /{name}}},"),
        };
        let claim = format!("persistentVolumeClaim: {{claimName: {name}}}");
        let _ = write!(volumes, "{{name: {name}, {claim}}},");
    }
    format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}{claims}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{namespace: {namespace}, name: holder}}
spec:
  selector: {{matchLabels: {{app: holder}}}}
  template:
    metadata: {{labels: {{app: holder}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: holder
        image: {BUSYBOX}
        imagePullPolicy: Never
        command: [sleep, '86400']
        volumeMounts: [{mounts}]
        volumeDevices: [{devices}]
      volumes: [{volumes}]
"
    )
}
