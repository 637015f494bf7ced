//! A pod that has volumes and does nothing with them.

use std::fmt::Write;

use lifebuoy_testkit::node::images::BUSYBOX;

/// The name of the claim with this number.
pub(super) fn claim(number: usize) -> String {
    format!("data-{number}")
}

/// A namespace with as many claims of this mode and size, and a Deployment `holder` whose
/// pod has their volumes.
pub(super) fn holder(namespace: &str, mode: &str, bytes: u64, count: usize) -> String {
    let (mut claims, mut mounts, mut volumes) = (String::new(), String::new(), String::new());
    for number in 0..count {
        let claim = claim(number);
        // Writing to a string cannot fail.
        let _ = write!(
            claims,
            "
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{namespace: {namespace}, name: {claim}}}
spec:
  storageClassName: fast
  volumeMode: {mode}
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: '{bytes}'}}}}"
        );
        let path = if mode == "Block" {
            "devicePath: /dev"
        } else {
            "mountPath: /volumes"
        };
        let _ = write!(mounts, "{{name: {claim}, {path}/{claim}}},");
        let _ = write!(
            volumes,
            "{{name: {claim}, persistentVolumeClaim: {{claimName: {claim}}}}},"
        );
    }
    let field = if mode == "Block" {
        "volumeDevices"
    } else {
        "volumeMounts"
    };
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
        {field}: [{mounts}]
      volumes: [{volumes}]
"
    )
}
