//! A pod with a volume of files and a block volume, for the stories that move both.

use anyhow::Result;
use lifebuoy_testkit::node::images::BUSYBOX;
use lifebuoy_testkit::sample::apply_yaml;

use crate::NodeWorld;

const HOLDER: &str = "deployment/holder";

/// Makes a namespace with the claims `tree`, of this size, and `disk`, and a Deployment
/// `holder` whose pod has both, at `/tree` and `/dev/disk`, and does nothing with them.
/// Waits until it runs.
///
/// # Errors
/// When it does not run in time.
pub async fn start_holder(world: &NodeWorld, namespace: &str, tree: &str) -> Result<()> {
    apply_yaml(&world.client(), &holder(namespace, tree)).await?;
    world.rolled_out(namespace, HOLDER).await
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

fn holder(namespace: &str, tree: &str) -> String {
    let claim = |name: &str, mode: &str, size: &str| {
        format!(
            "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{namespace: {namespace}, name: {name}}}
spec:
  storageClassName: fast
  volumeMode: {mode}
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: {size}}}}}
"
        )
    };
    let tree = claim("tree", "Filesystem", tree);
    let disk = claim("disk", "Block", "64Mi");
    format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---{tree}---{disk}---
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
        volumeMounts: [{{name: tree, mountPath: /tree}}]
        volumeDevices: [{{name: disk, devicePath: /dev/disk}}]
      volumes:
      - {{name: tree, persistentVolumeClaim: {{claimName: tree}}}}
      - {{name: disk, persistentVolumeClaim: {{claimName: disk}}}}
"
    )
}
